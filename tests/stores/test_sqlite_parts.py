"""Parts of the SQLite store that are looked at one by one: the watch for other processes, its errors in words, what it hands out and forgets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ownloop.errors import NotAStore, StoreBusy, StoreError, StoreFull, StoreReadOnly
from ownloop.events import Draft
from ownloop.stores.base import NewThread
from ownloop.stores.sqlite import SqliteStore, connect
from ownloop.stores.sqlite.writer import LOOK_SECONDS, _Watch
from ownloop.testing import FakeClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(connect.open_writer(path, True)) as db:
        yield db


def other(path: Path, statement: str) -> None:
    """Another connection commits."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)


# ---- the watch for commits of other processes ----------------------------------------------------------------------------------------


def test_nobody_looks_while_nobody_listens(db: sqlite3.Connection, path: Path) -> None:
    watch = _Watch(db, path)
    assert (watch.wait(), watch.is_due()) == (None, False)
    watch.wanted = True
    assert (watch.wait(), watch.is_due()) == (0.0, True)


def test_a_commit_of_another_connection_is_seen_once_and_an_own_one_never(db: sqlite3.Connection, path: Path) -> None:
    watch = _Watch(db, path)
    watch.wanted = True
    assert not watch.has_changed()
    other(path, "PRAGMA user_version = 3")
    assert watch.has_changed()
    assert not watch.has_changed()
    db.execute("PRAGMA user_version = 3")
    assert not watch.has_changed()
    wait = watch.wait()
    assert wait is not None
    assert 0 < wait <= LOOK_SECONDS
    assert not watch.is_due()


def test_a_log_that_rests_is_looked_at_from_outside_only(db: sqlite3.Connection, path: Path) -> None:
    watch, seen = _Watch(db, path), []
    db.set_trace_callback(seen.append)
    other(path, "PRAGMA user_version = 3")
    assert watch.has_changed()
    assert not watch.has_changed()
    assert seen == ["PRAGMA data_version"] * 2  # the log was written a moment ago: its time says nothing yet
    log = Path(f"{path}-wal")
    os.utime(log, ns=(log.stat().st_atime_ns, log.stat().st_mtime_ns - 10**9))
    assert not watch.has_changed()
    assert not watch.has_changed()
    assert seen == ["PRAGMA data_version"] * 3  # at the second look nothing had moved
    other(path, "PRAGMA user_version = 3")
    assert watch.has_changed()


# ---- errors --------------------------------------------------------------------------------------------------------------------------


def error_of(db: sqlite3.Connection, *statements: str) -> sqlite3.Error:
    with pytest.raises(sqlite3.Error) as raised:
        for statement in statements:
            db.execute(statement)
    return raised.value


def test_each_error_of_sqlite_says_what_to_do(db: sqlite3.Connection, path: Path, tmp_path: Path) -> None:
    found = [error_of(db, "PRAGMA query_only = 1", "CREATE TABLE t (a)")]
    db.execute("PRAGMA query_only = 0")
    found.append(
        error_of(db, f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}", "BEGIN", "CREATE TABLE t (a)", "CREATE TABLE u (a)")
    )
    with contextlib.suppress(sqlite3.Error):
        db.execute("ROLLBACK")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")
        found.append(error_of(db, "BEGIN IMMEDIATE"))
    (tmp_path / "text.db").write_text("no database " * 100)
    with contextlib.closing(sqlite3.connect(tmp_path / "text.db")) as text:
        found.append(error_of(text, "SELECT * FROM sqlite_master"))
    found.append(error_of(db, "SELECT * FROM nowhere"))
    said = [connect.translate(error, path) for error in found]
    assert [type(one) for one in said] == [StoreReadOnly, StoreFull, StoreBusy, NotAStore, StoreError]
    assert all(str(path) in str(one) for one in said)
    assert "it is no SQLite database" in str(said[3])
    assert f"{path}: SQLite says 'no such table: nowhere' (SQLITE_ERROR); nothing was half-written" in str(said[4])
    assert [connect.is_busy(error) for error in found] == [False, False, True, False, False]


async def test_a_file_whose_first_page_is_broken_is_no_store(path: Path) -> None:
    other(path, "CREATE TABLE t (a)")
    content = bytearray(path.read_bytes())
    content[100:200] = b"\xff" * 100
    path.write_bytes(content)
    with pytest.raises(NotAStore, match="it is no SQLite database"):
        await SqliteStore(path).open()
    assert path.read_bytes() == content


