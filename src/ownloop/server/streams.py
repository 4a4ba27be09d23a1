"""Server-Sent Events: what many listeners hear is encoded once, and a listener who comes back goes on where it was cut off.

Source: WHATWG HTML, server-sent events.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property

from starlette.responses import StreamingResponse

from ..events import Delta, Event, Json, Progress
from ..interrupts import Interrupt
from ..stores.streams import event_key
from .counts import Counts
from .shown import encoded

IDLE = 15.0
"""Seconds of silence after which a comment says that the connection still stands; also how often it is looked whether who listens still may."""
RETRY = b"retry: 2000\n\n"
COMMENT = b": still here\n\n"
RING = 256
"""Events of a thread that are kept for listeners who are a little behind; who is further behind reads the store."""
UNREAD = 1000
"""Passing news that one listener may leave unread: then the oldest is forgotten."""


@dataclass(frozen=True)
class News:
    """A change of the inbox: `name` is "interrupt.opened", "interrupt.resolved" (`value`: the Interrupt) or "counts"."""

    name: str
    value: Interrupt | Counts


Said = Event | Delta | Progress


@dataclass
class Item:
    """Something for many listeners. `seq`: its position in a log, 0 for what passes."""

    value: Said | News
    seq: int = 0

    @cached_property
    def frame(self) -> bytes:
        """As it is sent. Only events of a log have an id, so that a reconnect asks for what came after the last of them."""
        match self.value:
            case Event():
                return b"id: %d\nevent: %s\ndata: %s\n\n" % (self.seq, self.value.kind.encode(), encoded(self.value))
            case News(name, value):
                return b"event: %s\ndata: %s\n\n" % (name.encode(), encoded(value))
            case Delta():
                return b"event: delta\ndata: %s\n\n" % encoded(self.value)
            case Progress():
                return b"event: progress\ndata: %s\n\n" % encoded(self.value)


Stream = AsyncGenerator[Item | None, None]


class Room:
    """Listeners who hear the same: each has a queue of passing news, and all are woken by one event."""

    def __init__(self) -> None:
        self.queues: dict[int, deque[Item]] = {}
        self.changed = asyncio.Event()

    def say(self, items: Iterable[Item]) -> None:
        for item in items:
            for queue in self.queues.values():
                queue.append(item)
        self.wake()

    def wake(self) -> None:
        before, self.changed = self.changed, asyncio.Event()
        before.set()


class Lobby(Room):
    """Those who watch the inbox and see the same threads."""

    def __init__(self, name: str, see: Mapping[str, Json] | None) -> None:
        super().__init__()
        self.name, self.see = name, see
        self.counts: Counts | None = None


class Channel(Room):
    """Those who follow one thread. `head`: the last position that they were told of; None until it was looked up. `waits`: the events that the
    thread waits for, by the position of the request: where their progress is kept."""

    def __init__(self, thread_id: str) -> None:
        super().__init__()
        self.thread_id = thread_id
        self.head: int | None = None
        self.ring: deque[Item] = deque(maxlen=RING)
        self.waits: dict[int, str] = {}
        self.hear_no_more: Callable[[], None] = lambda: None

    def since(self, after: int) -> list[Item] | None:
        """Events after a position; None if only the store has them."""
        if self.head is None or (after < self.head and (not self.ring or self.ring[0].seq > after + 1)):
            return None
        return [item for item in self.ring if item.seq > after] if after < self.head else []

    def take(self, events: Iterable[Event]) -> None:
        """The next events of the log, without a gap."""
        for event in events:
            self.ring.append(Item(event, event.seq))
            self.head = event.seq
            if event.kind == "request" and event.data["kind"] == "event":
                self.waits[event.seq] = event_key(event.data["event"], event.data["key"])
            self.waits.pop(event.data.get("request", 0), None)
        self.wake()


async def silence(changed: asyncio.Event, idle: float | None) -> bool:
    """Wait for news; whether there was none for so many seconds."""
    try:
        async with asyncio.timeout(idle):
            await changed.wait()
    except TimeoutError:
        return True
    return False


def is_end(item: Item) -> bool:
    """Whether nothing comes after this event."""
    event = item.value
    return isinstance(event, Event) and event.kind == "control" and event.data["verb"] in ("cancel", "close")


def sse(items: Stream, still_may: Callable[[], Awaitable[bool]]) -> StreamingResponse:
    """A stream as a response; it ends when who listens may not any more."""

    async def frames() -> AsyncIterator[bytes]:
        yield RETRY
        checked = time.monotonic()
        async with aclosing(items):
            async for item in items:
                if time.monotonic() - checked >= IDLE:
                    checked = time.monotonic()
                    if not await still_may():
                        return
                yield COMMENT if item is None else item.frame

    return StreamingResponse(frames(), media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
