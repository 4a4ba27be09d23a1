"""What may befall jobs besides: rows that somebody holds, answers that are lost, odd settings of roles, schemas that others made."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "stores"))
import postgres_server
from test_pgqueuer_jobs import client, look, queued, serving, until

from ownloop import App, Thread
from ownloop.engines import PgQueuer
from ownloop.engines.pgqueuer_queue import Driver
from ownloop.stores.postgres import PostgresStore
from ownloop.testing.engine_scene import Book, engine_of

TAKEN = "UPDATE ownloop_pgq.pgqueuer SET status = 'picked', queue_manager_id = gen_random_uuid(), updated = now() - interval '3 seconds'"


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


def engine_on(app: App, *agents: str) -> PgQueuer:
    engine = PgQueuer()
    engine.attach(app.store, lambda: list(agents), 1)
    return engine


async def test_a_thread_whose_row_somebody_holds_gets_no_second_job(url: str) -> None:
    """Whoever has its job waits for the row. One job more every two seconds, and no worker would have hands left for other threads."""
    async with client(url) as app:
        engine, thread = engine_on(app, "reader"), await app.start("reader")
        look(url, "TRUNCATE ownloop_pgq.pgqueuer")
        assert await engine.sweep() == 1
        look(url, TAKEN)
        async with await psycopg.AsyncConnection.connect(postgres_server.conninfo(url)) as tx:
            await app.send(thread, "not yet", tx=tx)
            assert await engine.sweep() == 0, "its job waits for the row"
            assert len(queued(url)) == 1
        assert await engine.sweep() == 1, "now those hands are dead"


class Lossy(postgres_server.Proxy):
    """Takes the first answer that holds a job of the agent `lost`, and cuts that connection."""

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool = False) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if is_answer and self.takes_answer and b"queue_manager_id" in data and b"lost" in data:
                    self.takes_answer = False
                    break
                writer.write(data)
                await writer.drain()
        writer.close()


async def test_a_job_whose_answer_was_lost_does_not_keep_its_worker_from_taking_others(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownloop.engines.pgqueuer.SWEEP", 0.3)
    book = Book()
    async with client(url) as writer, Lossy(url) as proxy:
        app = App(proxy.url, concurrency=1)
        app.add(book.reader, name="lost")
        async with app:
            proxy.takes_answer = True
            threads = {await writer.start("lost") for _ in range(3)}
            await until(lambda: set(book.wakes) == threads, "all run", 20)
        assert not proxy.takes_answer


async def test_words_that_no_log_can_hold_harm_no_other_thread(url: str) -> None:
    book = Book()

    def redact(value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") == "KeyError":
            raise ValueError("half a pair \ud800 and a NUL \0")
        return value

    async def failing(thread: Thread) -> None:
        raise KeyError("its wake cannot be written down")

    app = App(url, concurrency=4, redact=redact)
    app.add(failing)
    app.add(book.reader, name="reader")
    async with app:
        await app.start(failing)
        for count in (4, 8, 12):
            await asyncio.gather(*(app.start("reader") for _ in range(4)))
            await until(lambda count=count: len(book.wakes) == count, "they run", 20)


async def test_notices_do_not_pile_up_while_a_worker_is_busy(url: str) -> None:
    driver, heard = Driver(PostgresStore(url), "channel"), list[Any]()
    await driver.add_listener("channel", heard.append)
    for _ in range(3):
        for _ in range(100):
            driver._hear('{"type": "table_changed_event"}')
        await asyncio.sleep(0.05)
    assert len(heard) == 1
    driver._hear('{"type": "health_check_event"}')
    driver.is_told = False  # it has asked for jobs
    driver._hear('{"type": "table_changed_event"}')
    assert len(heard) == 3


@pytest.mark.parametrize("how", ["cut", "hold"])
async def test_a_worker_without_wakes_ends_at_once_also_while_the_database_is_away(url: str, how: str) -> None:
    async with postgres_server.Proxy(url) as proxy:
        book = Book()
        app = serving(proxy.url, book)
        async with app:
            await app.start("reader")
            await until(lambda: book.wakes and not engine_of(app)._queue.held()[1], "it has nothing to do", 20)
            getattr(proxy, how)()
            queue = engine_of(app)._queue
            sent = '"operation": "insert", "sent_at": "2026-01-01T00:00:00Z", "table": "pgqueuer", "type": "table_changed_event"'
            queue._driver._hear(f'{{"channel": "{queue._manager.channel}", {sent}}}')  # it asks for jobs, and no answer comes
            await asyncio.sleep(0.5)
            began = time.monotonic()
        took = time.monotonic() - began
        proxy.go_on()
        print(f"{how}: it ended after {took:.1f} s")
        assert took < 5


async def test_the_first_worker_does_not_stop_others_while_a_transaction_holds_rows(url: str) -> None:
    """Its triggers need a moment without writers: it asks for that again and again, and nobody queues up behind it."""
    look(url, "DROP SCHEMA IF EXISTS ownloop_pgq CASCADE")
    book, writer = Book(), App(url)
    held = await writer.start("reader")
    async with await psycopg.AsyncConnection.connect(postgres_server.conninfo(url)) as tx:
        await writer.send(held, "not yet", tx=tx)
        async with serving(url, book):
            for _ in range(8):
                async with asyncio.timeout(5):
                    await writer.start("reader")
                await asyncio.sleep(0.1)
            assert book.wakes == [], "the tables are not there yet"
            await tx.commit()
            await until(lambda: len(set(book.wakes)) == 9, "all run", 20)
    await writer.aclose()


# ---- settings and rights -----------------------------------------------------------------------------------------------------------


async def test_schemas_that_the_administrator_made_are_filled_by_a_role_that_may_make_none() -> None:
    url = postgres_server.fresh_url()
    schema = postgres_server.connect.parse(url).schema
    with psycopg.connect(postgres_server.conninfo(url), autocommit=True) as db:
        db.execute(f'DROP ROLE IF EXISTS "p_{schema}"; CREATE ROLE "p_{schema}" LOGIN'.encode())
        for name in (schema, f"{schema}_pgq"):
            db.execute(f'CREATE SCHEMA "{name}" AUTHORIZATION "p_{schema}"'.encode())
    book = Book()
    async with serving(url.replace("postgres:@", f"p_{schema}@"), book) as app:
        await app.start("reader")
        await until(lambda: book.wakes, "it runs", 20)


async def test_what_a_role_has_as_its_defaults_does_not_change_how_jobs_are_read(url: str, caplog: pytest.LogCaptureFixture) -> None:
    role = f"d_{postgres_server.connect.parse(url).schema}"
    with psycopg.connect(postgres_server.conninfo(url), autocommit=True) as db:
        db.execute(f'DROP ROLE IF EXISTS "{role}"; CREATE ROLE "{role}" LOGIN SUPERUSER'.encode())
        for setting in ("datestyle = 'German'", "intervalstyle = 'sql_standard'", "bytea_output = 'escape'", "idle_session_timeout = '300ms'"):
            db.execute(f'ALTER ROLE "{role}" SET {setting}'.encode())
    book = Book()
    async with serving(url.replace("postgres:@", f"{role}@"), book) as app:
        nap = await app.start("sleeper", "1s")
        await until(lambda: nap in book.ends, "it has slept", 20)
        await app.start("reader")
        await until(lambda: len(book.wakes) >= 3, "it runs", 20)
    said = [record.getMessage() for record in caplog.records if record.name == "ownloop"]
    assert said == [], "whoever listens is not taken for idle"


async def test_the_schema_may_be_called_what_ours_is_called_beside_the_default_one() -> None:
    url = postgres_server.with_schema(postgres_server.server_url(), "ownloop_pgq")
    for schema in ("ownloop_pgq", "ownloop_pgq_pgq"):
        postgres_server.drop(url, schema)
    async with client(url) as app:
        thread = await app.start("reader")
        assert await engine_on(app, "reader").sweep() == 0
        assert {found for found, _, _ in queued(url)} == {thread}
    for schema in ("ownloop_pgq", "ownloop_pgq_pgq"):
        postgres_server.drop(url, schema)


# ---- upkeep --------------------------------------------------------------------------------------------------------------------------


async def test_a_long_log_is_pruned_in_parts_so_that_the_sweep_does_not_wait_for_it(url: str) -> None:
    async with client(url) as app:
        columns = "(created, job_id, status, priority, entrypoint) SELECT now() - interval '25 hours', n, 'successful', 0, 'a'"
        look(url, f"TRUNCATE ownloop_pgq.pgqueuer_log; INSERT INTO ownloop_pgq.pgqueuer_log {columns} FROM generate_series(1, 50000) AS n")
        engine = engine_on(app)
        assert [await engine.prune() for _ in range(4)] == [20_000, 20_000, 10_000, 0]


async def test_what_a_program_of_the_version_before_has_made_is_replaced(url: str) -> None:
    async with client(url) as app:
        look(
            url,
            """DROP FUNCTION ownloop_pgq.sweep, ownloop_pgq.prune;
            CREATE FUNCTION ownloop_pgq.sweep(agents text[], most integer, since bigint, OUT lost integer, OUT upto bigint) LANGUAGE sql
                AS 'SELECT 77, 77';
            CREATE FUNCTION ownloop_pgq.prune(age interval) RETURNS void LANGUAGE sql AS '';
            COMMENT ON SCHEMA ownloop_pgq IS 'wake-ups of ownloop, version 1'""",
        )
        engine = engine_on(app, "reader")
        await engine.install()
        assert (await engine.sweep(), await engine.prune()) == (0, 0)
        assert await engine._rows("SELECT lost FROM ownloop_pgq.sweep(%s::text[], 100, 0)", (["reader"],)) == [(0,)], (
            "an old worker goes on beside it"
        )
