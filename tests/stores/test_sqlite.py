"""The SQLite store keeps every promise of a store, and those that only a file and other processes can break."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Collection, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import processes

from ownloop import App, Thread
from ownloop.errors import NewerSchema, NotAStore, StoreBusy, StoreError, StoreFull, StoreReadOnly
from ownloop.events import Draft, Kind
from ownloop.stores.base import NewThread, Refused
from ownloop.stores.sqlite import SqliteStore, codec, connect
from ownloop.testing import FakeClock, StoreContract
from ownloop.testing.store_notes import NotePromises
from ownloop.testing.store_scene import TTL, Scene, Wake


class TestSqliteStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_store(self, clock: FakeClock) -> SqliteStore:
        return SqliteStore(self.folder / "contract.db", clock)


class TestNotesWhereSqliteHasNoFullTextSearch(NotePromises):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_store(self, clock: FakeClock) -> SqliteStore:
        path = self.folder / "plain.db"
        with contextlib.closing(connect.open_writer(path, True)) as db:
            db.execute("DROP TABLE note_words")  # as a SQLite without FTS5 makes the file
        return SqliteStore(path, clock)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()


async def new_thread(store: SqliteStore) -> str:
    return (await store.create(NewThread("bot", [Draft("input", {"input": 1})])))[0]


async def say(store: SqliteStore, thread: str, text: str) -> None:
    await store.message(thread, [Draft("message", {"text": text})])


async def texts(path: Path, thread: str) -> list[str]:
    store = SqliteStore(path)
    await store.open()
    try:
        assert await store.check() == []
        return [event.data["text"] for event in await store.events(thread) if event.kind == "message"]
    finally:
        await store.close()


def look(path: Path, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        return db.execute(query).fetchall()


# ---- the place -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path", "full"),
    [
        ("sqlite:///deploys.db", "deploys.db", True),
        ("sqlite:////var/lib/a.db", "/var/lib/a.db", True),
        ("sqlite:///my%20files/a%23b.db?synchronous=normal", "my files/a#b.db", False),
        ("sqlite:////a.db?synchronous=FULL", "/a.db", True),
        ("plain/path.db", "plain/path.db", True),
    ],
)
def test_a_url_names_a_file(url: str, path: str, full: bool) -> None:
    assert connect.parse(url) == (Path(path), full)


@pytest.mark.parametrize(
    "url", ["sqlite://host/a.db", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///a?synchronous=off", "sqlite:///a?x=1", "http://a/b"]
)
def test_a_url_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite|setting|memory"):
        SqliteStore(url)


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"folder .*nowhere.* does not exist"):
        await SqliteStore(tmp_path / "nowhere" / "a.db").open()


async def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(NotAStore, match="folder"):
        await SqliteStore(tmp_path).open()


@pytest.mark.parametrize("text", ["Dear diary,\n" * 100, "x", "SQLite format 3\0" + "x" * 5000])
async def test_a_file_of_another_kind_is_left_as_it_is(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(NotAStore, match="no SQLite database"):
        await SqliteStore(path).open()
    assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


async def test_the_database_of_another_program_is_left_as_it_is(path: Path) -> None:
    look(path, "CREATE TABLE customers (name)")
    before = path.read_bytes()
    with pytest.raises(NotAStore, match="another program"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    store = SqliteStore(path)
    await store.open()
    await new_thread(store)
    await store.close()


async def test_a_newer_schema_is_left_as_it_is(path: Path) -> None:
    await written_once(path)
    look(path, "PRAGMA user_version = 99")
    with pytest.raises(NewerSchema, match=f"schema version 99, this ownloop knows up to {len(connect.MIGRATIONS)}"):
        await SqliteStore(path).open()
    assert look(path, "PRAGMA user_version") == [(99,)]


async def written_once(path: Path) -> str:
    store = SqliteStore(path)
    await store.open()
    thread = await new_thread(store)
    await store.close()
    return thread


async def test_an_older_schema_is_brought_forward_and_keeps_what_it_holds(path: Path) -> None:
    thread = await written_once(path)
    steps = (*connect.MIGRATIONS, "CREATE TABLE colours (name TEXT);\nINSERT INTO colours VALUES ('red');")
    for _ in range(2):  # the second time there is nothing to do
        connect.open_writer(path, True, steps).close()
    assert look(path, "SELECT name FROM colours") == [("red",)]
    assert look(path, "PRAGMA user_version") == [(len(connect.MIGRATIONS) + 1,)]
    assert look(path, "SELECT count(*) FROM events") == [(1,)], thread


async def test_a_file_from_before_there_were_notes_takes_notes(path: Path) -> None:
    connect.open_writer(path, True, connect.MIGRATIONS[:1]).close()
    assert look(path, "PRAGMA user_version") == [(1,)]
    store = SqliteStore(path)
    await store.open()
    await store.note("customer:42", "tier", "pays by invoice")
    assert [note.key for note in await store.notes("customer:42", "invoice")] == ["tier"]
    await store.close()
    assert look(path, "PRAGMA user_version") == [(len(connect.MIGRATIONS),)]


async def test_a_file_from_before_there_was_an_inbox_knows_what_is_urgent(path: Path) -> None:
    scene = Scene(SqliteStore(path, clock := FakeClock()), clock)
    await scene.store.open()
    parked = [(await scene.parked(expires=timedelta(hours=hours) if hours else None))[0] for hours in (0, 9, 3)]
    await scene.store.close()
    for statement in ("DROP INDEX interrupts_urgent", "ALTER TABLE interrupts DROP COLUMN expires_at", "PRAGMA user_version = 2"):
        look(path, statement)
    await scene.store.open()
    assert [row.thread_id for row in await scene.store.interrupts(order="urgency")] == [parked[2], parked[1], parked[0]]
    await scene.store.close()


async def test_the_first_page_of_an_inbox_is_read_in_the_order_of_an_index(store: SqliteStore) -> None:
    """No sorting: the time of a page must not depend on how many wait."""
    asked: list[str] = []
    db = store._readers._far
    db.set_trace_callback(asked.append)
    await store.interrupts(order="urgency", kinds=["approval", "question"], snoozed=False, context={"tenant": "acme"})
    db.set_trace_callback(None)
    queries = [text for text in asked if "FROM interrupts" in text]
    plans = [" / ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}")) for query in queries]
    assert ["USING INDEX interrupts_urgent" in plans[0], "USING INDEX interrupts_open" in plans[1], len(plans)] == [True, True, 2]
    assert not any("TEMP B-TREE" in plan for plan in plans)


async def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    await written_once(path)
    with pytest.raises(StoreError, match="syntax error"):
        connect.open_writer(path, True, (*connect.MIGRATIONS, "CREATE TABLE colours (name);\nNONSENSE"))
    assert look(path, "PRAGMA user_version") == [(len(connect.MIGRATIONS),)]
    assert look(path, "SELECT name FROM sqlite_master WHERE name = 'colours'") == []


def test_codes_on_disk_cover_every_kind() -> None:
    assert set(codec.EVENT_KINDS) == set(get_args(Kind))
    assert [codec.EVENT_CODES[kind] for kind in ("outcome", "request", "appended", "compacted")] == [8, 10, 14, 15]
    assert codec.REQUEST_CODES["event"] == 3


@contextlib.contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Without the right to write, also when root runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    for parent in (folder, *folder.parents):
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_file_that_cannot_be_written_is_named_and_stays(path: Path) -> None:
    await written_once(path)
    path.chmod(0o444)
    before = path.read_bytes()
    with as_nobody(path.parent), pytest.raises(StoreReadOnly, match=r"store\.db cannot be written"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    with as_nobody(folder), pytest.raises(StoreReadOnly, match="locked"):
        await SqliteStore(folder / "a.db").open()
    assert list(folder.iterdir()) == []


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False).returncode == 0
    if not mounted:
        pytest.skip("a small disk can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


async def test_a_full_disk_is_said_loses_nothing_that_was_told_and_the_store_goes_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 500_000)
        store = SqliteStore(disk / "a.db")
        await store.open()
        thread = await new_thread(store)
        told = []
        with pytest.raises(StoreFull, match="is full; nothing was written"):
            for number in range(10_000):
                text = f"{number} " + "x" * 1000
                await say(store, thread, text)
                told.append(text)
        assert told
        results = await asyncio.gather(*(say(store, thread, "y" * 50_000) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, StoreFull) for result in results)
        ballast.unlink()
        for text in ("after 1", "after 2"):
            await say(store, thread, text)
            told.append(text)
        await store.close()
        assert await texts(disk / "a.db", thread) == told


async def test_a_value_larger_than_the_disk_harms_nobody_in_its_group(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = SqliteStore(disk / "a.db")
        await store.open()
        thread = await new_thread(store)
        wanted = ["a", "x" * 3_000_000, "b"]
        results = await asyncio.gather(*(say(store, thread, text) for text in wanted), return_exceptions=True)
        assert isinstance(results[1], StoreFull)
        told = [text for text, result in zip(wanted, results, strict=True) if result is None]
        await store.close()
        assert await texts(disk / "a.db", thread) == told


# ---- commits in groups -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def statements(store: SqliteStore) -> Iterator[list[str]]:
    """What the writing connection is told."""
    seen: list[str] = []
    store._writer._db.set_trace_callback(seen.append)
    yield seen
    store._writer._db.set_trace_callback(None)


async def test_two_hundred_appends_at_once_share_few_commits(store: SqliteStore) -> None:
    thread = await new_thread(store)
    with statements(store) as seen:
        await asyncio.gather(*(say(store, thread, str(number)) for number in range(200)))
    assert seen.count("COMMIT") <= 5
    assert len(await store.events(thread)) == 201


async def test_a_refusal_in_a_group_harms_nobody_else(store: SqliteStore) -> None:
    thread, ended = await new_thread(store), await new_thread(store)
    await store.control(ended, "close", Draft("control", {"verb": "close"}))
    with statements(store) as seen:
        targets = [thread, ended] * 20
        results = await asyncio.gather(*(say(store, target, str(n)) for n, target in enumerate(targets)), return_exceptions=True)
    assert seen.count("COMMIT") == 1
    assert [isinstance(result, Refused) for result in results] == [False, True] * 20
    assert len(await store.events(thread)) == 21
    assert len(await store.events(ended)) == 2


async def test_nobody_hears_ok_when_the_commit_fails(store: SqliteStore) -> None:
    thread = await new_thread(store)
    writing = store._writer._db

    def refuse(action: int, operation: str | None, *_: object) -> int:
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION and operation == "COMMIT" else sqlite3.SQLITE_OK

    writing.set_authorizer(refuse)
    results = await asyncio.gather(*(say(store, thread, "lost") for _ in range(3)), return_exceptions=True)
    writing.set_authorizer(None)
    assert all(isinstance(result, StoreError) for result in results)
    await say(store, thread, "kept")
    assert [event.data.get("text") for event in await store.events(thread)] == [None, "kept"]


async def test_close_finishes_what_was_submitted_and_later_work_is_refused(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    thread = await new_thread(store)
    tasks = [asyncio.create_task(say(store, thread, str(number))) for number in range(100)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*tasks)
    with pytest.raises(StoreError, match="not open"):
        await say(store, thread, "late")
    assert len(await texts(path, thread)) == 100
    assert not Path(f"{path}-wal").exists()


async def test_a_caller_that_is_cancelled_harms_nobody_in_its_group(store: SqliteStore) -> None:
    thread = await new_thread(store)
    tasks = [asyncio.create_task(say(store, thread, str(number))) for number in range(10)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(result is None for result in results) == 9


async def test_threads_and_event_loops_share_a_store(store: SqliteStore) -> None:
    thread = await new_thread(store)

    async def many(name: str) -> None:
        await asyncio.gather(*(say(store, thread, f"{name}{number}") for number in range(50)))

    others = [threading.Thread(target=lambda name=name: asyncio.run(many(name))) for name in "abc"]
    for other in others:
        other.start()
    await many("d")
    for _ in range(20):
        await asyncio.to_thread(store.renew, {thread: 1}, TTL)
    await asyncio.to_thread(lambda: [other.join() for other in others])
    assert len(await store.events(thread)) == 201
    assert await store.check() == []


async def test_a_slow_medium_is_left_to_the_writers_thread(store: SqliteStore) -> None:
    thread = await new_thread(store)
    store._writer._pace = 1.0
    seen: set[int] = set()
    stop = store.listen(lambda thread_ids: seen.add(threading.get_ident()))
    await asyncio.gather(*(say(store, thread, str(number)) for number in range(10)))
    await asyncio.sleep(0.05)
    stop()
    assert seen == {store._writer._thread.ident}


# ---- several processes -----------------------------------------------------------------------------------------------------------


async def test_ten_processes_open_a_fresh_file_at_once(path: Path) -> None:
    running = [processes.start("create", path) for _ in range(10)]
    created = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0] * 10
    store = SqliteStore(path)
    await store.open()
    assert {row.id for row in await store.threads()} == created
    await store.close()


async def test_four_processes_append_to_one_file_and_nothing_is_lost(path: Path) -> None:
    thread = await written_once(path)
    running = [processes.start("append", path, thread, 200) for _ in range(4)]
    told = [line for process in running for line in process.communicate(timeout=120)[0].split()]
    assert [process.returncode for process in running] == [0] * 4
    assert len(told) == 800
    assert sorted(await texts(path, thread)) == sorted(told)


async def test_what_a_killed_process_was_told_is_there(path: Path) -> None:
    thread = await written_once(path)
    told: list[str] = []
    for lines in (40, 7, 111):
        process = processes.start("append", path, thread, 100_000)
        assert process.stdout is not None
        told += [process.stdout.readline().strip() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split("\n")[:-1]
        process.wait()
    found = await texts(path, thread)
    assert set(told) <= set(found)
    assert len(found) == len(set(found))


async def test_a_lock_of_another_process_is_waited_for(store: SqliteStore, path: Path) -> None:
    thread = await new_thread(store)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
    beats = 0
    task = asyncio.create_task(say(store, thread, "patient"))
    while not task.done():
        beats += 1
        await asyncio.sleep(0.01)
    await task
    assert beats > 10, "the event loop stood still while another process held the lock"
    other.close()


async def test_a_lock_that_is_never_let_go_is_an_error_of_its_own(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thread = await new_thread(store)
    monkeypatch.setattr(connect, "BUSY_SECONDS", 0.2)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match=r"locked for 0\.2 s; nothing was written"):
        await say(store, thread, "impatient")
    other.execute("COMMIT")
    other.close()
    await say(store, thread, "again")
    assert len(await store.events(thread)) == 2


@pytest.mark.alone
async def test_commits_of_other_processes_are_heard_within_a_tenth_of_a_second(store: SqliteStore, path: Path) -> None:
    other = SqliteStore(path)  # another connection: to SQLite the same as another process
    await other.open()
    heard: list[tuple[float, Collection[str] | None]] = []
    stop = store.listen(lambda thread_ids: heard.append((time.monotonic(), thread_ids)))
    delays = []
    for _ in range(8):
        await asyncio.sleep(0.13)
        heard.clear()
        began = time.monotonic()
        await new_thread(other)
        while not heard:
            assert time.monotonic() - began < 2
            await asyncio.sleep(0.002)
        delays.append(heard[0][0] - began)
        assert heard[0][1] is None
    stop()
    await other.close()
    assert sorted(delays)[-2] < 0.1, delays


async def test_of_two_commits_in_one_tick_of_the_file_systems_clock_both_are_heard(store: SqliteStore, path: Path) -> None:
    other = SqliteStore(path)
    await other.open()
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()
    stop = store.listen(lambda thread_ids: loop.call_soon_threadsafe(heard.set) if thread_ids is None else None)
    for _ in range(30):
        await new_thread(other)
        await asyncio.wait_for(heard.wait(), 20)
        heard.clear()
    stop()
    await other.close()


async def test_a_commit_whose_sync_takes_long_is_heard_although_the_log_was_written_long_before(store: SqliteStore, path: Path) -> None:
    """The file's time and size are those of the write; here they are put back, as if the sync had ended only now."""
    other = SqliteStore(path)
    await other.open()
    log = Path(f"{path}-wal")
    assert connect.reserve(other._writer._db, path)
    heard, loop = asyncio.Event(), asyncio.get_running_loop()
    stop = store.listen(lambda thread_ids: loop.call_soon_threadsafe(heard.set) if thread_ids is None else None)
    before = log.stat()
    await asyncio.sleep(0.8)
    heard.clear()
    await new_thread(other)
    os.utime(log, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert log.stat().st_size == before.st_size
    async with asyncio.timeout(20):
        await heard.wait()
    stop()
    await other.close()


async def test_own_commits_are_not_heard_as_those_of_others(store: SqliteStore) -> None:
    heard: list[Collection[str] | None] = []
    stop = store.listen(heard.append)
    thread = await new_thread(store)
    await asyncio.sleep(0.2)
    stop()
    assert heard == [{thread}]


@pytest.mark.alone
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is missing")
def test_an_idle_listener_makes_few_system_calls(path: Path, tmp_path: Path) -> None:
    seconds = 3
    counts = tmp_path / "strace"
    process = processes.start("listen", path, seconds, before=("strace", "-f", "-tt", "-o", str(counts)))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    before = len(counts.read_text().splitlines())
    time.sleep(seconds - 1)
    calls = len(counts.read_text().splitlines()) - before
    process.kill()
    process.wait()
    process.stdout.close()
    assert calls / (seconds - 1) < 100


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is missing")
@pytest.mark.parametrize(("setting", "least", "most"), [("full", 60, 200), ("normal", 0, 20)])
async def test_every_commit_is_synced_unless_the_url_says_otherwise(path: Path, tmp_path: Path, setting: str, least: int, most: int) -> None:
    thread = await written_once(path)
    trace = tmp_path / "strace"
    url = f"sqlite:///{path}?synchronous={setting}"
    process = processes.start("append", url, thread, 300, before=("strace", "-f", "-e", "trace=fdatasync,fsync", "-o", str(trace)))
    assert len(process.communicate(timeout=60)[0].split()) == 300
    assert least <= trace.read_text().count("sync(") <= most


# ---- what is on disk -------------------------------------------------------------------------------------------------------------


async def test_a_large_value_is_stored_once_and_forgotten_with_its_last_thread(path: Path) -> None:
    clock = FakeClock()
    store = SqliteStore(path, clock)
    await store.open()
    scene = Scene(store, clock)
    value = "x" * 200_000
    wakes = [await scene.wake(), await scene.wake()]
    for wake in wakes:
        for _ in range(3):
            await wake.begin(Draft("appended", {"name": "n", "data": value, "small": 1}))
    assert look(path, "SELECT count(*), max(length(json)) FROM blobs") == [(1, 200_002)]
    for wake, left in zip(wakes, (1, 0), strict=True):
        await wake.finish()
        clock.advance("1s")
        assert await store.prune(clock.now()) == 1
        assert look(path, "SELECT count(*) FROM blobs") == [(left,)]
    await store.close()


async def test_what_nobody_can_ask_for_any_more_is_deleted(path: Path) -> None:
    clock = FakeClock()
    store = SqliteStore(path, clock)
    await store.open()
    await store.put("s", "k", 1, ttl=timedelta(days=1))
    await store.put("s", "kept", 1)
    await store.emit("tick", None, None, 1)
    clock.advance("8d")
    await store.emit("tick", None, None, 2)
    await store.prune(clock.now())
    assert look(path, "SELECT key FROM records") == [("kept",)]
    assert look(path, "SELECT payload FROM mail") == [("2",)]
    await store.close()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("DELETE FROM events WHERE seq = 2", "its log has 2 events from 1 to 3, its row says 3"),
        ("DELETE FROM events WHERE seq = 3", "its log has 2 events from 1 to 2, its row says 3"),
        ("UPDATE threads SET head = 9", "its row says 9"),
        ("DELETE FROM events", "its log has 0 events"),
        ("DELETE FROM threads", "1 logs have no row"),
        ("UPDATE events SET kind = 1 WHERE seq = 3", "the interrupt at 3 contradicts the log"),
        ("UPDATE interrupts SET closing = 3", "the interrupt at 3 contradicts the log"),
        ("DELETE FROM blobs", "a value of the event at 2 is missing"),
    ],
)
async def test_check_names_what_was_harmed(path: Path, harm: str, said: str) -> None:
    store = SqliteStore(path)
    await store.open()
    thread = await new_thread(store)
    claim = await store.claim(thread, ["bot"], TTL)
    assert claim is not None
    wake = Wake(store, claim)
    await wake.begin(Draft("selected", {"arguments": "x" * 100_000}, wake.step()))
    await wake.request()
    assert await store.check() == []
    look(path, harm)
    found = await store.check()
    assert any(said in line for line in found), found
    await store.close()


