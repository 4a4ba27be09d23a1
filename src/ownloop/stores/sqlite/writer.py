"""What writes: it commits in groups, tells who asked after the commit, and looks for commits of other processes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ...clock import Clock
from ...errors import StoreError
from .connect import is_busy, patiently, reserve, translate
from .transaction import Rows, Transaction

T = TypeVar("T")
Work = Callable[[Transaction], T]

GROUP = 1000
"""At most so many jobs in one commit."""
QUICK_SECONDS = 0.002
"""A commit that takes longer is no work for the thread of an event loop."""
LOOK_SECONDS = 0.06
"""How often to look for commits of other processes while somebody listens."""


class _Job:
    """Work that waits for its commit, and who waits for it; without a loop a thread does."""

    __slots__ = ("error", "future", "loop", "result", "work")

    def __init__(self, work: Work[Any], future: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        self.work = work
        self.future = future
        self.loop = loop
        self.result: Any = None
        self.error: BaseException | None = None

    def resolve(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """Commits what is submitted, in order, as many jobs at once as wait: one BEGIN IMMEDIATE, a savepoint per job, one COMMIT.

    Nobody hears "ok" before the commit. One connection writes; `_turn` says who uses it. That is the writer's thread, or, while the medium is
    quick and no other process is in the way, the event loop itself once everything that was ready to run has run: two hops between
    threads would cost as much as the commit. `heard` is called after the commit by whoever committed.
    """

    def __init__(self, db: sqlite3.Connection, path: Path, clock: Clock, heard: Callable[[Collection[str] | None], None]) -> None:
        self._db, self._path, self._clock, self._heard = db, path, clock, heard
        self._waiting: deque[_Job] = deque()
        self._calls: SimpleQueue[None] = SimpleQueue()  # for the thread: somebody waits, or something has changed
        self._turn = threading.Lock()
        self._gate = threading.Lock()
        self._is_scheduled = False
        self._last = ""  # the thread that wrote last
        self._stopping = False
        self._pace = 0.0  # seconds that a commit takes, of late
        self._is_laid_out = False
        self._watch = _Watch(db, path)
        self._rows = Rows(db)
        self._thread = threading.Thread(target=self._run, name=f"ownloop writer {path.name}", daemon=True)
        self._thread.start()

    # ---- whoever submits ---------------------------------------------------------------------------------------------------------

    async def submit(self, work: Work[T], thread: str = "", *, outside: bool = False) -> T:
        """Do this work in a transaction; its result after the commit.

        A write of a wake after another one of the same `thread`: nobody else is writing now, and there is no group to wait for. Of what comes
        from `outside` more may come at once.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(_Job(work, future, loop))
        is_alone, self._last = bool(thread) and thread == self._last and len(self._waiting) == 1 and not outside, thread
        if is_alone:
            self._commit_here()
        elif not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._soon)
        return await future

    def submit_and_wait(self, work: Work[T]) -> T:
        """The same for a thread that may block."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._put(_Job(work, future, None))
        self._calls.put(None)
        return future.result()

    def listening(self, wanted: bool) -> None:
        """Whether to look for commits of other processes."""
        self._watch.wanted = wanted
        self._calls.put(None)

    def close(self) -> None:
        """Finish what was submitted, then let go of the connection."""
        with self._gate:
            self._stopping = True
        self._calls.put(None)
        self._thread.join()
        with self._turn:
            self._db.close()

    def _put(self, job: _Job) -> None:
        with self._gate:
            if self._stopping:
                raise StoreError(f"the store {self._path} is closed; nothing was written. Open it again")
            self._waiting.append(job)

    def _soon(self) -> None:
        """In the event loop, after what was ready."""
        self._is_scheduled = False
        self._commit_here()

    def _commit_here(self) -> None:
        """Commit in the event loop what waits, or call the thread."""
        if self._pace > QUICK_SECONDS or not self._turn.acquire(blocking=False):
            self._calls.put(None)
            return
        try:
            group = None if self._stopping else self._commit_group(patient=False)
        finally:
            self._turn.release()
        if group is not None:
            self._tell(*group)
        if self._waiting:
            self._calls.put(None)

    # ---- the thread --------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping or self._waiting:
            with contextlib.suppress(Empty):
                self._calls.get(timeout=self._watch.wait())
            while self._waiting:
                with self._turn:
                    group = self._commit_group(patient=True)
                if group is not None:
                    self._tell(*group)
            if self._watch.is_due():
                with self._turn:
                    has_changed = self._watch.has_changed()
                if has_changed:
                    self._heard(None)

    # ---- a commit, by whose turn it is -------------------------------------------------------------------------------------------

    def _commit_group(self, *, patient: bool) -> tuple[list[_Job], set[str]] | None:
        """Commit what waits; the jobs and the threads they touched. None, and nothing done, if another process is in the way."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), GROUP))]
        if not batch:
            return None
        if self._watch.wanted and not self._is_laid_out:  # a process that serves writes more; its first commit is a claim, and nothing runs yet
            self._is_laid_out = reserve(self._db, self._path)
        began = time.perf_counter()
        touched: set[str] = set()
        try:
            if not self._begin(patient):
                self._waiting.extendleft(reversed(batch))
                return None
            self._rows.check()
            for job in batch:
                touched |= self._run_one(job, alone=len(batch) == 1)
            self._db.execute("COMMIT" if any(job.error is None for job in batch) else "ROLLBACK")
        except BaseException as error:
            touched = set()
            self._abandon(batch, error)
        taken = time.perf_counter() - began
        self._pace += (min(taken, 5 * QUICK_SECONDS) - self._pace) / 8  # one slow commit (a checkpoint) does not count
        return batch, touched

    def _begin(self, patient: bool) -> bool:
        if patient:
            patiently(self._path, lambda: self._db.execute("BEGIN IMMEDIATE"))
            return True
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if is_busy(error):
                return False
            raise
        return True

    def _run_one(self, job: _Job, *, alone: bool) -> set[str]:
        """One job, in a savepoint unless it is the only one."""
        transaction = Transaction(self._db, self._clock, self._rows)
        try:
            if not alone:
                self._db.execute("SAVEPOINT job")
            job.result = job.work(transaction)
            transaction.save()
            if not alone:
                self._db.execute("RELEASE job")
        except BaseException as error:
            self._rows.forget()
            if not self._db.in_transaction:  # a full disk takes the whole transaction with it
                raise
            job.error = self._meaning(error)
            if not alone:
                self._db.execute("ROLLBACK TO job")
                self._db.execute("RELEASE job")
            return set()
        return transaction.touched

    def _abandon(self, batch: list[_Job], error: BaseException) -> None:
        """Nothing of the batch was written: all are told the same, but for those that were refused anyway."""
        self._rows.forget()
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        meaning = self._meaning(error)
        for job in batch:
            job.error = job.error or meaning

    def _meaning(self, error: BaseException) -> BaseException:
        if isinstance(error, sqlite3.Error | UnicodeEncodeError):
            meaning = translate(error, self._path)
            meaning.__cause__ = error
            return meaning
        return error

    def _tell(self, batch: list[_Job], touched: set[str]) -> None:
        here = asyncio._get_running_loop()
        away: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        for job in batch:
            if job.loop is None or job.loop is here:
                job.resolve()
            else:
                away.setdefault(job.loop, []).append(job)
        for loop, jobs in away.items():
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(_resolve, jobs)
        if touched:
            self._heard(touched)


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        job.resolve()


