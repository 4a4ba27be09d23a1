"""Connections that only read: one at hand for small looks, one in a thread for long ones."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from .connect import connect, patiently

T = TypeVar("T")
Look = Callable[[sqlite3.Connection], T]


class Readers:
    """A look sees one state of the file, whatever is written meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._near, self._far = (connect(path, busy_seconds=5.0) for _ in range(2))
        for db in (self._near, self._far):
            db.execute("PRAGMA query_only = 1")
        self._gate = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ownloop reader")

    def small(self, look: Look[T]) -> T:
        """A look of some microseconds, here and now: a hop to a thread would cost more."""
        with self._gate:
            return self._look(self._near, look)

    def one(self, look: Look[T]) -> T:
        """A small look by one statement, which sees one state of the file by itself."""
        with self._gate:
            return patiently(self._path, lambda: look(self._near))

    async def large(self, look: Look[T]) -> T:
        """A look that may take long, in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: self._look(self._far, look))

    def _look(self, db: sqlite3.Connection, look: Look[T]) -> T:
        return patiently(self._path, lambda: _at_one_moment(db, look))

    def close(self) -> None:
        self._pool.shutdown()
        with self._gate:
            self._near.close()
        self._far.close()


def _at_one_moment(db: sqlite3.Connection, look: Look[T]) -> T:
    db.execute("BEGIN")
    try:
        return look(db)
    finally:
        if db.in_transaction:
            db.execute("COMMIT")
