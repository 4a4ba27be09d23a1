"""What a reading found beside the protocol: long logs that are followed, large summaries, one look at all leases."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ownloop import App, Thread
from ownloop.errors import StoreError
from ownloop.events import Draft
from ownloop.stores.base import NewThread, Store
from ownloop.stores.memory import MemoryStore
from ownloop.stores.sqlite import SqliteStore
from ownloop.stores.streams import MANY, Board


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "a.db")
    await made.open()
    yield made
    await made.close()


async def collected(app: App, thread: str, after: int, enough: int = 1 << 62) -> list[int]:
    found: list[int] = []
    async for item in app.stream(thread, after=after):
        found.append(item.seq)  # type: ignore[union-attr]  # nothing streams here
        if len(found) == enough:
            break
    return found


async def test_a_long_log_is_followed_as_fast_as_it_can_be_read(store: Store) -> None:
    app = App(store)
    notes = [Draft("message", {"text": str(number)}) for number in range(2_999)]
    thread, _ = await store.create(NewThread("bot", [Draft("input", {"input": None}), *notes]))
    async with asyncio.timeout(2):  # not a second a page
        assert await collected(app, thread, 0, 3_000) == list(range(1, 3_001))


@pytest.mark.parametrize("after", [0, 2, 3, 99])
async def test_a_stream_of_a_thread_that_has_ended_ends_wherever_it_begins(store: Store, after: int) -> None:
    app = App(store)
    thread, _ = await store.create(NewThread("bot", [Draft("input", {"input": None})]))
    claim = await store.claim(thread, ["bot"], timedelta(seconds=30))
    assert claim is not None
    await app.cancel(thread)
    await store.fact(thread, claim.row.epoch, Draft("outcome", {"value": 1}, f"stp_{thread[4:]}@pay", "run:pay"))
    async with asyncio.timeout(2):
        found = await collected(app, thread, after)
    assert found == {0: [1, 2], 2: [3]}.get(after, [])


async def test_a_summary_that_keeps_very_many_events_is_read_again(store: Store) -> None:
    """What it keeps is listed in it: all children that were ever spawned, for one thing."""
    thread, _ = await store.create(NewThread("bot", [Draft("input", {"input": None}), *[Draft("message", {"text": "x"})] * 20]))
    claim = await store.claim(thread, ["bot"], timedelta(seconds=30))
    assert claim is not None
    kept = [*range(5, 8), *range(100, 20_000)]
    summary = Draft("compacted", {"summary": "…", "upto": 15, "kept": kept, "counters": {}})
    await store.begin(thread, claim.row.epoch, [summary], known=claim.row.head)
    assert [event.seq for event in await store.load(thread, 22)] == [1, 5, 6, 7, *range(16, 23)]


async def test_a_verb_looks_once_at_all_that_runs_here(store: Store) -> None:
    looks: list[int] = []
    go_on = asyncio.Event()
    plain = store.pulse

    async def pulse(ids: Any) -> Any:
        looks.append(len(ids))
        return await plain(ids)

    async def bot(thread: Thread[Any]) -> None:
        async with asyncio.timeout(5):
            await go_on.wait()

    store.pulse = pulse  # type: ignore[method-assign]
    app = App(store)
    app.add(bot)
    async with app:
        threads = [await app.start(bot) for _ in range(30)]
        while len(app._keeper._held) < len(threads):
            await asyncio.sleep(0.01)
        looks.clear()
        await app.pause(threads[0])
        await asyncio.sleep(0.05)
        assert len(looks) <= 2, "the verb's own look, and that at the commit of another process"
        go_on.set()


async def test_a_look_that_fails_is_told_in_one_line(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    go_on = asyncio.Event()
    complaints: list[Any] = []

    async def away(ids: Any) -> Any:
        raise StoreError("the store is away")

    async def bot(thread: Thread[Any]) -> None:
        async with asyncio.timeout(5):
            await go_on.wait()

    store.pulse = away  # type: ignore[method-assign]
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    app = App(store)
    app.add(bot)
    async with app:
        await app.start(bot)
        while not app._keeper._held:
            await asyncio.sleep(0.01)
        app._keeper.check()
        await asyncio.sleep(0.02)
        go_on.set()
    gc.collect()
    assert "it could not be looked how threads stand: the store is away" in caplog.text
    assert complaints == []


async def test_who_reports_for_ever_leaves_no_trace_of_each_call_in_memory(store: Store) -> None:
    board = Board(store)
    for number in range(MANY + 5):
        board._started[str(number)] = number
    await board.write("new", {"done": 1})
    assert len(board._started) == 1
    first = await store.get("progress", "new")
    await board.write("new", {"done": 2})
    second = await store.get("progress", "new")
    assert first is not None and second is not None
    assert first.value["started_at"] == second.value["started_at"]
