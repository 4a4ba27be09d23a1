"""Jobs are hints: where they come from, what becomes of them, and that nothing is lost with them."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "stores"))
import postgres_server

from ownloop import App, Thread
from ownloop.engines import PgQueuer
from ownloop.errors import StoreError
from ownloop.stores.postgres import PostgresStore
from ownloop.testing import FakeClock
from ownloop.testing.engine_scene import Book, engine_of


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


def look(url: str, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
    """The rows of a statement, which calls the schemas `ownloop` and `ownloop_pgq`."""
    return postgres_server.look(url, query.replace("ownloop_pgq", f"{postgres_server.connect.parse(url).schema}_pgq"), values)


def queued(url: str) -> list[tuple[str, str | None, int]]:
    """The thread, the key and the priority of every job."""
    rows = look(url, "SELECT convert_from(payload, 'UTF8'), dedupe_key, priority FROM ownloop_pgq.pgqueuer ORDER BY priority DESC, id")
    return [(thread, key, priority) for thread, key, priority in rows]


@asynccontextmanager
async def client(url: str) -> AsyncIterator[App]:
    """An App that only writes, on a database whose jobs nobody takes."""
    app = App(url)
    await app.threads(limit=1)
    engine = PgQueuer()
    engine.attach(app.store, list, 1)
    await engine.install()
    look(url, "TRUNCATE ownloop_pgq.pgqueuer")
    try:
        yield app
    finally:
        await app.aclose()


def serving(url: str, book: Book, **options: Any) -> App:
    app = App(url, **options)
    for name in ("reader", "waiter", "sleeper"):
        app.add(getattr(book, name), name=name)
    return app


async def until(condition: Any, what: str, seconds: float = 60) -> None:
    give_up = time.monotonic() + seconds
    while not (await found if asyncio.iscoroutine(found := condition()) else found):
        assert time.monotonic() < give_up, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)


# ---- in the commit ---------------------------------------------------------------------------------------------------------------


async def test_a_rollback_leaves_neither_event_nor_job(url: str) -> None:
    async with client(url) as app, await psycopg.AsyncConnection.connect(postgres_server.conninfo(url)) as tx:
        known = await app.start("reader")
        look(url, "UPDATE ownloop.threads SET seen = woken")
        look(url, "TRUNCATE ownloop_pgq.pgqueuer")
        for text in ("a", "b"):
            await app.start("reader", text, tx=tx)
            await app.send(known, text, tx=tx)
            await (tx.rollback if text == "a" else tx.commit)()
            jobs = queued(url)
            assert len(jobs) == (0 if text == "a" else 2)
        assert look(url, "SELECT count(*) FROM ownloop.threads") == [(2,)]


async def test_any_language_that_appends_makes_the_job_too(url: str) -> None:
    async with client(url):
        ((thread,),) = look(url, """SELECT ownloop.start('reader', '"hello"')""")
        assert queued(url) == [(thread, None, 0)]


async def test_only_what_was_idle_gets_a_job_and_the_release_one_for_what_came_meanwhile(url: str) -> None:
    async with client(url) as app:
        thread = await app.start("reader")
        await app.send(thread, "it was runnable before")
        assert [key for _, key, _ in queued(url)] == [None]
        claim = await app.store.claim(thread, ["reader"], timedelta(seconds=30))
        assert claim is not None
        look(url, "TRUNCATE ownloop_pgq.pgqueuer")
        for text in ("one", "two"):
            await app.send(thread, text)
        assert queued(url) == [], "who holds it hears of it at the release"
        assert await app.store.release(thread, claim.row.epoch, seen=claim.row.head, due=None)
        assert [key for _, key, _ in queued(url)] == [None]
        again = await app.store.claim(thread, ["reader"], timedelta(seconds=30))
        assert again is not None
        look(url, "TRUNCATE ownloop_pgq.pgqueuer")
        assert not await app.store.release(thread, again.row.epoch, seen=again.row.head, due=None)
        assert queued(url) == [], "nothing came"


async def test_a_timer_is_a_job_only_within_the_minute_before_it_is_due(url: str) -> None:
    async with client(url) as app:
        engine = PgQueuer()
        engine.attach(app.store, lambda: ["reader"], 1)
        for seconds in (30, 90, 61):
            thread = await app.start("reader")
            claim = await app.store.claim(thread, ["reader"], timedelta(seconds=30))
            assert claim is not None
            await app.store.release(thread, 1, seen=claim.row.head, due=claim.now + timedelta(seconds=seconds))
        look(url, "DELETE FROM ownloop_pgq.pgqueuer WHERE dedupe_key IS NULL")
        assert len(queued(url)) == 1
        await engine.sweep()
        assert len(queued(url)) == 1
        await asyncio.sleep(1.2)
        await asyncio.gather(*(engine.sweep() for _ in range(5)))
        assert [key is not None and key.startswith("t:") for _, key, _ in queued(url)] == [True, True], "the one of 61 s, once"
        waits = look(url, "SELECT execute_after - now() < '60 s' AND execute_after > now() + '20 s' FROM ownloop_pgq.pgqueuer")
        assert waits == [(True,), (True,)]


async def test_what_people_say_goes_before_what_machines_have_told(url: str) -> None:
    book = Book()
    async with client(url) as app:
        machines = [await app.start("reader") for _ in range(30)]
        told = await app.start("reader")
        look(url, "UPDATE ownloop.threads SET seen = woken WHERE number = ownloop.thread_number(%s)", (told,))
        await app.send(told, "a person's word", by="ann")
        assert queued(url)[0] == (told, None, 10)
        book.seconds = 0.01
        async with serving(url, book, concurrency=2):
            await until(lambda: len(book.wakes) == 31, "all run")
    assert book.wakes.index(told) < 2
    assert set(machines) < set(book.wakes)


async def test_an_agents_limit_holds_in_all_workers_together(url: str) -> None:
    books = [Book(), Book()]
    most = 0
    for book in books:
        book.seconds = 0.05
    async with serving(url, books[0], engine=PgQueuer(limits={"reader": 3})) as app, serving(url, books[1], engine=PgQueuer(limits={"reader": 3})):
        threads = [await app.start("reader") for _ in range(40)]
        while sum(len(book.wakes) for book in books) < len(threads):
            most = max(most, sum(book.running.total() for book in books))
            await asyncio.sleep(0.002)
    assert most == 3


# ---- lost ------------------------------------------------------------------------------------------------------------------------


async def test_emptying_the_job_table_loses_nothing(url: str) -> None:
    book = Book()
    async with client(url) as app:
        threads = [await app.start("reader") for _ in range(250)]
        look(url, "TRUNCATE ownloop_pgq.pgqueuer")
        async with serving(url, book):
            began = time.monotonic()
            for _ in range(10):
                look(url, "TRUNCATE ownloop_pgq.pgqueuer")
                await app.send(threads[0], "more")
                await asyncio.sleep(0.05)
            await until(lambda: set(threads) == set(book.wakes), "all run")
            print(f"250 threads without a job ran after {time.monotonic() - began:.1f} s")
            await until(lambda: look(url, "SELECT count(*) FROM ownloop.threads WHERE status <> 'done' OR woken > seen") == [(0,)], "all is read")


async def test_a_job_whose_worker_died_before_it_claimed_the_thread_is_given_to_another(url: str) -> None:
    async with client(url) as app:
        engine = PgQueuer()
        engine.attach(app.store, lambda: ["reader"], 1)
        thread = await app.start("reader")
        look(url, "TRUNCATE ownloop_pgq.pgqueuer")
        for _ in range(3):
            assert await engine.sweep() == 1
            assert await engine.sweep() == 0, "it has its job"
            taken = "UPDATE ownloop_pgq.pgqueuer SET status = 'picked', queue_manager_id = gen_random_uuid(), updated = now() - %s::interval"
            look(url, f"{taken} WHERE status = 'queued'", ("1 second",))
            assert await engine.sweep() == 0, "whoever took it may be about to claim the thread"
            look(url, f"{taken} WHERE dedupe_key IS NOT NULL", ("3 seconds",))
        assert await engine.sweep() == 1
        assert {one for one, _, _ in queued(url)} == {thread}


async def test_the_tables_that_somebody_dropped_are_made_again(url: str) -> None:
    book = Book()
    async with serving(url, book) as app:
        for count in range(1, 31):
            await app.start("reader")
            await until(lambda count=count: len(book.wakes) == count, "it runs")  # so often that connections have its statements prepared
        look(url, "DROP SCHEMA ownloop_pgq CASCADE")
        told = '{"channel": "c", "operation": "delete", "sent_at": "2026-01-01T00:00:00Z", "table": "t", "type": "table_changed_event"}'
        look(url, "SELECT pg_notify('ownloop_pgq', %s)", (told,))  # it finds that out at once
        for count in range(31, 34):
            await app.start("reader")
            await until(lambda count=count: len(book.wakes) == count, "it runs", 20)
        assert look(url, "SELECT to_regclass('ownloop_pgq.pgqueuer') IS NOT NULL") == [(True,)]


async def test_after_pruning_the_log_is_empty(url: str) -> None:
    book, engine = Book(), PgQueuer()
    async with serving(url, book, engine=engine) as app:
        await asyncio.gather(*(app.start("reader") for _ in range(100)))
        await until(lambda: len(book.wakes) == 100, "all run")
        await until(lambda: queued(url) == [], "the jobs have ended")
        ((count,),) = look(url, "SELECT count(*) FROM ownloop_pgq.pgqueuer_log")
        assert count >= 200
        await engine.prune()
        assert look(url, "SELECT count(*) FROM ownloop_pgq.pgqueuer_log") >= [(count,)], "a day is kept"
    await app.store.open()  # nobody writes any more
    await engine.prune(timedelta(0))
    assert look(url, "SELECT count(*) FROM ownloop_pgq.pgqueuer_log") == [(0,)]
    await app.store.close()


async def test_it_prunes_by_itself(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownloop.engines.pgqueuer.PRUNE", 0.1)
    monkeypatch.setattr("ownloop.engines.pgqueuer.SWEEP", 0.05)
    book = Book()
    async with client(url), serving(url, book) as app:
        await app.start("reader")
        await until(lambda: look(url, "SELECT count(*) FROM ownloop_pgq.pgqueuer_log") >= [(2,)], "it is written down")
        look(url, "UPDATE ownloop_pgq.pgqueuer_log SET created = now() - interval '25 hours'")
        old = "SELECT count(*) FROM ownloop_pgq.pgqueuer_log WHERE created < now() - interval '1 day'"
        await until(lambda: look(url, old) == [(0,)], "it is pruned")


async def test_workers_that_are_replaced_every_few_minutes_prune_too(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownloop.engines.pgqueuer.random.uniform", lambda least, most: most)  # the fleet's hour strikes in this worker's life
    async with client(url):
        columns = "(created, job_id, status, priority, entrypoint) VALUES (now() - interval '25 hours', 1, 'deleted', 0, 'a')"
        look(url, f"TRUNCATE ownloop_pgq.pgqueuer_log; INSERT INTO ownloop_pgq.pgqueuer_log {columns}")
        async with serving(url, Book()):
            await until(lambda: look(url, "SELECT count(*) FROM ownloop_pgq.pgqueuer_log") == [(0,)], "it is pruned")


async def test_what_was_started_before_the_tables_were_there_does_not_wait_for_the_second_look(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownloop.engines.pgqueuer.SWEEP", 60.0)
    look(url, "DROP SCHEMA IF EXISTS ownloop_pgq CASCADE")
    book = Book()
    async with serving(url, book) as app:
        await app.start("reader")
        await until(lambda: book.wakes, "it runs")


# ---- beside others ---------------------------------------------------------------------------------------------------------------


async def test_another_programs_pgqueuer_in_the_environment_and_the_database_is_left_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SCHEMA", "other"), ("CHANNEL", "theirs"), ("PREFIX", "p_"), ("QUEUE_TABLE", "theirs"), ("DURABILITY", "volatile")):
        monkeypatch.setenv(f"PGQUEUER_{name}", value)
    book = Book()
    async with serving(url, book) as app:
        await app.start("reader")
        await until(lambda: book.wakes, "it runs")
    assert look(url, "SELECT to_regnamespace('other') IS NULL") == [(True,)]


def test_a_store_that_is_not_postgres_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"PgQueuer keeps its jobs in Postgres, and the store is sqlite:///a\.db; leave engine= out"):
        asyncio.run(App("sqlite:///a.db", engine=PgQueuer()).threads())


async def test_under_a_tests_clock_wakes_run_inside_the_process(url: str) -> None:
    from ownloop.engines import Embedded

    for clock, kind in ((None, PgQueuer), (FakeClock(), Embedded)):
        app = App(url, clock=clock)
        await app.threads(limit=1)
        assert type(app._engine) is kind
        await app.aclose()


async def test_who_only_writes_makes_no_tables(url: str) -> None:
    app = App(url)
    await app.start("reader")
    await app.aclose()
    schema = f"{postgres_server.connect.parse(url).schema}_pgq"
    fresh = postgres_server.look(url, "SELECT obj_description(to_regnamespace(%s), 'pg_namespace')", (schema,))
    assert fresh == [(None,)] or "version" in str(fresh), "made by an earlier test on this schema, or not there"


async def test_a_role_that_may_only_call_functions_serves_once_the_owner_has_migrated(url: str) -> None:
    book, place = Book(), postgres_server.connect.parse(url)
    role = f"{place.schema}_worker"
    look(url, f"DROP SCHEMA IF EXISTS ownloop_pgq CASCADE; DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN")
    owner, engine = App(url), PgQueuer()
    await owner.start("reader")
    engine.attach(owner.store, list, 1)
    grants = f"{owner.store.roles()}; GRANT {place.schema}_app TO {role}"  # type: ignore[attr-defined]
    with psycopg.connect(place.conninfo, autocommit=True) as db:
        db.execute(grants.encode())
    limited = url.replace("postgres:@", f"{role}@", 1)
    app = serving(limited, book)
    await app.threads()
    with pytest.raises(StoreError, match=r"this role may not make the schema \S*_pgq. Run `ownloop migrate` as the owner"):
        await app._engine.serve(app.run_one)  # type: ignore[union-attr]
    await app.aclose()
    await engine.install()
    with psycopg.connect(place.conninfo, autocommit=True) as db:
        db.execute(engine.roles().encode())
    async with serving(limited, book) as app:
        await app.start("reader")
        await until(lambda: len(book.wakes) == 2, "both run")
        await until(lambda: queued(url) == [], "the jobs have ended")
        await engine_of(app).prune(timedelta(0))
    await owner.aclose()
    look(url, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_migrate_prints_and_makes_the_tables_of_the_engine(url: str) -> None:
    def said(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "ownloop", "migrate", *words, "--store", url], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    look(url, "DROP SCHEMA IF EXISTS ownloop_pgq CASCADE")
    assert "of this version" in said()
    assert look(url, "SELECT to_regclass('ownloop_pgq.pgqueuer') IS NOT NULL") == [(True,)]
    engine = PgQueuer()
    engine.attach(PostgresStore(url), list, 1)
    text = said("--sql")
    assert engine.migration() in text and text.startswith("BEGIN;") and text.endswith("COMMIT;\n")
    assert engine.roles().strip() in said("--roles")


# ---- quick -----------------------------------------------------------------------------------------------------------------------


async def latencies(url: str, count: int, pause: float) -> list[float]:
    """Seconds from `start` to the handler's first line, one wake after the other in an idle system."""
    began: dict[str, float] = {}

    async def timed(thread: Thread) -> None:
        began[str(thread.input)] = time.perf_counter()

    app = App(url)
    app.add(timed, name="timed")
    found = []
    async with app:
        for number in range(count + 3):
            await asyncio.sleep(pause)
            told = time.perf_counter()
            await app.start("timed", str(number))
            await until(lambda number=number: str(number) in began, "it runs")
            found.append(began[str(number)] - told)
    return found[3:]


