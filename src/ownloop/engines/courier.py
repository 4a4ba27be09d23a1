"""What engines on a server of their own share: hints that may fail, wakes that run in the App's event loop, and a sweep over the rows.

An adapter adds `send`, which gives its server one hint, and `deliver`, which takes hints from it. `deliver` runs in a thread with an event loop of
its own, so that heartbeats go on while a handler blocks the App's loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..clock import duration
from ..errors import StoreError
from ..stores.base import Store, ThreadRow
from ..stores.leases import post
from ..wake import in_thread
from .base import Agents, RunOne, is_cancelled

log = logging.getLogger("ownloop")

PATIENCE = 2.0
"""Seconds that a hint may take. Whoever writes to a thread waits for it, and the rows hold the same."""
GLANCE = 0.25
"""Seconds between two looks at the rows while somebody commits, and how long a row may be runnable before its hint counts as lost."""
TRUST = 0.75
"""Sweeps that a server has for a hint before the wake runs here. It may try a dead worker until its own time-out, and a thread is to go on within two
sweeps of the end of its lease."""
SIGHT = 100
"""How many more threads the sweep looks at than it could run."""
HINTING = 0.5
"""Seconds that hints may take between two looks. A server that is slow gets the rest later, and what it does not bring in time is run meanwhile."""
RETRY = 2.0
"""Seconds before the server is asked again after it was away."""
TELL = 60.0
"""Seconds without trouble after which the next trouble is told again."""
BEHIND = 1.0
"""Seconds that the store's clock may be behind this one before what should be due, and is not, is left to the sweep, which goes by that clock."""
SOON = 0.1
"""Seconds until another look at what should be due and is not."""
LAST_WORDS = 5.0
"""Seconds at the end for the server to hear that the wakes have ended. What it does not hear it tries again elsewhere, and the rows know."""


