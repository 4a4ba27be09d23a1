"""Two phases, two deciders: a planner writes the plan once, a person agrees, and a worker is asked for one step after the other.

A thread has one loop. The phase before it is a named step: it runs once, its result is in the log, and no later wake plans again. The work is
real: a folder is tidied by moving its files into folders by kind. Planner and worker are honest rules; any two models fit in their places.

    python examples/plan_act.py
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any, assert_never

from story import tell

from ownloop import App, Intent, Thread, tool


class Move(Intent):
    """Move one file into a folder beside it."""

    file: str
    folder: str


class Done(Intent):
    """The plan is carried out."""

    message: str


@tool(reads=True)
def plan(folder: str) -> list[dict[str, str]]:
    """The planner: which file belongs where."""
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    return [{"file": str(path), "folder": path.suffix.removeprefix(".") or "other"} for path in files]


async def act(thread: Thread) -> Move | Done:
    """The worker: the first line of the plan that is not done."""
    planned = next(step for step in thread.steps if step.name == "plan").operations[0].value
    done = thread.count(Move)
    return Move(**planned[done]) if done < len(planned) else Done(message=f"{done} files moved")


def move(file: str, folder: str) -> str:
    target = Path(file).parent / folder
    target.mkdir(exist_ok=True)
    return str(Path(file).rename(target / Path(file).name))


def make_app(url: Any, clock: Any = None) -> App:
    app = App(url, clock=clock)

    @app.agent
    async def tidy(thread: Thread) -> str:
        planning = thread.step("plan")
        moves = (await planning.run(plan, str(thread.input))).value
        if await planning.ask(f"Move {len(moves)} files?", choices=["yes", "no"]) != "yes":
            return "nothing moved"
        while True:
            step = await thread.next_step(act)
            match step.intent:
                case Move():
                    await step.run(move)
                case Done(message=message):
                    return message
                case _:
                    assert_never(step.intent)

    return app


async def story(folder: Path) -> None:
    for name in ("notes.txt", "photo.jpg", "letter.txt"):
        (folder / name).write_text(name)
    async with make_app("memory://") as app:
        thread = await app.start("tidy", str(folder))
        seen = await tell(app, thread, "request")
        (question,) = await app.interrupts(thread=thread)
        await app.answer(question, "yes", by="mia")
        await tell(app, thread, "turn_ended", after=seen)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(story(Path(folder)))
        print(*sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*.*")))
