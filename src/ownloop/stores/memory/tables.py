"""The memory store's tables: threads, interrupts, mail, records, outbox; and all reading."""

from __future__ import annotations

import functools
import math
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar, Unpack, get_args

from ... import ids
from ...clock import Clock, SystemClock
from ...events import Draft, Event, Json
from ...interrupts import DECIDABLE, InterruptKind
from ..base import ENDED, InterruptFilter, InterruptRow, Note, NoticeName, NoticeRow, Record, Refused, Tally, ThreadFilter, ThreadRow
from ..rules import MAIL_KEPT, agrees, closed_as, complete, holds, json_text, matches, notice_of, query_words

P = ParamSpec("P")
R = TypeVar("R")
REQUESTS: frozenset[str] = frozenset(get_args(InterruptKind))


@dataclass(slots=True)
class Interrupt:
    request: Event
    status: str = "open"
    votes: list[Event] = field(default_factory=list)
    closing: Event | None = None


@dataclass(slots=True)
class Thread:
    row: ThreadRow
    events: list[Event] = field(default_factory=list)
    interrupts: dict[int, Interrupt] = field(default_factory=dict)
    dedupe: dict[str, Event] = field(default_factory=dict)
    barrier: int = 0  # the last superseding message
    waits: dict[int, tuple[str, str | None]] = field(default_factory=dict)  # open waits: (name, key)
    had: dict[tuple[str, str | None], int] = field(default_factory=dict)  # the last mail delivered by (name, key)


@dataclass(frozen=True, slots=True)
class Mail:
    number: int
    id: str | None
    payload: Json
    at: datetime


def transaction(method: Callable[..., R]) -> Callable[..., Awaitable[R]]:
    """All of the method or nothing of it, and listeners hear of it afterwards."""

    @functools.wraps(method)
    async def whole(self: Any, *args: Any, **kwargs: Any) -> R:
        with self._commit():
            return method(self, *args, **kwargs)

    return whole


