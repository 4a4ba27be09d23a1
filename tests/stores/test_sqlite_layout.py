"""The write-ahead log is laid out early, and nothing else is changed by it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ownloop.events import Draft
from ownloop.stores.base import NewThread
from ownloop.stores.sqlite import SqliteStore, connect


def log_of(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


@contextlib.contextmanager
def opened(path: Path, full: bool = True) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(connect.open_writer(path, full)) as db:
        db.execute("INSERT OR IGNORE INTO subscriptions (name) VALUES ('x')")
        yield db


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def test_a_process_that_serves_finds_room_in_the_log_and_the_file_stays_small(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    thread, _ = await store.create(NewThread("bot", [Draft("input", {"input": 1})]))
    assert log_of(path) < connect.RESERVE, "who writes once and goes lays nothing out"
    store.listen(lambda threads: None)
    await asyncio.sleep(0.1)
    assert log_of(path) < connect.RESERVE, "nor who only looks"
    await store.message(thread, [Draft("message", {"text": "x"})])
    assert log_of(path) >= connect.RESERVE
    for number in range(20):
        await store.message(thread, [Draft("message", {"text": str(number)})])
    assert connect.RESERVE <= log_of(path) < 1.1 * connect.RESERVE, "what is written later takes the room that is there"
    assert await store.check() == [] and len(await store.events(thread)) == 22
    await store.close()
    assert path.stat().st_size < connect.RESERVE / 4
    again = SqliteStore(path)
    await again.open()
    assert len(await again.events(thread)) == 22
    await again.close()


def test_it_is_rolled_back_and_leaves_the_connection_as_it_was(path: Path) -> None:
    with opened(path) as db:
        tables, cache = (db.execute(query).fetchall() for query in ("SELECT name FROM sqlite_master", "PRAGMA cache_size"))
        assert connect.reserve(db, path) and log_of(path) >= connect.RESERVE
        assert [db.execute(query).fetchall() for query in ("SELECT name FROM sqlite_master", "PRAGMA cache_size")] == [tables, cache]
        with contextlib.closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT name FROM subscriptions").fetchall() == [("x",)]
            assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_whoever_writes_is_not_waited_for(path: Path) -> None:
    with opened(path) as db, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not connect.reserve(db, path), "asked again later"
        other.execute("INSERT INTO subscriptions (name) VALUES ('y')")
        other.execute("COMMIT")
        assert connect.reserve(db, path) and log_of(path) >= connect.RESERVE
        assert len(db.execute("SELECT name FROM subscriptions").fetchall()) == 2


def test_no_room_is_taken_where_commits_are_not_synced_or_the_disk_is_nearly_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(path, full=False) as db:
        assert connect.reserve(db, path) and log_of(path) < connect.RESERVE
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9 - 10**8, 10**8))
    with opened(path.with_name("near.db")) as db:
        assert connect.reserve(db, path.with_name("near.db")) and log_of(path.with_name("near.db")) < connect.RESERVE
