"""What a reading of the core found: named steps under a summary, calls that were let go, own writes that are read back, forks with children."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from worlds import Deploy, Done, Look, Note, World, on_draft, once, only, script

import ownloop
from ownloop import InDoubt, NotHappened, Thread, tool
from ownloop.clock import from_micros
from ownloop.errors import StoreError
from ownloop.events import Event
from ownloop.history import Counters, History
from ownloop.tools import annotate


async def summarize(steps: Any) -> str:
    return "so far, so good"


# ---- named steps under a summary -------------------------------------------------------------------------------------------------


def gated(gates: list[Any], lines: Any, keep_last: int = 0) -> Any:
    """Asks softly at a named gate, and goes on whatever it says."""

    async def agent(thread: Thread[Any]) -> str:
        decision = await thread.step("gate").request_approval(by="ann")
        gates.append(None if decision is None else decision.kind)
        while True:
            await thread.compact(summarize, keep_last=keep_last)
            step = await thread.next_step(lines)
            match step.intent:
                case Look():
                    await step.run(lambda: 1)
                case Note(text=text):
                    await step.wait_for(text)
                case Done():
                    return "end"

    return agent


async def test_a_decision_on_a_request_that_a_summary_kept_is_read(world: World) -> None:
    gates: list[Any] = []
    d = await world.deploy(gated(gates, script(Look(), Note(text="a"), Note(text="b"), Done())))
    thread = await d.start("agent")
    await d.settle()
    await d.emit("a", 1)  # the summary of the first step, with the gate still open
    await d.settle()
    assert await world.events(thread, "compacted")
    await d.approve(await only(d, kind="approval"), by="ann")
    await d.settle()
    assert gates[-1] == "approved"
    await d.emit("b", 2)
    await d.settle()
    await world.ended(thread)
    assert gates[-1] == "approved"


async def test_a_decision_after_the_stretch_that_a_summary_covers_is_read(world: World) -> None:
    gates: list[Any] = []
    d = await world.deploy(gated(gates, script(Look(), Note(text="a"), Look(), Look(), Note(text="b"), Done()), keep_last=2))
    thread = await d.start("agent")
    await d.settle()
    await d.approve(await only(d, kind="approval"), by="ann")
    await d.settle()
    await d.emit("a", 1)
    await d.settle()
    [summary] = await world.events(thread, "compacted")
    request, decision = (event.seq for event in await world.events(thread, "request", "decision") if event.step_id and "@" in event.step_id)
    assert request < summary.data["upto"] < decision
    await d.emit("b", 2)
    await d.settle()
    await world.ended(thread)
    assert gates[-1] == "approved"


async def test_a_request_that_a_turns_end_withdrew_is_asked_anew_under_a_summary(world: World) -> None:
    async def agent(thread: Thread[Any]) -> str:
        await thread.compact(summarize, keep_last=0)
        await thread.step("gate").request_approval(by="ann")
        while (step := await thread.next_step(lines)).name != "done":
            await step.run(lambda: 1)
        return "end"

    lines = script(*[Look(), Done()] * 3)
    d = await world.deploy(agent)
    thread = await d.start("agent")
    for turn in (1, 2, 3):
        await d.settle()
        await world.ended(thread)
        assert len(await world.events(thread, "request")) == turn
        await d.send(thread, "again")
    assert len(await world.events(thread, "compacted")) == 2


async def test_a_second_summary_may_cover_the_end_of_a_wait_that_the_first_one_did_not(world: World) -> None:
    async def agent(thread: Thread[Any]) -> str:
        if thread.turn == 1 and thread.count(Note) < 2:
            await thread.step("prefetch").request_approval(by="ann")
        while True:
            await thread.compact(summarize, keep_last=2)
            step = await thread.next_step(lines)
            match step.intent:
                case Look():
                    await step.run(lambda: 1)
                case Note(text=text):
                    await step.wait_for(text)
                case Done():
                    return "end"

    lines = script(Look(), Note(text="a"), Look(), Look(), Note(text="b"), Look(), Look(), Look(), Done())
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.approve(await only(d, kind="approval"), by="ann")
    await d.settle()
    await d.emit("a", 1)
    await d.settle()
    assert len(await world.events(thread, "compacted")) == 1
    await d.emit("b", 2)
    await d.settle()
    await world.ended(thread)
    assert len(await world.events(thread, "compacted")) > 1


async def test_an_edited_call_that_was_rejected_stays_rejected_under_a_summary(world: World) -> None:
    kinds: list[Any] = []

    async def agent(thread: Thread[Any]) -> str:
        decision = await thread.step("gate", Deploy(tag="v1")).request_approval(quorum=2)
        kinds.append(None if decision is None else decision.kind)
        while True:
            await thread.compact(summarize, keep_last=0)
            step = await thread.next_step(lines)
            match step.intent:
                case Look():
                    await step.run(lambda: 1)
                case Note(text=text):
                    await step.wait_for(text)
                case Done():
                    return "end"

    lines = script(Note(text="a"), Look(), Note(text="b"), Done())
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.edit(await only(d, kind="approval"), {"tag": "v2"}, by="ann")
    await d.settle()
    await d.reject(await only(d, kind="approval"), by="bob")
    await d.settle()
    assert kinds[-1] == "rejected"
    await d.emit("a", 1)
    await d.settle()
    assert await world.events(thread, "compacted")
    await d.emit("b", 2)
    await d.settle()
    await world.ended(thread)
    assert kinds[-1] == "rejected"


async def test_a_request_of_an_earlier_turn_looks_closed_under_two_summaries(world: World) -> None:
    async def agent(thread: Thread[Any]) -> str:
        gate = thread.step("gate", Deploy(tag=f"v{thread.turn}"))
        if await gate.request_approval():
            await gate.run(lambda: 1)
        while True:
            await thread.compact(summarize, keep_last=0)
            step = await thread.next_step(lines)
            match step.intent:
                case Look():
                    await step.run(lambda: 1)
                case Note(text=text):
                    await step.wait_for(text)
                case Done():
                    return "end"

    lines = script(Look(), Done(), Look(), Note(text="a"), Look(), Note(text="b"), Done())
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.ended(thread)
    await d.send(thread, "again")
    await d.settle()
    await d.emit("a", 1)
    await d.settle()
    assert len(await world.events(thread, "compacted")) >= 2
    await d.approve(await only(d, kind="approval"), by="ann")
    await d.settle()
    await d.emit("b", 2)
    await d.settle()
    await world.ended(thread)


async def test_an_answer_of_a_later_turn_is_not_hidden_by_the_question_of_an_earlier_one(world: World) -> None:
    answers: list[Any] = []

    async def agent(thread: Thread[Any]) -> str:
        answers.append(await thread.step("gate").request_answer("go?"))
        while True:
            await thread.compact(summarize, keep_last=1)
            step = await thread.next_step(lines)
            match step.intent:
                case Look():
                    await step.run(lambda: 1)
                case Note(text=text):
                    await step.wait_for(text)
                case Done():
                    return "end"

    lines = script(Look(), Done(), Look(), Note(text="a"), Note(text="b"), Done())
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.send(thread, "again")
    await d.settle()
    await d.answer(await only(d, kind="question"), "yes", by="ann")
    await d.settle()
    for name in ("a", "b"):
        await d.emit(name, 1)
        await d.settle()
        assert answers[-1] == "yes"
    await world.ended(thread)
    summaries = await world.events(thread, "compacted")
    asked = [event.seq for event in await world.events(thread, "request") if event.data["kind"] == "question"]
    assert any(asked[0] <= one.data["upto"] < asked[1] for one in summaries)


async def test_a_step_that_is_recalled_twice_in_a_wake_is_taken_in_once() -> None:
    """With `interject` a handler, and what it names, is entered again in the same wake."""
    at, step = from_micros(0), "stp_0000000000000@gate"
    request = Event(2, "request", at, step, "approval:x", None, {"kind": "approval"})
    decision = Event(6, "decision", at, step, "approval:x", "ann", {"request": 2, "kind": "approved"})
    summary = Event(8, "compacted", at, None, None, None, {"upto": 4, "kept": [], "counters": Counters().to_json()})
    history = History("thr_0000000000000", [Event(1, "input", at), decision, Event(7, "message", at, data={"text": "x"}), summary])
    for _ in range(2):
        history.recall([Event(3, "started", at, step, "run:look"), request])
        assert history.requests[2].closing == decision
        assert len(history.steps[step].ops["run:look"].started) == 1


# ---- notes ---------------------------------------------------------------------------------------------------------------------------


async def test_branches_side_by_side_write_a_note_of_one_name_once(world: World) -> None:
    async def branch(step: Any) -> None:
        await thread_of[0].append("batch", step.name)
        await step.run(lambda: 1)

    async def agent(thread: Thread[Any]) -> str:
        thread_of[:] = [thread]
        await thread.each(script([Note(text="x"), Look(), Deploy(tag="v1")]), branch)
        return "end"

    thread_of: list[Thread[Any]] = []
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await world.ended(thread)
    assert [event.data["data"] for event in await world.events(thread, "appended")] == ["note"]


# ---- own writes that are read back before their writer hears of them -----------------------------------------------------------------


async def test_what_this_wake_wrote_counts_once_although_a_branch_beside_has_read_it_first(world: World) -> None:
    threads: list[Thread[Any]] = []

    async def paid() -> str:
        await asyncio.sleep(0.01)
        annotate(usage={"input_tokens": 10})
        return "paid"

    async def branch(step: Any) -> None:
        await (step.ask("go?") if step.name == "note" else step.run(tool(paid, reads=True)))

    async def agent(thread: Thread[Any]) -> str:
        threads.append(thread)
        await thread.each(script([Note(text="x"), Look()], Done()), branch)
        return "end"

    async def slow(*_: Any) -> None:
        await asyncio.sleep(0.05)  # the commit is over, and others have heard of it

    world.after["fact"] = slow
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert threads[0].usage.input_tokens == 10
    assert [event.seq for event in threads[0].events] == [event.seq for event in await world.events(thread)]


# ---- calls ---------------------------------------------------------------------------------------------------------------------------


async def test_a_call_that_ends_after_all_in_the_wake_that_asks_about_it_wakes_the_thread(world: World) -> None:
    """Its outcome withdraws the question: nobody else is going to wake who waits for the answer."""
    go_on, asked, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def pay() -> str:
        await go_on.wait()
        return "receipt"

    async def watch() -> None:
        await asked.wait()
        go_on.set()
        await ended.wait()

    async def branch(step: Any) -> Any:
        return (await step.run(tool(pay, timeout="20ms") if step.name == "deploy" else tool(watch, reads=True))).value

    async def agent(thread: Thread[Any]) -> Any:
        return await thread.each(script([Deploy(tag="v1"), Look()]), branch)

    world.after["begin"] = on_draft("request", lambda *_: asked.set())
    world.after["fact"] = lambda _thread, _epoch, draft, **_more: ended.set() if draft.kind == "outcome" else None
    d = await world.deploy(agent)
    thread = await d.start("agent")
    async with asyncio.timeout(5):
        await d.settle()
    assert (await world.ended(thread)).result == ["receipt", None]


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_a_call_is_not_tried_again_once_the_thread_was_stopped(world: World, verb: str) -> None:
    calls: list[str] = []

    async def flaky() -> str:
        calls.append("call")
        if len(calls) == 1:
            await getattr(d, verb)(thread)
            raise ConnectionError("no route")
        return "done"

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Deploy(tag="v1")))
        return (await step.run(tool(flaky, in_doubt="retry", retry=3))).value

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert calls == ["call"]
    if verb == "pause":
        await d.resume(thread)
        await d.settle()
        assert (await world.ended(thread)).result == "done"
        assert calls == ["call", "call"]


async def test_a_branch_whose_answer_came_before_it_had_parked_is_entered_again_at_once(world: World) -> None:
    entered: list[str] = []
    go_on = asyncio.Event()

    async def work() -> str:
        async with asyncio.timeout(5):
            await go_on.wait()
        return "worked"

    async def branch(step: Any) -> str:
        entered.append(step.name)
        if step.name == "look":
            return (await step.run(tool(work, reads=True))).value
        answer = await step.ask("go?")
        go_on.set()
        return str(answer)

    async def agent(thread: Thread[Any]) -> Any:
        return await thread.each(script([Note(text="x"), Look()]), branch)

    async def answer(*_: Any) -> None:
        await d.answer(await only(d), "yes", by="ann")
        await asyncio.sleep(0.02)  # the answer is heard before the branch hears that its question is on disk

    world.after["begin"] = on_draft("request", answer)
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert (await world.ended(thread)).result == ["yes", "worked"]
    assert entered == ["note", "look", "note"]


@pytest.mark.parametrize("way", ["raised", "wrapped", "in a group"])
async def test_a_store_that_fails_for_a_moment_fails_no_thread_whatever_the_handler_makes_of_it(world: World, way: str) -> None:
    async def agent(thread: Thread[Any]) -> str:
        try:
            if way == "in a group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(thread.append("note", 1))
            else:
                await thread.append("note", 1)
        except StoreError as error:
            if way == "wrapped":
                raise RuntimeError("no note today") from error
            raise
        return "end"

    def away(*_: Any) -> None:
        raise StoreError("the store is away")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    world.before["begin"] = once(away)
    await d.settle()
    assert (await d.show(thread)).status == "open"
    await d.advance("31s")
    assert (await world.ended(thread)).result == "end"


# ---- beside the wake -----------------------------------------------------------------------------------------------------------------


async def test_what_a_person_edits_is_what_runs_also_where_something_is_redacted(world: World) -> None:
    ran: list[str] = []

    def hide(value: Any) -> Any:
        return {name: hide(one) for name, one in value.items()} if isinstance(value, dict) else "***" if value == "4111 1111" else value

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Note(text="4111 1111")))
        if await step.approved():
            await step.run(lambda text: ran.append(text), step.intent.text)
        return "end"

    d = await world.deploy(agent, redact=hide)
    thread = await d.start("agent")
    await d.settle()
    await d.edit(await only(d), {"text": "4111 1111"}, by="ann", note="4111 1111")
    await d.settle()
    await world.ended(thread)
    assert ran == ["4111 1111"]
    assert [event.data["note"] for event in await world.events(thread, "decision")] == ["***"]


async def test_a_fork_holds_the_end_of_a_child_and_cannot_cancel_it(world: World) -> None:
    async def child(thread: Thread[Any]) -> str:
        return "born"

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(script(Look(), Done(), Done()))
            if step.name == "done":
                return "end"
            await step.join(await step.spawn(child))

    d = await world.deploy(agent, child)
    thread = await d.start("agent")
    await d.settle()
    await world.ended(thread)
    [request] = [event for event in await world.events(thread, "request") if event.data["kind"] == "child"]
    fork = await d.fork(thread)
    await d.settle()
    await world.ended(fork)
    assert await d.interrupts(thread=fork) == []
    assert [event.data["value"] for event in await world.events(fork, "outcome")] == ["born"]
    await d.cancel(fork)
    assert (await d.show(request.data["child"])).status == "done"


@pytest.mark.parametrize("what", ["vote", "expiry"])
async def test_a_fork_asks_anew_at_a_named_gate_and_copies_no_answer_without_its_question(world: World, what: str) -> None:
    async def agent(thread: Thread[Any]) -> str:
        await thread.step("gate").approved(quorum=2, expires="1h", on_expiry="ask_again")
        return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    if what == "vote":
        await d.approve(await only(d), by="ann")
    else:
        await d.advance("61m")
        assert len(await world.events(thread, "request")) == 2
    fork = await d.fork(thread)
    assert [event.kind for event in await world.events(fork)] == ["input"]
    await d.settle()
    for name in ("bob", "eve"):
        await d.approve(await only(d, thread=fork), by=name)
    await d.settle()
    await world.ended(fork)


async def test_a_fork_takes_no_answer_about_a_call_that_it_does_not_copy(world: World) -> None:
    """The question names the position of the start, and another start may stand there in the fork."""

    async def pay() -> None:
        raise InDoubt("the reply was lost")

    async def agent(thread: Thread[Any]) -> None:
        await thread.step("payday").run(pay)

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    await d.answer(await only(d), NotHappened(), by="ann")
    await d.settle()
    assert (await only(d)).kind == "in_doubt", "the second call is in doubt, too"
    fork = await d.fork(thread)
    assert [event.kind for event in await world.events(fork)] == ["input"]


async def test_a_block_whose_release_failed_keeps_no_lease(world: World) -> None:
    def away(*_: Any) -> None:
        raise StoreError("the store is away")

    d = await world.deploy(child_of_nobody)
    world.before["release"] = once(away)
    with pytest.raises(StoreError, match="is away"):
        async with d.open("desk") as thread:
            pass
    assert not d.app._runner.wakes
    assert not d.app._keeper._held
    world.clock.advance("31s")
    async with d.open("desk") as again:
        assert again.id == thread.id


async def child_of_nobody(thread: Thread[Any]) -> None:
    return None


async def test_a_listener_that_is_registered_late_hears_what_happens_from_then_on(world: World) -> None:
    heard: list[str] = []
    d = await world.deploy(child_of_nobody)
    await d.start("agent")
    await d.settle()

    @d.app.on("thread.done")
    async def listen(notice: Any) -> None:
        heard.append(notice.thread_id)

    thread = await d.start("agent")
    await d.settle()
    assert heard == [thread]


async def test_a_program_in_a_package_whose_name_begins_like_ours_is_the_users_own(world: World) -> None:
    source = """
async def agent(thread):
    await (await thread.next_step(lines)).run(fails)
    await thread.next_step(lines)

async def fails():
    raise ValueError("no")
"""
    names: dict[str, Any] = {"lines": script(Look(), Look())}
    exec(compile(source, f"{Path(ownloop.__file__).parent}_bots/bot.py", "exec"), names)
    d = await world.deploy(names["agent"])
    thread = await d.start("agent")
    await d.settle()
    await world.failure(thread, "TwoLoops", "_bots/bot.py:3 and at", "_bots/bot.py:4")
    [outcome] = await world.events(thread, "outcome")
    assert outcome.data["error"]["where"] == "bot.py:7 in fails"
