"""Many at once: what somebody holds keeps nobody from other things, and a crowd gets no more connections than it may."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from postgres_server import conninfo, empty_url, look, new_thread, stores

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
