"""Findings P10–P15: loops that lost a step, stepped over a wait, or asked the model for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from worlds import Deploy, Done, Look, Note, World, die, on_draft, only, script

from ownloop import Thread


async def test_p10_two_places_that_ask_for_steps_are_refused_in_the_first_wake(world: World) -> None:
    async def agent(thread: Thread[Any]) -> None:
        plan = await thread.next_step(script(Note(text="plan")))
        await plan.run(lambda: None)
        await thread.next_step(script(Deploy(tag="v1")))

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.failure(thread, "TwoLoops", "a thread has one loop", "thread.step('plan')", "test_findings_loops.py")
    assert [event.data["intent"] for event in await world.events(thread, "selected")] == ["note"]


@pytest.mark.parametrize("swallow", ["bare", "base", "gather"])
async def test_p11_a_swallowed_suspend_does_not_step_over_an_unanswered_approval(world: World, swallow: str) -> None:
    model = script(Deploy(tag="v1"), Done())
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(model)
            if step.name == "done":
                return "end"
            granted = await ask(step)
            await step.run(ran.append, f"deploy {granted}")

    async def ask(step: Any) -> Any:
        if swallow == "gather":
            return (await asyncio.gather(step.approved(), return_exceptions=True))[0]
        try:
            return await step.approved()
        except BaseException:
            return "nobody said no"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.ended(thread, "open")
    assert (ran, model.calls) == ([], 1)
    await d.approve(await only(d), by="ann")
    await d.settle()
    await world.ended(thread)
    assert ran == ["deploy True"]


async def test_p12_a_selection_that_no_case_matches_stops_the_thread_at_the_first_and_not_the_twentieth_model_call(world: World) -> None:
    model = script(*[Look()] * 20, Done())

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(model)
            match step.intent:
                case Done():
                    return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.failure(thread, "StepIgnored: agent passed Look by", "add a case", "step.close()")
    assert model.calls == 1


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_p13_a_death_in_the_middle_of_an_answer_of_two_calls_loses_neither(world: World, moment: str) -> None:
    model, ran = script([Look(), Deploy(tag="v1")], Done()), []

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(model)
            if step.name == "done":
                return "end"
            await step.run(ran.append, step.name)

    getattr(world, moment)["begin"] = on_draft("selected", die)
    await world.deploy(agent)
    thread = await world.d.start("agent")
    await world.dies()
    assert len(await events_on_disk(world, agent, thread)) in ((0, 2) if moment == "before" else (2,))
    await world.d.settle()
    await world.ended(thread)
    assert ran == ["look", "deploy"]
    assert model.calls == (3 if moment == "before" else 2)


async def events_on_disk(world: World, agent: Any, thread: str) -> list[Any]:
    await world.deploy(agent)
    return await world.events(thread, "selected")


async def test_p14_next_step_hands_out_all_calls_of_one_answer_in_order(world: World) -> None:
    model = script([Look(), Note(text="a"), Note(text="b")], Done())
    seen: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(model)
            seen.append(getattr(step.intent, "text", step.name))
            if step.name == "done":
                return "end"
            step.close()

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.ended(thread)
    assert seen == ["look", "a", "b", "done"]
    assert model.calls == 2


async def test_p15_a_death_between_the_last_branch_and_the_return_does_not_lose_the_last_step(world: World) -> None:
    model, ran = script([Look(), Done(message="bye")]), []

    async def agent(thread: Thread[Any]) -> str:
        async def branch(step: Any) -> str | None:
            if step.name == "done":
                step.close()
                return str(step.intent.message)
            await step.run(ran.append, "look")
            return None

        while True:
            for message in await thread.each(model, branch):
                if message is not None:
                    return message

    world.before["finish"] = die
    await world.deploy(agent)
    thread = await world.d.start("agent")
    await world.dies()
    d = await world.deploy(agent)
    await d.settle()
    assert (await world.ended(thread)).result == "bye"
    assert (model.calls, ran) == (1, ["look"])
