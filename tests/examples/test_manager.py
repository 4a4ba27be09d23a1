"""examples/manager.py: children side by side, a question of one of them, cancel going down."""

from __future__ import annotations

from typing import Any

import manager

from ownloop.testing import FakeClock, crash_everywhere, drive


async def test_the_team_writes_one_text_and_only_the_researcher_with_a_question_waits(url: str) -> None:
    clock = FakeClock()
    async with drive(manager.make_app(url, clock), clock) as d:
        thread = await d.start("manager", ["json", "asincio"])
        await d.settle()
        done, waiting = sorted(await d.threads(agent="researcher"), key=lambda view: view.status)
        assert (done.status, waiting.status) == ("done", "open")
        question = await d.interrupt()
        assert (question.thread_id, question.question) == (waiting.id, "There is no module 'asincio'. Which one is meant?")
        await d.answer(question, "asyncio", by="mia")
        await d.settle()
        view = await d.show(thread)
        assert view.status == "done"
        assert [line.split(":")[0] for line in view.result.splitlines()] == ["# What we found", "- json", "- asyncio"]


async def test_cancelling_the_manager_cancels_who_still_works_and_withdraws_the_question(url: str) -> None:
    clock = FakeClock()
    async with drive(manager.make_app(url, clock), clock) as d:
        thread = await d.start("manager", ["json", "asincio"])
        await d.settle()
        question = await d.interrupt()
        await d.cancel(thread, by="mia")
        await d.settle()
        assert {view.agent + " " + view.status for view in await d.threads()} == {"manager cancelled", "researcher done", "researcher cancelled"}
        assert (await d.app.interrupt(question.id)).status == "withdrawn"


async def test_no_death_loses_a_child_or_starts_one_twice(place: Any) -> None:
    async def scenario(d: Any) -> None:
        await d.start("manager", ["json", "asincio"], key="one")
        await d.settle()
        await d.answer(await d.interrupt(), "queue", by="mia")
        await d.settle()

    report = await crash_everywhere(scenario, manager.make_app, url=place)
    assert (report.lost, report.silent, report.asked) == ([], [], [])
    assert report.runs > 20
