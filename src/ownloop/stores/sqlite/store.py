"""The default store: one SQLite file for any number of processes on a machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Unpack

from ...clock import Clock, SystemClock, from_micros, micros
from ...errors import StoreError
from ...events import Draft, Event, Json
from ..base import (
    Begun,
    Claim,
    ControlVerb,
    InterruptFilter,
    InterruptRow,
    NewThread,
    Note,
    NoticeName,
    NoticeRow,
    Pulse,
    Record,
    Tally,
    ThreadFilter,
    ThreadRow,
)
from . import lists, mail, notes, outside, reads, upkeep, wakes
from .connect import open_writer, parse
from .readers import Readers
from .writer import Writer

LARGE = 500
"""Rows above which a look is worth a hop to a thread."""


class SqliteStore:
    """See `Store`. WAL, and every commit is synced unless the URL says `?synchronous=normal` (then a power cut may take the last ones).

    Args:
        url_or_path: `sqlite:///relative.db`, `sqlite:////absolute.db`, or a path. The folder must be there; the file is created.
        clock: what "now" is; by default the machine's clock.
    """

    def __init__(self, url_or_path: str | Path, clock: Clock | None = None) -> None:
        self.url = str(url_or_path) if "://" in str(url_or_path) else f"sqlite:///{url_or_path}"
        self.clock: Clock = clock or SystemClock()
        self.path, self._is_full = parse(str(url_or_path))
        self._gate = threading.Lock()
        self._listeners: list[Callable[[Collection[str] | None], None]] = []
        self._parts: tuple[Writer, Readers] | None = None

    async def open(self) -> None:
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        with self._gate:
            if self._parts is None:
                db = open_writer(self.path, self._is_full)
                self._parts = Writer(db, self.path, self.clock, self._heard), Readers(self.path)
                self._writer.listening(bool(self._listeners))

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._gate:
            if self._parts is not None:
                writer, readers = self._parts
                readers.close()
                writer.close()  # the last connection: it moves the log into the file
                self._parts = None

    @property
    def _writer(self) -> Writer:
        return self._opened()[0]

    @property
    def _readers(self) -> Readers:
        return self._opened()[1]

    def _opened(self) -> tuple[Writer, Readers]:
        if self._parts is None:
            raise StoreError(f"the store {self.path} is not open; call open() first")
        return self._parts

    def listen(self, heard: Callable[[Collection[str] | None], None]) -> Callable[[], None]:
        def stop() -> None:
            self._listeners.remove(heard)
            self._listen()

        self._listeners.append(heard)
        self._listen()
        return stop

    def _listen(self) -> None:
        if self._parts is not None:
            self._parts[0].listening(bool(self._listeners))

    def _heard(self, thread_ids: Collection[str] | None) -> None:
        for heard in list(self._listeners):
            heard(thread_ids)

    # ---- the wake ------------------------------------------------------------------------------------------------------------

    async def claim(self, thread_id: str, agents: Collection[str] | None, ttl: timedelta) -> Claim | None:
        return await self._writer.submit(lambda tx: wakes.claim(tx, thread_id, agents, ttl), thread_id)

    async def runnable(self, agents: Collection[str], limit: int) -> tuple[list[str], datetime | None]:
        now = micros(self.clock.now())
        found, soonest = self._readers.small(lambda db: reads.runnable(db, agents, limit, now))
        return found, None if soonest is None else from_micros(soonest)

    def renew(self, leases: Mapping[str, int], ttl: timedelta) -> dict[str, Pulse | None]:
        return self._writer.submit_and_wait(lambda tx: wakes.renew(tx, leases, ttl))

    async def pulse(self, thread_ids: Collection[str]) -> dict[str, Pulse]:
        return self._readers.small(lambda db: reads.pulse(db, thread_ids))

    async def release(self, thread_id: str, epoch: int, *, seen: int, due: datetime | None) -> bool:
        return await self._writer.submit(lambda tx: wakes.release(tx, thread_id, epoch, seen, due), thread_id)

    async def begin(self, thread_id: str, epoch: int, drafts: Sequence[Draft], *, known: int, selecting: bool = False) -> Begun:
        return await self._writer.submit(lambda tx: wakes.begin(tx, thread_id, epoch, drafts, known, selecting), thread_id)

    async def spawn(self, thread_id: str, epoch: int, draft: Draft, child: NewThread, *, known: int) -> Event:
        return await self._writer.submit(lambda tx: wakes.spawn(tx, thread_id, epoch, draft, child, known), thread_id)

    async def fact(self, thread_id: str, epoch: int, draft: Draft, *, started: int | None = None) -> Event:
        return await self._writer.submit(lambda tx: wakes.fact(tx, thread_id, epoch, draft, started), thread_id)

    async def settle(self, thread_id: str, epoch: int, drafts: Sequence[Draft]) -> list[Event]:
        return await self._writer.submit(lambda tx: wakes.settle(tx, thread_id, epoch, drafts), thread_id)

    async def finish(
        self,
        thread_id: str,
        epoch: int,
        drafts: Sequence[Draft],
        *,
        status: Literal["done", "failed"],
        seen: int,
        due: datetime | None,
        aside: Collection[str] = (),
        tell: Draft | None = None,
    ) -> bool:
        return await self._writer.submit(lambda tx: wakes.finish(tx, thread_id, epoch, drafts, status, seen, due, aside, tell), thread_id)

    # ---- from outside ----------------------------------------------------------------------------------------------------------

    async def create(self, new: NewThread) -> tuple[str, bool]:
        return await self._writer.submit(lambda tx: outside.create(tx, new))

    async def message(self, thread_id: str, drafts: Sequence[Draft], *, dedupe: str | None = None, at_head: int | None = None) -> tuple[Event, bool]:
        return await self._writer.submit(lambda tx: outside.message(tx, thread_id, drafts, dedupe, at_head), thread_id, outside=True)

    async def control(self, thread_id: str, verb: ControlVerb, draft: Draft) -> bool:
        return await self._writer.submit(lambda tx: outside.control(tx, thread_id, verb, draft), thread_id, outside=True)

    async def decide(self, thread_id: str, seq: int, draft: Draft, *, digest: str | None, votes: int) -> Event:
        return await self._writer.submit(lambda tx: outside.decide(tx, thread_id, seq, draft, digest, votes), thread_id, outside=True)

    async def emit(self, name: str, key: str | None, id: str | None, payload: Json) -> bool:
        return await self._writer.submit(lambda tx: mail.emit(tx, name, key, id, payload))

    # ---- reading -----------------------------------------------------------------------------------------------------------------

    async def load(self, thread_id: str, upto: int) -> list[Event]:
        if upto <= LARGE:
            return self._readers.one(lambda db: reads.load(db, thread_id, upto))  # up to there a log never changes
        return await self._readers.large(lambda db: reads.load(db, thread_id, upto))

    async def events(self, thread_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        if limit is not None and limit <= LARGE:
            return self._readers.one(lambda db: reads.events(db, thread_id, after, limit))
        return await self._readers.large(lambda db: reads.events(db, thread_id, after, limit))

    async def recall(self, thread_id: str, step_id: str | None, upto: int) -> list[Event]:
        return self._readers.small(lambda db: reads.recall(db, thread_id, step_id, upto))

    async def thread(self, thread_id: str) -> ThreadRow | None:
        return self._readers.small(lambda db: reads.thread(db, thread_id))

    async def find(self, agent: str, key: str) -> str | None:
        return self._readers.small(lambda db: reads.find(db, agent, key))

    async def threads(self, **filters: Unpack[ThreadFilter]) -> list[ThreadRow]:
        return await self._readers.large(lambda db: lists.threads(db, filters))

    async def interrupts(
        self, *, thread: str | None = None, after: tuple[str, int] | None = None, **filters: Unpack[InterruptFilter]
    ) -> list[InterruptRow]:
        now = micros(self.clock.now())
        if filters.get("limit", 50) <= LARGE and filters.get("status", "open") == "open" and filters.keys() <= {"agent", "kind", "limit", "status"}:
            return self._readers.small(lambda db: lists.interrupts(db, thread, after, filters, now))
        return await self._readers.large(lambda db: lists.interrupts(db, thread, after, filters, now))

    async def waiting(self) -> list[tuple[str, int]]:
        return await self._readers.large(lists.waiting)

    async def tally(self, *, context: Mapping[str, Json] | None = None) -> list[Tally]:
        now = micros(self.clock.now())
        return await self._readers.large(lambda db: lists.tally(db, context, now))

    async def heads(self, thread_ids: Collection[str]) -> dict[str, int]:
        return self._readers.small(lambda db: lists.heads(db, thread_ids))

    async def interrupt(self, thread_id: str, seq: int) -> InterruptRow | None:
        return self._readers.small(lambda db: lists.interrupt(db, thread_id, seq))

    # ---- notes -------------------------------------------------------------------------------------------------------------------

    async def note(self, owner: str, key: str, text: str) -> Note:
        return await self._writer.submit(lambda tx: notes.note(tx, owner, key, text))

    async def notes(self, owner: str, query: str | None = None, *, limit: int = 50) -> list[Note]:
        return await self._readers.large(lambda db: notes.notes(db, owner, query, limit))

    async def forget_notes(self, owner: str, key: str | None = None) -> int:
        return await self._writer.submit(lambda tx: notes.forget(tx, owner, key))

    # ---- records, outbox, upkeep -----------------------------------------------------------------------------------------------

    async def get(self, space: str, key: str) -> Record | None:
        now = micros(self.clock.now())
        return self._readers.small(lambda db: upkeep.get(db, space, key, now))

    async def put(self, space: str, key: str, value: Json, *, expect: int | None = None, ttl: timedelta | None = None) -> bool:
        return await self._writer.submit(lambda tx: upkeep.put(tx, space, key, value, expect, ttl))

    async def drop(self, space: str, key: str) -> bool:
        return await self._writer.submit(lambda tx: upkeep.drop(tx, space, key))

    async def records(self, space: str, prefix: str = "", *, beyond: datetime | None = None) -> dict[str, Record]:
        now = micros(self.clock.now())
        return await self._readers.large(lambda db: upkeep.records(db, space, prefix, beyond, now))

    async def subscribe(self, names: Collection[NoticeName]) -> None:
        await self._writer.submit(lambda tx: upkeep.subscribe(tx, names))

    async def notices(self, names: Collection[NoticeName], limit: int, ttl: timedelta) -> list[NoticeRow]:
        now = micros(self.clock.now())
        if not self._readers.small(lambda db: upkeep.has_notices(db, names, now)):  # a look is cheaper than a commit
            return []
        return await self._writer.submit(lambda tx: upkeep.notices(tx, names, limit, ttl))

    async def delivered(self, notice_ids: Collection[int]) -> None:
        await self._writer.submit(lambda tx: upkeep.delivered(tx, notice_ids))

    async def prune(self, before: datetime) -> int:
        forgotten = 0
        while some := await self._writer.submit(lambda tx: upkeep.prune(tx, before)):
            forgotten += some
        await self._writer.submit(upkeep.sweep)
        return forgotten

    async def check(self) -> list[str]:
        return await self._readers.large(upkeep.check)


__all__ = ["SqliteStore"]
