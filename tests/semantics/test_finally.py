"""What random programs found: what unwinds does nothing, siblings of a gather are heard, and no thread falls asleep for ever."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from worlds import Deploy, Done, Look, Note, World, on_draft, once, only, script

from ownloop import Thread, tool


@pytest.mark.parametrize("way", ["finally", "except", "context manager"])
@pytest.mark.parametrize("wait", ["named step", "this step", "gather"])
async def test_what_unwinds_starts_asks_and_notes_nothing_wherever_the_wait_is(world: World, way: str, wait: str) -> None:
    ran: list[str] = []

    async def waits(thread: Any, step: Any) -> None:
        if wait == "named step":
            await thread.step("gate").ask("go?")
        elif wait == "this step":
            await step.ask("go?")
        else:
            await asyncio.gather(step.named("gate").ask("go?"))

    async def cleanup(thread: Any, step: Any) -> None:
        await step.run(tool(lambda: ran.append("look"), name="look", reads=True))
        await step.run(tool(lambda: ran.append("unlock"), name="unlock"))
        if await step.approved():
            await thread.append("over", True)

    @asynccontextmanager
    async def locked(thread: Any, step: Any) -> Any:
        try:
            yield
        finally:
            await cleanup(thread, step)

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Deploy(tag="v1")))
        if way == "finally":
            try:
                await waits(thread, step)
            finally:
                await cleanup(thread, step)
        elif way == "context manager":
            async with locked(thread, step):
                await waits(thread, step)
        else:
            try:
                await waits(thread, step)
            except BaseException:
                await cleanup(thread, step)
                raise
        return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert ran == []
    question = await only(d)
    assert (question.kind, await world.events(thread, "appended")) == ("question", [])
    await d.answer(question, "yes", by="ann")
    await d.settle()
    if way != "except":
        await d.approve(await only(d), by="ann")
        await d.settle()
        assert ran == ["look", "unlock"]
    await world.ended(thread)


async def test_an_unchanged_gather_is_not_taken_for_a_changed_program(world: World) -> None:
    ran: list[str] = []

    async def child(thread: Thread[Any]) -> str:
        return "born"

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Deploy(tag="v1")))
        await asyncio.gather(works(step), deep(step))
        return "end"

    async def works(step: Any) -> None:
        await step.named("a").wait_for("ready")
        await step.named("a").run(ran.append, "a")
        await step.named("a").join(await step.named("a").spawn("child"))

    async def deep(step: Any) -> None:
        async def inner() -> None:
            if await asyncio.gather(step.named("b").approved()) == [True]:
                ran.append("approved")

        async with asyncio.TaskGroup() as group:
            group.create_task(inner())

    d = await world.deploy(agent, child)
    thread = await d.start("agent")
    await d.settle()
    await d.emit("ready", True)
    d = await world.deploy(agent, child)  # a fresh process: nothing is cached, the schema of the arguments is stored again
    await d.settle()
    await world.ended(thread, "open")
    await d.reject(await only(d, kind="approval"), by="ann")
    await d.settle()
    await world.ended(thread, "failed" if ran == [] else "done")
    assert ran == ["a"]


@pytest.mark.parametrize("jump", ["claim", "begin"])
async def test_a_start_that_came_too_late_for_its_lease_is_made_again_by_the_next_wake(world: World, jump: str) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        await thread.step("work").run(ran.append, "x")
        return "end"

    if jump == "claim":  # the process counts from before the claim, the store from the claim
        world.before["claim"] = once(lambda *_: world.clock.advance("31s"))
    else:
        world.after["begin"] = on_draft("started", lambda *_: world.clock.advance("31s"))
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.ended(thread)
    assert ran == ["x"]
    assert len(await world.events(thread, "not_started")) == 1


@pytest.mark.parametrize("until", ["0s", "the past"])
async def test_sleeping_until_a_moment_that_is_over_sleeps_not_at_all(world: World, until: str) -> None:
    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Look()))
        await step.sleep("0s" if until == "0s" else thread.now - timedelta(days=1))
        return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.ended(thread)


async def test_a_wait_that_the_program_no_longer_has_does_not_hold_the_thread_past_its_deadline(world: World) -> None:
    naps = [True]

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(script(Note(text="x"), Done()))
            if step.name == "done":
                return "end"
            await step.run(tool(lambda: None, name="look", reads=True))
            if naps[0]:
                await step.sleep("1h")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    naps[0] = False
    await d.send(thread, "hello?")
    await d.settle()
    await d.advance("1h")
    await world.ended(thread)


async def test_a_branch_that_is_cancelled_in_the_middle_of_a_begin_does_not_leave_the_thread_asleep(world: World) -> None:
    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Look(), Done()))
        try:
            async with asyncio.timeout(None) as patience:
                lines.append(patience)
                await step.ask("a?")
        except TimeoutError:
            await step.ask("b?")
        return "end"

    async def impatient(*_: Any) -> None:
        lines.pop().reschedule(0)
        await asyncio.sleep(0.01)  # the cancellation arrives here, inside the begin

    lines: list[Any] = []
    world.before["begin"] = on_draft("request", impatient)
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.advance("31s")
    (question,) = [one for one in await d.interrupts() if one.question == "a?"]
    await d.answer(question, "yes", by="ann")
    await d.settle()
    await world.ended(thread)


async def test_a_named_step_that_is_called_like_an_intent_is_not_checked_against_it(world: World) -> None:
    async def agent(thread: Thread[Any]) -> str:
        step = thread.step("deploy")
        if await step.approved():
            return str(step.decision.value)
        return "no"

    d = await world.deploy(agent, intents=Deploy)
    thread = await d.start("agent")
    await d.settle()
    await d.edit(await only(d), {"note": "free"}, by="ann")
    await d.settle()
    assert (await world.ended(thread)).result == "{'note': 'free'}"


@pytest.mark.parametrize("model", ["waits", "asks for a summary", "takes no notice"])
async def test_cleaning_up_after_a_pause_is_not_cut_itself(world: World, model: str) -> None:
    """Pause cuts the model call, once, and not what the handler awaits on its way out."""
    asked, cleaned, cuts = asyncio.Event(), list[int](), list[str]()

    async def slow(what: Any) -> str:
        asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cuts.append("cut")
            if model != "takes no notice":
                raise
        return "long ago"

    async def decide(thread: Thread[Any]) -> Look | Done:
        if len(thread.steps) < 2:
            return Look()
        if model == "asks for a summary":
            await thread.compact(slow, keep_last=0)
        else:
            await slow(thread)
        return Done()

    async def agent(thread: Thread[Any]) -> str:
        try:
            async with asyncio.timeout(30):
                while not isinstance((step := await thread.next_step(decide)).intent, Done):
                    await step.close()
                return "end"
        finally:
            task = asyncio.current_task()
            assert task is not None
            await asyncio.sleep(0)
            cleaned.append(task.cancelling())

    d = await world.deploy(agent)
    thread = await d.start("agent")
    settling = asyncio.ensure_future(d.settle())
    await asyncio.wait_for(asked.wait(), 5)
    await d.pause(thread)
    await asyncio.wait_for(settling, 5)
    assert (cuts, cleaned) == (["cut"], [0])
    await world.ended(thread, "paused")