class _Watch:
    """Whether another process has committed. `data_version` counts the commits of other connections, and this one is the only writer here.

    The time of the last write to the WAL file is a cheap first look: if it has not moved for a while, nothing was committed. A commit counts only
    after its sync, which may take long after that write: so the first look is never trusted for more than SURE_SECONDS.
    """

    STILL_NS = 500_000_000
    SURE_SECONDS = 1.0

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self.wanted = False
        self._db = db
        self._wal = f"{path.absolute()}-wal"
        self._next = self._sure = 0.0
        self._settled: tuple[int, int] | None = None
        self._version = self._data_version()

    def wait(self) -> float | None:
        """How long until the next look; None: for ever."""
        return max(self._next - time.monotonic(), 0.0) if self.wanted else None

    def is_due(self) -> bool:
        return self.wanted and time.monotonic() >= self._next

    def has_changed(self) -> bool:
        now = time.monotonic()
        self._next = now + LOOK_SECONDS
        stamp = self._stamp()
        if stamp is not None and stamp == self._settled and now < self._sure:
            return False
        self._sure = now + self.SURE_SECONDS
        self._settled = stamp if stamp is not None and time.time_ns() - stamp[0] > self.STILL_NS else None
        before, self._version = self._version, self._data_version()
        return self._version != before

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._wal)  # noqa: PTH116  (a Path would cost more than the call)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    def _data_version(self) -> int:
        try:
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            return -1  # in the way of somebody: look again, it counts as a change
