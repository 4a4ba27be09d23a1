"""A manager with a team: researchers work side by side as children, a writer makes one text of what they found. Cancelling goes down.

Each child is a thread of its own, with its own log; the manager parks in `join`. What is researched is real: modules of Python's standard
library. A researcher that does not know its topic asks a person, and nobody but that researcher waits. The deciders are honest rules.

    python examples/manager.py
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import tempfile
from pathlib import Path
from typing import Any, assert_never

from story import tell

from ownloop import App, Intent, Thread, tool


class Research(Intent):
    """Find out about these topics; one researcher each."""

    topics: list[str]


class Write(Intent):
    """Have one text written from what was found."""

    findings: list[str]


class Done(Intent):
    """The work is over."""

    text: str


async def decide(thread: Thread) -> Research | Write | Done:
    """Rules in the place of a model: research, then write, then done."""
    last = thread.steps[-1] if thread.steps else None
    if last is None:
        return Research(topics=list(thread.input))
    found = [str(one.value if one.error is None else one.error.message) for one in last.operations if one.kind == "child"]
    return Write(findings=found) if last.name == "research" else Done(text=found[0])


@tool(reads=True)
def read_module(topic: str) -> str | None:
    """The first sentence of a module's documentation, and how much it exports; None if there is no such module."""
    if not topic.isidentifier() or importlib.util.find_spec(topic) is None:
        return None
    module = importlib.import_module(topic)
    names = [name for name in dir(module) if not name.startswith("_")]
    return f"{topic}: {(inspect.getdoc(module) or 'no documentation').splitlines()[0]} ({len(names)} names)"


def make_app(url: Any, clock: Any = None) -> App:
    app = App(url, clock=clock)

    @app.agent
    async def manager(thread: Thread) -> str:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Research(topics=topics):
                    await step.join(*[await step.spawn(researcher, topic) for topic in topics])
                case Write(findings=findings):
                    await step.join(await step.spawn(writer, findings))
                case Done(text=text):
                    return text
                case _:
                    assert_never(step.intent)

    @app.agent
    async def researcher(thread: Thread) -> str:
        topic, step = str(thread.input), thread.step("read")
        while (found := (await step.run(read_module, topic)).value) is None:
            topic = await step.ask(f"There is no module {topic!r}. Which one is meant?") or topic
        return found

    @app.agent
    async def writer(thread: Thread) -> str:
        return "\n".join(["# What we found", *(f"- {finding}" for finding in thread.input)])

    return app


async def story(folder: Path) -> None:
    app = make_app(f"sqlite:///{folder / 'manager.db'}")

    @app.on("interrupt.opened")
    async def mia(notice: object) -> None:
        for question in await app.interrupts(kind="question"):
            print(f"a researcher asks: {question.question}")
            await app.answer(question, "asyncio", by="mia")

    async with app:
        thread = await app.start("manager", ["sqlite3", "asincio"])
        await tell(app, thread, "turn_ended")
        print((await app.show(thread)).result)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(story(Path(folder)))
