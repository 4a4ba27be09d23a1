"""Leaving `async with app:` at the worst moment."""

from __future__ import annotations

import asyncio
import time

import pytest

from ownloop import App


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
