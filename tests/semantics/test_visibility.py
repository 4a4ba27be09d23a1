"""DESIGN 2, Visibility: a branch sees the log as it was handed out, and what a wake has merely read still wakes the thread."""

from __future__ import annotations

import asyncio
from typing import Any

from worlds import INTENTS, Deploy, Done, Look, Note, World, once, only, script

from ownloop import Thread


async def test_an_edit_that_a_sibling_made_the_wake_read_is_not_seen_by_a_branch_with_the_old_arguments(world: World) -> None:
    ran: list[str] = []
    gate = asyncio.Event()

    async def agent(thread: Thread[Any]) -> str:
        async def branch(step: Any) -> bool:
            match step.intent:
                case Deploy(tag=tag):
                    if thread.unread and not gate.is_set():
                        await edit()
                        await asyncio.wait_for(gate.wait(), 5)
                    if await step.approved():
                        await step.run(ran.append, tag)
                case Note():
                    await step.ask("which?")
                case Done():
                    step.close()
                    return True
            return False

        while not any(await thread.each(script([Deploy(tag="v1"), Note(text="x")], Done()), branch)):
            pass
        return "end"

    async def edit() -> None:
        world.after["events"] = lambda *_: gate.set()  # the wake has read the log again, for the sake of the other branch
        for _ in range(10):
            await asyncio.sleep(0)  # until the other branch waits
        await d.edit(await only(d, kind="approval"), {"tag": "v2"}, by="ann")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.send(thread, "hello?")
    await d.settle()
    assert gate.is_set()
    assert ran == ["v2"], "what a wake has read and not acted on wakes the thread again"
    await d.answer(await only(d), "this", by="ann")
    await d.settle()
    await world.ended(thread)
    assert ran == ["v2"]


async def test_a_decision_on_a_step_set_aside_that_the_wake_read_before_it_asked_the_model_is_not_lost(world: World) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(script(Deploy(tag="v1"), Look(), Done()))
            match step.intent:
                case Deploy(tag=tag):
                    if await step.approved():
                        await step.run(ran.append, tag)
                case Look():
                    await step.ask("which?")
                case Done():
                    return "end"

    async def approve(*_: Any) -> None:
        await d.approve(await only(d), by="ann")

    d = await world.deploy(agent, interject=True, intents=INTENTS)
    thread = await d.start("agent")
    await d.settle()
    await d.send(thread, "something else")
    world.before["events"] = once(approve)  # the look at the log before the model is asked
    await d.settle()
    assert ran == ["v1"]


async def test_an_edit_that_is_not_enough_votes_lets_nothing_run_where_the_program_no_longer_asks(world: World) -> None:
    ran: list[str] = []
    asks = [True]

    async def agent(thread: Thread[Any]) -> None:
        step = await thread.next_step(script(Deploy(tag="v1")))
        if not asks[0] or await step.approved(quorum=2):
            await step.run(ran.append, step.intent.tag)

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.edit(await only(d), {"tag": "v2"}, by="ann")
    asks[0] = False
    await d.settle()
    assert ran == []
    await world.failure(thread, "ProgramChanged", "not granted")
