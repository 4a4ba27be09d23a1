"""Every look at the file: functions of a connection that does not write."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from ... import ids
from ...events import Event
from ..base import Pulse, ThreadRow
from ..values import number_of
from .codec import EVENT_CODES, EVENT_COLUMNS, THREAD_COLUMNS, THREAD_STATUSES, event_of, one_event, rows, thread_of, unpack
from .transaction import AT_ONCE

_THREAD = "thread = (SELECT place FROM threads WHERE number = ?)"
_LOG = f"SELECT {EVENT_COLUMNS} FROM events WHERE {_THREAD}"
_COMPACTED = EVENT_CODES["compacted"]
_APPENDED = EVENT_CODES["appended"]

# ---- the log ---------------------------------------------------------------------------------------------------------------------


def load(db: sqlite3.Connection, thread_id: str, upto: int) -> list[Event]:
    number = number_of(thread_id)
    last = f"SELECT data, big, thread FROM events WHERE {_THREAD} AND seq <= ? AND kind = {_COMPACTED} ORDER BY seq DESC LIMIT 1"
    compacted = db.execute(last, (number, upto)).fetchone()
    if compacted is None:
        return _log(db, thread_id, f"{_LOG} AND seq <= ? ORDER BY seq", upto)
    covered = unpack(db, compacted[0], compacted[1])
    kept = sorted(seq for seq in {1, *covered["kept"]} if seq <= min(covered["upto"], upto))
    before = [event for seq in kept if (event := one_event(db, thread_id, compacted[2], seq)) is not None]
    return before + _log(db, thread_id, f"{_LOG} AND seq > ? AND seq <= ? ORDER BY seq", covered["upto"], upto)


def events(db: sqlite3.Connection, thread_id: str, after: int, limit: int | None) -> list[Event]:
    return _log(db, thread_id, f"{_LOG} AND seq > ? ORDER BY seq LIMIT ?", after, -1 if limit is None else limit)


def recall(db: sqlite3.Connection, thread_id: str, step_id: str | None, upto: int) -> list[Event]:
    if step_id is None:
        return _log(db, thread_id, f"{_LOG} AND seq <= ? AND kind = {_APPENDED} ORDER BY seq", upto)
    step = ids.step_of(step_id)
    is_named = "typeof(step) = 'text'" if isinstance(step, str) else "1"
    return _log(db, thread_id, f"{_LOG} AND step = ? AND seq <= ? AND {is_named} ORDER BY seq", step, upto)


def _log(db: sqlite3.Connection, thread_id: str, query: str, *values: object) -> list[Event]:
    return [event_of(db, thread_id, row) for row in rows(db.execute(query, (number_of(thread_id), *values)))]


# ---- threads ---------------------------------------------------------------------------------------------------------------------


def thread(db: sqlite3.Connection, thread_id: str) -> ThreadRow | None:
    row = db.execute(f"SELECT {THREAD_COLUMNS} FROM threads WHERE number = ?", (number_of(thread_id),)).fetchone()
    return None if row is None else thread_of(db, row)


def find(db: sqlite3.Connection, agent: str, key: str) -> str | None:
    row = db.execute("SELECT number FROM threads WHERE agent = ? AND key = ?", (agent, key)).fetchone()
    return None if row is None else ids.thread_id(row[0])


def pulse(db: sqlite3.Connection, thread_ids: Collection[str]) -> dict[str, Pulse]:
    found: dict[str, Pulse] = {}
    for thread_id in thread_ids:
        row = db.execute("SELECT status, woken, epoch FROM threads WHERE number = ?", (number_of(thread_id),)).fetchone()
        if row is not None:
            found[thread_id] = Pulse(THREAD_STATUSES[row[0]], row[1], row[2])
    return found


def runnable(db: sqlite3.Connection, agents: Collection[str], limit: int, now: int) -> tuple[list[str], int | None]:
    """Those that can be claimed, and the next time at which another one may become so.

    Two ranges of one index: an event from outside makes ready at once, also if the clock was set back since.
    """
    chosen = "SELECT ready + ?, number FROM threads WHERE agent = ? AND ready >= ? AND ready <= ? ORDER BY ready LIMIT ?"
    ready: list[tuple[int, int]] = []
    nexts: list[int] = []
    for agent in set(agents):
        ready += rows(db.execute(chosen, (AT_ONCE, agent, -AT_ONCE, -1, limit)))
        ready += rows(db.execute(chosen, (0, agent, 0, now, limit)))
        soonest = db.execute("SELECT min(ready) FROM threads WHERE agent = ? AND ready > ?", (agent, now)).fetchone()[0]
        nexts += [] if soonest is None else [soonest]
    return [ids.thread_id(number) for _, number in sorted(ready)[:limit]], min(nexts, default=None)
