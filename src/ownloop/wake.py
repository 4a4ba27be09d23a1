"""What one wake may do: its lease, begin, fact, the seal. It knows no handler and no `Step`.

A wake that is sealed begins nothing more: its handler has unwound, or a begin has failed. A call that was started goes on all the same, and its
outcome is a fact.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

from . import watch
from .errors import StoreError, Suspend, is_unwinding
from .events import Draft, Event, Json
from .history import History
from .stores.base import Begun, Claim, Fenced, NewThread, Store
from .stores.leases import LeaseKeeper
from .stores.streams import Board
from .tools import Promise

T = TypeVar("T")
log = logging.getLogger("ownloop")

PAGE = 100
"""Events read at once: mostly there are a few, and a store answers a small question on the spot."""


@dataclass
class Setting:
    """What all wakes of an App share.

    Attributes:
        witness: hears the promise of every function right before it is called.
        board: gets what `current_call().progress` said, and what a model's answer streams.
        schemas: digests of schemas that are known to be stored.
        loose: calls that were let go and still run.
        flights: results that several calls wait for together, by what they are.
    """

    store: Store
    ttl: timedelta
    keeper: LeaseKeeper
    redact: Callable[[Json], Json]
    witness: Callable[[Promise], None]
    board: Board
    schemas: set[str] = field(default_factory=set)
    loose: set[asyncio.Task[Any]] = field(default_factory=set)
    flights: dict[str, Any] = field(default_factory=dict)


class Wake:
    """One claim of one thread, and the only way its handler writes.

    Attributes:
        now: the store's clock at the claim.
        snapshot: the head of the log at the claim: what `release` will call seen.
        stopping: why nothing more begins ("paused", "cancelled", "closed", "lost", "shutdown", "superseded", "overtaken", "frozen"), or None.
        raised: whether an operation of this wake raised Suspend.
    """

    def __init__(self, setting: Setting, claim: Claim, history: History, asked: float) -> None:
        self.setting = setting
        self.row = claim.row
        self.store = setting.store
        self.thread_id = claim.row.id
        self.epoch = claim.row.epoch
        self.snapshot = claim.row.head
        self.now: datetime = claim.now
        self.holds = claim.holds
        self.history = history
        self.stopping: str | None = None
        self.sealed: BaseException | None = None
        self.raised = False
        self.live: dict[tuple[str, str], asyncio.Task[Any]] = {}
        self._lease_until = asked + setting.ttl.total_seconds()
        self._cancellable: list[asyncio.Task[Any]] = []
        self._news = asyncio.Event()
        self._main = asyncio.current_task()

    # ---- the lease (Holder) -----------------------------------------------------------------------------------------------

    def renewed(self, until: float) -> None:
        self._lease_until = until

    def stop(self, why: str) -> None:
        """Begin nothing more; model calls and reads are cancelled, except when the process only wants to end."""
        self.stopping = self.stopping or why
        for task in self._cancellable if why != "shutdown" else ():
            if task is not asyncio.current_task():  # that one has found it out itself, and unwinds by it
                task.cancel()

    def heard(self) -> None:
        self._news.set()

    async def news(self) -> None:
        """Wait until somebody may have written to the log."""
        await self._news.wait()
        self._news.clear()

    @property
    def is_leased(self) -> bool:
        """Whether the lease has not run out, by a clock that runs while this process is frozen. Callable from any thread."""
        return self.store.clock.ticks() < self._lease_until

    # ---- writing -----------------------------------------------------------------------------------------------------------

    def suspend(self) -> Suspend:
        """The exception that unwinds the handler."""
        self.raised = True
        return Suspend(f"a wake of {self.thread_id} has ended or waits, and nothing begins in it; act in its handler, or by a verb of the App")

    def _may_begin(self, selecting: bool) -> None:
        if self.sealed is not None or (self.stopping is not None and not selecting) or is_unwinding():
            raise self.suspend()

    async def _write(self, write: Coroutine[Any, Any, Begun | Event | list[Event]]) -> list[Event]:
        """A write and what follows from it, whole: a branch that is cancelled meanwhile hears of it afterwards."""
        current = asyncio.current_task()
        if current is self._main or current in self.live.values():
            return await self._fenced(write)
        task = asyncio.ensure_future(self._fenced(write))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            raise

    async def _fenced(self, write: Coroutine[Any, Any, Begun | Event | list[Event]]) -> list[Event]:
        try:
            written = await write
        except Fenced as refusal:
            self.sealed = refusal
            self.stop({"lease": "lost"}.get(refusal.why, refusal.why))
            raise self.suspend() from None
        except BaseException as error:  # its fate is unknown: never repeated blindly, and nothing follows it
            self.sealed = error
            raise
        if isinstance(written, Begun) and written.holds is not None:
            self.holds = written.holds
        events = written.events if isinstance(written, Begun) else written if isinstance(written, list) else [written]
        self.history.wrote(events)
        watch.current.wrote(self, events)
        return events

    async def begin(self, *drafts: Draft, selecting: bool = False) -> list[Event]:
        """Write what is about to happen, if this wake still may.

        Raises:
            Suspend: it may not; nothing was written.
            StoreError: the wake is over.
        """
        self._may_begin(selecting)
        drafts = tuple(watch.current.beginning(self, drafts))
        return await self._write(self.store.begin(self.thread_id, self.epoch, drafts, known=self.history.head, selecting=selecting))

    async def spawn(self, draft: Draft, child: NewThread) -> Event:
        """`begin` of a child."""
        self._may_begin(selecting=False)
        return (await self._write(self.store.spawn(self.thread_id, self.epoch, draft, child, known=self.history.head)))[0]

    async def settle(self, *drafts: Draft) -> list[Event]:
        """Close interrupts by clock or program; those that somebody closed first are left as they are."""
        if self.sealed is not None and not isinstance(self.sealed, Suspend):
            raise self.suspend()
        return await self._write(self.store.settle(self.thread_id, self.epoch, drafts))

    async def fact(self, draft: Draft, *, started: int | None = None, is_own: bool = True) -> Event:
        """Write what happened. Never refused; while the store is away it is tried again until it is written. What is not the wake's own wakes the
        thread."""
        event = await self._until_written(draft, started, self.epoch if is_own else 0)
        if event.kind == "late":
            await self.refresh()
        else:
            self.history.wrote([event])
        watch.current.wrote(self, [event])
        return event

    async def _until_written(self, draft: Draft, started: int | None, epoch: int) -> Event:
        pause = 0.05
        while True:
            try:
                return await self.store.fact(self.thread_id, epoch, draft, started=started)
            except StoreError as error:
                log.warning("%s: an outcome could not be written yet (%s)", self.thread_id, error)
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)

    async def refresh(self) -> None:
        """Read what others wrote since."""
        while True:
            page = await self.store.events(self.thread_id, after=self.history.head, limit=PAGE)
            self.history.add(page)
            if len(page) < PAGE:
                return

    async def release(self) -> bool:
        """End the wake in order. Returns whether the thread is runnable at once."""
        is_cut = isinstance(self.sealed, asyncio.CancelledError)
        seen = 0 if self.stopping is not None or is_cut else self.snapshot  # what was stopped half-way goes on as soon as it may
        due = self.history.due(self.now)
        if not is_cut and not isinstance(self.sealed, Suspend | Fenced | None):  # a begin failed: again after a while, not in a rush and not never
            later = self.store.clock.now() + self.setting.ttl
            due = later if due is None else min(due, later)
        return await self.store.release(self.thread_id, self.epoch, seen=seen, due=due)

    # ---- running -----------------------------------------------------------------------------------------------------------

    async def interruptible(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work without effects: pause and cancel cut it.

        Raises:
            Suspend: it was cut.
        """
        if self.stopping is not None:
            work.close()
            raise self.suspend()
        task = cast(asyncio.Task[Any], asyncio.current_task())
        before = task.cancelling()
        self._cancellable.append(task)  # once more when a model call asks for a summary
        try:
            return await work
        except asyncio.CancelledError:
            if self.stopping is not None:
                raise self.suspend() from None
            raise
        finally:
            self._cancellable.remove(task)
            while self.stopping is not None and task.cancelling() > before:  # `stop` is done with it
                task.uncancel()

    def launch(self, step_id: str, op: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a call that belongs to the wake and not to the branch: no cancellation of the branch reaches it."""
        task = asyncio.ensure_future(work)
        self.live[step_id, op] = task
        task.add_done_callback(lambda done: self._ended(step_id, op, done))
        return task

    def _ended(self, step_id: str, op: str, task: asyncio.Task[Any]) -> None:
        if self.live.get((step_id, op)) is task:
            del self.live[step_id, op]
        if not task.cancelled():
            task.exception()  # whoever awaits it sees it; nobody else must

    def loosen(self, task: asyncio.Task[Any]) -> None:
        """Let a call go: the wake does not wait for it any more, its outcome is still taken."""
        self.setting.loose.add(task)
        task.add_done_callback(self.setting.loose.discard)

    async def drain(self, step_id: str | None = None) -> None:
        """Wait for the calls that still run, of one step or all."""
        while tasks := [task for (step, _), task in self.live.items() if step_id in (None, step)]:
            await asyncio.wait(tasks)

    def seal(self, error: BaseException | None = None) -> None:
        """The handler has unwound, maybe by an error: nothing begins any more. A store that is away for a moment has not failed the thread."""
        away = error.subgroup(StoreError) if isinstance(error, BaseExceptionGroup) else error if isinstance(error, StoreError) else None
        self.sealed = self.sealed or away or Suspend()


@lru_cache(maxsize=1024)
def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await."""
    inner = inspect.unwrap(fn.func if isinstance(fn, partial) else fn)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))


async def result_of(call: Callable[[], Any], in_loop: bool) -> Any:
    """What a function of the user's gives, called here or in a thread."""
    result = call() if in_loop else await in_thread(call)
    return await result if inspect.isawaitable(result) else result


async def in_thread(function: Callable[[], T]) -> T:
    """A sync function in a daemon thread of its own, with this context. Cancelling lets it go; it cannot be cut."""
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    result: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        try:
            tell = partial(result.set_result, context.run(function))
        except BaseException as error:  # handed over whole, also KeyboardInterrupt of a sub-interpreter
            tell = partial(result.set_exception, RuntimeError(f"{error!r} in a thread") if isinstance(error, StopIteration | SystemExit) else error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if result.done() else tell())

    threading.Thread(target=work, name=f"ownloop-{getattr(function, '__name__', 'call')}", daemon=True).start()
    return await result
