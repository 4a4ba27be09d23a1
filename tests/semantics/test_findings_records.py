"""Findings P21–P27: forks, changed classes, counters, notes, timeouts – what was recorded, and what it must not cause."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from worlds import Deploy, Died, Done, Look, World, approving, only, script

from ownloop import Happened, Intent, Thread, current_call, tool


def intent(name: str, **fields: Any) -> Any:
    """An intent class of another version of the program: field names and types, or (type, default)."""
    annotations = {field: kind[0] if isinstance(kind, tuple) else kind for field, kind in fields.items()}
    defaults = {field: kind[1] for field, kind in fields.items() if isinstance(kind, tuple)}
    return type(name, (Intent,), {"__annotations__": annotations, "__module__": __name__, **defaults})


async def test_p21_a_fork_of_a_thread_with_a_started_call_starts_it_under_no_old_key(world: World) -> None:
    keys: list[str] = []

    async def pay() -> str:
        keys.append(current_call().key)
        if len(keys) == 2:
            raise Died
        return "paid"

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(script(Deploy(tag="v1"), Look(), Done()))
            if step.name == "done":
                return "end"
            await step.run(tool(pay, in_doubt="retry"))

    await world.deploy(agent)
    thread = await world.d.start("agent", "hi")
    await world.dies()
    d = await world.deploy(agent)
    fork = await d.fork(thread)
    copied = await world.events(fork)
    assert [event.data["intent"] for event in copied if event.kind == "selected"] == ["deploy"]
    assert [event.kind for event in copied if event.kind in ("started", "request")] == ["started"]
    await d.settle()
    await world.ended(thread)
    await world.ended(fork)
    first, second, again, forked = keys
    assert second == again, "the original goes on under its own key"
    assert forked not in (first, second)
    steps = {event.step_id for event in await world.events(fork, "selected")}
    assert steps.isdisjoint(event.step_id for event in await world.events(thread, "selected"))


def approving_any(model: Any, ran: list[Any]) -> Any:
    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(model)
            if step.name == "done":
                return "end"
            if await step.approved():
                await step.run(ran.append, step.intent.model_dump())

    return agent


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (intent("Publish", tag=str), ["publish", "no class is named 'ship'"]),
        (intent("Ship", tag=str, region=str), ["region: Field required"]),
        (intent("Ship", version=str), ["version: Field required", "tag: Extra inputs are not permitted"]),
        (intent("Ship", tag=int), ["tag: Input should be a valid integer"]),
    ],
    ids=["class renamed", "field added", "field renamed", "type changed"],
)
async def test_p22_a_call_whose_class_changed_fails_clearly_and_its_decision_outlives_the_fix(world: World, changed: Any, words: list[str]) -> None:
    ran: list[Any] = []
    ship = intent("Ship", tag=str)  # of a module that is gone: no handler can name it
    old = script(ship(tag="v1"), Done())
    old.intents = (ship, Done)
    new = script(Done())
    new.intents = (changed, Done)
    d = await world.deploy(approving_any(old, ran))
    thread = await d.start("agent")
    await d.settle()
    await d.approve(await only(d), by="ann")
    d = await world.deploy(changed_program(new, ran))
    await d.settle()
    assert ran == []
    text = await world.failure(thread, "CallNoLongerValid", "nothing was started and its decision stays", "retry")
    assert any(word in text for word in words)
    d = await world.deploy(approving_any(old, ran))
    await d.retry(thread)
    await d.settle()
    await world.ended(thread)
    assert ran == [{"tag": "v1"}]
    assert len(await world.events(thread, "request")) == 1, "the person was not asked again"


def changed_program(model: Any, ran: list[Any]) -> Any:
    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(model)
            if step.name == "done":
                return "end"
            if await step.approved():
                await step.run(ran.append, "changed")

    return agent


async def test_p23_an_optional_field_more_does_not_make_parked_approvals_stale(world: World) -> None:
    ran: list[Any] = []
    old, new = script(Deploy(tag="v1"), Done()), script(Deploy(tag="v1"), Done())
    new.intents = (intent("Deploy", tag=str, dry_run=(bool, False)), Done)
    d = await world.deploy(approving_any(old, ran))
    thread = await d.start("agent")
    await d.settle()
    shown = await only(d)
    d = await world.deploy(approving_any(new, ran))
    await d.send(thread, "wake up")
    await d.settle()
    assert (await only(d)).digest == shown.digest
    await d.approve(shown, by="ann", digest=shown.digest)
    await d.settle()
    assert ran == [{"tag": "v1", "dry_run": False}]


async def test_p24_asking_after_three_errors_asks_once_and_the_answer_arrives(world: World) -> None:
    answers: list[Any] = []

    async def fails() -> None:
        raise ValueError("no")

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(lines)
            if step.name == "done":
                return "end"
            await step.run(tool(fails, reads=True))
            if thread.errors_in_a_row >= 3:
                answers.append(await step.ask("3 errors, what now?"))

    lines = script(*[Look()] * 6, Done())
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    for _ in range(2):
        await d.answer(await only(d), "try X", by="ann")
        await d.settle()
    await world.ended(thread)
    assert answers == ["try X", "try X"], "after steps 3 and 6, once each"
    assert len(await world.events(thread, "request")) == 2


async def test_p25_a_note_and_a_summary_are_made_once_whatever_the_number_of_wakes(world: World) -> None:
    paid: list[int] = []

    async def summarize(steps: Any) -> str:
        paid.append(len(steps))
        return "so far, so good"

    async def agent(thread: Thread[Any]) -> None:
        await thread.append("started", {"by": "agent"})
        await thread.compact(summarize, keep_last=1)
        step = await thread.next_step(lines)
        await thread.append("deploying", step.name)
        await step.run(lambda: 1)
        await step.approved()

    lines = script(Look(), Look(), Look(), Look())
    d = await world.deploy(agent)
    thread = await d.start("agent")
    for number in range(3):
        await d.send(thread, f"wake {number}")
        await d.settle()
    assert [event.data["name"] for event in await world.events(thread, "appended")] == ["started", "deploying"]
    assert paid == []


async def test_p25_a_summary_is_paid_for_once_although_the_thread_wakes_again_and_again(world: World) -> None:
    paid: list[int] = []

    async def summarize(steps: Any) -> str:
        paid.append(len(steps))
        return "so far, so good"

    async def agent(thread: Thread[Any]) -> None:
        while True:
            await thread.compact(summarize, keep_last=1)
            step = await thread.next_step(lines)
            await step.run(lambda: 1)
            if step.name == "deploy":
                await step.approved()

    lines = script(Look(), Look(), Look(), Deploy(tag="v1"))
    d = await world.deploy(agent)
    thread = await d.start("agent")
    for number in range(4):
        await d.send(thread, f"wake {number}")
        await d.settle()
    assert len(paid) == 2
    assert len(await world.events(thread, "compacted")) == 2


async def test_what_a_person_decided_in_a_named_step_is_given_to_the_summary(world: World) -> None:
    given: list[str] = []

    async def summarize(steps: Any) -> str:
        given.extend(step.name for step in steps)
        return "so far, so good"

    async def agent(thread: Thread[Any]) -> str:
        await thread.step("gate").approved(reason="before anything else")
        while True:
            await thread.compact(summarize, keep_last=0)
            step = await thread.next_step(lines)
            if step.name == "done":
                return "end"
            await step.run(lambda: 1)

    lines = script(Look(), Look(), Done())
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.approve(await only(d), by="ann", note="only in November")
    await d.settle()
    await world.ended(thread)
    assert given.count("gate") == 1, "it leaves the prompt, so the summary has to hold it"


async def test_p26_a_sync_payment_that_takes_too_long_is_unknown_and_never_made_twice(world: World) -> None:
    paid: list[str] = []
    go_on, gone = threading.Event(), threading.Event()

    def pay() -> str:
        go_on.wait(10)
        paid.append("paid")
        gone.set()
        return "receipt"

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(lines)
            if step.name == "done":
                return "end"
            outcome = await step.run(tool(pay, timeout="50ms"))
            if not outcome.ok:
                return "the model would try again"

    lines = script(Look(), Done())
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    doubt = await only(d)
    assert (doubt.kind, doubt.status, paid) == ("in_doubt", "open", [])
    assert "TimeoutError: no answer within 0:00:00.050000" in doubt.value["error"]
    go_on.set()
    gone.wait(10)
    await let_go(d)
    await d.settle()
    assert (await world.ended(thread)).result == "end"
    assert paid == ["paid"]
    assert (await d.app.interrupt(doubt.id)).status == "withdrawn"


async def let_go(d: Any) -> None:
    """Until calls that were let go have recorded what became of them."""
    import asyncio

    runner = await d.app._open()
    while loose := list(runner._setting.loose):
        await asyncio.wait(loose)


async def test_p27_what_a_named_step_did_is_started_on_disk_first_and_not_repeated_in_silence(world: World) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        (await thread.step("prefetch").run(ran.append, "x")).value  # noqa: B018  # raises if it failed
        return "end"

    def die(*_: Any) -> None:
        raise Died

    world.before["fact"] = die
    await world.deploy(agent)
    thread = await world.d.start("agent")
    await world.dies()
    d = await world.deploy(agent)
    await d.settle()
    assert ran == ["x"]
    assert (await only(d)).kind == "in_doubt"
    await d.answer(await only(d), Happened(None), by="ann")
    await d.settle()
    await world.ended(thread)
    assert ran == ["x"]


async def test_p27_only_what_reads_runs_again_unasked_after_a_death(world: World) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        (await thread.step("prefetch").run(tool(ran.append, reads=True), "x")).value  # noqa: B018
        return "end"

    def die(*_: Any) -> None:
        raise Died

    world.before["fact"] = die
    await world.deploy(agent)
    thread = await world.d.start("agent")
    await world.dies()
    d = await world.deploy(agent)
    await d.settle()
    await world.ended(thread)
    assert ran == ["x", "x"]


async def test_an_approval_that_was_dropped_from_the_program_is_not_taken_as_granted(world: World) -> None:
    ran: list[str] = []
    d = await world.deploy(approving(script(Deploy(tag="v1"), Done()), ran.append))
    thread = await d.start("agent")
    await d.settle()

    async def bold(one: Thread[Any]) -> None:
        step = await one.next_step(script(Deploy(tag="v1"), Done()))
        await step.run(ran.append, "unasked")

    d = await world.deploy(bold)
    await d.send(thread, "go")
    await d.settle()
    assert ran == []
    await world.failure(thread, "ProgramChanged", "approval")
