"""Wakes and timers inside this process, for stores that tell when another process has committed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from contextvars import copy_context
from datetime import datetime
from typing import Any

from ..errors import StoreError
from ..stores.base import Store
from .base import Agents, RunOne, is_cancelled

log = logging.getLogger("ownloop")

LONGEST_NAP = 5.0
"""Seconds between looks at the store, whatever it says: the machine's clock may have been set."""

LEAST_NAP = 0.001
"""Seconds until a look for what should be ready by now; more each time that it is not."""

OFTEN = 0.1
"""Seconds between looks while there is no room."""


class Embedded:
    """Runs at most `concurrency` handlers at once. Threads that wait cost nothing here: they are rows."""

    _store: Store
    _agents: Agents
    _concurrency: int

    def __init__(self) -> None:
        self._queue: deque[str] = deque()
        self._queued: set[str] = set()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._changed: asyncio.Event | None = None
        self._run_one: RunOne | None = None
        self._look_at, self._hurry = 0.0, LEAST_NAP
        self._serving: asyncio.Task[Any] | None = None
        self._context = copy_context()

    def attach(self, store: Store, agents: Agents, concurrency: int) -> None:
        self._store, self._agents, self._concurrency = store, agents, concurrency

    async def wake(self, thread_id: str, *, at: datetime | None = None, tx: Any = None) -> None:
        self.hint(thread_id)

    def hint(self, thread_id: str) -> None:
        """The same from the event loop, without waiting."""
        if self._changed is None:
            return
        if thread_id in self._running:
            self._again.add(thread_id)
        elif thread_id not in self._queued:
            self._queued.add(thread_id)
            self._queue.append(thread_id)
        self._start()

    async def serve(self, run_one: RunOne) -> None:
        loop = asyncio.get_running_loop()
        self._changed, self._run_one, self._serving = asyncio.Event(), run_one, asyncio.current_task()
        self._context = copy_context()
        unlisten = self._store.listen(lambda ids: self._heard(loop, ids))
        unmove = self._store.clock.on_move(lambda: self._notice(loop))
        try:
            while not is_cancelled():
                await self._turn()
        finally:
            unlisten()
            unmove()
            self._changed = None  # nothing starts any more
            while self._running:
                await asyncio.wait(list(self._running.values()))

    def _heard(self, loop: asyncio.AbstractEventLoop, thread_ids: Collection[str] | None) -> None:
        """Somebody committed: another process, or this one to threads that do not run here now."""
        if thread_ids is None:
            self._notice(loop)
        for thread_id in [one for one in thread_ids or () if one not in self._running]:
            if asyncio._get_running_loop() is loop:
                self.hint(thread_id)
                continue
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self.hint, thread_id)

    def _notice(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._look_again)

    def _look_again(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def _start(self) -> None:
        """What is queued, as far as there is room; nothing once `serve` was cancelled, also before it has heard of that."""
        assert self._run_one is not None and self._serving is not None
        while not self._serving.cancelling() and self._queue and len(self._running) < self._concurrency:
            thread_id = self._queue.popleft()
            self._queued.discard(thread_id)
            own = self._context.copy()  # and not that of the tool which starts a thread
            self._running[thread_id] = asyncio.get_running_loop().create_task(self._run(thread_id, self._run_one), context=own)

    async def _turn(self) -> None:
        """Start what there is room for, then wait for something to change."""
        assert self._changed is not None
        self._changed.clear()
        nap, has_room = LONGEST_NAP, not self._queue and len(self._running) < self._concurrency
        if has_room or time.monotonic() >= self._look_at:  # a timer waits its turn, and not for a queue that may never be empty
            nap = await self._sweep()
            self._look_at = time.monotonic() + max(nap, OFTEN)
        self._start()
        with suppress(TimeoutError):
            async with asyncio.timeout(nap):  # not wait_for: before Python 3.12 it loses a cancellation that meets the event
                await self._changed.wait()

    async def _sweep(self) -> float:
        """Queue what the rows say is runnable; seconds until the next one may become so."""
        try:
            ready, due = await self._store.runnable(self._agents(), self._concurrency + len(self._running))
        except StoreError as error:
            log.error("the store could not be read, trying again: %s", error)
            return 1.0
        for thread_id in ready:
            if thread_id not in self._running and thread_id not in self._queued:
                self._queued.add(thread_id)
                self._queue.append(thread_id)
        if due is None:
            return LONGEST_NAP
        nap = (due - self._store.clock.now()).total_seconds()
        self._hurry = LEAST_NAP if ready or nap > 0 else min(OFTEN, 2 * self._hurry)  # past here and not ready: the store's clock is behind this one
        return min(LONGEST_NAP, max(self._hurry, nap))

    async def _run(self, thread_id: str, run_one: RunOne) -> None:
        is_runnable = False
        try:
            is_runnable = await run_one(thread_id)
        except Exception:  # the wake's own errors are in its log; this is the store, or a bug
            log.exception("a wake of %s could not be run; it is tried again when its lease has run out", thread_id)
            await asyncio.sleep(0.5)
        finally:
            del self._running[thread_id]
            if is_runnable or thread_id in self._again:
                self._again.discard(thread_id)
                self.hint(thread_id)
            self._look_again()
