"""Many at once: what somebody holds keeps nobody from other things, and a crowd gets no more connections than it may."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from postgres_server import Proxy, conninfo, empty_url, look, new_thread, stores

from ownloop.events import Draft
from ownloop.stores.base import NewThread
from ownloop.stores.postgres.connections import SPARE

MESSAGE = [Draft("message", {"text": "x"})]


@pytest.fixture
def url() -> str:
    return empty_url()


@pytest.mark.parametrize("what", ["rows", "an event", "a key"])
async def test_what_somebody_holds_keeps_nobody_from_starting_and_emitting_other_things(what: str, url: str) -> None:
    async with stores(url) as (store,), await psycopg.AsyncConnection.connect(conninfo(url)) as tx:
        threads, held = [await new_thread(store) for _ in range(6)], store.within(tx)
        if what == "rows":
            for one in threads:
                await held.message(one, MESSAGE)
            waiting: list[Any] = [store.message(one, MESSAGE) for one in threads]
        elif what == "an event":
            await held.emit("tick", None, None, 1)
            waiting = [store.emit("tick", None, None, 1) for _ in range(8)]
        else:
            await held.create(NewThread("bot", [Draft("input", {})], "k"))
            waiting = [store.create(NewThread("bot", [Draft("input", {})], "k")) for _ in range(8)]
        tasks = [asyncio.ensure_future(one) for one in waiting]
        await asyncio.sleep(0.3)
        async with asyncio.timeout(5):
            await store.create(NewThread("bot", [Draft("input", {})], "other"))
            await store.emit("other", None, None, 1)
        assert not any(task.done() for task in tasks)
        await tx.commit()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("connections", [4, 10])
async def test_one_transaction_that_holds_all_sorts_of_things_keeps_nobody_from_others(connections: int, url: str) -> None:
    async with stores(f"{url}&connections={connections}") as (store,), await psycopg.AsyncConnection.connect(conninfo(url)) as tx:
        threads, held = [await new_thread(store) for _ in range(3)], store.within(tx)
        await held.emit("tick", None, None, 1)
        await held.create(NewThread("bot", [Draft("input", {})], "k"))
        await held.message(threads[0], MESSAGE)
        pause = Draft("control", {"verb": "pause"})
        calls = (
            store.emit("tick", None, None, 1),
            store.create(NewThread("bot", [Draft("input", {})], "k")),
            store.control(threads[0], "pause", pause),
        )
        waiting = [asyncio.ensure_future(one) for one in calls]
        await asyncio.sleep(0.3)
        async with asyncio.timeout(5):
            await store.emit("other", None, None, 1)
            await store.create(NewThread("bot", [Draft("input", {})], "other"))
            await store.control(threads[1], "pause", pause)
            await store.message(threads[2], MESSAGE)
        assert not any(task.done() for task in waiting)
        await tx.commit()
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting)


async def test_whoever_stops_waiting_for_what_was_read_of_a_server_that_is_silent_need_not_wait_for_ever(url: str) -> None:
    async with Proxy(url) as proxy, stores(proxy.url) as (store,):
        await store.threads()
        proxy.hold()
        reading = asyncio.ensure_future(store.threads())
        await asyncio.sleep(0.1)
        reading.cancel()
        assert await asyncio.wait({reading}, timeout=5) == ({reading}, set())
        proxy.go_on()


async def test_an_answer_that_nobody_expected_is_an_error_and_no_hang(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(work: object, *, again: bool = True) -> list[object]:
        await asyncio.sleep(0.01)
        return []

    async with stores(url) as (store,):
        threads = [await new_thread(store) for _ in range(20)]
        monkeypatch.setattr(store.connections, "use", nothing)
        async with asyncio.timeout(5):
            found = await asyncio.gather(*(store.message(one, MESSAGE) for one in threads), return_exceptions=True)
        assert all(isinstance(one, Exception) for one in found)


async def test_a_crowd_that_waits_for_connections_makes_no_more_than_two_besides(url: str) -> None:
    async with stores(f"{url}&connections=4") as (store,):
        tasks = [asyncio.ensure_future(store.connections.use(lambda one: one.execute("SELECT pg_sleep(2)"))) for _ in range(30)]
        await asyncio.sleep(1.6)
        ((count,),) = look(url, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(2)%%' AND pid <> pg_backend_pid()")
        assert count <= 4 + SPARE
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.mark.parametrize("factory", ["AsyncCursor", "AsyncClientCursor", "AsyncRawCursor"])
async def test_a_connection_may_make_whatever_cursors_its_owner_likes(factory: str, url: str) -> None:
    async with stores(url) as (store,):
        thread = await new_thread(store)
        async with await psycopg.AsyncConnection.connect(conninfo(url), cursor_factory=getattr(psycopg, factory)) as tx:
            await store.within(tx).message(thread, MESSAGE)
        assert len(await store.events(thread)) == 2
