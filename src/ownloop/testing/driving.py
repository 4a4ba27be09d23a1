"""Driving an App step by step: its wakes run only when the test says so, by a clock that only the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..app import App
from ..interrupts import DECIDABLE, Interrupt
from .clock import FakeClock

ROUNDS = 2_000
"""Rounds of wakes after which a program that never settles is an error."""

if TYPE_CHECKING:
    _Verbs = App
else:
    _Verbs = object


class Drive(_Verbs):
    """Every verb of the App, and `settle`, `advance` and `interrupt`."""

    def __init__(self, app: App, clock: FakeClock) -> None:
        self.app = app
        self.clock = clock

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return getattr(self.app, name)

    async def settle(self) -> None:
        """Run wakes until nothing is runnable, and tell the listeners.

        Raises:
            AssertionError: after 2,000 rounds something is still runnable.
        """
        await self.app._open()
        ready: list[str] = []
        for _ in range(ROUNDS):
            ready, _due = await self.app.store.runnable(self.app.agents, 1_000)
            heard = await self.app._outbox.deliver()
            if not ready and not heard:
                return
            await asyncio.gather(*(self.app.run_one(thread_id) for thread_id in ready))
        raise AssertionError(f"after {ROUNDS} rounds of wakes {ready} can still run; does the program wait for something that is there already?")

    async def advance(self, by: timedelta | str) -> None:
        """Move the clock, then settle."""
        self.clock.advance(by)
        await self.settle()

    async def interrupt(self, thread: str | tuple[str, str] | Interrupt | None = None) -> Any:
        """The only open interrupt that a person can decide.

        Raises:
            AssertionError: there is none, or more than one.
        """
        if isinstance(thread, str) and thread.startswith("int_"):
            return await self.app.interrupt(thread)
        found = [one for one in await self.app.interrupts(thread=thread, limit=1_000) if one.kind in DECIDABLE]  # type: ignore[arg-type]
        if len(found) != 1:
            shown = ", ".join(f"{one.id} ({one.kind} of {one.name})" for one in found) or "none"
            raise AssertionError(f"expected one interrupt that a person can decide, found {shown}")
        return found[0]


@asynccontextmanager
async def drive(app: App, clock: FakeClock) -> AsyncIterator[Drive]:
    """Drive an App whose store goes by `clock`; it is closed at the end.

    Example:
        async with drive(App("memory://", clock=clock), clock) as d: …
    """
    if app.store.clock is not clock:
        raise ValueError("the App goes by another clock; make it with App(url, clock=clock)")
    try:
        yield Drive(app, clock)
    finally:
        await app.aclose()
