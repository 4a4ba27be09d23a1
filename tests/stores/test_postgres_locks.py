"""Rows that somebody holds, answers that do not come, callers that stop waiting: nothing else stands still, and nothing is written twice."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from postgres_server import Proxy, conninfo, look, new_thread, stores

from ownloop.errors import StoreBusy, StoreError
from ownloop.events import Draft
from ownloop.stores.base import NewThread
from ownloop.stores.postgres import PostgresStore
from ownloop.stores.postgres import store as store_module
from ownloop.stores.postgres.store import PATIENCE
from ownloop.stores.values import number_of
from ownloop.testing import FakeClock
from ownloop.testing.store_scene import TTL, Scene

MESSAGE = [Draft("message", {"text": "x"})]
STUCK = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@asynccontextmanager
async def held(url: str, *threads: str) -> AsyncIterator[None]:
    """Somebody's transaction that stays open has written to these threads."""
    async with await psycopg.AsyncConnection.connect(conninfo(url)) as tx:
        other = PostgresStore(url)
        for thread in threads:
            await other.within(tx).message(thread, MESSAGE)
        yield


async def test_fifty_calls_for_a_row_that_is_held_leave_room_for_all_others(store: PostgresStore, url: str) -> None:
    one, free = await new_thread(store), await new_thread(store)
    async with held(url, one):
        waiting = [asyncio.ensure_future(store.message(one, MESSAGE)) for _ in range(50)]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(20):
            for _ in range(20):
                await store.message(free, MESSAGE)
                await store.thread(one)
            await store.emit("tick", None, None, 1)
        assert look(url, STUCK) == [(1,)], "one connection waits for the thread, the others stand in line behind it"
    await asyncio.gather(*waiting)
    assert sorted(event.seq for event in await store.events(one)) == list(range(1, 53))


async def test_rows_that_are_held_take_half_of_the_connections_at_most(store: PostgresStore, url: str) -> None:
    many, free = [await new_thread(store) for _ in range(20)], await new_thread(store)
    async with held(url, *many):
        waiting = [asyncio.ensure_future(store.message(one, MESSAGE)) for one in many]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(20):
            await asyncio.gather(*(store.message(free, MESSAGE) for _ in range(20)), *(store.thread(free) for _ in range(20)))
        assert not any(one.done() for one in waiting)
    await asyncio.gather(*waiting)


async def test_a_row_that_is_never_given_back_is_an_error_and_no_hang(url: str) -> None:
    store = PostgresStore(f"{url}&options=-c%20lock_timeout%3D200")
    await store.open()
    thread = await new_thread(store)
    async with held(url, thread):
        with pytest.raises(StoreBusy, match="Find who holds it"):
            await store.message(thread, MESSAGE)
    assert (await store.message(thread, MESSAGE))[0].seq == 3, "nothing was written by the one that gave up"
    ((shown,),) = await store._rows("SHOW lock_timeout")
    assert shown == "200ms", "the URL's own limit stands"
    await store.close()


