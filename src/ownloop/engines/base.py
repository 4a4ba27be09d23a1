"""Who wakes threads. A wake-up is only a hint: it may be lost, doubled or early; the thread's row decides.

An engine is the clock and the courier, never the truth. `run_one` claims the thread, which takes its lease or is refused, so an engine may call
it as often as it likes. What it owes is that every thread that the store calls runnable is tried within a few seconds, whatever was lost: it looks at
the rows itself. `ownloop.testing.EngineContract` holds an engine to this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from ..errors import OwnloopError
from ..stores.base import Store

log = logging.getLogger("ownloop")

RunOne = Callable[[str], Awaitable[bool]]
"""Runs one wake of a thread if it is runnable; whether it is runnable again at once. It may raise what the store raises; then it is tried again."""
Agents = Callable[[], Collection[str]]
"""The names of the agents of this process; more may be added while it serves."""


class Engine(Protocol):
    """The clock and the courier. The log stays the truth and the fence."""

    async def wake(self, thread_id: str, *, at: datetime | None = None, tx: Any = None) -> None:
        """Say that the thread may be runnable, now or `at` a time. Called after the commit, or with `tx` in the caller's transaction, whose end is
        not known yet. Raises nothing because the engine is away: what is lost here is found in the rows. An id that no thread has does no harm."""
        ...

    async def serve(self, run_one: RunOne) -> None:
        """Run wakes until cancelled, at most as many at once as it was told; then start nothing new, wait for what runs, and return. Not before: who
        returns by itself has failed. An App that opens again serves again.

        `run_one` may raise, which ends that wake and not the engine; the thread is tried again. It is never cancelled while it runs.
        """
        ...


@runtime_checkable
class Attached(Protocol):
    """An engine that is made without a store, as in `App(url, engine=…)`, and is told of it."""

    def attach(self, store: Store, agents: Agents, concurrency: int) -> None:
        """Before the first wake, and again each time the App opens: its store (open), its agents, how many handlers may run here at once."""
        ...


async def served(engine: Engine, run_one: RunOne) -> None:
    """`engine.serve`, whose end is said at once: whoever only waits for threads would never see it."""
    try:
        await engine.serve(run_one)
        if not is_cancelled():
            raise OwnloopError(f"{type(engine).__name__}.serve returned, and nobody had cancelled it; an engine serves until then")
    except Exception as error:
        log.error("this process wakes no thread any more: %s", error)
        raise


def is_cancelled() -> bool:
    """Whether somebody has cancelled the task that asks. A loop asks at each turn: before Python 3.12 `asyncio.wait_for`, which psycopg
    uses, loses a cancellation that meets the event."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