async def test_no_statement_of_the_protocol_scans_a_table(store: SqliteStore, path: Path) -> None:
    scene = Scene(store, FakeClock())
    reading = store._readers._near
    with statements(store) as seen:
        reading.set_trace_callback(seen.append)
        await store.subscribe(["interrupt.opened"])
        wake = await scene.wake()
        await wake.select()
        request = await wake.request()
        await wake.wait("paid", "1")
        await store.emit("paid", "1", "e", 1)
        await wake.started(after=1)
        await wake.outcome()
        await wake.outcome(step="gate", started=1)
        await wake.release()
        await store.message(wake.id, [Draft("message", {"text": "x"})], dedupe="t")
        await scene.vote(wake.id, request.seq, by="ann", votes=0)
        await scene.decide(wake.id, request.seq, votes=1)
        await store.runnable(["bot"], 10)
        await store.load(wake.id, 10)
        await store.recall(wake.id, wake.step("gate"), 10)
        await store.recall(wake.id, None, 10)
        await store.interrupts()
        await store.interrupts(thread=wake.id)
        await store.interrupts(after=(wake.id, request.seq))
        await store.find("bot", "k")
        await (await scene.wake(wake.id)).finish(aside=[wake.step()])
        reading.set_trace_callback(None)
    queries = {query for query in seen if query.startswith(("SELECT", "UPDATE", "DELETE"))}
    assert len(queries) > 25
    plans = {query: [str(row[3]) for row in look(path, f"EXPLAIN QUERY PLAN {query}")] for query in queries}
    scans = {query: plan for query, plan in plans.items() for line in plan if line.startswith("SCAN") and "USING" not in line and "json" not in line}
    scans = {query: plan for query, plan in scans.items() if "outbox" not in query}
    assert scans == {}
    sorts = {query: plan for query, plan in plans.items() if any("TEMP B-TREE" in line for line in plan)}
    assert sorts == {}
    sizes = {"events (thread=?)": "a whole log", "interrupts (thread=?)": "all interrupts of a thread"}
    wide = {query: plan for query, plan in plans.items() for line in plan for end in sizes if line.endswith(end)}
    assert wide == {}


