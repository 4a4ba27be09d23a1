"""Leases kept alive from an OS thread, and looked after: a lost, paused or cancelled wake is told within a second."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import sys
import threading
import traceback
from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from ..clock import Clock
from ..errors import StoreError
from .base import ENDED, Pulse, Store

log = logging.getLogger("ownloop")

LOOK = 1.0
"""About how many seconds lie between looks at the event loops; one that does nothing for two of them is blocked."""
PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"


class Holder(Protocol):
    """A wake as the keeper sees it. All three are called in the wake's event loop."""

    thread_id: str
    epoch: int

    def renewed(self, until: float) -> None:
        """The lease lasts until this tick of the clock."""
        ...

    def stop(self, why: str) -> None:
        """Begin nothing more: the thread was paused or cancelled, or the lease is lost."""
        ...

    def heard(self) -> None:
        """Somebody wrote to the log."""
        ...


class LeaseKeeper:
    """Renews every lease of this process at a third of its length, whatever the event loop is doing."""

    def __init__(self, store: Store, ttl: timedelta, clock: Clock) -> None:
        self._store, self._ttl, self._clock = store, ttl, clock
        self._held: dict[str, tuple[Holder, asyncio.AbstractEventLoop]] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._unlisten = store.listen(self._heard)
        self._looks: set[asyncio.Task[None]] = set()
        self._beats: dict[asyncio.AbstractEventLoop, threading.Event] = {}
        self._silent: dict[asyncio.AbstractEventLoop, int] = {}
        self._places: dict[asyncio.AbstractEventLoop, int] = {}

    def hold(self, holder: Holder) -> None:
        """Keep this wake's lease until `let_go`."""
        with self._lock:
            loop = asyncio.get_running_loop()
            self._held[holder.thread_id], self._places[loop] = (holder, loop), threading.get_ident()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ownloop-leases", daemon=True)
                self._thread.start()

    def let_go(self, holder: Holder) -> None:
        with self._lock:
            known = self._held.get(holder.thread_id)
            if known is not None and known[0] is holder:
                del self._held[holder.thread_id]

    def close(self) -> None:
        self._unlisten()
        self._stopped.set()

    def _run(self) -> None:
        period = self._ttl.total_seconds() / 3
        looks = max(1, round(period / LOOK))
        for look in itertools.count(1):
            if self._stopped.wait(period / looks):
                return
            with suppress(Exception):  # whatever a user's frames hide: leases are kept
                self._listen_to_loops()
            if look % looks == 0:
                self._renew()

    def _listen_to_loops(self) -> None:
        """Tell once that an event loop is blocked, and where; what it should answer is counted in looks, which stop while the process does."""
        with self._lock:
            loops = {loop for _, loop in self._held.values() if not loop.is_closed()}
        for loop in loops:
            beat = self._beats.get(loop)
            if beat is None or beat.is_set():
                self._beats[loop], self._silent[loop] = threading.Event(), 0
                post(loop, self._beats[loop].set)
            else:
                self._silent[loop] += 1
                if self._silent[loop] == 2:
                    log.warning(
                        "the event loop is blocked%s: no thread of this process moves until that returns; await it, or make it a plain `def` "
                        "that step.run calls, which runs beside the loop",
                        _where(self._places.get(loop)),
                    )

    def _renew(self) -> None:
        with self._lock:
            held = dict(self._held)
        if not held:
            return
        asked = self._clock.ticks()
        try:
            pulses = self._store.renew({thread_id: holder.epoch for thread_id, (holder, _) in held.items()}, self._ttl)
        except StoreError as error:  # away for a moment: the leases run out by themselves
            log.warning("leases could not be renewed: %s", error)
            return
        except Exception:
            log.exception("leases could not be renewed")
            return
        for thread_id, (holder, loop) in held.items():
            if thread_id not in pulses:
                continue
            pulse = pulses[thread_id]
            if pulse is not None:
                post(loop, holder.renewed, asked + self._ttl.total_seconds())
            self._tell(holder, loop, pulse)

    def _heard(self, thread_ids: Collection[str] | None) -> None:
        with self._lock:
            held = self._held
            touched = [held[one] for one in (held if thread_ids is None else thread_ids) if one in held]
        here = asyncio._get_running_loop()
        for holder, loop in touched:
            if loop is here:
                holder.heard()
            else:
                post(loop, holder.heard)
        if thread_ids is None:
            self.check()

    def check(self) -> None:
        """Look now how the threads stand whose wakes run here: somebody may have changed that."""
        with self._lock:
            loops = [loop for _, loop in self._held.values()][:1]
        for loop in loops:
            post(loop, self._look)

    def _look(self) -> None:
        task = asyncio.ensure_future(self._pulse())
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _pulse(self) -> None:
        held = dict(self._held)
        try:
            pulses = await self._store.pulse(held)
        except StoreError as error:  # away for a moment: the next renewal tells it, too
            log.warning("it could not be looked how threads stand: %s", error)
            return
        for thread_id, (holder, loop) in held.items():
            pulse = pulses.get(thread_id)
            self._tell(holder, loop, pulse if pulse is not None and pulse.epoch == holder.epoch else None, pulse)

    @staticmethod
    def _tell(holder: Holder, loop: asyncio.AbstractEventLoop, mine: Pulse | None, seen: Pulse | None = None) -> None:
        status = (mine or seen).status if mine or seen else "open"  # type: ignore[union-attr]  # one of the two is there
        if status in ENDED or status == "paused":
            post(loop, holder.stop, status)
        elif mine is None:
            post(loop, holder.stop, "lost")


def _where(thread: int | None) -> str:
    """The innermost line of the user's code that an OS thread is in, as " at bot.py:7 in bot"."""
    frame = sys._current_frames().get(thread or 0)
    foreign = ("site-packages", "asyncio", "threading.py", "runpy.py")
    stack = [] if frame is None else traceback.extract_stack(frame)
    own = [one for one in stack if not one.filename.startswith((PACKAGE, "<")) and not any(part in one.filename for part in foreign)]
    return f" at {Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else ""


def post(loop: asyncio.AbstractEventLoop, call: object, *args: object) -> None:
    """Have a loop call this, from any thread; one that is closed has nobody left to tell."""
    try:
        if asyncio._get_running_loop() is loop:  # no need to wake it up
            loop.call_soon(call, *args)  # type: ignore[arg-type]  # any callable
        else:
            loop.call_soon_threadsafe(call, *args)  # type: ignore[arg-type]  # any callable
    except RuntimeError:
        return