async def test_one_held_row_does_not_keep_other_leases_from_being_renewed(store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PATIENCE", 0.1)
    threads = [await new_thread(store) for _ in range(5)]
    for thread in threads:
        assert await store.claim(thread, ["bot"], TTL)
    async with held(url, threads[2]):
        began = time.monotonic()
        found = await asyncio.to_thread(store.renew, dict.fromkeys(threads, 1), timedelta(hours=1))
        assert time.monotonic() - began < 1 <= PATIENCE
    assert [one is not None for one in (found.get(thread) for thread in threads)] == [True, True, False, True, True]
    assert threads[2] not in found, "not renewed, and not said to be lost"
    left = dict(look(url, "SELECT ownloop.thread_id(number), (lease_until - ownloop.now()) / 60000000 > 50 FROM ownloop.threads"))
    assert [left[thread] for thread in threads] == [True, True, False, True, True]
    assert (await asyncio.to_thread(store.renew, dict.fromkeys(threads, 1), TTL))[threads[2]] is not None


async def test_a_renewal_waits_for_a_row_that_is_held_for_a_moment(store: PostgresStore, url: str) -> None:
    thread = await new_thread(store)
    assert await store.claim(thread, ["bot"], TTL)
    async with held(url, thread):
        renewal = asyncio.ensure_future(asyncio.to_thread(store.renew, {thread: 1}, TTL))
        await asyncio.sleep(0.3)
        assert not renewal.done()
    assert (await renewal)[thread] is not None
    async with held(url, thread):  # and one that is lost is said to be lost
        renewal = asyncio.ensure_future(asyncio.to_thread(store.renew, {thread: 7}, TTL))
        await asyncio.sleep(0.1)
    assert await renewal == {thread: None}


async def test_an_event_and_a_wait_that_lock_each_other_out_are_both_written(store: PostgresStore, url: str) -> None:
    """A transaction that takes a thread first and a box later, against one that takes them in order: Postgres ends one, and we send ours again."""
    wake = await Scene(store, FakeClock()).wake()
    async with await psycopg.AsyncConnection.connect(conninfo(url)) as tx:
        await tx.execute("SET deadlock_timeout = '20s'")  # ours finds it out first
        await store.within(tx).message(wake.id, MESSAGE)
        waiting = asyncio.ensure_future(wake.wait("go"))  # holds the box, wants the thread
        while look(url, STUCK) != [(1,)]:
            await asyncio.sleep(0.01)
        await store.within(tx).emit("go", None, None, 1)
        await tx.commit()
        await waiting
    assert [event.kind for event in await store.events(wake.id)] == ["input", "message", "request", "delivered"]


async def test_calls_that_lose_a_deadlock_are_sent_again(url: str) -> None:
    """Two threads, each written by one transaction first and wanted by the other: the server ends one of them after a while."""
    async with stores(url, 1) as (store,):
        first, second = await new_thread(store), await new_thread(store)
        assert await store.claim(second, ["bot"], TTL)
        look(url, "UPDATE ownloop.threads SET parent = %s, parent_seq = 1 WHERE number = %s", (number_of(first), number_of(second)))
        async with await psycopg.AsyncConnection.connect(conninfo(url)) as tx:
            await tx.execute("SET deadlock_timeout = '20s'")
            await store.within(tx).message(second, MESSAGE)
            ended = asyncio.ensure_future(store.control(second, "close", Draft("control", {"verb": "close"})))  # holds the parent, wants the child
            while look(url, STUCK) != [(1,)]:
                await asyncio.sleep(0.01)
            await store.within(tx).message(first, MESSAGE)  # the child is held, and now the parent is wanted
            await tx.commit()
        assert await ended is True
        assert [event.kind for event in await store.events(second)] == ["input", "message", "control"]
        assert [event.kind for event in await store.events(first)] == ["input", "message"]


@pytest.mark.parametrize("ticks", range(12))
async def test_whoever_is_cancelled_while_a_connection_comes_hears_of_it(store: PostgresStore, ticks: int) -> None:
    """Before Python 3.12 psycopg's pool loses a cancellation that meets the connection: a loop around it would never end."""
    thread = await new_thread(store)
    held = [await store.connections._borrow() for _ in range(store.place.connections)]
    waiting = asyncio.ensure_future(store.thread(thread))
    await asyncio.sleep(0.05)
    giving = asyncio.ensure_future(store.connections._give_back(held.pop()))
    for _ in range(ticks):
        await asyncio.sleep(0)
    was_cancelled = waiting.cancel()
    await asyncio.wait({waiting, giving})
    assert waiting.cancelled() is was_cancelled
    for connection in held:
        await store.connections._give_back(connection)
    assert (await store.thread(thread)) is not None, "its connection came back"


# ---- answers -----------------------------------------------------------------------------------------------------------------------


async def test_a_session_that_ends_after_the_commit_is_no_refusal_and_nothing_is_sent_again(url: str) -> None:
    """The server says FATAL instead of the answer: the append may stand, and it does."""
    async with Proxy(url) as proxy, stores(proxy.url) as (store,):
        thread = await new_thread(store)
        for together in (1, 10):
            before = len(await store.events(thread))
            proxy.takes_answer = True
            found = await asyncio.gather(*(store.message(thread, MESSAGE) for _ in range(together)), return_exceptions=True)
            told = sum(not isinstance(one, Exception) for one in found)
            assert any(isinstance(one, StoreError) and "whether it was written is not known" in str(one) for one in found)
            assert len(await store.events(thread)) == before + together >= before + told


async def test_what_fails_at_the_commit_was_never_told_as_done(store: PostgresStore, url: str) -> None:
    thread = await new_thread(store)
    look(
        url,
        """CREATE FUNCTION ownloop.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON ownloop.events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN (NEW.data LIKE '%%no%%') EXECUTE FUNCTION ownloop.no()""",
    )
    try:
        calls = [store.message(thread, [Draft("message", {"text": text})]) for text in ("a", "no", "b", "c", "no", "d")]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(one, StoreError) for one in found] == [False, True, False, False, True, False]
        assert "not today" in str(found[1])
        assert sorted(event.data["text"] for event in (await store.events(thread))[1:]) == ["a", "b", "c", "d"]
    finally:
        look(url, "DROP TRIGGER late ON ownloop.events; DROP FUNCTION ownloop.no()")


