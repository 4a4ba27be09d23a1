"""Between rows and values: the codes of kinds and statuses, JSON and its big values, events and threads as they stand in a row."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, cast

from ... import ids
from ...clock import from_micros
from ...events import Event, Json, Kind
from ..base import Status, ThreadRow
from ..values import apart, dump

# Positions in these tuples are on disk: append only. schema.sql has 8, 14, 15 of EVENT_KINDS and 3 of REQUEST_KINDS in its indexes.
EVENT_KINDS: tuple[Kind, ...] = (
    "input",
    "message",
    "selected",
    "ended",
    "started",
    "not_started",
    "tried",
    "failed",
    "outcome",
    "late",
    "request",
    "vote",
    "decision",
    "delivered",
    "appended",
    "compacted",
    "model_failed",
    "turn_ended",
    "control",
)
EVENT_CODES: dict[str, int] = {kind: code for code, kind in enumerate(EVENT_KINDS)}
REQUEST_KINDS: tuple[str, ...] = ("approval", "question", "result", "event", "timer", "child", "in_doubt", "budget", "hold")
REQUEST_CODES = {kind: code for code, kind in enumerate(REQUEST_KINDS)}
THREAD_STATUSES: tuple[Status, ...] = ("open", "paused", "done", "failed", "cancelled", "closed")
THREAD_CODES: dict[str, int] = {status: code for code, status in enumerate(THREAD_STATUSES)}
INTERRUPT_STATUSES: tuple[str, ...] = ("open", "decided", "expired", "superseded", "withdrawn")
INTERRUPT_CODES = {status: code for code, status in enumerate(INTERRUPT_STATUSES)}

EVENT_COLUMNS = "seq, kind, at, step, op, actor, data, big"
THREAD_COLUMNS = (
    "place, number, agent, key, status, turns, head, woken, seen, epoch, released, lease_until, due, context, parent, parent_seq, "
    "created_at, updated_at, last_end"
)

_decode = json.JSONDecoder().raw_decode  # what `dump` wrote has nothing around it


def pack(db: sqlite3.Connection, data: Mapping[str, Json]) -> tuple[str | None, str | None]:
    """The columns `data` and `big`; fields over the limit go to blobs, each content once."""
    text, big, blobs = apart(data)
    for found, field in blobs.items():
        db.execute("INSERT INTO blobs (hash, json) VALUES (?, ?) ON CONFLICT DO NOTHING", (found, field))
    return text, dump(big) if big else None


def unpack(db: sqlite3.Connection, data: str | None, big: str | None) -> dict[str, Json]:
    """What `pack` was given."""
    value: dict[str, Json] = _decode(data)[0] if data is not None else {}
    if big is not None:
        for name, found in json.loads(big).items():
            value[name] = json.loads(db.execute("SELECT json FROM blobs WHERE hash = ?", (found,)).fetchone()[0])
    return value


def event_of(db: sqlite3.Connection, thread_id: str, row: tuple[Any, ...]) -> Event:
    """An event from `EVENT_COLUMNS`."""
    seq, kind, at, step, op, actor, data, big = row
    step_id = None if step is None else ids.step_id(thread_id, step)
    return Event(seq, EVENT_KINDS[kind], from_micros(at), step_id, op, actor, unpack(db, data, big))


def one_event(db: sqlite3.Connection, thread_id: str, place: int, seq: int) -> Event | None:
    """The event of a thread, known by its id and place, at a position."""
    row = db.execute(f"SELECT {EVENT_COLUMNS} FROM events WHERE thread = ? AND seq = ?", (place, seq)).fetchone()
    return None if row is None else event_of(db, thread_id, row)


def thread_of(db: sqlite3.Connection, row: tuple[Any, ...]) -> ThreadRow:
    """A thread from `THREAD_COLUMNS`."""
    place, number, agent, key, status, turns, head, woken, seen, epoch, released, lease, due, context, parent, parent_seq, created, updated, end = row
    thread_id = ids.thread_id(number)
    return ThreadRow(
        id=thread_id,
        agent=agent,
        key=key,
        status=THREAD_STATUSES[status],
        turns=turns,
        head=head,
        woken=woken,
        seen=seen,
        epoch=epoch,
        released=released,
        lease_until=None if lease is None else from_micros(lease),
        due=None if due is None else from_micros(due),
        context={} if context is None else json.loads(context),
        parent=None if parent is None else (ids.thread_id(parent), parent_seq),
        created_at=from_micros(created),
        updated_at=from_micros(updated),
        last_end=None if end is None else one_event(db, thread_id, place, end),
    )


def step_column(step_id: str | None) -> int | str | None:
    """What the column `step` holds."""
    return None if step_id is None else ids.step_of(step_id)


def rows(cursor: sqlite3.Cursor) -> list[tuple[Any, ...]]:
    """All rows, typed."""
    return cast(list[tuple[Any, ...]], cursor.fetchall())
