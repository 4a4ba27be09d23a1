"""A replica, a full disk, a limit on statements, a network that holds back: the error says which, nothing is half-written, and it goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import postgres_server
from postgres_server import Proxy, conninfo, look, new_thread, stores, with_schema

from ownloop import App
from ownloop.errors import StoreError, StoreFull, StoreReadOnly
from ownloop.events import Draft
from ownloop.stores.answering import Answering
from ownloop.stores.postgres import PostgresStore
from ownloop.stores.values import number_of
from ownloop.testing.store_scene import TTL

MESSAGE = [Draft("message", {"text": "x"})]


async def test_a_replica_can_be_read_and_says_that_it_is_none_to_write() -> None:
    primary = postgres_server.fresh_url()
    data = Path(tempfile.mkdtemp(prefix="ownloop-replica-"))
    options = psycopg.conninfo.conninfo_to_dict(conninfo(primary))
    async with stores(primary) as (store,):
        thread = await new_thread(store)
        shutil.chown(data, postgres_server.server_folder().stat().st_uid)
        postgres_server.program("pg_basebackup", "-D", str(data), "-h", str(options["host"]), "-U", str(options["user"]), "-R", "-c", "fast")
        (data / ".s.PGSQL.5432.lock").unlink(missing_ok=True)  # the primary's, whose socket stands in its folder
        words = ("-D", str(data), "-w", "-l", str(data / "log"), "-o", f"-c listen_addresses= -c unix_socket_directories={data}")
        postgres_server.program("pg_ctl", *words, "start")
        try:
            url = with_schema(f"postgresql://{options['user']}@/{options['dbname']}?host={data}", store.place.schema)
            async with stores(url) as (replica,):
                row = await replica.thread(thread)
                assert row is not None and await replica.check() == []
                for call in (
                    replica.message(thread, MESSAGE),
                    replica.claim(thread, ["bot"], TTL),
                    replica.put("s", "k", 1),
                    replica.emit("x", None, None, 1),
                ):
                    with pytest.raises(StoreReadOnly, match="name the primary"):
                        await call
                with pytest.raises(StoreReadOnly, match="read-only transaction"):
                    await asyncio.to_thread(replica.renew, {thread: 1}, TTL)
            with pytest.raises(StoreError, match="read-write|read-only"):
                await PostgresStore(f"{url}&target_session_attrs=read-write").open()
        finally:
            postgres_server.program("pg_ctl", "-D", str(data), "-m", "immediate", "stop", check=False)
            shutil.rmtree(data)


async def test_a_full_disk_is_said_to_be_full_and_loses_nothing(url: str) -> None:
    """A disk of 2 MB that holds the events alone; when there is room again, it goes on."""
    disk = Path(f"/tmp/ownloop-small-disk-{os.getpid()}")
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        disk.rmdir()
        pytest.skip("a small disk can be mounted by root only")
    try:
        shutil.chown(disk, postgres_server.server_folder().stat().st_uid)
        look(url, f"CREATE TABLESPACE small LOCATION '{disk}'")
        look(url, "ALTER TABLE ownloop.events SET TABLESPACE small")
        async with stores(url) as (store,):
            thread, told = await new_thread(store), 1
            with pytest.raises(StoreFull, match="is full; nothing was written"):
                for _ in range(200):
                    drafts = [[Draft("message", {"text": os.urandom(5_000).hex()})] for _ in range(5)]
                    answers = await asyncio.gather(*(store.message(thread, draft) for draft in drafts), return_exceptions=True)
                    refused = [one for one in answers if isinstance(one, BaseException)]
                    told += len(answers) - len(refused)
                    for error in refused:
                        raise error
            row = await store.thread(thread)
            assert row is not None and row.head == len(await store.events(thread)) == told and await store.check() == []
            subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
            assert (await store.message(thread, MESSAGE))[0].seq == row.head + 1
    finally:
        look(url, "ALTER TABLE ownloop.events SET TABLESPACE pg_default")
        look(url, "DROP TABLESPACE IF EXISTS small")
        subprocess.run(["umount", str(disk)], check=True)
        disk.rmdir()


async def test_a_limit_on_statements_is_named(url: str) -> None:
    async with stores(f"{url}&options=-c%20statement_timeout%3D150") as (store,), await psycopg.AsyncConnection.connect(conninfo(url)) as tx:
        thread = await new_thread(store)
        await store.within(tx).message(thread, MESSAGE)
        with pytest.raises(StoreError, match="statement timeout.*nothing was written"):
            await store.message(thread, MESSAGE)
        await tx.rollback()
        assert (await store.message(thread, MESSAGE))[0].seq == 2


async def test_a_network_that_holds_back_and_lets_go_loses_nothing_and_repeats_nothing(url: str) -> None:
    async with Proxy(url) as proxy, stores(proxy.url) as (store,):
        threads = [await new_thread(store) for _ in range(10)]
        proxy.hold()
        calls = [asyncio.ensure_future(store.message(thread, MESSAGE)) for thread in threads for _ in range(3)]
        await asyncio.sleep(0.2)
        assert not any(call.done() for call in calls)
        proxy.go_on()
        await asyncio.gather(*calls)
        assert {row.head for row in await store.threads()} == {4}


async def test_a_cut_network_comes_back_for_appends_renewals_and_listening(url: str) -> None:
    async with Proxy(url) as proxy, stores(proxy.url) as (store,), stores(url) as (near,):
        thread, heard = await new_thread(store), list[object]()
        store.listen(heard.append)
        while not heard:
            await asyncio.sleep(0.01)
        assert await store.claim(thread, ["bot"], TTL)
        proxy.cut()
        with pytest.raises(StoreError, match="no connection"):
            await asyncio.to_thread(store.renew, {thread: 1}, TTL)
        late = asyncio.ensure_future(store.fact(thread, 1, Draft("outcome", {"value": 7}, f"stp_{thread[4:]}_1", "run:f")))
        await near.message(thread, MESSAGE)
        await asyncio.sleep(0.3)
        assert not late.done(), "it waits for the network"
        heard.clear()
        proxy.mend()
        began = time.monotonic()
        assert (await late).seq == 3 and (await asyncio.to_thread(store.renew, {thread: 1}, TTL))[thread] is not None
        while None not in heard:
            await asyncio.sleep(0.01)
        assert time.monotonic() - began < 5
        heard.clear()
        await near.message(thread, MESSAGE)
        while [thread] not in [list(one) for one in heard if one is not None]:  # type: ignore[call-overload]  # ids
            await asyncio.sleep(0.01)


async def test_who_asks_whether_the_store_answers_hears_within_two_seconds_and_takes_no_connection_from_others(url: str) -> None:
    async with Proxy(url) as proxy, stores(proxy.url) as (store,):
        asked: list[str] = []

        async def ask() -> object:
            asked.append("once")
            return await store.thread("thr_0000000000000")

        answering = Answering("the store", ask)
        await answering.check()
        proxy.hold()
        began = time.monotonic()
        for refused in await asyncio.gather(*(answering.check() for _ in range(20)), return_exceptions=True):
            assert isinstance(refused, StoreError) and "the store did not answer in 2 s" in str(refused)
        assert time.monotonic() - began < 3.5 and len(asked) == 2
        proxy.go_on()
        await answering.check()


async def test_a_rollback_of_the_caller_wakes_nobody_and_leaves_nothing_remembered(url: str) -> None:
    async with stores(url, 2) as (mine, other):
        app, heard = App(mine), list[Any]()
        other.listen(heard.append)
        while not heard:
            await asyncio.sleep(0.01)
        heard.clear()
        async with await psycopg.AsyncConnection.connect(conninfo(url)) as tx:
            thread = await app.start("bot", 1, key="k", tx=tx)
            assert (await app.send(thread, "x", tx=tx)).seq == 2
            await tx.rollback()
        again = await app.start("bot", 1, key="k")
        assert again != thread and (await app.send(again, "x")).seq == 2
        async with asyncio.timeout(30):
            while len(heard) < 2:
                await asyncio.sleep(0.01)
        assert heard == [(again,), (again,)]
        assert look(url, "SELECT count(*) FROM ownloop.threads WHERE number = %s", (number_of(thread),)) == [(0,)]
        await app.aclose()
