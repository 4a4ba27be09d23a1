"""Leaving `async with app:` at the worst moment."""

from __future__ import annotations

import asyncio
import time

import pytest

from ownloop import App, Intent, Thread, tool


@pytest.mark.timeout(20)
@pytest.mark.parametrize("turns", range(6))
async def test_an_app_that_is_left_in_the_moment_of_a_hint_still_ends(turns: int) -> None:
    """Before Python 3.12 `asyncio.wait_for` loses a cancellation that comes together with the event it waits for."""
    app = App("memory://")
    async with app:
        await asyncio.sleep(0.02)
        app._engine._look_again()  # type: ignore[union-attr]
        for _ in range(turns):
            await asyncio.sleep(0)
        left = time.monotonic()
    assert time.monotonic() - left < 1


async def test_a_loop_that_only_reads_stops_when_its_app_is_left() -> None:
    """Reads and selections record nothing first that a closing App could refuse: it has to be refused before the model is asked."""
    app, read = App("memory://"), []

    class Look(Intent):
        """Look once more."""

    async def again(thread: Thread) -> Look:
        await asyncio.sleep(0.001)
        return Look()

    @tool(reads=True)
    async def chapter() -> None:
        read.append(1)

    @app.agent
    async def reader(thread: Thread) -> None:
        while True:
            step = await thread.next_step(again)
            await step.run(chapter)

    async with app:
        thread = await app.start(reader)
        while len(read) < 3:
            await asyncio.sleep(0.005)
        begun = len(read)
    assert len(read) <= begun + 1
    await app.store.open()
    assert (await app.show(thread)).status == "open"
    await app.aclose()
