"""A store in this process's memory: for tests, and the protocol's transitions at their plainest."""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, ParamSpec, TypeVar

from .. import ids
from ..clock import Clock, SystemClock, micros
from ..events import Draft, Event, Json
from .base import ENDED, Begun, Claim, ControlVerb, Fenced, InterruptRow, NewThread, NoticeName, NoticeRow, Pulse, Record, Refused, ThreadRow
from .rules import MAIL_KEPT, after_control, closed_as, complete, is_progress, notice_of

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class _Interrupt:
    request: Event
    status: str = "open"
    votes: list[Event] = field(default_factory=list)
    closing: Event | None = None


@dataclass(slots=True)
class _Thread:
    row: ThreadRow
    events: list[Event] = field(default_factory=list)
    interrupts: dict[int, _Interrupt] = field(default_factory=dict)
    dedupe: dict[str, Event] = field(default_factory=dict)
    barrier: int = 0  # the last superseding message
    compacted: int = 0  # the last compaction
    waits: dict[int, tuple[str, str | None]] = field(default_factory=dict)  # open waits: (name, key)
    had: dict[tuple[str, str | None], int] = field(default_factory=dict)  # the last mail delivered by (name, key)


@dataclass(frozen=True, slots=True)
class _Mail:
    number: int
    id: str | None
    payload: Json
    at: datetime


def _transaction(method: Callable[..., R]) -> Callable[..., Awaitable[R]]:
    """All of the method or nothing of it, and listeners hear of it afterwards."""

    @functools.wraps(method)
    async def whole(self: MemoryStore, *args: Any, **kwargs: Any) -> R:
        with self._commit():
            return method(self, *args, **kwargs)

    return whole


