"""LISTEN on a connection of its own, in a thread of its own: a busy event loop does not delay it, and a lost connection comes back."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import threading
from collections.abc import Awaitable, Callable, Collection

import psycopg
from psycopg import sql

from .connect import Place

log = logging.getLogger("ownloop")

TELL_SECONDS = 0.05
"""What a wake writes is told to other processes at most so often, for each thread."""
PAUSE = 0.1
"""Seconds before the first try to connect again; doubled up to 2."""


class Voice:
    """What a loop writes, told to whoever looks on from another process: at once, then together what comes within TELL_SECONDS.

    Nobody's work depends on it: what wakes a thread is always told with its commit.
    """

    def __init__(self, tell: Callable[[int], Awaitable[object]]) -> None:
        self._tell = tell
        self._owed: dict[int, bool] = {}
        self._tasks: set[asyncio.Future[object]] = set()

    def is_quiet(self, thread: int) -> bool:
        """Whether the next write need not tell: the thread was told of a moment ago, and will be again soon."""
        if thread in self._owed:
            self._owed[thread] = True
            return True
        self._owed[thread] = False
        asyncio.get_running_loop().call_later(TELL_SECONDS, self._later, thread)
        return False

    def _later(self, thread: int) -> None:
        if self._owed.pop(thread, False):
            task = asyncio.ensure_future(self._tell(thread))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("other processes were not told: %s", error)

    async def finish(self) -> None:
        """Tell what is owed."""
        for thread in list(self._owed):
            self._later(thread)
        if self._tasks:
            await asyncio.wait(self._tasks)


class Ear:
    """Calls `heard` with what other stores have committed: the ids of threads, or None for "look yourself", as after every connecting."""

    def __init__(self, place: Place, is_own: Callable[[int], bool], heard: Callable[[Collection[str] | None], None]) -> None:
        self._place, self._is_own, self._heard = place, is_own, heard
        self._thread: threading.Thread | None = None
        self._stopped, self._stopping = os.pipe()
        self.ready = threading.Event()
        """Whether it listens now."""

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ownloop listens", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; to be called once. Blocking."""
        os.close(self._stopping)
        if self._thread is not None:
            self._thread.join()
        os.close(self._stopped)

    def _run(self) -> None:
        pause = PAUSE
        while not self._is_stopped(0):
            try:
                with psycopg.connect(self._place.conninfo, autocommit=True) as connection:
                    connection.execute(sql.SQL("LISTEN {}; SET idle_session_timeout = 0").format(sql.Identifier(self._place.schema)))
                    self.ready.set()
                    pause = PAUSE
                    self._heard(None)
                    self._listen(connection)
            except psycopg.Error as error:
                log.warning("%s: nothing is heard of other processes (%s); listening again in %.1f s", self._place.name, error, pause)
            self.ready.clear()
            if self._is_stopped(pause):
                return
            pause = min(2.0, pause * 2)

    def _listen(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        while not self._is_stopped(None, connection.fileno()):
            for notice in connection.notifies(timeout=0):
                if not self._is_own(notice.pid):
                    self._heard(None if notice.payload == "*" else (notice.payload,))

    def _is_stopped(self, seconds: float | None, also: int | None = None) -> bool:
        """Wait for the end, so many seconds, or until there is something to read."""
        poll = select.poll()
        for number in (self._stopped, also):
            if number is not None:
                poll.register(number, select.POLLIN | select.POLLHUP)
        return any(number == self._stopped for number, _ in poll.poll(None if seconds is None else seconds * 1000))
