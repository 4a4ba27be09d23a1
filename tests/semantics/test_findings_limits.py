"""Findings P28–P33: failing models, dying workers, values over open requests, refused commits, deadlocks, long logs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from worlds import Deploy, Died, Done, Look, Note, World, approving, only, script

from ownloop import Thread, tool
from ownloop.errors import OwnloopError


async def test_p28_a_model_that_is_overloaded_for_a_while_parks_the_thread_and_is_asked_again(world: World) -> None:
    model = script(Overloaded(), Overloaded(), Overloaded(), Done(message="ok"))

    async def agent(thread: Thread[Any]) -> str:
        return (await thread.next_step(model)).intent.message

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert model.calls == 1, "it is asked again only after a pause"
    for _ in range(10):
        await d.advance("1m")
    assert (await world.ended(thread)).result == "ok"
    assert model.calls == 4


async def test_p28_a_model_that_stays_overloaded_fails_the_thread_and_retry_asks_again(world: World) -> None:
    model = script(*[Overloaded()] * 8, Done(message="ok"))

    async def agent(thread: Thread[Any]) -> str:
        return (await thread.next_step(model)).intent.message

    d = await world.deploy(agent)
    thread = await d.start("agent")
    for _ in range(60):
        await d.advance("5m")
    await world.failure(thread, "Overloaded", "429")
    assert model.calls == 8
    await d.retry(thread)
    await d.settle()
    assert (await world.ended(thread)).result == "ok"


async def test_p28_a_model_that_is_refused_for_good_is_asked_once(world: World) -> None:
    model = script(PermissionError("no such key"))

    async def agent(thread: Thread[Any]) -> None:
        await thread.next_step(model)

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.advance("10m")
    await world.failure(thread, "PermissionError: no such key")
    assert model.calls == 1
    assert len(await world.events(thread, "model_failed")) == 1


async def test_p28_a_thread_that_kills_every_worker_is_failed_as_poisoned(world: World) -> None:
    lives: list[int] = []

    async def agent(thread: Thread[Any]) -> None:
        lives.append(1)
        raise Died

    await world.deploy(agent)
    thread = await world.d.start("agent")
    for _ in range(6):
        await world.dies()
        await world.deploy(agent)
    await world.d.settle()
    await world.failure(thread, "poisoned: 6 wakes in a row died without an end", "retry the thread")
    assert len(lives) == 6
    await world.d.retry(thread)
    await world.dies()
    assert len(lives) == 7, "retry begins the count anew"
    await world.deploy(agent)
    await world.dies()


async def test_p29_a_value_returned_over_an_open_request_ends_the_turn_and_withdraws_it(world: World) -> None:
    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script([Deploy(tag="v1"), Done()]))
        assert await step.request_approval() is None
        return "enough"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert (await world.ended(thread)).result == "enough"
    (interrupt,) = await d.interrupts(status=None)
    assert interrupt.status == "withdrawn"
    with pytest.raises(OwnloopError, match="is withdrawn: nobody can answer it any more"):
        await d.approve(interrupt, by="ann")


async def test_p29_none_returned_over_an_open_request_leaves_the_thread_waiting(world: World) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str | None:
        while True:
            step = await thread.next_step(script(Deploy(tag="v1"), Done()))
            if step.name == "done":
                return "end"
            decision = await step.request_approval()
            if decision is None:
                return None
            if decision.granted:
                await step.run(ran.append, "deploy")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.ended(thread, "open")
    await d.approve(await only(d), by="ann")
    await d.settle()
    assert (await world.ended(thread)).result == "end"
    assert ran == ["deploy"]


async def test_p30_what_a_caller_was_told_is_on_disk_although_others_in_the_same_commit_were_refused(world: World) -> None:
    d = await world.deploy(approving(script(Note(text="x"), Done()), print))
    thread = await d.start("agent")
    closed = await d.start("agent")
    await d.close(closed)
    results = await asyncio.gather(*(d.send(thread if number % 2 else closed, f"message {number}") for number in range(100)), return_exceptions=True)
    told = {result.seq for result in results if not isinstance(result, BaseException)}
    assert len(told) == 50
    assert all(isinstance(result, OwnloopError) for number, result in enumerate(results) if number % 2 == 0)
    await world.deploy(approving(script(Done()), print))
    assert {event.seq for event in await world.events(thread, "message")} == told


async def test_p31_a_childs_end_against_its_parents_cancel_ends_both(world: World) -> None:
    async def child(thread: Thread[Any]) -> str:
        return "result"

    async def agent(thread: Thread[Any]) -> Any:
        step = await thread.next_step(script(Look()))
        return (await step.join(await step.spawn("child")))[0].value

    d = await world.deploy(agent, child)
    other = await world.deploy(agent, child, beside=True)
    async with asyncio.timeout(30):
        for _ in range(20):
            parent = await d.start("agent")
            await d.app.run_one(parent)
            (born,) = await d.threads(agent="child", limit=1)
            await asyncio.gather(d.app.run_one(born.id), other.cancel(parent))
            await world.ended(parent, "cancelled")
            assert (await d.show(born.id)).status in ("done", "cancelled")
    await d.app.aclose()


async def test_p32_a_message_that_nobody_reads_causes_exactly_one_wake(world: World) -> None:
    d = await world.deploy(approving(script(Deploy(tag="v1"), Done()), print))
    thread = await d.start("agent")
    await d.settle()
    wakes = world.calls["claim"]
    await d.send(thread, "hello?")
    await d.settle()
    assert world.calls["claim"] == wakes + 1


async def test_p33_a_wake_reads_from_the_last_compaction_on_and_not_the_whole_log(world: World) -> None:
    async def summarize(steps: Any) -> str:
        return f"{len(steps)} things"

    async def agent(thread: Thread[Any]) -> str:
        while True:
            await thread.compact(summarize, keep_last=5)
            step = await thread.next_step(lines)
            if step.name == "done":
                return "end"
            await step.run(tool(lambda: "found", name="look", reads=True))
            await step.sleep("1s")

    lines = script(*[Look()] * 200, Done())
    d = await world.deploy(agent)
    thread = await d.start("agent")
    for _ in range(201):
        await d.advance("1s")
    await world.ended(thread)
    assert max(world.loaded) < 60
    assert sum(world.loaded) < 201 * 60


class Overloaded(Exception):
    status_code = 429

    def __str__(self) -> str:
        return "429: try later"
