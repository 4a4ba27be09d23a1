"""Live: one watcher of the store for all listeners of a process, however many they are."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import timedelta

from .. import ids
from ..app import App
from ..clock import micros
from ..errors import NotFound, StoreError
from ..events import Json, canonical
from ..stores.base import Record
from ..stores.rules import agrees
from ..stores.streams import EVERY, KEPT, event_key, progress_of
from .counts import counted
from .streams import UNREAD, Channel, Item, Lobby, News, Room, Stream, is_end, silence

log = logging.getLogger("ownloop.server")

BATCH = 0.02
"""Seconds in which commits are gathered into one look."""
CALM = 0.25
"""Seconds between two looks at the inbox, at least."""
RECOUNT = 15.0
"""Seconds after which counts are taken again although nobody told of a change: something may have left its snooze."""
RECENT_MICROS = 300 * 1_000_000
"""Progress that is no older is shown to a listener who comes."""
OVERLAP = timedelta(seconds=3)
"""How far two looks at what was reported reach over each other: a commit may come later than its time."""
PAGE = 200


class Hub:
    """Listens to the store of an App while somebody listens here, and not otherwise."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._channels: dict[str, Channel] = {}
        self._lobbies: dict[str, Lobby] = {}
        self._waiting: frozenset[tuple[str, int]] | None = None
        self._touched: set[str] = set()
        self._is_touched_elsewhere = self._is_inbox_touched = self._is_closed = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._numbers = 0
        self._next_progress = self._next_inbox = self._next_count = 0.0
        self._reported: dict[str, int] = {}

    # ---- listeners -----------------------------------------------------------------------------------------------------------------

    async def follow(self, thread_id: str, after: int, idle: float | None = None) -> Stream:
        """A thread's events after a position, without gap or duplicate, and in between what passes; ends with the thread, or with the server.
        With `idle`: None after so many silent seconds."""
        channel = self._channel(thread_id)
        number, mine = self._enter(channel)
        try:
            mine.extend(await self._known(channel))
            while not self._is_closed:
                changed, behind = channel.changed, channel.since(after)
                if behind is None:
                    behind = [Item(event, event.seq) for event in await self._app.store.events(thread_id, after=after, limit=PAGE)]
                for item in behind:
                    after = item.seq
                    yield item
                    if is_end(item):
                        return
                while mine:
                    yield mine.popleft()
                if not behind and await silence(changed, idle):
                    yield None
        finally:
            self._leave(channel, number)

    async def inbox(self, see: Mapping[str, Json] | None, idle: float | None = None) -> Stream:
        """The counts; then what opens and is resolved in the threads that are seen, and the counts whenever they change."""
        name = canonical(None if see is None else dict(see))
        lobby = self._lobbies.setdefault(name, Lobby(name, see))
        number, mine = self._enter(lobby)
        try:
            if self._waiting is None:
                self._waiting = frozenset(await self._app.store.waiting())
            if lobby.counts is None:
                lobby.counts = await counted(self._app.store, see)
            yield Item(News("counts", lobby.counts))
            while not self._is_closed:
                changed = lobby.changed
                while mine:
                    yield mine.popleft()
                if await silence(changed, idle):
                    yield None
        finally:
            self._leave(lobby, number)

    def recount(self) -> None:
        """The counts may have changed although no thread has."""
        self._next_count = 0.0
        self._changed.set()

    async def close(self) -> None:
        """End all streams."""
        self._is_closed = True
        for room in [*self._channels.values(), *self._lobbies.values()]:
            room.wake()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    # ---- coming and going ----------------------------------------------------------------------------------------------------------

    def _channel(self, thread_id: str) -> Channel:
        channel = self._channels.get(thread_id)
        if channel is None:
            channel = self._channels[thread_id] = Channel(thread_id)
            channel.hear_no_more = self._app._board.read(thread_id, lambda delta: channel.say([Item(delta)]))
        return channel

    def _enter(self, room: Room) -> tuple[int, deque[Item]]:
        self._numbers += 1
        mine = room.queues[self._numbers] = deque[Item](maxlen=UNREAD)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve(), name="ownloop hub")
        return self._numbers, mine

    def _leave(self, room: Room, number: int) -> None:
        room.queues.pop(number, None)
        if not room.queues and isinstance(room, Channel):
            self._channels.pop(room.thread_id, None)
            room.hear_no_more()
        if not room.queues and isinstance(room, Lobby):
            self._lobbies.pop(room.name, None)
        if not self._lobbies:
            self._waiting = None
        if not self._channels and not self._lobbies and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _known(self, channel: Channel) -> list[Item]:
        """Look the channel up if it is new; the late progress of its calls, and of what it waits for."""
        store, thread_id = self._app.store, channel.thread_id
        if channel.head is None:
            waits = await store.interrupts(thread=thread_id, kind="event", limit=500)
            head = (await store.heads([thread_id])).get(thread_id, 0)
            if channel.head is None:  # nobody was quicker
                channel.head = head
                channel.waits = {row.request.seq: event_key(row.request.data["event"], row.request.data["key"]) for row in waits}
                self._touch([thread_id])  # what was committed in between
        found = list((await store.records("progress", f"stp_{thread_id[4:]}")).values())
        found += [record for key in list(channel.waits.values()) if (record := await store.get("progress", key)) is not None]
        since = micros(store.clock.now()) - RECENT_MICROS
        return [Item(progress_of(record.value)) for record in found if _written(record) >= since]

    # ---- the watcher ---------------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()

        def heard(thread_ids: Collection[str] | None) -> None:
            if thread_ids is None or self._lobbies or not self._channels.keys().isdisjoint(thread_ids):
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._touch, thread_ids)

        unlisten = self._app.store.listen(heard)
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._nap()):
                        await self._changed.wait()
                        await asyncio.sleep(BATCH)
                self._changed.clear()
                await self._look()
        finally:
            unlisten()

    def _touch(self, thread_ids: Collection[str] | None) -> None:
        self._is_inbox_touched = True
        self._is_touched_elsewhere |= thread_ids is None
        self._touched.update(thread_ids or ())
        self._changed.set()

    def _nap(self) -> float:
        until_inbox = self._next_inbox - time.monotonic() if self._lobbies and self._is_inbox_touched else EVERY
        return min(EVERY, max(until_inbox, BATCH))

    async def _look(self) -> None:
        try:
            await self._look_at_threads()
            await self._look_at_progress()
            await self._look_at_inbox()
        except StoreError as error:
            log.error("listeners wait: the store could not be read, trying again: %s", error)
            self._is_touched_elsewhere = self._is_inbox_touched = True

    async def _look_at_threads(self) -> None:
        """Of other processes it is only known that they committed: one look at the lengths of all logs that are followed."""
        touched, self._touched = self._touched & self._channels.keys(), set()
        if self._is_touched_elsewhere and self._channels:
            heads = await self._app.store.heads(list(self._channels))
            touched |= {one for one, channel in self._channels.items() if heads.get(one, 0) > (channel.head or 0)}
        self._is_touched_elsewhere = False
        for thread_id in touched:
            if (channel := self._channels.get(thread_id)) is not None and channel.head is not None:
                await self._read_on(channel)

    async def _read_on(self, channel: Channel) -> None:
        is_more = True
        while is_more:
            events = await self._app.store.events(channel.thread_id, after=channel.head or 0, limit=PAGE)
            channel.take(events)
            is_more = len(events) == PAGE

    async def _look_at_progress(self) -> None:
        """Once a second, what was reported since: one look, whatever the number of listeners."""
        if not self._channels or time.monotonic() < self._next_progress:
            return
        self._next_progress = time.monotonic() + EVERY
        since = self._app.store.clock.now() + KEPT - OVERLAP
        records = await self._app.store.records("progress", beyond=since)
        before, self._reported = self._reported, {key: record.version for key, record in records.items()}
        waited = {key: channel for channel in self._channels.values() for key in channel.waits.values()}
        for key, record in records.items():
            channel = waited.get(key) or self._channels.get(f"thr_{key[4:17]}" if key.startswith("stp_") else "")
            if channel is not None and before.get(key) != record.version:
                channel.say([Item(progress_of(record.value))])

    async def _look_at_inbox(self) -> None:
        now = time.monotonic()
        if not self._lobbies or self._waiting is None or now < (self._next_inbox if self._is_inbox_touched else self._next_count):
            return
        if self._is_inbox_touched:
            self._is_inbox_touched = False
            before, self._waiting = self._waiting, frozenset(await self._app.store.waiting())
            for name, places in (("interrupt.opened", self._waiting - before), ("interrupt.resolved", before - self._waiting)):
                for thread_id, seq in sorted(places)[:UNREAD]:
                    await self._announce(name, thread_id, seq)
        await self._count_again()
        taken = time.monotonic() - now
        self._next_inbox, self._next_count = time.monotonic() + max(CALM, 4 * taken), time.monotonic() + RECOUNT

    async def _announce(self, name: str, thread_id: str, seq: int) -> None:
        row = await self._app.store.thread(thread_id)
        try:
            item = Item(News(name, await self._app.interrupt(ids.interrupt_id(thread_id, seq))))
        except NotFound:  # forgotten since
            return
        for lobby in list(self._lobbies.values()):
            if row is not None and agrees(row.context, lobby.see):
                lobby.say([item])

    async def _count_again(self) -> None:
        for lobby in list(self._lobbies.values()):
            counts = await counted(self._app.store, lobby.see)
            if counts != lobby.counts:
                lobby.counts = counts
                lobby.say([Item(News("counts", counts))])


def _written(record: Record) -> int:
    """When a report was written: all are kept equally long."""
    return 0 if record.expires_at is None else micros(record.expires_at - KEPT)
