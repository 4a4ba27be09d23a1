"""Intents and `decide` under `from __future__ import annotations`: at module level, and inside a function."""

from __future__ import annotations

from typing import Any

from ownloop import App, Intent, Thread
from ownloop.testing import FakeClock, drive


class Search(Intent):
    """Look something up."""

    words: list[str]
    limit: int | None = None


class Done(Intent):
    """Nothing is left to do."""

    message: str


async def decide(thread: Thread) -> Search | Done:
    return Done(message="found") if thread.count(Search) else Search(words=["own", "loop"])


async def test_intents_at_module_level(url: str) -> None:
    clock = FakeClock()
    app = App(url, clock=clock)

    @app.agent
    async def searcher(thread: Thread) -> str:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Search(words=words):
                    assert await step.ask("go on?") == "yes"
                    await step.run(" ".join, words)
                case Done(message=message):
                    return message

    async with drive(app, clock) as d:
        thread = await d.start(searcher)
        await d.settle()
        await d.answer(await d.interrupt(), "yes", by="mia")
        await d.settle()
        view = await d.show(thread)
        assert (view.status, view.result) == ("done", "found")


def make_local(url: Any, clock: FakeClock) -> App:
    class Measure(Intent):
        """Measure a thing."""

        thing: str

    class Finished(Intent):
        """Nothing is left to do."""

        total: int

    async def choose(thread: Thread) -> Measure | Finished:
        return Finished(total=4) if thread.count(Measure) else Measure(thing="rope")

    app = App(url, clock=clock)

    @app.agent
    async def measurer(thread: Thread) -> int:
        while True:
            step = await thread.next_step(choose)
            match step.intent:
                case Measure(thing=thing):
                    if await step.approved(by="mia"):
                        await step.run(len, thing)
                case Finished(total=total):
                    return total

    return app


async def test_intents_inside_a_function_also_after_a_wait_in_another_app(kept_url: str) -> None:
    url, clock = kept_url, FakeClock()
    async with drive(make_local(url, clock), clock) as d:
        thread = await d.start("measurer")
        await d.settle()
    async with drive(make_local(url, clock), clock) as d:  # other class objects of the same names
        await d.edit(await d.interrupt(), {"thing": "string"}, by="mia")
        await d.settle()
        view = await d.show(thread)
        assert (view.status, view.result) == ("done", 4)
        assert [one.value for step in view.steps for one in step.operations if one.kind == "run"] == [6]