async def test_a_single_wake_in_an_idle_system_starts_within_a_quarter_of_a_second(url: str) -> None:
    found = await latencies(url, 12, 0.15)
    print(f"start to handler: p50 {statistics.median(found) * 1000:.1f} ms, longest {max(found) * 1000:.1f} ms")
    assert statistics.median(found) < 0.25


async def with_timers(url: str, count: int, waits: int) -> float:
    """p50 of a wake while so many threads wait for the clock, none of them within the minute but a few."""
    async with client(url):
        look(
            url,
            """INSERT INTO ownloop.threads (number, agent, status, created_at, updated_at, head, woken, seen, due)
            SELECT n, 'timed', 'open', 0, 0, 1, 0, 1, ownloop.now() + 50000000 + n * 3600000000 / %s FROM generate_series(1, %s) AS n""",
            (count, count),
        )
        look(url, "ANALYZE ownloop.threads")
    found = await latencies(url, waits, 0.05)
    print(f"{count} timers: p50 {statistics.median(found) * 1000:.1f} ms, longest {max(found) * 1000:.1f} ms")
    return statistics.median(found)


async def test_timers_that_wait_do_not_slow_a_wake(url: str) -> None:
    assert await with_timers(url, 20_000, 20) < 0.1


@pytest.mark.soak
async def test_a_hundred_thousand_timers_do_not_slow_a_wake(url: str) -> None:
    assert await with_timers(url, 100_000, 200) <= 0.025


async def test_an_idle_worker_sends_less_than_five_statements_a_second(url: str) -> None:
    book = Book()
    async with serving(url, book) as app:
        await app.start("reader")
        await until(lambda: book.wakes, "it runs")
        await asyncio.sleep(0.5)
        sent: Counter[str] = Counter()
        borrowed = app.store.connections._borrow  # type: ignore[attr-defined]

        async def counted() -> Any:
            sent["all"] += 1
            return await borrowed()

        app.store.connections._borrow = counted  # type: ignore[attr-defined]
        await asyncio.sleep(3)
        print(f"idle: {sent['all'] / 3:.1f} statements a second")
    assert 1 <= sent["all"] <= 15
