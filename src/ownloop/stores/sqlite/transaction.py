"""What one transaction may do to rows and logs; the protocol built of it stands in wakes.py and outside.py."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from ... import ids
from ...clock import Clock, micros
from ...events import Draft, Event
from ...interrupts import DECIDABLE
from ..base import NewThread, NoticeName, Refused, Status, ThreadRow
from ..rules import closed_as, complete, notice_of
from ..values import dump
from .codec import (
    EVENT_CODES,
    INTERRUPT_CODES,
    REQUEST_CODES,
    THREAD_CODES,
    THREAD_COLUMNS,
    THREAD_STATUSES,
    one_event,
    pack,
    rows,
    step_column,
    thread_of,
)

_DECIDABLE = {REQUEST_CODES[kind] for kind in DECIDABLE}
_MUTABLE = ("status", "turns", "head", "woken", "seen", "epoch", "released", "barrier", "lease_until", "due", "ready", "last_end", "updated_at")
_SELECT = f"SELECT place, number, agent, parent, parent_seq, created_at, {', '.join(_MUTABLE)} FROM threads WHERE "
AT_ONCE = 1 << 62
MANY = 10_000
"""Rows that are worth their memory."""


@dataclass(slots=True)
class Row:
    """One thread's row while a transaction changes it; times in microseconds."""

    id: str
    place: int
    number: int
    agent: str
    parent: int | None
    parent_seq: int | None
    created_at: int
    status: Status
    turns: int
    head: int
    woken: int
    seen: int
    epoch: int
    released: int
    barrier: int
    lease_until: int | None
    due: int | None
    last_end: int | None
    updated_at: int
    before: tuple[Any, ...] = ()

    def ready(self) -> int | None:
        """The column that the sweep reads: when it can be claimed; below zero, and still in order of waiting, at once."""
        if self.status == "done":
            return self.due
        if self.status != "open":
            return None
        if self.lease_until is not None:
            return self.lease_until
        return self.updated_at - AT_ONCE if self.woken > self.seen else self.due

    def is_runnable(self, now: int) -> bool:
        ready = self.ready()
        return ready is not None and ready <= now

    def is_held(self, epoch: int, now: int) -> bool:
        """Whether a wake of this epoch holds a lease that has not run out."""
        return self.epoch == epoch and self.lease_until is not None and self.lease_until > now

    def columns(self) -> tuple[Any, ...]:
        """The values of `_MUTABLE`."""
        return (
            THREAD_CODES[self.status],
            self.turns,
            self.head,
            self.woken,
            self.seen,
            self.epoch,
            self.released,
            self.barrier,
            self.lease_until,
            self.due,
            self.ready(),
            self.last_end,
            self.updated_at,
        )


@cache
def _update(changed: tuple[int, ...]) -> str:
    return f"UPDATE threads SET {', '.join(f'{_MUTABLE[index]} = ?' for index in changed)} WHERE place = ?"


