"""A framework that does not come back."""

from __future__ import annotations

import asyncio


class Peer:
    def __init__(self, store: str) -> None:
        self.store = store

    async def open(self) -> None:
        await asyncio.Event().wait()
