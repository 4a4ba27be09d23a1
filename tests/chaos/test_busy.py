"""A worker that always has more to do than it can still finds what nobody tells it of: a timer, a lease that ran out, a lost hint."""

from __future__ import annotations

import asyncio

import pytest

from ownloop import App, Thread
from ownloop.engines import Embedded, embedded


async def test_a_timer_is_served_although_the_queue_never_empties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LONGEST_NAP", 0.2)
    app = App("memory://", engine=Embedded(), concurrency=2)
    rested = asyncio.Event()

    @app.agent
    async def napper(thread: Thread) -> None:
        await thread.step("nap").sleep("100ms")
        rested.set()

    @app.agent
    async def busy(thread: Thread) -> None:
        await app.start(busy)  # so that two run and four wait, for ever
        await asyncio.sleep(0.01)

    async with app:
        await app.start(napper)
        for _ in range(6):
            await app.start(busy)
        try:
            async with asyncio.timeout(30):
                await rested.wait()
        finally:
            await app.hold(busy)
