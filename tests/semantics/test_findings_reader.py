"""What a reader of the whole tree found: calls that were lost or repeated where siblings, summaries, odd names and odd values meet."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, computed_field
from worlds import INTENTS, Deploy, Done, Look, World, once, only, script

from ownloop import Intent, Thread, deciding, ids, tool
from ownloop.doctor import illegal
from ownloop.errors import StoreError
from ownloop.events import Event
from ownloop.history import History
from ownloop.tools import annotate


class Booking(BaseModel):
    """Strict: a text is no date."""

    model_config = ConfigDict(strict=True)
    day: date


class Book(Intent):
    """Book a day."""

    model_config = ConfigDict(strict=True)
    day: date


class Pick(Intent):
    """Pick some numbers."""

    numbers: set[int]


class Order(Intent):
    """Pay for these lines."""

    lines: list[Any]


class Score(Intent):
    """Say how good it is."""

    x: float
    more: Any = None


async def summarize(steps: Any) -> str:
    return "so far, so good"


def looks(thread: Thread[Any]) -> Any:
    return thread.next_step(script(Look(), Look(), Look(), Deploy(tag="v1"), Done()))


# ---- what a summary covers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["side by side", "cut by a timeout"])
async def test_nothing_of_a_step_starts_before_what_a_summary_covers_of_it_was_read(world: World, how: str) -> None:
    ran: list[str] = []

    def pay() -> None:
        ran.append("pay")

    def mail() -> None:
        ran.append("mail")

    async def agent(thread: Thread[Any]) -> str:
        setup = thread.step("setup")
        if how == "side by side":
            await asyncio.gather(setup.run(pay), setup.run(mail))
        else:
            try:
                async with asyncio.timeout(0.01 if any(event.kind == "compacted" for event in thread.events) else None):
                    await setup.run(pay)
            except TimeoutError:
                await setup.run(pay)
        while True:
            await thread.compact(summarize, keep_last=0)
            step = await looks(thread)
            match step.intent:
                case Look():
                    await step.run(tool(lambda: 1, name="look"))
                case Deploy():
                    await step.approved()
                case Done():
                    return "end"

    d = await world.deploy(agent, intents=INTENTS)
    store: Any = d.app.store
    recall = store.recall

    async def slow(*args: Any) -> Any:
        await asyncio.sleep(0.1)
        return await recall(*args)

    store.recall = slow
    thread = await d.start("agent")
    await d.settle()
    await d.approve(await only(d), by="ann")
    await d.settle()
    await world.ended(thread)
    assert ran == (["pay", "mail"] if how == "side by side" else ["pay"])


async def test_a_child_that_ended_before_a_summary_has_ended_after_it(world: World) -> None:
    async def kid(thread: Thread[Any]) -> int:
        return 7

    async def agent(thread: Thread[Any]) -> int:
        kids = thread.step("kids")
        child = await kids.spawn("kid")
        while True:
            await thread.compact(summarize, keep_last=0)
            step = await looks(thread)
            match step.intent:
                case Look():
                    await step.ask(f"look {thread.count(Look)}?")
                case _:
                    step.close()
                    return (await kids.join(child))[0].value

    d = await world.deploy(agent, kid, intents=INTENTS)
    thread = await d.start("agent")
    for _ in range(3):
        await d.settle()
        await d.answer(await only(d, kind="question"), "yes", by="ann")
    await d.settle()
    assert (await world.ended(thread)).result == 7


async def test_a_message_that_came_while_the_model_was_asked_is_not_covered_before_it_was_read(world: World) -> None:
    unread: list[list[str]] = []

    async def decide(thread: Thread[Any]) -> Look | Done:
        unread.append([message.data["text"] for message in thread.unread])
        if len(unread) == 2:
            await d.send(thread.id, "stop")
        return Look() if len(unread) < 3 else Done()

    async def agent(thread: Thread[Any]) -> str:
        while True:
            await thread.compact(summarize, keep_last=0)
            step = await thread.next_step(decide)
            match step.intent:
                case Look():
                    await step.request_answer(f"look {thread.count(Look)}?")
                case _:
                    return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    for _ in range(2):
        await d.settle()
        await d.answer(await only(d), "yes", by="ann")
    await d.settle()
    await world.ended(thread)
    assert unread == [[], [], ["stop"]]


async def test_what_a_summary_cost_counts_once_however_many_follow(world: World) -> None:
    seen: list[int] = []

    async def paid(steps: Any) -> str:
        annotate(usage={"input_tokens": 1000})
        return "so far, so good"

    async def agent(thread: Thread[Any]) -> str:
        while True:
            await thread.compact(paid, keep_last=1)
            step = await thread.next_step(script(*[Look() for _ in range(6)], Done()))
            seen.append(thread.usage.input_tokens)
            match step.intent:
                case Look():
                    await step.ask(f"look {thread.count(Look)}?")
                case Done():
                    return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    for _ in range(6):
        await d.settle()
        await d.answer(await only(d), "yes", by="ann")
    await d.settle()
    await world.ended(thread)
    summaries = len(await world.events(thread, "compacted"))
    assert summaries >= 4
    assert seen[-1] == 1000 * summaries


def test_a_summary_never_reaches_less_far_than_the_one_before() -> None:
    id = "thr_0000000000000"

    def event(seq: int, kind: Any, step: int | None = None, **data: Any) -> Event:
        return Event(seq, kind, datetime(2026, 1, 1, tzinfo=UTC), None if step is None else ids.step_id(id, step), None, None, data)

    def selected(seq: int, number: int) -> Event:
        return event(seq, "selected", number, intent="look", arguments={}, read=seq - 1)

    log = [event(1, "input", input=None), selected(2, 1), selected(3, 2), event(4, "ended", 2), selected(5, 3), event(6, "ended", 3)]
    history = History(id, [*log, event(7, "ended", 1), selected(8, 4), event(9, "ended", 4)])  # step 1 was set aside, and ended last
    covered = history.coverable(3)
    assert [step.number for step in covered] == [1]
    upto, kept, counters = history.compaction(covered)
    history.cover(event(10, "compacted", summary="…", upto=upto, kept=kept, counters=counters.to_json()), covered)
    assert history.compaction(history.coverable(2))[0] >= upto


# ---- names -----------------------------------------------------------------------------------------------------------------------


async def test_a_named_step_used_side_by_side_with_other_arguments_is_refused_and_not_answered_with_the_others_result(world: World) -> None:
    ran: list[str] = []

    async def fetch(x: str) -> str:
        ran.append(x)
        await asyncio.sleep(0)
        return x

    async def agent(thread: Thread[Any]) -> list[str]:
        async def one(x: str) -> str:
            return (await thread.step("prefetch").run(fetch, x)).value

        return await asyncio.gather(one("a"), one("b"))

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.failure(thread, "ProgramChanged", "run:fetch", "other arguments", "step.named(name)")
    assert ran == ["a"]


async def test_a_label_or_a_key_that_looks_like_a_count_is_none(world: World) -> None:
    ran: list[int] = []

    async def agent(thread: Thread[Any]) -> Any:
        step = thread.step("all")
        for number, label in enumerate(("web", "web", "web#2")):
            await step.named(label).run(tool(ran.append, name="restart"), number)
        return [await step.wait_for("paid", key=key) for key in ("a", "a", "a#2")]

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    for key, payload in (("a", 1), ("a", 2), ("a#2", 3)):
        await d.emit("paid", payload, key=key)
        await d.settle()
    assert ran == [0, 1, 2]
    assert (await world.ended(thread)).result == [1, 2, 3]


@pytest.mark.parametrize("label", ["\ud83d", "a\0b"])
async def test_a_label_that_no_store_can_hold_is_spelled(world: World, label: str) -> None:
    async def agent(thread: Thread[Any]) -> int:
        return (await thread.step("x").named(label).run(tool(lambda: 1, name="look", reads=True))).value

    d = await world.deploy(agent)
    thread = await d.start("agent")
    wake = asyncio.ensure_future(d.settle())
    done, _ = await asyncio.wait({wake}, timeout=10)  # before, the outcome was tried again for ever
    assert done
    assert (await world.ended(thread)).result == 1


async def test_a_fork_knows_a_call_that_was_made_again_after_an_edit(world: World) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        gate = thread.step("gate", Deploy(tag="v1"))
        await gate.run(tool(ran.append, name="build"), gate.intent.tag)
        await gate.request_approval()
        while True:
            step = await looks(thread)
            match step.intent:
                case Look():
                    await step.ask(f"look {thread.count(Look)}?")
                case _:
                    return "end"

    d = await world.deploy(agent, intents=INTENTS)
    thread = await d.start("agent")
    await d.pause(thread)
    await d.resume(thread)  # what a fork leaves out moves all positions after it
    await d.settle()
    await d.edit(await only(d, kind="approval"), {"tag": "v2"}, by="ann")
    await d.settle()
    await d.answer(await only(d, kind="question"), "yes", by="ann")
    await d.settle()
    forked = await d.fork(thread)
    await d.settle()
    assert ran == ["v1", "v2"]
    assert (await world.ended(forked, "open")).error is None


# ---- approvals ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", [("v2", "v3"), ("v2", "v1"), ("v2", "v1", "v2")], ids=" ".join)
async def test_a_call_that_people_edit_one_after_the_other_runs_once_a_second_one_agrees(world: World, tags: tuple[str, ...]) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(script(Deploy(tag="v1"), Done()))
            match step.intent:
                case Deploy():
                    if await step.approved(quorum=2):
                        await step.run(tool(ran.append, name="deploy"), step.intent.tag)
                case _:
                    return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    for place, tag in enumerate(tags):
        await d.settle()
        await d.edit(await only(d), {"tag": tag}, by=("ann", "bob")[place % 2])
    await d.settle()
    assert not ran
    await d.approve(await only(d), by="cleo")
    await d.settle()
    await world.ended(thread)
    assert ran == [tags[-1]]


async def test_what_was_approved_runs_whatever_the_program_does_to_its_intent(world: World) -> None:
    paid: list[Any] = []

    async def decide(thread: Thread[Any]) -> Order:
        return Order(lines=[{"amount": 1}])

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(decide)
        if await step.approved():
            step.intent.lines[0]["amount"] = 1000
            await step.run(tool(lambda lines: paid.append(lines[0]["amount"]), name="pay"))
        return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.approve(await only(d), by="ann")
    await d.settle()
    await world.ended(thread)
    assert paid == [1]


async def test_an_edit_of_a_named_step_that_its_class_refuses_says_so_and_can_be_retried(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def agent(thread: Thread[Any]) -> Any:
        step = thread.step("gate", Pick(numbers={1}))
        return await step.approved() and (await step.run(tool(lambda numbers: len(numbers), name="count"))).value

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    monkeypatch.setattr(deciding, "_by_schema", lambda interrupt, value: False)  # as where jsonschema is not installed
    await d.edit(await only(d), {"numbers": "none"}, by="ann")
    await d.settle()
    await world.failure(thread, "CallNoLongerValid", "numbers")


def test_a_message_that_supersedes_a_step_while_its_turn_ends_is_nothing_illegal() -> None:
    id = "thr_0000000000000"
    at, step = datetime(2026, 1, 1, tzinfo=UTC), ids.step_id(id, 1)
    log = [
        Event(1, "input", at, data={"input": None}),
        Event(2, "selected", at, step, data={"intent": "done", "arguments": {}, "read": 1}),
        Event(3, "message", at, data={"text": "stop"}),
        Event(4, "ended", at, step, data={"status": "superseded", "reason": "stop"}),
        Event(5, "ended", at, step),
        Event(6, "turn_ended", at, data={"value": None, "read": 1}),
    ]
    history = History(id, [])
    assert list(illegal(id, log, history)) == []
    assert history.steps[step].status == "superseded"


# ---- values ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notes", [{"request": 3}, {"error": "late"}, {"x": object()}], ids=["request", "error", "no JSON"])
async def test_a_note_of_a_call_changes_nothing_but_the_notes(world: World, notes: dict[str, Any]) -> None:
    async def agent(thread: Thread[Any]) -> Any:
        step = await thread.next_step(script(Deploy(tag="v1")))
        decision = await step.request_approval()
        outcome = await thread.step("note").run(tool(lambda: annotate(**notes), name="note"))
        return None if decision is None else outcome.error.message if outcome.error else "no error"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.approve(await only(d, kind="approval"), by="ann")  # a note named `request` had closed it
    await d.settle()
    said = str((await world.ended(thread)).result)
    assert "choose another one" in said or "Unable to serialize" in said


async def test_a_function_that_yields_is_refused_before_it_starts(world: World) -> None:
    ran: list[int] = []

    async def later() -> Any:
        ran.append(1)
        yield 1

    def now() -> Any:
        ran.append(1)
        yield 1

    for function in (later, now):
        d = await world.deploy(_running(function))
        thread = await d.start("agent")
        await d.settle()
        await world.failure(thread, "TypeError", "yields", "return a list", "nothing was started")
        assert not await world.events(thread, "started")
    assert not ran


def _running(function: Any, *args: Any) -> Any:
    async def agent(thread: Thread[Any]) -> Any:
        outcome = await thread.step("x").run(function, *args)
        return outcome.value if outcome.ok else outcome.error.message

    return agent


class Odd(BaseModel):
    a: int = 1

    @computed_field  # type: ignore[prop-decorator]  # as pydantic's documentation has it
    @property
    def b(self) -> int:
        raise KeyError("b")


@pytest.mark.parametrize("value", [10**5000, Odd()], ids=["5,000 digits", "a property that fails"])
async def test_a_result_that_no_log_can_hold_is_done_all_the_same(world: World, value: Any) -> None:
    ran: list[int] = []

    async def pay() -> Any:
        ran.append(1)
        return value

    d = await world.deploy(_running(pay))
    thread = await d.start("agent")
    await d.settle()
    assert (await world.ended(thread)).result is None
    outcome = (await world.events(thread, "outcome"))[0]
    assert outcome.data["unwritable"] == type(value).__name__
    assert ran == [1]


async def test_a_set_is_the_same_whatever_order_it_has_in_a_process(world: World) -> None:
    ran: list[int] = []
    wakes: list[int] = []

    async def agent(thread: Thread[Any]) -> bool:
        wakes.append(1)
        numbers = {0, 8} if len(wakes) == 1 else {8, 0}  # one set, two orders
        await thread.step("x").run(tool(lambda some: ran.append(len(some)), name="count"), numbers)
        return await thread.step("gate", Pick(numbers=numbers)).approved()

    assert [*{0, 8}] != [*{8, 0}], "two orders"
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.approve(await only(d), by="ann")
    await d.settle()
    assert (await world.ended(thread)).result is True
    assert ran == [2]


async def test_strict_classes_take_what_they_themselves_wrote(world: World) -> None:
    async def decide(thread: Thread[Any]) -> Book | Done:
        return Done() if thread.steps else Book(day=date(2026, 1, 2))

    async def book(day: date) -> Booking:
        return Booking(day=day)

    async def agent(thread: Thread[Any]) -> str:
        booked = ""
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Book():
                    booked = f"{(await step.run(book)).value.day:%d.%m.}"
                case _:
                    return booked

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert (await world.ended(thread)).result == "02.01."


def test_an_intent_holds_no_number_that_json_does_not_have() -> None:
    with pytest.raises(ValueError, match="finite"):
        Score(x=float("nan"))


async def test_a_number_that_no_log_can_hold_is_refused_before_a_selection_is_recorded(world: World) -> None:
    async def decide(thread: Thread[Any]) -> Score:
        return Score(x=1, more=10**5000)

    async def agent(thread: Thread[Any]) -> None:
        await thread.next_step(decide)

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.failure(thread, "ValueError", "4300 digits")
    assert not await world.events(thread, "selected")


def test_an_id_with_a_number_of_five_thousand_digits_is_no_id() -> None:
    assert ids.interrupt_of("int_0000000000000_" + "9" * 5000) is None


# ---- what goes wrong around a call -------------------------------------------------------------------------------------------------


async def test_a_function_that_exits_fails_and_the_worker_lives_on(world: World) -> None:
    d = await world.deploy(_running(tool(lambda: sys.exit(3), name="command")))
    thread = await d.start("agent")
    await d.settle()
    assert "SystemExit(3)" in str((await world.ended(thread)).result)


@pytest.mark.parametrize("where", ["in the loop", "in a task group"])
async def test_a_store_that_cannot_be_read_for_a_moment_fails_no_thread(world: World, where: str) -> None:
    async def agent(thread: Thread[Any]) -> str:
        if where == "in the loop":
            await thread.next_step(script(Done()))
        else:
            async with asyncio.TaskGroup() as group:
                group.create_task(thread.next_step(script(Done())))
        return "end"

    def away(*_: Any) -> None:
        raise StoreError("away for a moment")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    world.before["events"] = once(away)
    await d.settle()
    assert (await world.view(thread)).status == "open"
    await d.advance("31s")
    assert (await world.ended(thread)).result == "end"