class Tables:
    """The threads of one store, and what can be read of them."""

    url = "memory://"

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._threads: dict[str, Thread] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._mail: dict[tuple[str, str | None], list[Mail]] = {}
        self._records: dict[tuple[str, str], Record] = {}
        self._outbox: dict[int, tuple[NoticeRow, datetime]] = {}
        self._notes: dict[tuple[str, str], Note] = {}  # in the order they were written
        self._subscribed: set[str] = set()
        self._notices = 0
        self._mails = 0
        self._listeners: list[Callable[[Collection[str] | None], None]] = []
        self._touched: set[str] = set()
        self._saved: dict[str, Thread] = {}

    async def open(self) -> None:
        return None

    async def close(self) -> None:
        return None

    def listen(self, heard: Callable[[Collection[str] | None], None]) -> Callable[[], None]:
        self._listeners.append(heard)
        return lambda: self._listeners.remove(heard)

    @contextmanager
    def _commit(self) -> Any:
        with self._lock:
            self._touched, self._saved = set(), {}
            try:
                yield
            except BaseException:
                self._threads.update(self._saved)
                raise
            touched = self._touched
        for heard in list(self._listeners) if touched else []:
            heard(touched)

    # ---- one thread, inside a transaction ---------------------------------------------------------------------------------

    def _open(self, thread_id: str) -> Thread:
        """The thread, ready to be changed: its old state comes back if the transaction fails."""
        thread = self._threads.get(thread_id)
        if thread is None:
            raise Refused("missing")
        if thread_id not in self._saved:
            self._saved[thread_id] = Thread(
                thread.row,
                list(thread.events),
                {seq: replace(item, votes=list(item.votes)) for seq, item in thread.interrupts.items()},
                dict(thread.dedupe),
                thread.barrier,
                dict(thread.waits),
                dict(thread.had),
            )
        self._touched.add(thread_id)
        return thread

    def _set(self, thread: Thread, **changes: Any) -> None:
        thread.row = replace(thread.row, updated_at=self.clock.now(), **changes)

    def _append(self, thread: Thread, draft: Draft, *, outside: bool = False, status: str | None = None, is_new: bool = False) -> Event:
        now = self.clock.now()
        event = Event(thread.row.head + 1, draft.kind, now, draft.step_id, draft.op, draft.by, complete(draft, thread.row.id, now))
        thread.events.append(event)
        self._set(thread, head=event.seq, **({"woken": event.seq} if outside else {}))
        self._project(thread, event)
        notice = notice_of(draft, status)
        if notice is not None and (not is_new or notice == "thread.started"):
            self._notify(notice, thread.row.id, event)
        return event

    def _project(self, thread: Thread, event: Event) -> None:
        if event.kind == "request":
            thread.interrupts[event.seq] = Interrupt(event)
        elif event.kind == "vote":
            thread.interrupts[event.data["request"]].votes.append(event)
        elif event.kind == "ended":
            self._withdraw(thread, lambda item: item.request.step_id == event.step_id and item.request.data["kind"] != "child")
        elif event.kind == "turn_ended":
            self._withdraw(
                thread, lambda item: bool(item.request.step_id) and ids.is_named(item.request.step_id or "") and item.request.data["kind"] != "child"
            )
        if event.kind in ("turn_ended", "failed"):
            self._set(thread, last_end=event)
        if (status := closed_as(event)) is not None:
            item = thread.interrupts[event.data["request"]]
            item.status, item.closing = status, event
            thread.waits.pop(item.request.seq, None)

    def _withdraw(self, thread: Thread, which: Callable[[Interrupt], bool]) -> None:
        for item in thread.interrupts.values():
            if item.status == "open" and which(item):
                item.status = "withdrawn"
                thread.waits.pop(item.request.seq, None)
                if item.request.data["kind"] in DECIDABLE:
                    self._notify("interrupt.resolved", thread.row.id, item.request)

    def _notify(self, name: NoticeName, thread_id: str, event: Event) -> None:
        if name not in self._subscribed:
            return
        self._notices += 1
        seq = event.data.get("request", event.seq) if name.startswith("interrupt.") else None
        now = self.clock.now()
        self._outbox[self._notices] = (NoticeRow(self._notices, name, thread_id, seq, now, 0), now)

    # ---- reading -----------------------------------------------------------------------------------------------------------------

    async def load(self, thread_id: str, upto: int) -> list[Event]:
        thread = self._threads.get(thread_id)
        if thread is None:
            return []
        compacted = max((e for e in thread.events[:upto] if e.kind == "compacted"), key=lambda e: e.seq, default=None)
        if compacted is None:
            return thread.events[:upto]
        first, kept = compacted.data["upto"], {1, *compacted.data["kept"]}
        return [event for event in thread.events[:upto] if event.seq > first or event.seq in kept]

    async def events(self, thread_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        thread = self._threads.get(thread_id)
        return [] if thread is None else thread.events[after : None if limit is None else after + limit]

    async def recall(self, thread_id: str, step_id: str | None, upto: int) -> list[Event]:
        thread = self._threads.get(thread_id)
        events = thread.events[:upto] if thread is not None else []
        return [event for event in events if (event.kind == "appended" if step_id is None else event.step_id == step_id)]

    async def thread(self, thread_id: str) -> ThreadRow | None:
        thread = self._threads.get(thread_id)
        return None if thread is None else thread.row

    async def find(self, agent: str, key: str) -> str | None:
        return self._keys.get((agent, key))

    async def threads(self, **filters: Unpack[ThreadFilter]) -> list[ThreadRow]:
        after = filters.get("after")
        found = (thread for thread in self._threads.values() if after is None or thread.row.id < after)
        chosen = [thread.row for thread in found if _is_wanted_thread(thread, filters)]
        return sorted(chosen, key=lambda row: row.id, reverse=True)[: filters.get("limit", 50)]

    async def interrupts(
        self, *, thread: str | None = None, after: tuple[str, int] | None = None, **filters: Unpack[InterruptFilter]
    ) -> list[InterruptRow]:
        place = _urgency if filters.get("order") == "urgency" else _age
        after_row = None if after is None else await self.interrupt(*after)
        within = self._threads.values() if thread is None else [self._threads[thread]] if thread in self._threads else []
        found = [
            row
            for one in within
            for item in one.interrupts.values()
            if self._is_wanted(row := self._interrupt_row(one, item), one.row, filters) and (after_row is None or place(row) > place(after_row))
        ]
        return sorted(found, key=place)[: filters.get("limit", 50)]

    def _is_wanted(self, row: InterruptRow, thread: ThreadRow, filters: InterruptFilter) -> bool:
        data, q = row.request.data, filters.get("q")
        known = {"agent": row.agent, "kind": data["kind"], "status": row.status, "name": data.get("name", "")}
        wanted = {"status": "open", **filters}
        texts = (row.agent, thread.key or "", data.get("name", ""), data.get("question", ""))
        return (
            all(wanted.get(name) in (None, value) for name, value in known.items())
            and data["kind"] in (filters.get("kinds") or REQUESTS)
            and agrees(thread.context, filters.get("context"))
            and filters.get("snoozed") in (None, self._is_snoozed(row))
            and (not q or any(holds(text, q) for text in texts) or holds(json_text(data.get("arguments", "")), json_text(q)[1:-1]))
        )

    def _is_snoozed(self, row: InterruptRow) -> bool:
        return self._record("snooze", ids.interrupt_id(row.thread_id, row.request.seq)) is not None

    async def waiting(self) -> list[tuple[str, int]]:
        found = await self.interrupts(kinds=DECIDABLE, limit=1 << 62)
        return [(row.thread_id, row.request.seq) for row in found]

    async def tally(self, *, context: Mapping[str, Json] | None = None) -> list[Tally]:
        found = await self.interrupts(kinds=DECIDABLE, context=context, limit=1 << 62)
        counted = Counter((row.agent, row.request.data["kind"], self._is_snoozed(row)) for row in found)
        return [Tally(*group, count) for group, count in counted.items()]

    async def heads(self, thread_ids: Collection[str]) -> dict[str, int]:
        return {thread_id: self._threads[thread_id].row.head for thread_id in thread_ids if thread_id in self._threads}

    async def interrupt(self, thread_id: str, seq: int) -> InterruptRow | None:
        thread = self._threads.get(thread_id)
        item = thread.interrupts.get(seq) if thread is not None else None
        return None if thread is None or item is None else self._interrupt_row(thread, item)

    @staticmethod
    def _interrupt_row(thread: Thread, item: Interrupt) -> InterruptRow:
        return InterruptRow(thread.row.id, thread.row.agent, item.status, item.request, tuple(item.votes), item.closing)

    # ---- notes -------------------------------------------------------------------------------------------------------------------

    async def note(self, owner: str, key: str, text: str) -> Note:
        with self._lock:
            known = self._notes.get((owner, key))
            if known is not None and known.text == text:
                return known
            self._notes.pop((owner, key), None)
            written = self._notes[owner, key] = Note(owner, key, text, self.clock.now())
            return written

    async def notes(self, owner: str, query: str | None = None, *, limit: int = 50) -> list[Note]:
        with self._lock:
            newest = sorted(enumerate(self._notes.values()), key=lambda one: (one[1].at, one[0]), reverse=True)
        wanted = query_words(query or "")
        found = [(matches(note.text, wanted), note) for _, note in newest if note.owner == owner]
        ranked = sorted(((count, note) for count, note in found if count or query is None), key=lambda one: -one[0])
        return [note for _, note in ranked][:limit]

    async def forget_notes(self, owner: str, key: str | None = None) -> int:
        with self._lock:
            gone = [place for place in self._notes if place[0] == owner and key in (None, place[1])]
            for place in gone:
                del self._notes[place]
            return len(gone)

    # ---- records, outbox, upkeep ----------------------------------------------------------------------------------------------

    def _record(self, space: str, key: str) -> Record | None:
        record = self._records.get((space, key))
        return None if record is None or (record.expires_at is not None and record.expires_at <= self.clock.now()) else record

    async def get(self, space: str, key: str) -> Record | None:
        return self._record(space, key)

    async def put(self, space: str, key: str, value: Json, *, expect: int | None = None, ttl: timedelta | None = None) -> bool:
        with self._lock:
            record = self._record(space, key)
            if expect is not None and expect != (record.version if record is not None else 0):
                return False
            last = self._records.get((space, key))  # also an expired one: who held it must not take the next one for its own
            version = last.version if last is not None else 0
            self._records[space, key] = Record(value, version + 1, None if ttl is None else self.clock.now() + ttl)
            return True

    async def drop(self, space: str, key: str) -> bool:
        with self._lock:
            was_there = self._record(space, key) is not None
            self._records.pop((space, key), None)
            return was_there

    async def records(self, space: str, prefix: str = "", *, beyond: datetime | None = None) -> dict[str, Record]:
        keys = sorted(key for one, key in self._records if one == space and key.startswith(prefix))
        found = {key: record for key in keys if (record := self._record(space, key)) is not None}
        return {key: record for key, record in found.items() if beyond is None or (record.expires_at is not None and record.expires_at > beyond)}

    async def subscribe(self, names: Collection[NoticeName]) -> None:
        self._subscribed.update(names)

    async def notices(self, names: Collection[NoticeName], limit: int, ttl: timedelta) -> list[NoticeRow]:
        with self._lock:
            now = self.clock.now()
            ready = [row for row, at in self._outbox.values() if row.name in names and at <= now][:limit]
            for row in ready:
                self._outbox[row.id] = (replace(row, tries=row.tries + 1), now + ttl)
            return ready

    async def delivered(self, notice_ids: Collection[int]) -> None:
        for notice in notice_ids:
            self._outbox.pop(notice, None)

    async def prune(self, before: datetime) -> int:
        with self._lock:
            over = [t for t in self._threads.values() if t.row.status in ("done", *ENDED) and t.row.updated_at < before]
            old = [t.row for t in over if all(one.status != "open" for one in t.interrupts.values())]
            self._outbox = {id: (row, hidden) for id, (row, hidden) in self._outbox.items() if hidden >= before}
            for row in old:
                del self._threads[row.id]
                if row.key is not None:
                    self._keys.pop((row.agent, row.key), None)
            kept = self.clock.now() - MAIL_KEPT
            self._mail = {place: [mail for mail in box if mail.at > kept] for place, box in self._mail.items()}
            return len(old)

    async def check(self) -> list[str]:
        return [
            f"{thread.row.id}: its log has {len(thread.events)} events, its row says {thread.row.head}"
            for thread in self._threads.values()
            if [event.seq for event in thread.events] != list(range(1, thread.row.head + 1))
        ]


def _age(row: InterruptRow) -> tuple[datetime, str, int]:
    return row.request.at, row.thread_id, row.request.seq


def _urgency(row: InterruptRow) -> tuple[float, datetime, str, int]:
    data = row.request.data
    deadline = data.get("expires_at") if data["kind"] in DECIDABLE else None
    return math.inf if deadline is None else deadline, *_age(row)


def _is_wanted_thread(thread: Thread, filters: ThreadFilter) -> bool:
    row, q = thread.row, filters.get("q")
    known = {"agent": row.agent, "status": row.status, "key": row.key}
    said = thread.events[0].data.get("input") if thread.events else None
    return (
        all(filters.get(name) in (None, value) for name, value in known.items())
        and agrees(row.context, filters.get("context"))
        and (not q or holds(row.agent, q) or holds(row.key or "", q) or holds(json_text(said), json_text(q)[1:-1]))
    )
