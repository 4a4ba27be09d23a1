"""Following threads: their events as they are committed, and the progress of what runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from datetime import timedelta

from ..clock import from_micros, micros
from ..errors import StoreError
from ..events import Delta, Event, Json, Progress
from .base import ENDED, Store

EVERY = 1.0
"""Seconds between two writes of one call's progress."""
KEPT = timedelta(days=7)
MANY = 10_000
"""Calls whose beginning is remembered; that of others is read again."""
PAGE = 500


class Board:
    """What running calls and models say before there is an event: the latest progress, written at most once a second, and streamed text."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._latest: dict[str, Json] = {}
        self._started: dict[str, int] = {}
        self._flushes: dict[str, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readers: dict[str, set[Callable[[Delta], None]]] = {}

    def attach(self) -> None:
        """Write from this event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def say(self, thread_id: str, text: str) -> None:
        """Give a piece of text to whoever follows the thread in this process; it is never stored. To be called in the event loop."""
        for read in list(self._readers.get(thread_id, ())):
            read(Delta(text))

    def read(self, thread_id: str, heard: Callable[[Delta], None]) -> Callable[[], None]:
        """Call `heard` with every piece of text from now on, until what is returned is called."""
        self._readers.setdefault(thread_id, set()).add(heard)

        def stop() -> None:
            self._readers[thread_id].discard(heard)
            if not self._readers[thread_id]:
                del self._readers[thread_id]

        return stop

    def report(self, key: str, item: Json) -> None:
        """Take in what a call says, from any thread."""
        self._latest[key] = item
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._schedule, key)

    def _schedule(self, key: str) -> None:
        if key not in self._flushes:
            self._flushes[key] = asyncio.ensure_future(self._flush(key))

    async def _flush(self, key: str) -> None:
        try:
            while key in self._latest:
                with suppress(StoreError):  # away for a moment: there will be a later word
                    await self.write(key, self._latest.pop(key))
                await asyncio.sleep(EVERY)
        finally:
            self._flushes.pop(key, None)

    async def write(self, key: str, item: Json) -> None:
        """Keep `{"done", "total", "text"}` as the latest value."""
        now = micros(self._store.clock.now())
        if key not in self._started:
            if len(self._started) >= MANY:
                self._started.clear()
            before = await self._store.get("progress", key)
            self._started[key] = now if before is None else before.value["started_at"]
        await self._store.put("progress", key, {**item, "started_at": self._started[key]}, ttl=KEPT)

    async def drain(self) -> None:
        """Write what is left and stop."""
        for task in list(self._flushes.values()):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        with suppress(StoreError):  # away: the end of a process waits for none of this a second time
            for key in list(self._latest):
                await self.write(key, self._latest.pop(key))


def event_key(name: str, key: str | None) -> str:
    """Where the progress of an outside job is kept, by the event that will end it."""
    return f"event:{name}:{key or ''}"


def progress_of(value: Json) -> Progress:
    return Progress(value["done"], value.get("total"), value.get("text", ""), from_micros(value["started_at"]))


async def follow(store: Store, board: Board, thread_id: str, after: int) -> AsyncIterator[Event | Delta | Progress]:
    """Events after a position as they come, without gap or duplicate; in between the progress of what runs, and what a model of this process streams.

    Ends when the thread is cancelled or closed; if it was before, after what is in its log.
    """
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def heard(thread_ids: Collection[str] | None) -> None:
        if thread_ids is None or thread_id in thread_ids:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(changed.set)

    said: list[Delta] = []

    def overheard(delta: Delta) -> None:
        said.append(delta)
        changed.set()

    unlisten, unread = store.listen(heard), board.read(thread_id, overheard)
    shown: dict[str, Json] = {}
    waits: dict[int, str] = {}
    try:
        row = await store.thread(thread_id)
        while True:
            changed.clear()
            while said:
                yield said.pop(0)
            page = await store.events(thread_id, after=after, limit=PAGE)
            for event in page:
                after = event.seq
                _remember(waits, event)
                yield event
                if event.kind == "control" and event.data["verb"] in ("cancel", "close"):
                    return
            if len(page) == PAGE:
                continue
            if row is None or row.status in ENDED:
                return
            for item in await _news(store, thread_id, waits.values(), shown):
                yield item
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await changed.wait()
    finally:
        unlisten()
        unread()


def _remember(waits: dict[int, str], event: Event) -> None:
    if event.kind == "request" and event.data["kind"] == "event":
        waits[event.seq] = event_key(event.data["event"], event.data["key"])
    waits.pop(event.data.get("request", 0), None)


async def _news(store: Store, thread_id: str, waits: Collection[str], shown: dict[str, Json]) -> list[Progress]:
    records = await store.records("progress", f"stp_{thread_id[4:]}")
    for key in waits:
        if (record := await store.get("progress", key)) is not None:
            records[key] = record
    fresh = {key: record.value for key, record in records.items() if shown.get(key) != record.value}
    shown.update(fresh)
    return [progress_of(value) for value in fresh.values()]
