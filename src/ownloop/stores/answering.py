"""Whether a store answers, for those who must know soon: what a store itself waits for may take half a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ..errors import StoreError

PATIENCE = 2.0
"""Seconds after which a store counts as away."""


class Answering:
    """Asks a store for something small. One question at a time, however many want to know, so that they do not use up its connections."""

    def __init__(self, name: str, ask: Callable[[], Awaitable[object]]) -> None:
        self._name, self._ask = name, ask
        self._asked: asyncio.Future[object] | None = None

    async def check(self) -> None:
        """Return if the store answers.

        Raises:
            StoreError: it did not, within two seconds, or cannot.
        """
        asked = self._asked
        if asked is None or asked.done():
            asked = self._asked = asyncio.ensure_future(self._ask())
            asked.add_done_callback(_heard)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(asked)
        if not asked.done():
            raise StoreError(f"{self._name} did not answer in {PATIENCE:g} s; see that it runs and can be reached")


def _heard(asked: asyncio.Future[object]) -> None:
    """Nobody may wait for it any more."""
    if not asked.cancelled():
        asked.exception()
