"""Telling listeners what happened, at least once: notices are written with the events that cause them and forgotten once heard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

from .. import ids
from ..errors import StoreError
from .base import NoticeName, NoticeRow, Store

log = logging.getLogger("ownloop")

NAMES: tuple[str, ...] = get_args(NoticeName)
HIDDEN_FOR = timedelta(seconds=30)
"""How long a notice that a listener failed on, or that died with its process, is kept from being told again."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something happened. The same `id` may come more than once."""

    id: str
    name: NoticeName
    thread_id: str
    interrupt_id: str | None
    at: datetime


Listener = Callable[[Notice], Awaitable[None]]


class Outbox:
    """Delivers notices to the listeners of one App."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.listeners: dict[NoticeName, list[Listener]] = {}
        self.subscribed: set[NoticeName] = set()

    def add(self, name: NoticeName, listener: Listener) -> Listener:
        if name not in NAMES:
            raise ValueError(f"no notice is named {name!r}; choose from {', '.join(NAMES)}")
        self.listeners.setdefault(name, []).append(listener)
        return listener

    async def subscribe(self) -> None:
        """Have the store write what is listened to; nothing where it does already."""
        if self.listeners.keys() > self.subscribed:
            await self._store.subscribe(list(self.listeners))
            self.subscribed.update(self.listeners)

    async def serve(self) -> None:
        """Deliver until cancelled."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def heard(thread_ids: Collection[str] | None) -> None:
            if self.listeners:
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(changed.set)

        unlisten = self._store.listen(heard)
        try:
            while True:
                changed.clear()
                if not await self.deliver():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(5.0):
                            await changed.wait()
        finally:
            unlisten()

    async def deliver(self) -> int:
        """Tell what is due now; how many notices were heard."""
        if not self.listeners:
            return 0
        try:
            rows = await self._store.notices(list(self.listeners), 50, HIDDEN_FOR)
            heard = [row.id for row in rows if await self._tell(row)]
            await self._store.delivered(heard)
        except StoreError as error:
            log.error("notices could not be read, trying again: %s", error)
            return 0
        return len(heard)

    async def _tell(self, row: NoticeRow) -> bool:
        interrupt = None if row.interrupt_seq is None else ids.interrupt_id(row.thread_id, row.interrupt_seq)
        notice = Notice(f"ntc_{row.id}", row.name, row.thread_id, interrupt, row.at)
        try:
            for listener in self.listeners[row.name]:
                await listener(notice)
        except Exception:
            log.exception("a listener failed on %s of %s; it will be told again", row.name, row.thread_id)
            return False
        return True