def test_an_error_that_is_not_sqlites_is_not_waited_for(path: Path) -> None:
    tries: list[int] = []

    def attempt() -> None:
        tries.append(1)
        raise sqlite3.OperationalError("something else")

    with pytest.raises(StoreError, match="something else"):
        connect.patiently(path, attempt, 5)
    assert tries == [1]


async def test_a_transaction_that_cannot_begin_is_said_and_writes_nothing(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    thread, _ = await store.create(NewThread("bot", [Draft("input", {"input": 1})]))

    for pace in (0.0, 1.0):  # by the event loop, by the writer's thread
        store._writer._pace = pace
        store._writer._db.execute("BEGIN")
        with pytest.raises(StoreError, match="cannot start a transaction within a transaction"):
            await store.message(thread, [Draft("message", {"text": "lost"})])
    await store.message(thread, [Draft("message", {"text": "kept"})])
    assert [event.data.get("text") for event in await store.events(thread)] == [None, "kept"]
    await store.close()


# ---- the store ---------------------------------------------------------------------------------------------------------------------


async def test_a_number_that_is_taken_is_not_given_to_another_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(path)
    await store.open()
    monkeypatch.setattr("ownloop.ids.new_number", lambda: 7)
    threads = [(await store.create(NewThread("bot", [Draft("input", {"input": number})])))[0] for number in range(3)]
    assert len(set(threads)) == 3
    assert [(await store.events(thread))[0].data["input"] for thread in threads] == [0, 1, 2]
    await store.close()


@pytest.mark.parametrize(("given", "url"), [("a.db", "sqlite:///a.db"), ("/tmp/a.db", "sqlite:////tmp/a.db"), ("sqlite:///a.db", "sqlite:///a.db")])
def test_a_store_says_its_url_also_when_it_was_given_a_path(given: str, url: str) -> None:
    assert (SqliteStore(given).url, SqliteStore(url).path) == (url, Path(given.removeprefix("sqlite:///")))


async def test_what_reads_cannot_write(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    for look in (store._readers._near, store._readers._far):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            look.execute("DELETE FROM threads")
    await store.close()


async def test_prune_forgets_what_ended_before_a_moment_and_not_at_it(path: Path) -> None:
    store = SqliteStore(path, clock := FakeClock())
    await store.open()
    for _ in range(2):
        thread, _ = await store.create(NewThread("bot", [Draft("input", {"input": 1})]))
        await store.control(thread, "close", Draft("control", {"verb": "close"}))
        moment = clock.now()
        clock.advance("1h")
    assert await store.prune(moment) == 1
    assert [row.id for row in await store.threads()] == [thread]
    await store.close()


async def test_a_note_that_says_the_same_again_is_the_same_note(path: Path) -> None:
    store = SqliteStore(path, clock := FakeClock())
    await store.open()
    first = await store.note("ann", "colour", "blue")
    clock.advance("1h")
    assert await store.note("ann", "colour", "blue") == first
    assert (first.owner, first.key, first.text, first.at) == ("ann", "colour", "blue", clock.now() - timedelta(hours=1))
    assert await store.notes("ann") == [first]
    await store.close()


async def test_on_a_quick_medium_the_event_loop_commits_itself(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    thread, _ = await store.create(NewThread("bot", [Draft("input", {"input": 1})]))
    seen: list[int] = []
    store._writer._db.set_trace_callback(lambda statement: seen.append(threading.get_ident()) if statement == "COMMIT" else None)
    for _ in range(5):
        store._writer._pace = 0.0
        await store.message(thread, [Draft("message", {"text": "x"})])
    store._writer._db.set_trace_callback(None)
    assert threading.get_ident() in seen
    await store.close()


async def test_the_words_of_a_note_stand_in_the_file_where_later_versions_look_for_them(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.note("ann", "colour", "Blue, not red")
    await store.close()
    owner = "o" + hashlib.sha256(b"ann").hexdigest()
    with contextlib.closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT rowid FROM note_words WHERE note_words MATCH ?", (f"owner : {owner} AND words : (blue)",)).fetchall()
        assert found == db.execute("SELECT number FROM notes").fetchall() != []


async def test_closing_waits_for_the_thread_that_writes(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    thread, _ = await store.create(NewThread("bot", [Draft("input", {"input": 1})]))
    writer, never = store._writer, threading.Event()
    writer._pace = 1.0  # a slow medium: the thread commits
    writer._db.set_trace_callback(lambda statement: never.wait(0.2) if statement == "COMMIT" else None)
    told = [asyncio.ensure_future(store.message(thread, [Draft("message", {"text": str(number)})])) for number in range(10)]
    await asyncio.sleep(0)
    await store.close()
    assert not writer._thread.is_alive()
    assert len(await asyncio.gather(*told)) == 10