class Rows:
    """Rows as this connection wrote or read them last, by number: good until another connection commits or something here is rolled back.

    Source for `data_version`: https://sqlite.org/pragma.html#pragma_data_version
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._version = -1
        self.known: dict[int, Row] = {}

    def check(self) -> None:
        """Forget them if another connection has committed. Only after BEGIN: from then on nobody else does."""
        before, self._version = self._version, self._db.execute("PRAGMA data_version").fetchone()[0]
        if self._version != before or len(self.known) > MANY:
            self.forget()

    def forget(self) -> None:
        self.known.clear()


class Transaction:
    """One unit of work inside a commit. `at` is the store's clock when it began, under the lock; rows are written back by `save`."""

    def __init__(self, db: sqlite3.Connection, clock: Clock, known: Rows) -> None:
        self.db = db
        self.at: datetime = clock.now()
        self.now = micros(self.at)
        self.known = known
        self.touched: set[str] = set()
        self._rows: dict[int, Row] = {}  # by place: those of this unit

    # ---- rows --------------------------------------------------------------------------------------------------------------------

    def find(self, number: int | None) -> Row | None:
        """The thread's row, or None. Only `save` writes what is changed on it."""
        row = self.known.known.get(number or -1)
        if row is None:
            return self._read(f"{_SELECT} number = ?", number)
        self._rows[row.place] = row
        return row

    def at_place(self, place: int) -> Row:
        """The row that events and interrupts point at."""
        row = self._rows.get(place) or self._read(f"{_SELECT} place = ?", place)
        assert row is not None
        return row

    def _read(self, query: str, value: int | None) -> Row | None:
        found = self.db.execute(query, (value,)).fetchone()
        if found is None:
            return None
        place, number, agent, parent, parent_seq, created, *_ = found
        status, turns, head, woken, seen, epoch, released, barrier, lease, due, _, end, updated = before = found[6:]
        head_of = ids.thread_id(number), place, number, agent, parent, parent_seq, created, THREAD_STATUSES[status]
        fresh = Row(*head_of, turns, head, woken, seen, epoch, released, barrier, lease, due, end, updated, before)
        row = self._rows[place] = self.known.known.setdefault(number, fresh)
        return row

    def open(self, number: int) -> Row:
        """The row, to be changed; Refused("missing") if there is none."""
        row = self.find(number)
        if row is None:
            raise Refused("missing")
        self.touch(row)
        return row

    def touch(self, row: Row) -> None:
        """Listeners will hear of this thread."""
        self.touched.add(row.id)

    def save(self) -> None:
        """Write the columns that have changed, and only those: an index that is not touched costs no page."""
        for row in self._rows.values():
            after = row.columns()
            if after != row.before:
                changed = tuple([index for index, value in enumerate(after) if value != row.before[index]])
                self.db.execute(_update(changed), [*[after[index] for index in changed], row.place])
                row.before = after

    def view(self, row: Row) -> ThreadRow:
        """The row as everybody sees it after this transaction."""
        self.save()
        return thread_of(self.db, self.db.execute(f"SELECT {THREAD_COLUMNS} FROM threads WHERE place = ?", (row.place,)).fetchone())

    def create(self, number: int, new: NewThread, parent: tuple[int, int] | None = None) -> None:
        """A thread with the events it begins with; their step ids become this thread's own."""
        columns = "number, agent, key, context, parent, parent_seq, created_at, updated_at"
        zeros = "status, turns, head, woken, seen, epoch, released, barrier"
        above, seq = parent or (None, None)
        context = dump(dict(new.context)) if new.context else None
        values = (number, new.agent, new.key, context, above, seq, self.now, self.now, *(0,) * 8)
        self.db.execute(f"INSERT INTO threads ({columns}, {zeros}) VALUES ({', '.join('?' * 16)})", values)
        row = self.open(number)
        for draft in new.drafts:
            self.append(row, draft, outside=True, is_new=True)
            row.turns += draft.kind == "turn_ended"

    def free_number(self) -> int:
        """A number for a new thread."""
        number = ids.new_number()
        while self.db.execute("SELECT 1 FROM threads WHERE number = ?", (number,)).fetchone():
            number += 1
        return number

    # ---- the log ---------------------------------------------------------------------------------------------------------------

    def append(self, row: Row, draft: Draft, *, outside: bool = False, status: str | None = None, is_new: bool = False) -> Event:
        """Give the draft the next position and project it; `outside` wakes the thread, `status` is what it leads to."""
        seq = row.head + 1
        data = complete(draft, row.id, self.at)
        step = step_column(draft.step_id)
        self.db.execute(
            "INSERT INTO events (thread, seq, kind, at, step, op, actor, data, big) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row.place, seq, EVENT_CODES[draft.kind], self.now, step, draft.op, draft.by, *pack(self.db, data)),
        )
        row.head, row.updated_at = seq, self.now
        if outside:
            row.woken = seq
        step_id = None if step is None else ids.step_id(row.id, step)
        event = Event(seq, draft.kind, self.at, step_id, draft.op, draft.by, data)
        self._project(row, event, step)
        notice = notice_of(draft, status)
        if notice is not None and (not is_new or notice == "thread.started"):
            self.notify(notice, row, data.get("request", seq))
        return event

    def _project(self, row: Row, event: Event, step: int | str | None) -> None:
        if event.kind == "request":
            self._open_interrupt(row, event, step)
        elif event.kind == "vote":
            self._vote(row, event)
        elif event.kind == "ended":
            self.withdraw(row, f"step IS ? AND kind <> {REQUEST_CODES['child']}", step)
        elif event.kind == "turn_ended":
            self.withdraw(row, f"typeof(step) = 'text' AND kind <> {REQUEST_CODES['child']}")
        if event.kind in ("turn_ended", "failed"):
            row.last_end = event.seq
        if (status := closed_as(event)) is not None:
            self.db.execute(
                "UPDATE interrupts SET status = ?, closing = ? WHERE thread = ? AND seq = ?",
                (INTERRUPT_CODES[status], event.seq, row.place, event.data["request"]),
            )

    def _open_interrupt(self, row: Row, event: Event, step: int | str | None) -> None:
        kind, data = event.data["kind"], event.data
        name = data["event"] if kind == "event" else data["call"] if kind == "in_doubt" else None
        key = data["key"] if kind == "event" else None
        self.db.execute(
            "INSERT INTO interrupts (thread, seq, kind, status, at, step, name, key, expires_at) VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?)",
            (row.place, event.seq, REQUEST_CODES[kind], self.now, step, name, key, data.get("expires_at") if kind in DECIDABLE else None),
        )

    def _vote(self, row: Row, event: Event) -> None:
        votes = [*self.votes(row, event.data["request"]), event.seq]
        self.db.execute("UPDATE interrupts SET votes = ? WHERE thread = ? AND seq = ?", (dump(votes), row.place, event.data["request"]))

    def votes(self, row: Row, seq: int) -> list[int]:
        """Positions of the votes on an interrupt."""
        found = self.db.execute("SELECT votes FROM interrupts WHERE thread = ? AND seq = ?", (row.place, seq)).fetchone()
        return [] if found is None or found[0] is None else list(json.loads(found[0]))

    def status_of(self, row: Row, seq: int) -> int | None:
        """The code of an interrupt's status, or None if there is no such interrupt."""
        found = self.db.execute("SELECT status FROM interrupts WHERE thread = ? AND seq = ?", (row.place, seq)).fetchone()
        return None if found is None else int(found[0])

    def withdraw(self, row: Row, which: str, *values: object) -> None:
        """Close the open interrupts for which the condition holds; nobody answered them."""
        chosen = f"SELECT seq, kind FROM interrupts WHERE thread = ? AND status = 0 AND {which}"
        for seq, kind in rows(self.db.execute(chosen, (row.place, *values))):
            self.db.execute("UPDATE interrupts SET status = ? WHERE thread = ? AND seq = ?", (INTERRUPT_CODES["withdrawn"], row.place, seq))
            if kind in _DECIDABLE:
                self.notify("interrupt.resolved", row, seq)

    def outcome(self, row: Row, draft: Draft, after: int) -> bool:
        """Whether an outcome of the draft's operation stands after a position."""
        query = "SELECT 1 FROM events WHERE thread = ? AND step IS ? AND op IS ? AND seq > ? AND kind = 8 LIMIT 1"
        return self.db.execute(query, (row.place, step_column(draft.step_id), draft.op, after)).fetchone() is not None

    # ---- beside the log ----------------------------------------------------------------------------------------------------------

    def notify(self, name: NoticeName, row: Row, seq: int) -> None:
        """Write a notice if somebody, here or elsewhere, has subscribed to its name."""
        self.db.execute(
            "INSERT INTO outbox (name, thread, seq, at, hidden_until, tries) SELECT name, ?, ?, ?, ?, 0 FROM subscriptions WHERE name = ?",
            (row.number, seq if name.startswith("interrupt.") else None, self.now, self.now, name),
        )

    def holds(self, row: Row) -> tuple[str | None, ...]:
        """The operator's breakpoints on this thread and its agent."""
        query = "SELECT value FROM records WHERE space = 'hold' AND key IN (?, ?) AND (expires_at IS NULL OR expires_at > ?) ORDER BY key DESC"
        found = rows(self.db.execute(query, (row.id, f"agent:{row.agent}", self.now)))
        return tuple(on for (value,) in found for on in json.loads(value)["on"])

    def event(self, row: Row, seq: int) -> Event:
        """An event that is known to be there."""
        event = one_event(self.db, row.id, row.place, seq)
        assert event is not None
        return event
