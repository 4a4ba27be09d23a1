"""What the log holds of an operation: threads that wait today are read by the programs of tomorrow."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from pydantic import BaseModel
from worlds import Deploy, Look, World, die, on_draft, only, script

from ownloop import Thread, tool
from ownloop.errors import StoreError


async def test_every_operation_is_recorded_under_the_key_that_later_versions_look_for(world: World) -> None:
    async def helper(thread: Thread[Any]) -> str:
        return "helped"

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Deploy(tag="v1")))
        await step.approved()
        await step.run(tool(lambda tag: tag, name="deploy"), "v1")
        await step.result_approved(by="ann")
        await step.ask("Which?", choices=["a", "b"], to="ann")
        await step.wait_for("paid", key="k")
        await step.wait_for("paid")
        await step.sleep("1s")
        await step.join(await step.spawn("helper", 1))
        return "end"

    d = await world.deploy(agent, helper)
    thread = await d.start("agent")
    await d.settle()
    for answer in ("approve", "approve", "answer"):
        await getattr(d, answer)(await only(d), *(["a"] if answer == "answer" else []), by="ann")
        await d.settle()
    await d.emit("paid", 1, key="k")
    await d.emit("paid", 2)
    await d.settle()
    await d.advance("2s")
    await world.ended(thread)
    requests = {str(event.op).split("-")[0]: event.data for event in await world.events(thread, "request")}
    keys = [key if key.split(":")[0] not in ("approval", "result", "ask") else key.split(":")[0] for key in requests]
    assert keys == ["approval", "result", "ask", "wait:paid:k", "wait:paid", "sleep", "spawn:helper"]
    by_kind = {data["kind"] + str(data.get("key", "")): data for data in requests.values()}
    assert by_kind["approval"]["arguments"] == {"tag": "v1"}
    assert by_kind["approval"]["policy"] == {}
    assert (by_kind["result"]["value"], by_kind["result"]["call"], by_kind["result"]["policy"]) == ("v1", "run:deploy", {"by": ["ann"]})
    assert by_kind["result"]["arguments"] == {"tag": "v1"}
    asked = by_kind["question"]
    assert (asked["question"], asked["choices"], asked["schema"], asked["policy"]) == ("Which?", ["a", "b"], {"enum": ["a", "b"]}, {"by": ["ann"]})
    assert (by_kind["eventk"]["event"], by_kind["eventk"]["key"], by_kind["eventNone"]["key"]) == ("paid", "k", None)
    assert by_kind["child"]["agent"] == "helper"
    assert [event.op for event in await world.events(thread, "started")] == ["run:deploy"]


async def test_each_failed_try_is_numbered_and_says_why(world: World) -> None:
    def fails() -> None:
        raise ValueError("no such host")

    async def agent(thread: Thread[Any]) -> None:
        await (await thread.next_step(script(Look()))).run(tool(fails, reads=True, retry=2))

    d, began = await world.deploy(agent), time.monotonic()
    thread = await d.start("agent")
    await d.settle()
    assert 0.6 <= time.monotonic() - began < 5  # 200 ms, then 400 ms
    tried = await world.events(thread, "tried")
    assert [(event.op, event.data["try"], event.data["error"]["message"]) for event in tried] == [("run:fails", n, "no such host") for n in (1, 2)]


async def test_a_failure_whose_message_cannot_be_shown_is_a_failure_all_the_same(world: World) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def fails() -> None:
        raise Mute

    async def agent(thread: Thread[Any]) -> str:
        outcome = await (await thread.next_step(script(Look()))).run(fails)
        assert outcome.error is not None
        return outcome.error.message

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert (await world.ended(thread)).result == "<Mute whose message cannot be shown>"


@pytest.mark.parametrize(("policy", "unknown"), [("retry", True), ("fail", True)])
async def test_a_call_that_nobody_knows_of_ends_as_its_tool_has_promised(world: World, policy: Any, unknown: bool) -> None:
    async def hangs() -> None:
        await asyncio.sleep(60)

    async def agent(thread: Thread[Any]) -> list[Any]:
        outcome = await (await thread.next_step(script(Look()))).run(tool(hangs, timeout="10ms", in_doubt=policy))
        assert outcome.error is not None
        return [outcome.ok, outcome.unknown, outcome.error.type]

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert (await world.ended(thread)).result == [False, unknown, "TimeoutError" if policy == "retry" else "InDoubt"]
    assert (await world.events(thread, "started"))[0].data["in_doubt"] == policy


@pytest.mark.parametrize("late", ["30s", "31s"])
async def test_a_call_whose_lease_ran_out_right_before_it_is_not_made_and_is_made_by_the_next_wake(world: World, late: str) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> None:
        await (await thread.next_step(script(Look()))).run(tool(lambda: ran.append("x"), name="work"))

    d = await world.deploy(agent)
    world.after["begin"] = on_draft("started", lambda *_: world.clock.advance(late))
    thread = await d.start("agent")
    await d.settle()
    await d.advance("31s")
    await world.ended(thread)
    first, refused, second, outcome = await world.events(thread, "started", "not_started", "outcome")
    assert (refused.kind, refused.op, refused.data["started"]) == ("not_started", "run:work", first.seq)
    assert (second.kind, outcome.kind, ran) == ("started", "outcome", ["x"])


async def test_an_outcome_is_written_as_soon_as_the_store_is_back_and_asked_for_less_and_less_often(world: World) -> None:
    tries: list[float] = []

    def away(*_: Any) -> None:
        tries.append(time.monotonic())
        if len(tries) < 4:
            raise StoreError("the disk is full; nothing was written")

    async def agent(thread: Thread[Any]) -> Any:
        return (await (await thread.next_step(script(Look()))).run(tool(lambda: 7, name="work"))).value

    d = await world.deploy(agent)
    world.before["fact"] = away
    thread = await d.start("agent")
    await d.settle()
    assert (await world.ended(thread)).result == 7
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert all(pause >= least for pause, least in zip(pauses, [0.05, 0.1, 0.2], strict=True))
    assert len(await world.events(thread, "started")) == 1


async def test_an_edit_after_a_call_runs_it_again_with_the_new_arguments_as_another_operation(world: World) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> None:
        step = await thread.next_step(script(Deploy(tag="v1")))
        await step.run(tool(ran.append, name="check"), step.intent.tag)
        if await step.approved():
            await step.run(tool(ran.append, name="deploy"), step.intent.tag)

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.edit(await only(d), {"tag": "v2"}, by="ann")
    await d.settle()
    await world.ended(thread)
    assert ran == ["v1", "v2", "v2"]
    assert [event.op for event in await world.events(thread, "started")] == ["run:check", "run:check~1", "run:deploy"]


async def test_an_edit_does_not_hide_that_a_call_may_have_happened_with_the_old_arguments(world: World) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> None:
        step = await thread.next_step(script(Deploy(tag="v1")))
        await asyncio.gather(step.run(tool(ran.append, name="check"), step.intent.tag), step.approved())

    d = await world.deploy(agent)
    world.after["begin"] = on_draft("started", die)
    thread = await d.start("agent")
    await world.dies()
    d = await world.deploy(agent)
    await d.settle()
    await d.edit(await only(d, kind="approval"), {"tag": "v2"}, by="ann")
    await d.settle()
    await world.failure(thread, "ProgramChanged", "run:check is recorded with other arguments than the program passes now")
    assert ran == []


async def test_a_failed_result_is_shown_for_approval_by_its_type_and_message(world: World) -> None:
    def fails() -> None:
        raise ValueError("no such host")

    async def agent(thread: Thread[Any]) -> None:
        step = await thread.next_step(script(Look()))
        await step.run(fails)
        await step.result_approved()

    d = await world.deploy(agent)
    await d.start("agent")
    await d.settle()
    assert (await only(d)).value == {"type": "ValueError", "message": "no such host"}


async def test_a_result_that_there_is_not_yet_cannot_be_approved(world: World) -> None:
    async def agent(thread: Thread[Any]) -> None:
        await (await thread.next_step(script(Look()))).result_approved()

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.failure(thread, "ProgramChanged", "result_approved() before any run has ended", "call step.run(…) first")


class Number(BaseModel):
    value: int = 7


class Maker:
    def __call__(self) -> Number:
        return Number()

    def make(self) -> Number:
        return Number()


def numbered(start: int) -> Number:
    return Number(value=start)


@pytest.mark.parametrize(
    "function",
    [Number, Maker(), Maker().make, partial(numbered, 7), tool(partial(numbered, 7), name="work")],
    ids=["class", "object", "method", "partial", "tool"],
)
async def test_whatever_can_be_called_gives_its_own_type_on_a_later_wake_too(world: World, function: Any) -> None:
    seen: list[Any] = []

    async def agent(thread: Thread[Any]) -> None:
        step = await thread.next_step(script(Look()))
        seen.append((await step.run(function)).value)
        await step.approved()

    d = await world.deploy(agent)
    await d.start("agent")
    await d.settle()
    await d.approve(await only(d), by="ann")
    await d.settle()
    assert seen == [Number(), Number()]


async def test_a_recorded_result_that_the_type_of_today_refuses_is_named_with_that_type(world: World) -> None:
    def work() -> Any:
        return {"value": "many"}

    async def agent(thread: Thread[Any]) -> None:
        step = await thread.next_step(script(Look()))
        await step.run(tool(work, name="work"))
        await step.approved()

    async def later(thread: Thread[Any]) -> None:
        await (await thread.next_step(script(Look()))).run(tool(Number, name="work"))

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    d = await world.deploy(later)
    await d.approve(await only(d), by="ann")
    await d.settle()
    await world.failure(thread, "ProgramChanged", "run:work holds {'value': 'many'}, and that is no Number (value: ")


async def test_a_call_that_was_let_go_and_fails_after_all_has_failed_and_nobody_is_asked(world: World) -> None:
    release = asyncio.Event()

    async def slow() -> None:
        await release.wait()
        raise ValueError("no such host")

    async def agent(thread: Thread[Any]) -> list[Any]:
        outcome = await (await thread.next_step(script(Look()))).run(tool(slow, timeout="10ms"))
        assert outcome.error is not None
        return [outcome.ok, outcome.unknown, outcome.error.type]

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert (await only(d)).kind == "in_doubt"
    release.set()
    async with asyncio.timeout(20):
        while await d.interrupts():
            await asyncio.sleep(0.01)
    await d.settle()
    assert (await world.ended(thread)).result == [False, False, "ValueError"]


async def test_a_breakpoint_and_its_release_stand_in_the_log(world: World) -> None:
    async def agent(thread: Thread[Any]) -> None:
        await thread.next_step(script(Look()))

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.hold(thread, by="ops")
    await d.release_hold(thread, by="ops")
    assert [(event.data["verb"], event.by) for event in await world.events(thread, "control")] == [("hold", "ops"), ("release_hold", "ops")]


async def test_a_handler_that_swallows_its_wait_and_returns_a_value_goes_on_waiting(world: World) -> None:
    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Look()))
        try:
            return str(await step.ask("Which?"))
        except BaseException:
            return "swallowed"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert (await world.view(thread)).status != "done"
    await d.answer(await only(d), "a", by="ann")
    await d.settle()
    assert (await world.ended(thread)).result == "a"