async def test_an_append_is_one_round_trip(store: PostgresStore, tmp_path: Path) -> None:
    thread = await new_thread(store)
    call = json.dumps({"do": "message", "thread": number_of(thread), "drafts": [{"kind": "message", "data": "{}"}]})
    async with store.connections._pool.connection() as connection:
        for _ in range(10):  # then it is prepared
            await connection.execute(store.lanes._brisk, (call,))
        with (tmp_path / "trace").open("w") as file:
            connection.pgconn.trace(file.fileno())
            try:
                for _ in range(20):
                    await connection.execute(store.lanes._brisk, (call,))
            finally:
                connection.pgconn.untrace()
        assert (tmp_path / "trace").read_text().count("ReadyForQuery") == 20
    sent: list[bytes] = []
    plain: Any = psycopg.AsyncCursor.execute

    async def counting(self: Any, query: bytes, *args: object) -> object:
        sent.append(query)
        return await plain(self, query, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.AsyncCursor, "execute", counting)
        claim = await store.claim(thread, ["bot"], TTL)
        assert claim is not None
        await store.begin(thread, 1, [Draft("appended", {"name": "n"})], known=claim.row.head)
        await store.message(thread, MESSAGE)
        await store.release(thread, 1, seen=2, due=None)
    assert len(sent) == 4 and set(sent) == {store.lanes._brisk}


async def test_a_caller_that_is_cancelled_is_heard_of_all_the_same(store: PostgresStore, url: str) -> None:
    """Its commit stands, and who serves the thread must learn of it without waiting for a sweep."""
    thread, heard = await new_thread(store), list[object]()
    store.listen(heard.append)
    while not heard:
        await asyncio.sleep(0.01)
    for prepare in (0, 5):  # sent at once; and one of those that wait for a lane
        busy = [asyncio.ensure_future(store.message(thread, MESSAGE)) for _ in range(prepare)]
        await asyncio.sleep(0)
        task = asyncio.ensure_future(store.message(thread, [Draft("message", {"text": "mine"})]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        heard.clear()
        await asyncio.gather(task, *busy, return_exceptions=True)
        while not any(event.data.get("text") == "mine" for event in (await store.events(thread))[-prepare - 1 :]):
            await asyncio.sleep(0.01)
        assert None in heard


async def test_a_process_number_that_the_system_gives_out_again_is_not_taken_for_our_own(store: PostgresStore, url: str) -> None:
    await new_thread(store)
    (pid,) = store.connections._own
    assert store.connections.is_own(pid)
    look(url, "SELECT pg_terminate_backend(%s)", (pid,))
    await asyncio.sleep(0.1)
    await new_thread(store)
    assert not store.connections.is_own(pid)


async def test_large_values_of_others_are_waited_for_alone(store: PostgresStore, url: str) -> None:
    value, free = "x" * 100_000, await new_thread(store)
    async with await psycopg.AsyncConnection.connect(conninfo(url)) as tx:
        await store.within(tx).create(NewThread("bot", [Draft("input", {"input": value})]))
        slow = asyncio.ensure_future(store.create(NewThread("bot", [Draft("input", {"input": value})])))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(20):
            await asyncio.gather(*(store.message(free, MESSAGE) for _ in range(20)))
        assert not slow.done()
    await slow
    assert look(url, "SELECT count(*) FROM ownloop.blobs") == [(1,)]
