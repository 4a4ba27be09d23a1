"""LISTEN on a connection of its own, in a thread of its own: a busy event loop does not delay it, and a lost connection comes back."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Collection

import psycopg
from psycopg import sql

from .connect import Place

log = logging.getLogger("ownloop")

PAUSE = 0.1
"""Seconds before the first try to connect again; doubled up to 2."""


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
                    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._place.schema)))
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