async def test_the_first_page_of_ten_thousand_open_interrupts_is_an_index_lookup(tmp_path: Path) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/many.db?synchronous=normal")
    await store.open()
    scene = Scene(store, FakeClock())
    for _ in range(10):
        await asyncio.gather(*(scene.parked() for _ in range(1000)))
    best = 1.0
    for _ in range(20):
        began = time.perf_counter()
        assert len(await store.interrupts(limit=50)) == 50
        best = min(best, time.perf_counter() - began)
    await store.close()
    assert best < 0.003  # 1 ms on an idle machine


async def test_a_step_takes_little_room_however_long_the_log_is(path: Path) -> None:
    store = SqliteStore(f"sqlite:///{path}?synchronous=normal")
    await store.open()
    scene = Scene(store, FakeClock())
    wake = await scene.wake()
    sizes = []
    for begin in range(1, 3001, 1000):
        for number in range(begin, begin + 1000):
            ended = [Draft("ended", {}, wake.step(number - 1))] if number > 1 else []
            selected = Draft("selected", {"intent": "list_git_tags", "arguments": {}, "read": wake.claim.row.head}, wake.step(number))
            await wake.begin(*ended, selected, selecting=True)
            started = await wake.started("run:list_git_tags", step=number)
            await wake.outcome("run:list_git_tags", step=number, started=started.seq, value="x" * 200)
        look(path, "PRAGMA wal_checkpoint(TRUNCATE)")
        sizes.append(path.stat().st_size)
    await store.close()
    assert (sizes[2] - sizes[1]) / 1000 <= 600
    assert sizes[2] - sizes[1] <= 1.05 * (sizes[1] - sizes[0])


