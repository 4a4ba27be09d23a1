"""Findings P1–P3 and P16–P20: wake-ups that got lost or doubled, facts that were thrown away, deadlines that did not hold."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from worlds import Deploy, Done, Look, World, approving, make_world, on_draft, once, only, script

from ownloop import Thread, tool
from ownloop.errors import Expired


async def test_p1_a_decision_between_the_last_append_and_the_release_wakes_the_thread(world: World) -> None:
    ran: list[str] = []
    d = await world.deploy(approving(script(Deploy(tag="v1"), Done()), ran.append))
    thread = await d.start("agent")

    async def decide(*_: Any) -> None:
        await d.approve(await only(d), by="ann")

    world.before["release"] = once(decide)
    await d.settle()
    await world.ended(thread)
    assert ran == ["v1"]


async def test_p1b_a_decision_merged_by_the_handlers_own_appends_still_wakes_the_thread(world: World) -> None:
    ran: list[str] = []

    async def first() -> None:
        await d.approve(await only(d, kind="approval"), by="ann")
        ran.append("first")

    async def agent(thread: Thread[Any]) -> str | None:
        while True:
            step = await thread.next_step(script(Deploy(tag="v1"), Done()))
            if step.name == "done":
                return "end"
            decision = await step.request_approval()
            await thread.step("notify").run(first)  # the decision comes while this runs, and its outcome is written after it
            await thread.append("looked", True)
            if decision is None:
                return None
            await step.run(ran.append, "deploy")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.ended(thread)
    assert ran == ["first", "deploy"]


async def test_p1c_a_handler_that_appends_on_every_wake_does_not_wake_itself(world: World) -> None:
    wakes: list[int] = []

    async def agent(thread: Thread[Any]) -> None:
        wakes.append(1)
        await thread.append(f"wake {len(wakes)}", "hello")
        step = await thread.next_step(script(Deploy(tag="v1")))
        await step.named(f"wake {len(wakes)}").run(tool(lambda: None, name="peek", reads=True))
        await step.approved()

    d = await world.deploy(agent)
    await d.start("agent")
    await d.settle()
    assert len(wakes) == 1


async def test_p2_a_message_that_comes_while_a_tool_runs_does_not_cost_the_tools_result(world: World) -> None:
    ran: list[str] = []

    async def deploy(tag: str) -> str:
        await d.send(thread, "how is it going?")
        ran.append(tag)
        return "receipt"

    async def agent(one: Thread[Any]) -> str:
        while True:
            step = await one.next_step(script(Deploy(tag="v1"), Done()))
            if step.name == "done":
                return "end"
            assert (await step.run(deploy)).value == "receipt"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.ended(thread)
    assert ran == ["v1"]
    assert [event.data["value"] for event in await world.events(thread, "outcome")] == ["receipt"]


async def test_p3_the_receipt_of_a_worker_that_lost_its_lease_is_kept_and_ends_the_question(world: World) -> None:
    started, go_on, ran = asyncio.Event(), asyncio.Event(), []

    async def pay(tag: str) -> str:
        ran.append(tag)
        started.set()
        await go_on.wait()
        return "receipt"

    async def agent(one: Thread[Any]) -> str:
        step = await one.next_step(script(Deploy(tag="v1")))
        return (await step.run(pay)).value

    slow = await world.deploy(agent)
    thread = await slow.start("agent")
    working = asyncio.ensure_future(slow.app.run_one(thread))
    await started.wait()
    world.clock.advance("31s")
    d = await world.deploy(agent, beside=True)
    await d.settle()
    assert (await only(d)).kind == "in_doubt"
    go_on.set()
    await working
    assert await d.interrupts() == [], "a person would be asked about a known fact"
    await d.settle()
    assert (await world.ended(thread)).result == "receipt"
    assert ran == ["v1"]
    await slow.app.aclose()


async def test_p16_an_approved_branch_of_each_does_not_wait_for_its_slow_sibling(world: World) -> None:
    ran: list[str] = []

    async def slow() -> None:
        await d.approve(await only(d), by="ann")
        async with asyncio.timeout(5):  # an approved sibling that waits for this one would never come
            await deployed.wait()
        ran.append("slow")

    async def deploy(tag: str) -> None:
        ran.append(tag)
        deployed.set()

    async def agent(thread: Thread[Any]) -> str:
        async def branch(step: Any) -> bool:
            if step.name == "deploy" and await step.approved():
                await step.run(deploy)
            elif step.name == "look":
                await parked.wait()
                await step.run(slow)
            elif step.name == "done":
                step.close()
                return True
            return False

        while True:
            if True in await thread.each(script([Deploy(tag="v1"), Look()], Done()), branch):
                return "end"

    parked, deployed = asyncio.Event(), asyncio.Event()
    world.after["begin"] = on_draft("request", lambda *_: parked.set())
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.ended(thread)
    assert ran == ["v1", "slow"]


async def test_p17_a_timeout_that_was_taken_stays_taken_when_the_event_comes_late(world: World) -> None:
    took: list[Any] = []

    async def agent(thread: Thread[Any]) -> Any:
        step = await thread.next_step(script(Look()))
        took.append(await step.wait_for("paid", key="k", timeout="10s"))
        return await step.ask("sure?")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.advance("10s")
    await d.emit("paid", {"n": 1}, key="k")
    await d.settle()
    await d.answer(await only(d), "yes", by="ann")
    await d.settle()
    assert (await world.ended(thread)).result == "yes"
    assert took == [None, None]


@pytest.mark.parametrize("place", ["before", "after"])
async def test_p18_an_event_emitted_around_the_commit_of_its_wait_is_not_lost(world: World, place: str) -> None:
    async def agent(thread: Thread[Any]) -> Any:
        step = await thread.next_step(script(Look()))
        return await step.wait_for("paid", key="k")

    async def emit(*_: Any) -> None:
        await d.emit("paid", {"n": 1}, key="k")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    getattr(world, place)["begin"] = on_draft("request", emit)
    await d.settle()
    assert (await world.ended(thread)).result == {"n": 1}


async def test_p18_events_and_waits_of_many_threads_at_once_miss_each_other_never(world: World) -> None:
    async def agent(thread: Thread[Any]) -> Any:
        step = await thread.next_step(script(Look()))
        return await step.wait_for("paid", key=thread.key)

    d = await world.deploy(agent)
    other = await world.deploy(agent, beside=True)
    threads = [await d.start("agent", key=str(number)) for number in range(30)]
    await asyncio.gather(*(other.emit("paid", number, key=str(number)) for number in range(30)), *(d.app.run_one(thread) for thread in threads))
    await other.settle()
    assert [(await world.ended(thread)).result for thread in threads] == list(range(30))
    await d.app.aclose()


async def test_p19_a_decision_that_reaches_the_store_at_its_deadline_is_refused(world: World) -> None:
    ran: list[str] = []
    d = await world.deploy(approving(script(Deploy(tag="v1"), Done()), ran.append, expires="1h"))
    thread = await d.start("agent")
    await d.settle()
    interrupt = await only(d)
    world.before["decide"] = lambda *_: world.clock.advance(timedelta(hours=1))  # between the look and the statement
    with pytest.raises(Expired, match="expired at 2026-01-01 01:00:00.000Z by the store's clock; your answer changed nothing"):
        await d.approve(interrupt, by="ann")
    await d.settle()
    await world.ended(thread)
    assert ran == []


async def test_p19_a_decision_one_millisecond_before_its_deadline_counts(world: World) -> None:
    ran: list[str] = []
    d = await world.deploy(approving(script(Deploy(tag="v1"), Done()), ran.append, expires="1h"))
    await d.start("agent")
    await d.settle()
    world.clock.advance(timedelta(hours=1, milliseconds=-1))
    await d.approve(await only(d), by="ann")
    await d.settle()
    assert ran == ["v1"]


async def test_p19_a_decision_that_waits_for_the_write_lock_past_its_deadline_is_refused(tmp_path: Path) -> None:
    world, ran = make_world("sqlite", tmp_path), []
    d = await world.deploy(approving(script(Deploy(tag="v1"), Done()), ran.append, expires="1h"))
    await d.start("agent")
    await d.settle()
    interrupt = await only(d)
    reached = asyncio.Event()
    world.before["decide"] = lambda *_: reached.set()
    blocker = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    deciding = asyncio.ensure_future(d.approve(interrupt, by="ann"))
    await reached.wait()
    await asyncio.sleep(0.05)  # the statement waits behind the lock; without this pause the test is weaker, never wrong
    world.clock.advance("1h")
    blocker.execute("ROLLBACK")
    blocker.close()
    with pytest.raises(Expired):
        await deciding
    await d.settle()
    assert ran == []
    await d.app.aclose()


async def test_p20_one_timer_costs_one_wake_whatever_the_machines_clock_says(world: World) -> None:
    wakes: list[Any] = []

    async def agent(thread: Thread[Any]) -> str:
        wakes.append(thread.now)
        step = await thread.next_step(script(Look()))
        await step.sleep("10s")
        return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.advance("9s")
    await d.advance("1s")
    await world.ended(thread)
    assert wakes == [world.clock.now() - timedelta(seconds=10), world.clock.now()]
