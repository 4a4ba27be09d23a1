"""Findings P4–P9: branches that ran the wrong thing, ran it twice, or in the wrong order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from worlds import Deploy, Died, Done, Look, World, approving, on_draft, once, only, script

from ownloop import Happened, NotHappened, Thread
from ownloop.errors import StoreBusy


async def test_p4_an_edit_that_comes_before_the_branch_asks_runs_the_edited_call_and_never_the_old_one(world: World) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(script(Deploy(tag="v1"), Done()))
            match step.intent:
                case Deploy(tag=tag):
                    if thread.unread and not ran:
                        await edit()
                    if await step.approved():
                        await step.run(ran.append, tag)
                case Done():
                    return "end"

    async def edit() -> None:
        for interrupt in await d.interrupts():
            await d.edit(interrupt, {"tag": "v2"}, by="ann")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.send(thread, "hello?")  # wakes it: the branch runs, and the edit comes before approved() is reached
    await d.settle()
    await world.ended(thread)
    assert ran == ["v2"]


async def test_p5_a_rejected_call_does_not_run_where_the_program_no_longer_asks(world: World) -> None:
    ran: list[str] = []
    asks = [True]

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(script(Deploy(tag="v1"), Done()))
            if step.name == "done":
                return "end"
            if not asks[0] or await step.approved():
                await step.run(ran.append, "deploy")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.reject(await only(d), by="ann")
    asks[0] = False
    await d.settle()
    assert ran == []
    await world.failure(thread, "ProgramChanged", "approval", "not granted", "this program passed it by")
    asks[0] = True
    await d.retry(thread)
    await d.settle()
    await world.ended(thread)
    assert ran == [], "the decision is kept"


async def test_p5_an_unanswered_call_does_not_run_where_the_program_no_longer_asks(world: World) -> None:
    ran: list[str] = []
    asks = [True]

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Deploy(tag="v1")))
        if not asks[0] or await step.approved():
            await step.run(ran.append, "deploy")
        return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    asks[0] = False
    await d.send(thread, "hurry up")
    await d.settle()
    assert ran == []
    await world.failure(thread, "ProgramChanged")


async def test_p5b_a_loop_whose_order_changed_starts_nothing_twice_and_says_what_to_do(world: World) -> None:
    ran, hosts = [], [["a", "b", "c"], ["b", "c", "a"], ["a", "b", "c"]]

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Look()))
        for number, host in enumerate(hosts.pop(0)):
            if number == 2:
                await step.ask("go on?")
            await step.run(ran.append, host)
        return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.answer(await only(d), "yes", by="ann")
    await d.settle()
    assert ran == ["a", "b"]
    await world.failure(thread, "ProgramChanged", "other arguments", "step.named(name).run")
    await d.retry(thread)
    await d.settle()
    assert ran == ["a", "b", "c"]


async def test_p5b_a_named_loop_whose_order_changed_does_each_once(world: World) -> None:
    ran, hosts = [], [["a", "b", "c"], ["c", "b", "a"]]

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Look()))
        for number, host in enumerate(hosts.pop(0)):
            if number == 2:
                await step.ask("go on?")
            await step.named(host).run(ran.append, host)
        return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.answer(await only(d), "yes", by="ann")
    await d.settle()
    await world.ended(thread)
    assert sorted(ran) == ["a", "b", "c"]


@pytest.mark.parametrize("other_way", ["close", "next_step", "run", "return"])
async def test_p5c_a_call_that_may_have_happened_is_asked_about_although_the_program_goes_another_way(world: World, other_way: str) -> None:
    ran: list[str] = []

    async def pay() -> str:
        ran.append("pay")
        raise Died

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(script(Deploy(tag="v1"), Done()))
            if step.name == "done":
                return "end"
            if len(ran) == 0:
                await step.run(pay)
            elif other_way == "close":
                step.close()
            elif other_way == "next_step":
                await step.named("x").wait_for("never", timeout="0s")
            elif other_way == "run":
                await step.run(ran.append, "other")
            else:
                return "early"

    await world.deploy(agent)
    thread = await world.d.start("agent")
    await world.dies()
    d = await world.deploy(agent)
    await d.settle()
    assert ran == ["pay"]
    if other_way == "run":
        await world.failure(thread, "ProgramChanged", "run:pay may have happened")
        return
    doubt = await only(d)
    assert (doubt.kind, doubt.question[:16]) == ("in_doubt", "Did pay happen? ")
    await d.answer(doubt, Happened("receipt"), by="ann")
    await d.settle()
    await world.ended(thread)
    assert ran == ["pay"]


@pytest.mark.parametrize("label", [None, "x"])
async def test_p5d_a_function_that_was_renamed_while_in_doubt_is_not_started_again(world: World, label: str | None) -> None:
    ran: list[str] = []

    async def deploy() -> None:
        ran.append("deploy")
        raise Died

    async def deploy_v2() -> None:
        ran.append("deploy_v2")

    functions = [deploy]

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Look()))
        step = step if label is None else step.named(label)
        await step.run(functions[0])
        return "end"

    await world.deploy(agent)
    thread = await world.d.start("agent")
    await world.dies()
    functions[0] = deploy_v2
    d = await world.deploy(agent)
    await d.settle()
    assert ran == ["deploy"]
    await world.failure(thread, "ProgramChanged", "run:deploy", "may have happened")
    functions[0] = deploy
    await d.retry(thread)
    await d.settle()
    assert (await only(d)).kind == "in_doubt"


async def test_p6_every_start_in_doubt_has_its_own_question_and_an_old_no_is_not_used_again(world: World) -> None:
    ran: list[str] = []

    async def pay() -> str:
        ran.append("pay")
        if len(ran) < 3:
            raise Died
        return "receipt"

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Look()))
        return (await step.run(pay)).value

    await world.deploy(agent)
    thread = await world.d.start("agent")
    await world.dies()
    first = await settle_and_find_the_doubt(world, agent)
    await world.d.answer(first, NotHappened(), by="ann")
    await world.dies()
    second = await settle_and_find_the_doubt(world, agent)
    assert ran == ["pay", "pay"], "a third start without a question"
    assert second.id != first.id
    await world.d.answer(second, NotHappened(), by="ann")
    await world.d.settle()
    assert (await world.ended(thread)).result == "receipt"
    assert ran == ["pay"] * 3


async def settle_and_find_the_doubt(world: World, agent: Any) -> Any:
    d = await world.deploy(agent)
    await d.settle()
    doubt = await only(d)
    assert doubt.kind == "in_doubt"
    return doubt


async def test_p7_finally_runs_when_the_step_is_over_and_not_when_the_handler_parks(world: World) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Deploy(tag="v1")))
        await step.run(lock)
        try:
            if await step.approved():
                assert (await step.run(deploy)).value == "deployed"
        finally:
            await step.run(unlock)
        return "end"

    def lock() -> None:
        ran.append("lock")

    def deploy() -> str:
        ran.append("deploy")
        return "deployed"

    def unlock() -> None:
        ran.append("unlock")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert ran == ["lock"]
    await d.approve(await only(d), by="ann")
    await d.settle()
    await world.ended(thread)
    assert ran == ["lock", "deploy", "unlock"]


async def test_p8_a_task_group_that_suspends_does_not_cut_a_payment_beside_it(world: World) -> None:
    ran: list[str] = []

    async def pay() -> str:
        ran.append("pay begins")
        await parked.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        ran.append("pay ends")
        return "receipt"

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Deploy(tag="v1")))
        async with asyncio.TaskGroup() as group:
            paid = group.create_task(step.run(pay))
            group.create_task(step.approved())
        return paid.result().value

    parked = asyncio.Event()
    world.after["begin"] = on_draft("request", lambda *_: parked.set())
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert ran == ["pay begins", "pay ends"]
    await world.ended(thread, "open")
    await d.approve(await only(d), by="ann")
    await d.settle()
    assert (await world.ended(thread)).result == "receipt"
    assert ran == ["pay begins", "pay ends"]


async def test_p8_a_sibling_of_gather_starts_no_new_effect_after_the_handler_has_unwound(world: World) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Deploy(tag="v1")))
        await asyncio.gather(stray(step), step.approved())
        return "end"

    async def stray(step: Any) -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        strays.append(asyncio.current_task())
        await released.wait()
        await step.named("stray").run(ran.append, "next")

    strays: list[Any] = []
    released = asyncio.Event()
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    head = len(await world.events(thread))
    released.set()
    await asyncio.gather(*strays, return_exceptions=True)
    assert ran == []
    assert len(await world.events(thread)) == head
    await d.approve(await only(d), by="ann")
    await d.settle()
    assert ran == ["next"]


async def test_p9_after_a_store_error_nothing_begins_in_the_wake_and_the_order_is_kept(world: World) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Deploy(tag="v1")))
        await step.run(ran.append, "lock")
        try:
            if await step.approved():
                await step.named("deploy").run(ran.append, "deploy")
        finally:
            await step.named("unlock").run(ran.append, "unlock")
        return "end"

    def locked(*_: Any) -> None:
        raise StoreBusy("a.db", 5)

    world.before["begin"] = on_draft("request", locked)
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.app.run_one(thread)
    assert ran == ["lock"]
    await d.advance("31s")
    await d.approve(await only(d), by="ann")
    await d.settle()
    await world.ended(thread)
    assert ran == ["lock", "deploy", "unlock"]


async def test_p9_a_store_that_is_away_for_a_moment_does_not_leave_the_thread_asleep_for_ever(world: World) -> None:
    def locked(*_: Any) -> None:
        raise StoreBusy("a.db", 5)

    world.before["begin"] = once(locked)
    d = await world.deploy(approving(script(Done()), print))
    thread = await d.start("agent")
    await d.settle()
    await d.advance("10m")
    await world.ended(thread)
