"""DESIGN 3: waits, children, forks, compaction, listeners, the lease outside a wake, secrets, progress."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from worlds import Deploy, Done, Look, Note, World, approving, make_world, only, script

from ownloop import App, Happened, Thread, current_call, tool
from ownloop.errors import NotFound, ThreadBusy


async def test_each_event_comes_once_oldest_first_to_every_thread_also_early_ones_and_duplicates_never(world: World) -> None:
    async def agent(thread: Thread[Any]) -> Any:
        step = await thread.next_step(script(Look()))
        return [await step.wait_for("paid", key="k", timeout="1h") for _ in range(3)]

    d = await world.deploy(agent)
    await d.emit("paid", "before the start", key="k")
    world.clock.advance("1s")
    threads = [await d.start("agent"), await d.start("agent")]
    assert await d.emit("paid", 1, key="k", id="e1") is True
    assert await d.emit("paid", 1, key="k", id="e1") is False
    await d.emit("paid", "another key", key="other")
    await d.settle()
    await d.emit("paid", 2, key="k")
    await d.settle()
    await d.advance("1h")
    assert [(await world.ended(thread)).result for thread in threads] == [[1, 2, None]] * 2


async def test_a_late_event_wins_over_a_deadline_that_no_wake_has_recorded(world: World) -> None:
    async def agent(thread: Thread[Any]) -> Any:
        step = await thread.next_step(script(Look()))
        return await step.wait_for("paid", timeout="1h")

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    world.clock.advance("2h")
    await d.emit("paid", "late")
    await d.settle()
    assert (await world.ended(thread)).result == "late"


async def test_nothing_may_be_emitted_and_naive_times_are_refused(world: World) -> None:
    async def agent(thread: Thread[Any]) -> None:
        await (await thread.next_step(script(Look()))).sleep(datetime(2030, 1, 1))  # noqa: DTZ001  # what is refused

    d = await world.deploy(agent)
    with pytest.raises(ValueError, match="payload=None: a wait that times out gives None"):
        await d.emit("paid", None)
    thread = await d.start("agent")
    await d.settle()
    await world.failure(thread, "ValueError", "has no time zone")


async def test_a_child_that_fails_is_an_outcome_and_a_cancel_goes_down(world: World) -> None:
    async def fails(thread: Thread[Any]) -> None:
        raise ValueError("no")

    async def waits(thread: Thread[Any]) -> None:
        await thread.step("gate").ask("?")

    async def agent(thread: Thread[Any]) -> Any:
        step = await thread.next_step(script(Look(), Note(text="join")))
        children = [await step.spawn("fails"), await step.spawn("waits")]
        (outcome,) = await step.join(children[0])
        errors.append(outcome.error.type)
        await step.join(children[1])

    errors: list[str] = []
    d = await world.deploy(agent, fails, waits)
    thread = await d.start("agent")
    await d.settle()
    assert errors[-1] == "ValueError"
    await d.cancel(thread)
    (child,) = await d.threads(agent="waits")
    assert child.status == "cancelled"
    assert await d.interrupts() == []


async def test_a_childs_result_that_cannot_be_written_is_joined_as_none_whatever_its_type(world: World) -> None:
    async def odd(thread: Thread[Any]) -> int:
        return object()  # type: ignore[return-value]

    async def agent(thread: Thread[Any]) -> Any:
        step = thread.step("child")
        (outcome,) = await step.join(await step.spawn("odd"))
        return [outcome.ok, outcome.value]

    d = await world.deploy(agent, odd)
    thread = await d.start("agent")
    await d.settle()
    assert (await d.show(thread)).result == [True, None]


async def test_a_fork_goes_on_from_before_a_step_and_repeats_nothing_that_was_named(world: World) -> None:
    ran: list[str] = []

    async def agent(thread: Thread[Any]) -> str:
        await thread.step("prefetch").run(effect, "prefetch")
        while True:
            step = await thread.next_step(script(Look(), Note(text="a"), Done()))
            if step.name == "done":
                return "end"
            await step.run(effect, step.name)

    def effect(name: str) -> None:
        ran.append(name)
        keys.append(current_call().key)

    keys: list[str] = []
    d = await world.deploy(agent)
    thread = await d.start("agent", key="one", context={"tenant": "acme"})
    await d.settle()
    before = (await world.events(thread, "selected"))[1].step_id
    fork = await d.fork(thread, before=before, key="two")
    await d.settle()
    view = await world.ended(fork)
    assert ran == ["prefetch", "look", "note", "note"]
    assert len(set(keys)) == 4
    assert (view.key, view.context) == ("two", {"tenant": "acme"})
    assert {step.id for step in view.steps}.isdisjoint(step.id for step in (await d.show(thread)).steps)


async def test_one_key_is_one_thread_and_lists_filter_and_page(world: World) -> None:
    d = await world.deploy(approving(script(Done()), print))
    first = await d.start("agent", "a", key="k")
    assert await d.start("agent", "b", key="k") == first
    others = [await d.start("agent", context={"n": number % 2}) for number in range(5)]
    assert {one.id for one in await d.threads(context={"n": 1})} == {others[1], others[3]}
    page = await d.threads(limit=4)
    rest = await d.threads(limit=4, after=page[-1].id)
    assert {one.id for one in [*page, *rest]} == {first, *others}
    assert len(page) + len(rest) == 6


def seen(thread: Thread[Any]) -> Any:
    counts = [thread.count(one) for one in (Look, Note, Deploy, Done)]
    return [counts, thread.errors_in_a_row, thread.turn, [message.data["text"] for message in thread.unread], thread.input]


@pytest.mark.parametrize("keep_last", [1, 2, 4])
async def test_a_thread_that_is_compacted_counts_as_one_that_is_not(world: World, keep_last: int) -> None:
    async def summarize(steps: Any) -> str:
        return " ".join(step.name for step in steps)

    async def fails() -> None:
        raise ValueError("no")

    def agent(compacts: bool) -> Any:
        async def handler(thread: Thread[Any]) -> Any:
            for _ in range(30):
                await thread.step("pre").run(ran.append, compacts)
                await thread.append("noted", thread.turn)
                if compacts:
                    await thread.compact(summarize, keep_last=keep_last)
                step = await thread.next_step(lines)
                what[compacts].append(seen(thread))
                match step.intent:
                    case Look():
                        await step.run(tool(fails, reads=True))
                    case Note():
                        await step.wait_for("tick", key=thread.key)
                    case Deploy():
                        await step.ask("go?")
                        await step.run(tool(fails, reads=True))
                    case Done():
                        return thread.turn

        return handler

    lines = script(Look(), Note(text="a"), Look(), Look(), Deploy(tag="x"), Done(), Look(), Note(text="b"), Look(), Done())
    ran: list[bool] = []
    what: dict[bool, list[Any]] = {True: [], False: []}
    for compacts in (False, True):
        d = await world.deploy(agent(compacts))
        key = str(compacts)
        thread = await d.start("agent", "in", key=key)
        for number in (1, 2):
            await d.emit("tick", number, key=key)
            await d.settle()
            for one in await d.interrupts(kind="question"):
                await d.answer(one, "yes", by="ann")
            await d.settle()
            assert (await world.ended(thread)).result == number
            await d.send(thread, "again") if number == 1 else None
    assert what[True] == what[False]
    assert ran == [False, True], "a named step is known under a summary"
    assert len(await world.events(thread, "appended")) == 1
    assert await world.events(thread, "compacted")


async def test_a_listener_that_fails_first_is_told_again(world: World) -> None:
    heard: list[Any] = []
    d = await world.deploy(approving(script(Deploy(tag="v1"), Done()), print))

    @d.app.on("interrupt.opened")
    async def listen(notice: Any) -> None:
        heard.append(notice)
        if len(heard) == 1:
            raise ConnectionError("no network")

    thread = await d.start("agent")
    await d.settle()
    await d.advance("31s")
    await d.advance("10m")
    assert len(heard) == 2
    assert heard[0].id == heard[1].id
    assert (heard[0].thread_id, heard[0].interrupt_id) == (thread, (await only(d)).id)


async def test_a_stream_shows_every_event_once_in_order(world: World) -> None:
    d = await world.deploy(approving(script(Deploy(tag="v1"), Done()), print))
    thread = await d.start("agent")
    shown: list[int] = []

    async def follow() -> None:
        async for item in d.stream(thread):
            shown.append(item.seq)

    following = asyncio.ensure_future(follow())
    for number in range(20):
        await d.send(thread, str(number))
        await asyncio.sleep(0)
    await d.settle()
    await d.close(thread)
    await asyncio.wait_for(following, 10)
    assert shown == list(range(1, len(await world.events(thread)) + 1))


async def test_a_block_holds_the_lease_and_goes_on_where_it_waited(world: World) -> None:
    d = await world.deploy(approving(script(Done()), print))
    answers: list[Any] = []

    async def block() -> None:
        async with d.open("my-key") as thread:
            answers.append(await thread.step("gate").ask("go?"))

    await block()
    assert answers == []
    await d.answer(await only(d), "yes", by="ann")
    await block()
    assert answers == ["yes"]
    async with d.open("my-key") as thread:
        with pytest.raises(ThreadBusy, match="is held by another wake"):
            async with d.open(thread.id):
                pass


async def test_deps_are_entered_once_a_wake_and_never_stored(world: World) -> None:
    entered: list[str] = []

    @asynccontextmanager
    async def deps(thread: Any) -> Any:
        entered.append("in")
        yield {"secret": "swordfish"}
        entered.append("out")

    async def agent(thread: Thread[Any]) -> str:
        assert thread.deps == {"secret": "swordfish"}
        await thread.step("a").sleep("1h")
        return "end"

    d = await world.deploy(agent, deps=deps)
    thread = await d.start("agent")
    await d.settle()
    await d.advance("1h")
    await world.ended(thread)
    assert entered.count("in") == 2
    assert "swordfish" not in repr(await d.show(thread))


SECRET = "sk-swordfish-4711"


def hide(value: Any) -> Any:
    if isinstance(value, dict):
        return {hide(key): hide(one) for key, one in value.items()}
    if isinstance(value, list):
        return [hide(one) for one in value]
    return value.replace(SECRET, "…") if isinstance(value, str) else value


async def test_a_secret_never_reaches_the_bytes_of_the_database(tmp_path: Path) -> None:
    async def leaks() -> str:
        return f"result {SECRET}"

    async def fails() -> None:
        raise ValueError(f"error {SECRET}")

    async def unsure() -> str:
        raise ConnectionError(f"unknown {SECRET}")

    async def reports() -> None:
        current_call().progress(1, 2, f"progress {SECRET}")

    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Note(text="x")))
        await step.run(leaks)
        await step.run(fails)
        await step.run(reports)
        await step.run(tool(unsure, unknown_on=(ConnectionError,)))
        await step.wait_for("paid")
        await step.ask("question?")
        await thread.append("note", f"note {SECRET}")
        if await step.approved():
            step.close(f"closed {SECRET}", f"closed {SECRET}")
        return f"value {SECRET}"

    world = make_world("sqlite", tmp_path)
    d = await world.deploy(agent, redact=hide)
    thread = await d.start("agent", {"key": f"input {SECRET}"})
    await d.send(thread, f"message {SECRET}")
    await d.emit("paid", {"x": f"payload {SECRET}"})
    await d.settle()
    await d.answer(await only(d), Happened(f"answer {SECRET}"), by="ann", note=f"note {SECRET}")
    await d.settle()
    await d.answer(await only(d), f"answer {SECRET}", by="ann")
    await d.settle()
    await d.approve(await only(d), by="ann", note=f"note {SECRET}")
    await d.settle()
    await world.ended(thread)
    await d.pause(await d.start("agent"), reason=f"reason {SECRET}")
    await d.app.aclose()
    found = [path.name for path in tmp_path.iterdir() if SECRET.encode() in path.read_bytes()]
    assert found == [], context(tmp_path)


def context(folder: Path) -> list[bytes]:
    """What stands around the secret."""
    text = b"".join(path.read_bytes() for path in folder.iterdir())
    parts = text.split(SECRET.encode())
    return [part[-60:] for part in parts[:-1]]


async def test_who_follows_a_thread_that_is_not_there_is_told_so_instead_of_waiting_for_ever() -> None:
    app = App("memory://")
    with pytest.raises(NotFound, match="no thread 'thr_0000000000000' here"):
        async for _ in app.stream("thr_0000000000000"):
            raise AssertionError("nothing can come")