class WakeFailed(Exception):
    """What an engine's server is told: it keeps errors in its history, and the words of one may hold anything."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"a wake of {thread_id} could not be run; the worker's log says why")


@dataclass
class _Found:
    """A runnable row as the sweep saw it: when first, and when it was hinted."""

    first: float
    hinted: float | None = None


class Courier:
    """See `Engine`. With a store it also looks at the rows every `sweep`, and soon after a commit: a lost hint is sent again, and what that does not
    help, or what is runnable while the server is away, runs here.

    Attributes:
        refused: how many hints came while somebody else held the thread's lease: overlaps that the engine made.
        swept: how many wakes the sweep ran itself.
    """

    def __init__(self, name: str, sweep: timedelta | str = "2s") -> None:
        self.refused = self.swept = 0
        self._name, self._sweep = name, duration(sweep).total_seconds()
        self._store: Store | None = None
        self._agents: Agents = lambda: ()
        self._concurrency = 100
        self._away_since: float | None = None
        self._ask_at = 0.0
        self._running: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._found: dict[str, _Found] = {}
        self._touched: set[str] = set()
        self._stirred = self._stopping = self._has_met_unknown = False

    def attach(self, store: Store, agents: Agents, concurrency: int) -> None:
        self._store, self._agents, self._concurrency = store, agents, concurrency

    async def send(self, thread_id: str, delay: float) -> None:
        """Give the server a hint that comes back after `delay` seconds; raises anything if it is away. Runs in the App's loop."""
        raise NotImplementedError

    async def deliver(self, stop: asyncio.Event) -> None:
        """Take hints and `run` them until told to stop, then end in order; raises anything if the server is away. Runs in a loop of its own, and is
        cancelled there if it does not end LAST_WORDS after the last wake."""
        raise NotImplementedError

    # ---- hints -----------------------------------------------------------------------------------------------------------------

    async def wake(self, thread_id: str, *, at: datetime | None = None, tx: Any = None) -> None:
        if tx is None:  # else nobody may hear of it before the commit; the workers find it in the rows
            self._touched.discard(thread_id)
            await self._hint(thread_id, 0.0 if at is None or self._store is None else (at - self._store.clock.now()).total_seconds())

    async def _hint(self, thread_id: str, delay: float = 0.0) -> None:
        asked = time.monotonic()
        if self._away_since is not None:
            if asked < self._ask_at:
                return
            self._ask_at = asked + PATIENCE  # one verb waits for the answer, and not all
        try:
            async with asyncio.timeout(PATIENCE):
                await self.send(thread_id, max(0.0, delay))
        except Exception as error:  # the hint is lost and the row is there
            self._away(error)
        else:
            self._is_back(asked)

    def _away(self, error: Exception) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            log.error("%s takes no hints (%s: %s); threads wait in their rows, and workers find them there", self._name, *_said(error))
        self._ask_at = now + RETRY

    def _is_back(self, asked: float) -> None:
        if self._away_since is not None and asked >= self._away_since:
            log.warning("%s takes hints again", self._name)
            self._away_since = None

    # ---- serving ---------------------------------------------------------------------------------------------------------------

    async def serve(self, run_one: RunOne) -> None:
        self._loop, self._run_one, self._slots = asyncio.get_running_loop(), run_one, asyncio.Semaphore(self._concurrency)
        apart, stop, self._stopping = asyncio.new_event_loop(), asyncio.Event(), False
        delivery = self._deliver(stop)
        delivering = asyncio.ensure_future(in_thread(lambda: _run(apart, delivery)))
        delivering.add_done_callback(_seen)
        try:
            with self._listening():
                await self._look_forever()
        finally:
            self._stopping = True
            post(apart, stop.set)
            while self._tasks:
                await asyncio.wait(list(self._tasks))
            if (await asyncio.wait({delivering}, timeout=LAST_WORDS))[1]:
                log.warning("%s has not heard in %g s that this worker ends; it tries elsewhere what it does not know of", self._name, LAST_WORDS)
                post(apart, lambda: [task.cancel() for task in asyncio.all_tasks(apart)])
                await asyncio.wait({delivering}, timeout=LAST_WORDS)

    async def _deliver(self, stop: asyncio.Event) -> None:
        told, text = float("-inf"), "nothing comes from %s (%s: %s), trying again; meanwhile this worker finds threads in their rows"
        while not stop.is_set():
            try:
                await self.deliver(stop)
            except BaseException as error:  # what is written in Rust may panic
                if is_cancelled():
                    raise
                if time.monotonic() - told > TELL:
                    log.error(text, self._name, *_said(error))
                told = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY):
                    await stop.wait()

    async def run(self, thread_id: str) -> float | None:
        """One wake, in the App's loop; called in `deliver`'s. Seconds after which to hint the thread again; None: not before somebody else does.

        Raises:
            WakeFailed: it could not be run; hint the thread again after a while.
        """
        wake = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._tracked(thread_id), self._loop))
        wake.add_done_callback(_seen)
        return await asyncio.shield(wake)  # a server that gives up on a wake does not cut it

    async def _tracked(self, thread_id: str) -> float | None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        async with self._slots:
            if self._stopping:
                raise WakeFailed(thread_id)
            self._running[thread_id] += 1
            try:
                return await self._wake(thread_id)
            except Exception:  # the wake's own errors are in its log; this is the store, or a bug
                log.exception("a wake of %s could not be run; it is tried again", thread_id)
                raise WakeFailed(thread_id) from None
            finally:
                self._running -= Counter([thread_id])

    async def _wake(self, thread_id: str) -> float | None:
        if await self._run_one(thread_id):
            return 0.0
        row = None if self._store is None else await self._store.thread(thread_id)
        if row is None:
            self._is_unknown(thread_id)
            return None
        return self._until_next(row)

    def _is_unknown(self, thread_id: str) -> None:
        """Tell of it once: two stores whose engines share a name get each other's hints, and lose them."""
        if self._store is not None and not self._has_met_unknown:
            self._has_met_unknown = True
            text = (
                "%s brought %s, which is not in %s: it was pruned, or another store uses the same name there; each needs its own (task_queue=, name=)"
            )
            log.warning(text, self._name, thread_id, self._store.url)

    def _until_next(self, row: ThreadRow) -> float | None:
        """Seconds until the row says that the thread may be runnable by itself. That may be past by this clock, and the store goes by its own."""
        assert self._store is not None
        if row.parent is not None:  # it may have told its parent how it ended
            self._heard((row.parent[0],))
        if row.lease_until is not None:
            self.refused += 1
        elif row.status not in ("open", "done") or row.agent not in self._agents():
            return None
        if (at := row.lease_until or row.due) is None:
            return None
        rest = (at - self._store.clock.now()).total_seconds()
        return None if rest < -BEHIND else rest if rest > 0 else SOON

    # ---- the sweep -------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _listening(self) -> Iterator[None]:
        unlisten: Callable[[], None] = self._store.listen(self._heard) if self._store is not None else lambda: None
        try:
            yield
        finally:
            unlisten()

    def _heard(self, thread_ids: Collection[str] | None) -> None:
        """Somebody committed. What this loop committed itself, like the start of a child, has no other hint than the one that the next look sends."""
        others = None if thread_ids is None else [one for one in thread_ids if one not in self._running]
        if others and asyncio._get_running_loop() is self._loop:
            self._touched.update(others)
        self._stirred = self._stirred or others is None or bool(others)

    async def _look_forever(self) -> None:
        self._stirred = True  # what happened before
        while True:
            await self._nap()
            try:
                await self._look()
            except StoreError as error:
                log.error("the store could not be read, trying again: %s", error)

    async def _nap(self) -> None:
        await asyncio.sleep(GLANCE)
        for _ in range(round(self._sweep * random.uniform(0.8, 1.2) / GLANCE) - 1):
            if self._stirred:
                break
            await asyncio.sleep(GLANCE)
        self._stirred = False

    async def _look(self) -> None:
        """Hint, or run, what the rows call runnable and nobody has started. A worker without room leaves that to others."""
        free = self._concurrency - self._running.total()
        if self._store is None or free <= 0:
            return
        ready, _ = await self._store.runnable(self._agents(), self._concurrency + SIGHT)
        now, touched, self._touched = time.monotonic(), self._touched, set()
        known, self._found, lost = self._found, {}, list[str]()
        for thread_id in [one for one in ready if one not in self._running]:
            found = self._found[thread_id] = known.get(thread_id) or _Found(now)
            if found.hinted is None and (thread_id in touched or now - found.first >= GLANCE):
                lost.append(thread_id)
            elif found.hinted is not None and now - found.hinted >= (TRUST * self._sweep if self._away_since is None else 0.0) and free > 0:
                free -= 1
                self._take(thread_id)
        self._stirred = self._stirred or bool(self._found)
        for thread_id in lost:
            if time.monotonic() - now < HINTING:
                self._found[thread_id].hinted = time.monotonic()
                await self._hint(thread_id)

    def _take(self, thread_id: str) -> None:
        """Run it here."""
        self.swept += 1
        del self._found[thread_id]
        asyncio.ensure_future(self._taken(thread_id)).add_done_callback(_seen)

    async def _taken(self, thread_id: str) -> None:
        with suppress(WakeFailed):
            if (delay := await self._tracked(thread_id)) is not None:
                await self._hint(thread_id, delay)
        self._stirred = True  # there is room again


async def ends_before(stop: asyncio.Event, task: asyncio.Future[Any]) -> bool:
    """Wait for one of the two; whether the task has ended."""
    told = asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    return task.done()


def _said(error: BaseException) -> tuple[str, str]:
    kind = type(error).__name__
    return kind, str(error).partition("\n")[0] or ("no answer in time" if "Timeout" in kind else "no words")


def _seen(done: asyncio.Future[Any]) -> None:
    """Its error is logged already, whether somebody still waits for it or not."""
    if not done.cancelled():
        done.exception()


def _run(loop: asyncio.AbstractEventLoop, work: Any) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(work)
