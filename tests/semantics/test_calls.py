"""DESIGN 2 and 3, `run`: values, what is in doubt, tries, and how a working agent is stopped."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel
from worlds import Deploy, Died, Done, Look, World, only, script, settled

from ownloop import Happened, InDoubt, NotHappened, Thread, Unknown, current_call, tool
from ownloop.errors import StepFailed


class Receipt(BaseModel):
    number: int
    at: datetime


@dataclass
class Size:
    width: int


class Odd:
    """A class of somebody's own, without fields."""


AT = datetime(2026, 1, 2, tzinfo=UTC)
RESULTS: list[tuple[Any, Any]] = [(Receipt, Receipt(number=1, at=AT)), (Size, Size(2)), (datetime, AT), (list[Size], [Size(1)]), (int, 3)]


@pytest.mark.parametrize(("kind", "value"), RESULTS, ids=lambda one: getattr(one, "__name__", None))
async def test_a_result_has_the_same_type_on_the_first_wake_as_on_a_later_one(world: World, kind: Any, value: Any) -> None:
    seen: list[Any] = []

    def work() -> Any:
        return value

    work.__annotations__["return"] = kind

    async def agent(thread: Thread[Any]) -> None:
        step = await thread.next_step(script(Look()))
        seen.append((await step.run(work)).value)
        await step.approved()

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.send(thread, "again")
    await d.settle()
    assert seen == [value, value]


async def test_a_result_type_without_a_json_form_is_refused_before_the_start(world: World) -> None:
    ran: list[int] = []

    def work() -> Odd:
        ran.append(1)
        return Odd()

    async def agent(thread: Thread[Any]) -> None:
        await (await thread.next_step(script(Look()))).run(work)

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.failure(thread, "TypeError", "has no JSON form", "nothing was started")
    assert (ran, await world.events(thread, "started")) == ([], [])


async def test_a_result_that_cannot_be_written_is_done_all_the_same_and_never_rerun(world: World) -> None:
    ran: list[int] = []

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Look()))
        outcome = await step.run(tool(lambda: ran.append(1) or Odd(), name="work"))
        assert (outcome.ok, outcome.value) == (True, None)
        await step.ask("go on?")
        return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.answer(await only(d), "yes", by="ann")
    await d.settle()
    await world.ended(thread)
    assert ran == [1]
    assert (await world.events(thread, "outcome"))[0].data["unwritable"] == "Odd"


async def test_arguments_are_filled_from_the_intent_and_a_missing_one_is_named_before_the_start(world: World) -> None:
    ran: list[str] = []

    def deploy(tag: str, force: bool = False) -> None:
        ran.append(f"{tag} {force}")

    def publish(tag: str, region: str) -> None:
        ran.append("never")

    async def agent(thread: Thread[Any]) -> None:
        step = await thread.next_step(script(Deploy(tag="v1")))
        await step.run(deploy)
        await step.run(publish)

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.failure(thread, "TypeError: publish needs region, and deploy has no such field (tag)")
    assert ran == ["v1 False"]


async def test_a_failing_tool_does_not_raise_and_its_error_is_short(world: World) -> None:
    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Look()))
        outcome = await step.run(tool(fails, reads=True))
        assert outcome.error is not None
        with pytest.raises(StepFailed, match="ValueError: no such host"):
            outcome.value  # noqa: B018  # raises
        return f"{outcome.error.type}: {outcome.error.message} at {outcome.error.where}"

    def fails() -> None:
        raise ValueError("no such host")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    result = str((await world.ended(thread)).result)
    assert result.startswith("ValueError: no such host at test_calls.py:")
    assert result.endswith("in fails")


# ---- in doubt ------------------------------------------------------------------------------------------------------------------


def doubtful(how: str) -> Any:
    async def pay() -> str:
        STARTS.append(current_call().key)
        if len(STARTS) > 1:
            return "paid later"
        if how == "death":
            raise Died
        if how == "unknown_on":
            raise ConnectionResetError("lost")
        if how == "InDoubt":
            raise InDoubt("who knows")
        if how == "cancelled":
            raise asyncio.CancelledError
        await asyncio.Event().wait()
        return "never"

    return pay


STARTS: list[str] = []
HOW = ["death", "unknown_on", "InDoubt", "cancelled", "timeout"]


async def in_doubt(world: World, how: str, policy: Any) -> tuple[str, Any]:
    STARTS.clear()
    options: dict[str, Any] = {"in_doubt": policy, "timeout": "10ms" if how == "timeout" else None}
    if how == "unknown_on":
        options["unknown_on"] = (ConnectionError,)
    pay = tool(doubtful(how), **options)

    async def agent(thread: Thread[Any]) -> Any:
        outcome = await (await thread.next_step(script(Look()))).run(pay)
        return [outcome.ok, outcome.unknown, outcome.value if outcome.ok else outcome.error.type]

    await world.deploy(agent)
    thread = await world.d.start("agent")
    if how == "death":
        await world.dies()
        await world.deploy(agent)
    await world.d.settle()
    return thread, await world.d.show(thread)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("answer", ["happened", "not happened"])
async def test_what_nobody_knows_is_asked_once_and_never_called_failed(world: World, how: str, answer: str) -> None:
    thread, view = await in_doubt(world, how, "ask")
    assert (view.status, len(STARTS)) == ("open", 1)
    doubt = await only(world.d)
    assert doubt.kind == "in_doubt"
    await world.d.answer(doubt, Happened("paid") if answer == "happened" else NotHappened(), by="ann")
    await world.d.settle()
    assert (await world.ended(thread)).result == [True, False, "paid" if answer == "happened" else "paid later"]
    assert len(set(STARTS)) == 1, "one key for every start"