class MemoryStore:
    """See `Store`. Nothing survives the process."""

    url = "memory://"

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._threads: dict[str, _Thread] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._mail: dict[tuple[str, str | None], list[_Mail]] = {}
        self._records: dict[tuple[str, str], Record] = {}
        self._outbox: dict[int, tuple[NoticeRow, datetime]] = {}
        self._subscribed: set[str] = set()
        self._notices = 0
        self._mails = 0
        self._listeners: list[Callable[[Collection[str] | None], None]] = []
        self._touched: set[str] = set()
        self._saved: dict[str, _Thread] = {}

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

    def _open(self, thread_id: str) -> _Thread:
        """The thread, ready to be changed: its old state comes back if the transaction fails."""
        thread = self._threads.get(thread_id)
        if thread is None:
            raise Refused("missing")
        if thread_id not in self._saved:
            self._saved[thread_id] = _Thread(
                thread.row,
                list(thread.events),
                {seq: replace(item, votes=list(item.votes)) for seq, item in thread.interrupts.items()},
                dict(thread.dedupe),
                thread.barrier,
                thread.compacted,
                dict(thread.waits),
                dict(thread.had),
            )
        self._touched.add(thread_id)
        return thread

    def _set(self, thread: _Thread, **changes: Any) -> None:
        thread.row = replace(thread.row, updated_at=self.clock.now(), **changes)

    def _append(self, thread: _Thread, draft: Draft, *, outside: bool = False, status: str | None = None, is_new: bool = False) -> Event:
        now = self.clock.now()
        event = Event(thread.row.head + 1, draft.kind, now, draft.step_id, draft.op, draft.by, complete(draft, thread.row.id, now))
        thread.events.append(event)
        self._set(thread, head=event.seq, **({"woken": event.seq} if outside else {}))
        self._project(thread, event)
        notice = notice_of(draft, status)
        if notice is not None and (not is_new or notice == "thread.started"):
            self._notify(notice, thread.row.id, event)
        return event

    def _project(self, thread: _Thread, event: Event) -> None:
        if event.kind == "request":
            thread.interrupts[event.seq] = _Interrupt(event)
        elif event.kind == "vote":
            thread.interrupts[event.data["request"]].votes.append(event)
        elif event.kind == "ended":
            self._withdraw(thread, lambda item: item.request.step_id == event.step_id and item.request.data["kind"] != "child")
        elif event.kind == "turn_ended":
            self._withdraw(
                thread, lambda item: bool(item.request.step_id) and ids.is_named(item.request.step_id or "") and item.request.data["kind"] != "child"
            )
        elif event.kind == "compacted":
            thread.compacted = event.seq
        if event.kind in ("turn_ended", "failed"):
            self._set(thread, last_end=event)
        if (status := closed_as(event)) is not None:
            item = thread.interrupts[event.data["request"]]
            item.status, item.closing = status, event
            thread.waits.pop(item.request.seq, None)

    def _withdraw(self, thread: _Thread, which: Callable[[_Interrupt], bool]) -> None:
        for item in thread.interrupts.values():
            if item.status == "open" and which(item):
                item.status = "withdrawn"
                thread.waits.pop(item.request.seq, None)
                self._notify("interrupt.resolved", thread.row.id, item.request)

    def _notify(self, name: NoticeName, thread_id: str, event: Event) -> None:
        if name not in self._subscribed:
            return
        self._notices += 1
        seq = event.data.get("request", event.seq) if name.startswith("interrupt.") else None
        now = self.clock.now()
        self._outbox[self._notices] = (NoticeRow(self._notices, name, thread_id, seq, now, 0), now)

    # ---- the wake ------------------------------------------------------------------------------------------------------------

    def _is_runnable(self, row: ThreadRow) -> bool:
        now = self.clock.now()
        is_due = row.due is not None and row.due <= now
        if row.status == "done":
            return is_due
        if row.status != "open":
            return False
        return row.lease_until <= now if row.lease_until is not None else row.woken > row.seen or is_due

    def _holds(self, row: ThreadRow) -> tuple[str | None, ...]:
        found = (self._record("hold", key) for key in (row.id, f"agent:{row.agent}"))
        return tuple(on for record in found if record is not None for on in record.value["on"])

    @_transaction
    def claim(self, thread_id: str, agents: Collection[str] | None, ttl: timedelta) -> Claim | None:
        thread = self._threads.get(thread_id)
        if thread is None or (agents is not None and thread.row.agent not in agents):
            return None
        row, now = thread.row, self.clock.now()
        free = row.status not in ENDED and (row.lease_until is None or row.lease_until <= now)
        if not (self._is_runnable(row) if agents is not None else free):
            return None
        thread = self._open(thread_id)
        self._set(thread, epoch=row.epoch + 1, lease_until=now + ttl, status="open" if row.status == "done" else row.status)
        return Claim(thread.row, now, self._holds(thread.row))

    async def runnable(self, agents: Collection[str], limit: int) -> tuple[list[str], datetime | None]:
        with self._lock:
            mine = [thread.row for thread in self._threads.values() if thread.row.agent in agents and thread.row.status in ("open", "done")]
            ready = [row for row in mine if self._is_runnable(row)]
            times = (row.lease_until if row.status == "open" and row.lease_until else row.due for row in mine if row not in ready)
            soonest = min((at for at in times if at is not None), default=None)
            return [row.id for row in sorted(ready, key=lambda row: row.updated_at)][:limit], soonest

    def renew(self, leases: Mapping[str, int], ttl: timedelta) -> dict[str, Pulse | None]:
        with self._lock:
            now = self.clock.now()
            result: dict[str, Pulse | None] = {}
            for thread_id, epoch in leases.items():
                thread = self._threads.get(thread_id)
                held = thread is not None and thread.row.epoch == epoch and thread.row.lease_until is not None and thread.row.lease_until > now
                if thread is None or not held:
                    result[thread_id] = None
                    continue
                thread.row = replace(thread.row, lease_until=now + ttl)
                result[thread_id] = Pulse(thread.row.status, thread.row.woken, epoch)
            return result

    async def pulse(self, thread_ids: Collection[str]) -> dict[str, Pulse]:
        rows = (self._threads[thread_id].row for thread_id in thread_ids if thread_id in self._threads)
        return {row.id: Pulse(row.status, row.woken, row.epoch) for row in rows}

    @_transaction
    def release(self, thread_id: str, epoch: int, *, seen: int, due: datetime | None) -> bool:
        thread = self._threads.get(thread_id)
        if thread is None or thread.row.epoch != epoch:
            return False
        thread = self._open(thread_id)
        self._set(thread, lease_until=None, seen=seen, due=due, released=epoch)
        return self._is_runnable(thread.row)

    def _fence(self, thread_id: str, epoch: int, statuses: Collection[str]) -> _Thread:
        thread = self._threads.get(thread_id)
        if thread is None or thread.row.epoch != epoch or thread.row.lease_until is None or thread.row.lease_until <= self.clock.now():
            raise Fenced(thread.row.status if thread is not None and thread.row.status in ENDED else "lease")
        if thread.row.status not in statuses:
            raise Fenced(thread.row.status)
        return self._open(thread_id)

    def _begin(self, thread_id: str, epoch: int, known: int, selecting: bool = False) -> _Thread:
        thread = self._fence(thread_id, epoch, ("open", "paused") if selecting else ("open",))
        if thread.barrier > known:
            raise Fenced("superseded")
        return thread

    @_transaction
    def begin(self, thread_id: str, epoch: int, drafts: Sequence[Draft], *, known: int, selecting: bool = False) -> Begun:
        thread = self._begin(thread_id, epoch, known, selecting)
        events: list[Event] = []
        for draft in drafts:
            if draft.kind == "started" and "after" in draft.data and self._outcome(thread, draft, draft.data["after"]):
                raise Fenced("overtaken")
            event = self._append(thread, draft)
            events.append(event)
            if draft.kind == "request" and draft.data["kind"] == "event":
                events += self._look(thread, event)
        if any(is_progress(draft) for draft in drafts):
            self._set(thread, released=max(thread.row.released, epoch - 1))
        return Begun(events, self._holds(thread.row))

    @_transaction
    def spawn(self, thread_id: str, epoch: int, draft: Draft, child: NewThread, *, known: int) -> Event:
        thread = self._begin(thread_id, epoch, known)
        number = ids.thread_id(self._free_number())
        event = self._append(thread, replace(draft, data={**draft.data, "child": number}))
        self._create(number, child, parent=(thread_id, event.seq))
        return event

    @staticmethod
    def _outcome(thread: _Thread, draft: Draft, after: int) -> Event | None:
        later = thread.events[after:]
        return next((e for e in later if e.kind == "outcome" and e.op == draft.op and e.step_id == draft.step_id), None)

    @_transaction
    def fact(self, thread_id: str, epoch: int, draft: Draft, *, started: int | None = None) -> Event:
        thread = self._open(thread_id)
        row = thread.row
        is_held = row.epoch == epoch and row.lease_until is not None and row.lease_until > self.clock.now()
        if draft.kind == "outcome" and self._outcome(thread, draft, started or 0):
            draft = replace(draft, kind="late")
        event = self._append(thread, draft, outside=not is_held)
        if draft.kind == "outcome":
            self._withdraw(
                thread,
                lambda item: (
                    item.request.data["kind"] == "in_doubt" and item.request.step_id == draft.step_id and item.request.data["call"] == draft.op
                ),
            )
            if is_held:
                self._set(thread, released=max(thread.row.released, epoch - 1))
        return event

    @_transaction
    def settle(self, thread_id: str, epoch: int, drafts: Sequence[Draft]) -> list[Event]:
        thread = self._fence(thread_id, epoch, ("open", "paused", "failed", "done"))
        return [self._append(thread, draft) for draft in drafts if thread.interrupts[draft.data["request"]].status == "open"]

    @_transaction
    def finish(
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
        thread = self._begin(thread_id, epoch, known=1 << 62)
        parent = self._threads.get(thread.row.parent[0]) if tell is not None and thread.row.parent is not None else None
        read = next((draft.data["read"] for draft in drafts if draft.kind == "turn_ended"), thread.row.head)
        goes_on = status == "done" and (
            any(event.kind == "message" for event in thread.events[read:])
            or any(self._closes_one_of(thread, event, aside) for event in thread.events[seen:])
        )
        for draft in drafts:
            self._append(thread, draft)
        self._set(
            thread,
            status="open" if goes_on else status,
            turns=thread.row.turns + (status == "done"),
            lease_until=None,
            seen=min(read, seen) if goes_on else thread.row.head,
            due=due,
            released=epoch,
        )
        if parent is not None and tell is not None and parent.interrupts[tell.data["request"]].status == "open" and parent.row.status not in ENDED:
            parent = self._open(parent.row.id)
            self._append(parent, tell, outside=True)
            self._reopen(parent)
        return goes_on

    @staticmethod
    def _closes_one_of(thread: _Thread, event: Event, steps: Collection[str]) -> bool:
        return closed_as(event) is not None and thread.interrupts[event.data["request"]].request.step_id in steps

    # ---- from outside ----------------------------------------------------------------------------------------------------------

    def _free_number(self) -> int:
        number = ids.new_number()
        while ids.thread_id(number) in self._threads:
            number += 1
        return number

    def _create(self, thread_id: str, new: NewThread, parent: tuple[str, int] | None) -> None:
        now = self.clock.now()
        row = ThreadRow(thread_id, new.agent, new.key, "open", 0, 0, 0, 0, 0, 0, None, None, dict(new.context), parent, now, now)
        thread = self._threads[thread_id] = _Thread(row)
        self._touched.add(thread_id)
        if new.key is not None:
            self._keys[new.agent, new.key] = thread_id
        for draft in new.drafts:
            step_id = None if draft.step_id is None else ids.step_id(thread_id, ids.step_of(draft.step_id))
            self._append(thread, replace(draft, step_id=step_id), outside=True, is_new=True)
            if draft.kind == "turn_ended":
                self._set(thread, turns=thread.row.turns + 1)

    @_transaction
    def create(self, new: NewThread) -> tuple[str, bool]:
        if new.key is not None and (known := self._keys.get((new.agent, new.key))) is not None:
            return known, False
        thread_id = ids.thread_id(self._free_number())
        self._create(thread_id, new, parent=None)
        return thread_id, True

    @_transaction
    def message(self, thread_id: str, drafts: Sequence[Draft], *, dedupe: str | None = None, at_head: int | None = None) -> tuple[Event, bool]:
        thread = self._open(thread_id)
        if dedupe is not None and dedupe in thread.dedupe:
            return thread.dedupe[dedupe], False
        if thread.row.status in ENDED:
            raise Refused(thread.row.status)
        if at_head is not None and thread.row.head != at_head:
            raise Refused("moved")
        events = [self._append(thread, draft, outside=True) for draft in drafts]
        if at_head is not None:
            thread.barrier = thread.row.head
        self._reopen(thread)
        if dedupe is not None:
            thread.dedupe[dedupe] = events[0]
        return events[0], True

    def _reopen(self, thread: _Thread) -> None:
        if thread.row.status == "done":
            self._set(thread, status="open")

    @_transaction
    def control(self, thread_id: str, verb: ControlVerb, draft: Draft) -> bool:
        return self._control(thread_id, verb, draft)

    def _control(self, thread_id: str, verb: ControlVerb, draft: Draft) -> bool:
        thread = self._open(thread_id)
        was, status = thread.row.status, after_control(verb, thread.row.status)
        if was == status and verb not in ("retry", "hold", "release_hold"):
            return False
        self._append(thread, draft, outside=verb in ("resume", "retry"), status=status)
        self._set(thread, status=status)
        if verb == "retry":
            self._set(thread, released=thread.row.epoch)
        if status in ENDED:
            self._set(thread, epoch=thread.row.epoch + 1, released=thread.row.epoch + 1, lease_until=None, due=None)
            children = [
                item.request.data["child"] for item in thread.interrupts.values() if item.status == "open" and item.request.data["kind"] == "child"
            ]
            self._withdraw(thread, lambda item: True)
            for child in children if status == "cancelled" else []:
                if child in self._threads and self._threads[child].row.status not in ENDED:
                    self._control(child, verb, replace(draft, data={**draft.data, "reason": f"its parent {thread_id} was cancelled"}))
        return True

    @_transaction
    def decide(self, thread_id: str, seq: int, draft: Draft, *, digest: str | None, votes: int) -> Event:
        thread = self._open(thread_id)
        item = thread.interrupts.get(seq)
        if item is None:
            raise Refused("missing")
        expires = item.request.data.get("expires_at")
        if item.status != "open":
            raise Refused("expired" if item.status == "expired" else "decided")
        if expires is not None and micros(self.clock.now()) >= expires:
            raise Refused("expired")
        if digest is not None and digest != item.request.data["digest"]:
            raise Refused("digest")
        if votes != len(item.votes):
            raise Refused("votes")
        event = self._append(thread, draft, outside=draft.kind == "decision")
        if draft.kind == "decision":
            self._reopen(thread)
        return event

    @_transaction
    def emit(self, name: str, key: str | None, id: str | None, payload: Json) -> bool:
        box = self._mail.setdefault((name, key), [])
        if id is not None and any(mail.id == id for mail in box):
            return False
        self._mails += 1
        box.append(_Mail(self._mails, id, payload, self.clock.now()))
        for thread in [one for one in self._threads.values() if (name, key) in one.waits.values()]:
            if thread.row.status not in ENDED:
                seq = min(seq for seq, wait in thread.waits.items() if wait == (name, key))
                self._deliver(self._open(thread.row.id), thread.interrupts[seq].request, box[-1], outside=True)
                self._reopen(thread)
        return True

    def _look(self, thread: _Thread, request: Event) -> list[Event]:
        wait = (request.data["event"], request.data["key"])
        thread.waits[request.seq] = wait
        for mail in self._mail.get(wait, ()):
            if mail.number > thread.had.get(wait, 0) and mail.at >= thread.row.created_at and mail.at > self.clock.now() - MAIL_KEPT:
                return [self._deliver(thread, request, mail, outside=False)]
        return []

    def _deliver(self, thread: _Thread, request: Event, mail: _Mail, *, outside: bool) -> Event:
        thread.had[request.data["event"], request.data["key"]] = mail.number
        data = {"request": request.seq, "payload": mail.payload, **({"mail": mail.id} if mail.id else {})}
        return self._append(thread, Draft("delivered", data, request.step_id, request.op), outside=outside)

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

    async def threads(
        self,
        *,
        agent: str | None = None,
        status: str | None = None,
        key: str | None = None,
        context: Mapping[str, Json] | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[ThreadRow]:
        wanted = {name: value for name, value in (("agent", agent), ("status", status), ("key", key)) if value is not None}
        rows = sorted((thread.row for thread in self._threads.values()), key=lambda row: row.id, reverse=True)
        found = [
            row
            for row in rows
            if all(getattr(row, name) == value for name, value in wanted.items())
            and all(row.context.get(name) == value for name, value in (context or {}).items())
            and (after is None or row.id < after)
        ]
        return found[:limit]

    async def interrupts(
        self,
        *,
        thread: str | None = None,
        agent: str | None = None,
        kind: str | None = None,
        status: str | None = "open",
        limit: int = 50,
        after: tuple[str, int] | None = None,
    ) -> list[InterruptRow]:
        found = sorted((self._interrupt_row(one, item) for one in self._threads.values() for item in one.interrupts.values()), key=_age)
        after_row = None if after is None else await self.interrupt(*after)
        chosen = (
            row
            for row in found
            if (thread is None or row.thread_id == thread)
            and (agent is None or row.agent == agent)
            and (kind is None or row.request.data["kind"] == kind)
            and (status is None or row.status == status)
            and (after_row is None or _age(row) > _age(after_row))
        )
        return list(chosen)[:limit]

    async def interrupt(self, thread_id: str, seq: int) -> InterruptRow | None:
        thread = self._threads.get(thread_id)
        item = thread.interrupts.get(seq) if thread is not None else None
        return None if thread is None or item is None else self._interrupt_row(thread, item)

    @staticmethod
    def _interrupt_row(thread: _Thread, item: _Interrupt) -> InterruptRow:
        return InterruptRow(thread.row.id, thread.row.agent, item.status, item.request, tuple(item.votes), item.closing)

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

    async def records(self, space: str, prefix: str = "") -> dict[str, Record]:
        keys = sorted(key for one, key in self._records if one == space and key.startswith(prefix))
        return {key: record for key in keys if (record := self._record(space, key)) is not None}

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
            old = [t.row for t in self._threads.values() if t.row.status in ("done", *ENDED) and t.row.updated_at < before]
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


__all__ = ["MemoryStore"]
