"""From a URL to a connection on a file that is ours, of this version, and writable; and what SQLite's errors mean."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from ...errors import NewerSchema, NotAStore, StoreBusy, StoreError, StoreFull, StoreReadOnly
from ...events import canonical

T = TypeVar("T")

APPLICATION_ID = 0x6F776E6C  # "ownl"
MIGRATIONS: tuple[str, ...] = ("schema.sql", "notes.sql", "inbox.sql")
"""Script n brings a file from version n to n + 1; append only."""
BUSY_SECONDS = 60.0
PAGE_SIZE = 4096
RESERVE = 4_000_000
"""Bytes of the write-ahead log that are laid out early; about what it grows to anyway until SQLite starts it over."""


def parse(url: str) -> tuple[Path, bool]:
    """The file, and whether every commit is synced, of `sqlite:///rel.db`, `sqlite:////abs.db` (`?synchronous=normal`) or a plain path.

    Raises:
        ValueError: a host, no file, or a setting that is not known.
    """
    if "://" not in url:
        return Path(url), True
    parts = urlsplit(url)
    settings = dict(parse_qsl(parts.query, keep_blank_values=True))
    synchronous = settings.pop("synchronous", "full").lower()
    path = unquote(parts.path[1:])
    if parts.scheme != "sqlite" or parts.netloc or parts.fragment or not path:
        raise ValueError(f"{url!r} names no SQLite file; write sqlite:///relative.db or sqlite:////absolute.db (# is %23)")
    if path == ":memory:":
        raise ValueError(f"{url!r}: a store in memory is memory://")
    if settings or synchronous not in ("full", "normal"):
        raise ValueError(f"{url!r} has a setting that is not known; there is ?synchronous=full (the default) and ?synchronous=normal")
    return Path(path), synchronous == "full"


def connect(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
    """A connection without a transaction of its own, for any thread; SQLite itself waits so long for a lock."""
    db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False, cached_statements=256)
    db.create_function("canonical", 1, lambda text: canonical(json.loads(text)), deterministic=True)
    return db


def open_writer(path: Path, full: bool, migrations: Sequence[str] = MIGRATIONS) -> sqlite3.Connection:
    """The connection that writes; the file is created or migrated.

    Raises:
        NotAStore, NewerSchema, StoreReadOnly, StoreBusy, StoreError
    """
    check_place(path)
    try:
        db = connect(path, busy_seconds=0)
    except sqlite3.Error as error:
        raise translate(error, path) from error
    try:
        patiently(path, lambda: prepare(db, path, migrations))
        patiently(path, lambda: db.executescript(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}; PRAGMA journal_size_limit = 67108864"))
    except BaseException:
        db.close()
        raise
    return db


def reserve(db: sqlite3.Connection, path: Path) -> bool:
    """Lay out the write-ahead log before it is needed. False if another process was in the way.

    A sync of bytes that a file already has takes about half the time of one that makes the file longer. What is written here is rolled back: it
    leaves the log long, the database as it was, and nothing to read. Not done where commits are not synced, or where space is short.
    """
    log = Path(f"{path}-wal")
    try:
        (cache,), (synchronous,) = (db.execute(f"PRAGMA {name}").fetchone() for name in ("cache_size", "synchronous"))
        if synchronous < 2 or log.stat().st_size >= RESERVE or shutil.disk_usage(log.parent).free < 32 * RESERVE:
            return True
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute("PRAGMA cache_size = 16")  # what does not fit into it goes to the log at once
            db.execute("CREATE TABLE reserve (bytes BLOB)")
            for _ in range(8):
                db.execute(f"INSERT INTO reserve VALUES (zeroblob({RESERVE // 8}))")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
            db.execute(f"PRAGMA cache_size = {cache}")
        with log.open("rb+") as file:
            os.fsync(file)
    except sqlite3.Error as error:
        return not is_busy(error)
    except OSError:
        pass
    return True


def check_place(path: Path) -> None:
    """Say early what is wrong with the place of the file."""
    if path.is_dir():
        raise NotAStore(str(path), "it is a folder")
    if not path.parent.is_dir():
        raise StoreError(f"the folder {path.parent} of {path} does not exist; nothing was written. Create it, or name another place")
    if path.exists() and 0 < path.stat().st_size < 512:  # SQLite would take so small a file for an empty one
        raise NotAStore(str(path), "it is no SQLite database")
    for place in (path, path.parent):  # the folder too: the log and its index stand beside the file
        if place.exists() and not os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise StoreReadOnly(str(path))


def prepare(db: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Bring the file to the newest version, unless it is not ours."""
    if version(db, path, len(migrations)) == 0:
        db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    db.execute("PRAGMA journal_mode = WAL")
    if version(db, path, len(migrations)) == len(migrations):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for script in migrations[version(db, path, len(migrations)) :]:
            for statement in script_of(script).split(";\n"):
                if "USING fts5" not in statement or has_fts5(db):
                    db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(migrations)}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def version(db: sqlite3.Connection, path: Path, known: int) -> int:
    """The schema version of the file; 0 for an empty one.

    Raises:
        NotAStore, NewerSchema
    """
    try:
        ours = db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        found = int(db.execute("PRAGMA user_version").fetchone()[0])
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if _code(error) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise NotAStore(str(path), "it is no SQLite database") from error
        raise
    if not ours and (tables or found):
        raise NotAStore(str(path), "it is the SQLite database of another program")
    if found > known:
        raise NewerSchema(str(path), found, known)
    return found


def has_fts5(db: sqlite3.Connection) -> bool:
    """Whether this SQLite was built with full text search; without it notes are searched one by one."""
    return db.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone() is not None


def script_of(name: str) -> str:
    """A script that ships beside this file."""
    from importlib import resources

    return resources.files(__package__).joinpath(name).read_text("utf-8") if name.endswith(".sql") else name


def patiently(path: Path, attempt: Callable[[], T], seconds: float | None = None) -> T:
    """Try until no other process is in the way.

    Raises:
        StoreBusy: after `seconds`, by default BUSY_SECONDS.
        StoreError: whatever else the medium says.
    """
    limit = BUSY_SECONDS if seconds is None else seconds
    give_up = time.monotonic() + limit
    while True:
        try:
            return attempt()
        except (sqlite3.Error, UnicodeEncodeError) as error:
            if not is_busy(error):
                raise translate(error, path) from error
            if time.monotonic() >= give_up:
                raise StoreBusy(str(path), limit) from error
        time.sleep(random.uniform(0.0005, 0.004))  # apart from the others that wait


def translate(error: sqlite3.Error | UnicodeEncodeError, path: Path) -> StoreError:
    """SQLite's error as ours."""
    if isinstance(error, UnicodeEncodeError):
        half = "a name, key or id holds half a surrogate pair, which SQLite cannot keep"
        return StoreError(f"{path}: {half} ({error}); nothing was written. Take it out, or keep it in the data, which may hold anything")
    code = _code(error)
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(str(path))
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return StoreReadOnly(str(path))
    if is_busy(error):
        return StoreBusy(str(path), BUSY_SECONDS)
    if code == sqlite3.SQLITE_NOTADB:
        return NotAStore(str(path), "it is no SQLite database")
    return StoreError(f"{path}: SQLite says {str(error)!r} ({getattr(error, 'sqlite_errorname', 'no code')}); nothing was half-written")


def is_busy(error: Exception) -> bool:
    """Whether another connection was in the way."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one