@pytest.mark.parametrize("how", HOW)
async def test_fail_records_that_nobody_knows(world: World, how: str) -> None:
    _, view = await in_doubt(world, how, "fail")
    assert view.result == [False, True, "InDoubt"]
    assert len(STARTS) == 1


async def test_retry_starts_again_under_the_same_key_unasked(world: World) -> None:
    _, view = await in_doubt(world, "death", "retry")
    assert view.result == [True, False, "paid later"]
    assert len(STARTS) == 2
    assert len(set(STARTS)) == 1


@pytest.mark.parametrize("answer", ["happened", "not happened", "unknown", "raises"])
@pytest.mark.parametrize("is_async", [True, False])
async def test_verify_looks_and_only_what_it_cannot_tell_is_asked(world: World, answer: str, is_async: bool) -> None:
    def look(key: str) -> Any:
        assert key == STARTS[0]
        if answer == "raises":
            raise ConnectionError("the bank is away")
        return {"happened": Happened("paid"), "not happened": NotHappened(), "unknown": Unknown()}[answer]

    async def look_async(key: str) -> Any:
        return look(key)

    thread, view = await in_doubt(world, "death", look_async if is_async else look)
    if answer in ("unknown", "raises"):
        await world.d.answer(await only(world.d), Happened("paid"), by="ann")
        await world.d.settle()
        view = await world.ended(thread)
    assert view.result == [True, False, "paid later" if answer == "not happened" else "paid"]


async def test_every_try_is_recorded_and_all_share_one_key(world: World) -> None:
    keys: list[str] = []

    async def flaky() -> str:
        keys.append(current_call().key)
        if len(keys) < 3:
            raise ValueError(f"try {len(keys)}")
        return "ok"

    async def agent(thread: Thread[Any]) -> Any:
        return (await (await thread.next_step(script(Look()))).run(tool(flaky, reads=True, retry=2))).value

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert (await world.ended(thread)).result == "ok"
    assert len(set(keys)) == 1
    assert [event.data["error"]["message"] for event in await world.events(thread, "tried")] == ["try 1", "try 2"]


def test_a_retry_of_what_may_not_run_twice_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="only what may run twice is retried; add reads=True"):
        tool(print, retry=1)


# ---- stopping --------------------------------------------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize("verb", ["pause", "cancel"])
@pytest.mark.parametrize("work", ["model", "sync model", "read", "sync read"])
async def test_stopping_reaches_a_model_call_or_a_read_within_a_second(world: World, verb: str, work: str) -> None:
    begun, free = threading.Event(), threading.Event()
    ended: list[str] = []

    async def hangs(*_: Any) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cut")

    def blocks(*_: Any) -> Any:
        begun.set()
        free.wait(20)

    slow = blocks if work.startswith("sync") else hangs

    async def agent(thread: Thread[Any]) -> None:
        if "model" in work and not free.is_set():
            await thread.next_step(slow)
        step = await thread.next_step(script(Look()))
        await step.run(tool(slow, reads=True, name="slow"))

    d = await world.deploy(agent)
    thread = await d.start("agent")
    wake = asyncio.ensure_future(d.app.run_one(thread))
    await asyncio.to_thread(begun.wait, 10)
    await getattr(d, verb)(thread)
    await asyncio.wait_for(wake, 1.0)
    assert ended == ([] if work.startswith("sync") else ["cut"])
    assert (await d.show(thread)).status == ("paused" if verb == "pause" else "cancelled")
    assert await world.events(thread, "model_failed", "failed", "outcome") == []
    free.set()


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_a_tool_with_effects_is_never_cut_but_sees_that_it_should_stop(world: World, verb: str) -> None:
    begun, ran = asyncio.Event(), []

    async def pay() -> str:
        begun.set()
        async with asyncio.timeout(5):
            while not current_call().stop_requested:
                await asyncio.sleep(0.001)
        ran.append("paid")
        return "receipt"

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Look()))
        receipt = (await step.run(pay)).value
        await step.run(ran.append, "after")
        return receipt

    d = await world.deploy(agent)
    thread = await d.start("agent")
    wake = asyncio.ensure_future(d.app.run_one(thread))
    await begun.wait()
    await getattr(d, verb)(thread)
    await settled(wake)
    assert ran == ["paid"]
    assert [event.data["value"] for event in await world.events(thread, "outcome")] == ["receipt"]
    if verb == "pause":
        await d.resume(thread)
    await d.settle()
    assert ran == (["paid", "after"] if verb == "pause" else ["paid"])


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_pause_and_cancel_between_selection_and_start_start_nothing(world: World, verb: str) -> None:
    model, ran = script(Look(), Done()), []

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(model)
            if step.name == "done":
                return "end"
            if not asked:
                asked.append(1)
                await getattr(d, verb)(thread.id)
            await step.run(ran.append, "effect")

    asked: list[int] = []
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert ran == []
    if verb == "pause":
        await d.resume(thread)
        await d.settle()
        await world.ended(thread)
        assert (ran, model.calls) == (["effect"], 2), "the selection is kept: the model was paid"
    else:
        await world.ended(thread, "cancelled")


async def test_after_cancel_a_call_in_doubt_asks_nobody(world: World) -> None:
    await in_doubt(world, "death", "ask")
    (thread,) = await world.d.threads()
    await world.d.cancel(thread.id)
    await world.d.settle()
    assert await world.d.interrupts() == []
    assert (await world.d.interrupts(status=None))[0].status == "withdrawn"