async def test_a_parked_thread_takes_little_room(path: Path) -> None:
    store = SqliteStore(f"sqlite:///{path}?synchronous=normal")
    await store.open()
    scene = Scene(store, FakeClock())

    async def park() -> None:
        wake = await scene.wake()
        draft = Draft("selected", {"intent": "deploy", "arguments": {"tag": "v1.2.3", "environment": "production"}, "schema": "f" * 64}, wake.step())
        await wake.begin(draft, selecting=True)
        policy = {"by": ["release-managers"], "quorum": 1, "not_by": [], "allow": ["approve", "edit", "reject", "respond"], "on_expiry": "reject"}
        await wake.request(arguments={"tag": "v1.2.3", "environment": "production"}, policy=policy)
        await wake.release()

    for _ in range(4):
        await asyncio.gather(*(park() for _ in range(500)))
    await store.close()
    assert path.stat().st_size / 2000 <= 1200


async def test_half_a_surrogate_pair_in_a_key_is_refused_in_words_and_harms_nobody_in_its_group(path: Path) -> None:
    app = App(f"sqlite:///{path}")

    @app.agent
    async def reader(thread: Thread) -> Any:
        return thread.input

    try:
        half, whole = await asyncio.gather(app.start("reader", key="k\ud800"), app.start("reader", "said \ud800", key="k"), return_exceptions=True)
        with pytest.raises(StoreError, match="holds half a surrogate pair.*nothing was written"):
            raise half  # type: ignore[misc]
        assert (await app.show(whole)).events[0].data == {"input": "said \ud800"}  # type: ignore[arg-type]
        with pytest.raises(StoreError, match="holds half a surrogate pair"):
            await app.show(("reader", "k\ud800"))
    finally:
        await app.aclose()
