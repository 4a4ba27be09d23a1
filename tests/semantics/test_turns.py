"""DESIGN 2, Turns and stopping: messages, what a turn's end does, set-aside steps, superseding, the operator's breakpoint."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from worlds import INTENTS, Deploy, Done, Look, Note, World, approving, on_draft, once, only, script

from ownloop import Thread
from ownloop.errors import AlreadyDecided, ThreadEnded
from ownloop.prompt import thread_to_prompt


async def test_a_message_that_comes_while_the_turn_ends_is_never_swallowed(world: World) -> None:
    read: list[Any] = []

    async def decide(thread: Thread[Any]) -> Any:
        read.append([message.data["text"] for message in thread.unread])
        return Done(message=str(len(read)))

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(decide)
        return str(step.intent.message)

    d = await world.deploy(agent, intents=INTENTS)
    thread = await d.start("agent")

    async def send(*_: Any) -> None:
        await d.send(thread, "wait!")

    world.before["finish"] = once(send)
    await d.settle()
    view = await world.ended(thread)
    assert (view.result, read) == ("2", [[], ["wait!"]])
    assert view.turn == 2


async def test_a_message_that_comes_while_the_model_thinks_is_read_by_the_next_selection(world: World) -> None:
    read: list[Any] = []

    async def decide(thread: Thread[Any]) -> Any:
        read.append([message.data["text"] for message in thread.unread])
        if len(read) == 1:
            await d.send(thread.id, "wait!")
        return Look() if len(read) == 1 else Done()

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(decide)
            if step.name == "done":
                return "end"
            step.close()

    d = await world.deploy(agent, intents=INTENTS)
    thread = await d.start("agent")
    await d.settle()
    await world.ended(thread)
    assert read == [[], ["wait!"]]


async def test_the_same_message_sent_twice_is_one(world: World) -> None:
    d = await world.deploy(approving(script(Done(), Done()), print))
    thread = await d.start("agent")
    first, second = await d.send(thread, "hi", dedupe="m1"), await d.send(thread, "hi", dedupe="m1")
    assert first.seq == second.seq
    assert len(await world.events(thread, "message")) == 1


async def test_the_rest_of_a_batch_is_skipped_when_the_turn_ends(world: World) -> None:
    d = await world.deploy(approving(script([Done(message="bye"), Deploy(tag="v1")]), print))
    thread = await d.start("agent")
    await d.settle()
    view = await world.ended(thread)
    assert [(step.name, step.status) for step in view.steps] == [("done", "ended"), ("deploy", "skipped")]
    assert "it was not run" in thread_to_prompt(view)


async def test_counts_begin_anew_with_each_turn(world: World) -> None:
    counts: list[int] = []

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(script(Look(), Look(), Done(), Look(), Done()))
            counts.append(thread.count(Look))
            step.close()
            if step.name == "done":
                return f"turn {thread.turn}"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.send(thread, "again")
    await d.settle()
    assert ((await world.ended(thread)).result, counts) == ("turn 2", [1, 2, 2, 1, 1])


async def test_superseding_ends_what_has_started_nothing_and_leaves_what_has(world: World) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        async def branch(step: Any) -> bool:
            if step.name == "note":
                await step.run(ran.append, "started")
            if step.name != "done" and await step.approved():
                await step.run(ran.append, step.name)
            step.close()
            return bool(step.name == "done")

        while not any(await thread.each(script([Deploy(tag="v1"), Note(text="x")], Done()), branch)):
            pass
        return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    by_name = {one.name: one for one in await d.interrupts()}
    await d.send(thread, "stop that", supersede=True)
    with pytest.raises(AlreadyDecided, match="is withdrawn: nobody can answer it any more"):
        await d.approve(by_name["deploy"], by="ann")
    await d.settle()
    await d.approve(by_name["note"], by="ann")
    await d.settle()
    view = await world.ended(thread)
    assert ran == ["started", "note"]
    assert [(step.name, step.status) for step in view.steps[:2]] == [("deploy", "superseded"), ("note", "ended")]
    assert "stop that" in thread_to_prompt(view)


async def test_a_step_superseded_between_selection_and_start_does_not_start(world: World) -> None:
    ran: list[str] = []

    async def supersede(*_: Any) -> None:
        await d.send(thread, "stop", supersede=True)

    world.before["begin"] = on_draft("started", supersede)

    async def agent(one: Thread[Any]) -> str:
        while True:
            step = await one.next_step(script(Look(), Done()))
            if step.name == "done":
                return "end"
            await step.run(ran.append, "effect")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.ended(thread)
    assert ran == []


async def test_an_interjection_is_read_at_once_and_what_was_set_aside_lives_on_past_the_turn(world: World) -> None:
    ran, prompts = [], []
    model = script(Deploy(tag="v1"), Done(message="I am still waiting"), Done(message="not reached"))

    async def decide(thread: Thread[Any]) -> Any:
        prompts.append(thread_to_prompt(thread))
        return await model(thread)

    decide.intents = INTENTS  # type: ignore[attr-defined]

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Deploy(tag=tag):
                    if await step.approved():
                        await step.run(ran.append, tag)
                    return "deployed"
                case Done(message=message):
                    return message

    d = await world.deploy(agent, interject=True)
    thread = await d.start("agent")
    await d.settle()
    assert model.calls == 1
    await d.send(thread, "how is it going?")
    await d.settle()
    assert (await world.ended(thread)).result == "I am still waiting"
    assert "Do not select them again" in prompts[-1]
    await d.approve(await only(d), by="ann")
    await d.settle()
    assert ((await world.ended(thread)).result, ran, int(model.calls)) == ("deployed", ["v1"], 2)


async def test_timers_of_steps_set_aside_go_off_past_the_end_of_the_turn(world: World) -> None:
    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(script(Look(), Done(message="hello")))
            if step.name == "done":
                return str(step.intent.message)
            return str(await step.wait_for("never", timeout="1h"))

    d = await world.deploy(agent, interject=True)
    thread = await d.start("agent")
    await d.settle()
    await d.send(thread, "hi")
    await d.settle()
    assert (await world.ended(thread)).result == "hello"
    await d.advance("1h")
    assert (await world.ended(thread)).result == "None"


@pytest.mark.parametrize("place", ["thread", "agent"])
@pytest.mark.parametrize("verb", ["approve", "edit", "reject", "respond"])
async def test_a_hold_parks_where_the_program_asks_nobody(world: World, place: str, verb: str) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(script(Look(), Deploy(tag="v1"), Done()))
            match step.intent:
                case Look():
                    step.close()
                case Deploy(tag=tag):
                    await step.run(ran.append, tag)
                case Done():
                    return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.hold(thread if place == "thread" else "agent", on=Deploy, by="ops")
    await d.settle()
    one = await only(d)
    assert (one.kind, one.name, dict(one.intent), ran) == ("hold", "deploy", {"tag": "v1"}, [])
    value = {"edit": [{"tag": "v2"}], "respond": ["done by hand"]}.get(verb, [])
    await getattr(d, verb)(one, *value, by="ops")
    await d.settle()
    view = await world.ended(thread)
    assert ran == {"approve": ["v1"], "edit": ["v2"]}.get(verb, [])
    if verb == "respond":
        assert "done by hand" in thread_to_prompt(view)
    await d.release_hold(thread if place == "thread" else "agent")


async def test_a_hold_set_in_the_moment_of_the_selection_still_parks_it_and_releasing_lets_the_next_pass(world: World) -> None:
    ran: list[str] = []

    async def hold(*_: Any) -> None:
        await d.hold(thread)

    async def agent(one: Thread[Any]) -> str:
        while True:
            step = await one.next_step(script(Look(), Look(), Done()))
            if step.name == "done":
                return "end"
            await step.run(ran.append, "x")

    world.before["begin"] = on_draft("selected", hold)
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert ran == []
    await d.release_hold(thread)
    await d.approve(await only(d), by="ops")
    await d.settle()
    await world.ended(thread)
    assert ran == ["x", "x"]


async def test_an_error_beside_a_wait_fails_the_thread_and_leaves_its_request_open(world: World) -> None:
    fails = [True]

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Deploy(tag="v1")))
        async with asyncio.TaskGroup() as outer:
            outer.create_task(nested(step))
        return "end"

    async def nested(step: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(step.approved())
            group.create_task(bad())

    async def bad() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        if fails[0]:
            raise ValueError("a bug")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    if (await d.show(thread)).status == "failed" and (waiting := await d.interrupts()):
        await d.approve(waiting[0], by="ann")
    fails[0] = False
    await d.retry(thread)
    await d.settle()
    for one in await d.interrupts():
        await d.approve(one, by="ann")
    await d.settle()
    await world.ended(thread)
    assert len(await world.events(thread, "request")) == 1


async def test_a_closed_thread_takes_nothing_more(world: World) -> None:
    d = await world.deploy(approving(script(Deploy(tag="v1")), print))
    thread = await d.start("agent")
    await d.settle()
    one = await only(d)
    await d.close(thread)
    with pytest.raises(ThreadEnded, match="is closed; nothing was added"):
        await d.send(thread, "hi")
    with pytest.raises(AlreadyDecided, match="is withdrawn"):
        await d.approve(one, by="ann")
    for verb in (d.pause, d.resume, d.retry):
        with pytest.raises(ThreadEnded):
            await verb(thread)
