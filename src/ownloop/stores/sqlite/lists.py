"""Lists of threads and interrupts: what is asked for stands in the query, so that a page holds as many as were wanted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ... import ids
from ...events import Json, canonical
from ...interrupts import DECIDABLE
from ..base import InterruptFilter, InterruptRow, Tally, ThreadFilter, ThreadRow
from ..rules import json_text
from ..values import number_of
from .codec import (
    EVENT_COLUMNS,
    INTERRUPT_CODES,
    INTERRUPT_STATUSES,
    REQUEST_CODES,
    REQUEST_KINDS,
    THREAD_CODES,
    THREAD_COLUMNS,
    event_of,
    one_event,
    rows,
    thread_of,
)

Condition = tuple[str, Sequence[Any]]
"""A piece of SQL and its values."""
_LARGEST = (1 << 63) - 1

# ---- threads ---------------------------------------------------------------------------------------------------------------------


def threads(db: sqlite3.Connection, filters: ThreadFilter) -> list[ThreadRow]:
    query, values = _where(_asked_of_threads(filters))
    chosen = f"SELECT {THREAD_COLUMNS} FROM threads t WHERE {query} ORDER BY number DESC LIMIT ?"
    return [thread_of(db, row) for row in rows(db.execute(chosen, (*values, _limit(filters.get("limit", 50)))))]


def _asked_of_threads(filters: ThreadFilter) -> Iterator[Condition]:
    for column, name in (("agent", "agent"), ("key", "key")):
        if (value := filters.get(name)) is not None:
            yield _equal(f"t.{column}", str(value))
    if (status := filters.get("status")) is not None:
        yield "t.status = ?", [THREAD_CODES.get(status, -1)]
    if (after := filters.get("after")) is not None:
        yield "t.number < ?", [number_of(after)]
    yield from _context(filters.get("context"))
    if q := filters.get("q"):
        said = "(SELECT json_extract(e.data, '$.input') FROM events e WHERE e.thread = t.place AND e.seq = 1)"
        yield _holds(q, ("t.agent", "t.key"), said)


def heads(db: sqlite3.Connection, thread_ids: Collection[str]) -> dict[str, int]:
    query = """SELECT t.number, (SELECT max(e.seq) FROM events e WHERE e.thread = t.place)
        FROM json_each(?) AS wanted CROSS JOIN threads t ON t.number = wanted.value"""
    found = rows(db.execute(query, (json.dumps([number_of(thread_id) for thread_id in thread_ids]),)))
    return {ids.thread_id(number): head or 0 for number, head in found}


# ---- interrupts ------------------------------------------------------------------------------------------------------------------

_COLUMNS = f"t.number, i.thread, t.agent, i.status, i.votes, i.closing, {', '.join(f'e.{name}' for name in EVENT_COLUMNS.split(', '))}"
_INTERRUPTS = f"""SELECT {_COLUMNS}
    FROM interrupts i CROSS JOIN threads t ON t.place = i.thread CROSS JOIN events e ON e.thread = i.thread AND e.seq = i.seq"""
_PLACE = "i.thread = (SELECT place FROM threads WHERE number = ?)"
_WAITING = f"i.status = 0 AND i.kind IN ({', '.join(str(REQUEST_CODES[kind]) for kind in sorted(DECIDABLE))})"
_AGE = ("i.at", "i.thread", "i.seq")


def interrupts(db: sqlite3.Connection, thread: str | None, after: tuple[str, int] | None, filters: InterruptFilter, now: int) -> list[InterruptRow]:
    """By urgency in two parts, each in the order of an index: those with a deadline, then the others."""
    asked = list(_asked_of_interrupts(db, thread, filters, now))
    limit = _limit(filters.get("limit", 50))
    if filters.get("order") != "urgency":
        return _part(db, [*asked, *_after(db, after, _AGE)], ("i.seq",) if thread is not None and after is None else _AGE, limit)
    found: list[InterruptRow] = []
    if after is None or _position(db, after, ("i.expires_at",)) != (None,):
        order = ("i.expires_at", *_AGE)
        found = _part(db, [("i.expires_at IS NOT NULL", ()), *asked, *_after(db, after, order)], order, limit)
        after = None
    if len(found) < limit:
        found += _part(db, [("i.expires_at IS NULL", ()), *asked, *_after(db, after, _AGE)], _AGE, limit - len(found))
    return found


def _part(db: sqlite3.Connection, asked: Sequence[Condition], order: Sequence[str], limit: int) -> list[InterruptRow]:
    query, values = _where(asked)
    return [_interrupt_of(db, row) for row in rows(db.execute(f"{_INTERRUPTS} WHERE {query} ORDER BY {', '.join(order)} LIMIT ?", (*values, limit)))]


def _asked_of_interrupts(db: sqlite3.Connection, thread: str | None, filters: InterruptFilter, now: int) -> Iterator[Condition]:
    """The status stands in the text, not in the values: only so the indexes on the open ones are used."""
    if (status := filters.get("status", "open")) is not None:
        yield f"i.status = {INTERRUPT_CODES.get(status, -1)}", ()
    if thread is not None:
        yield _PLACE, [number_of(thread)]
    for kinds in ([filters.get("kind")], filters.get("kinds")):
        if kinds is not None and kinds != [None]:
            yield f"i.kind IN ({', '.join(str(REQUEST_CODES.get(kind or '', -1)) for kind in kinds) or '-1'})", ()
    if (agent := filters.get("agent")) is not None:
        yield _equal("t.agent", agent)
    yield from _context(filters.get("context"))
    if (snoozed := filters.get("snoozed")) is not None:
        yield f"{_SNOOZED} = ?", [_snoozed(db, now), int(snoozed)]
    if (name := filters.get("name")) is not None:
        yield _equal("coalesce(json_extract(e.data, '$.name'), '')", name)
    if q := filters.get("q"):
        texts = ("t.agent", "t.key", "json_extract(e.data, '$.name')", "json_extract(e.data, '$.question')")
        yield _holds(q, texts, "json_extract(e.data, '$.arguments')")


def _after(db: sqlite3.Connection, after: tuple[str, int] | None, order: Sequence[str]) -> Iterator[Condition]:
    position = None if after is None else _position(db, after, order)
    if position is not None:
        yield f"({', '.join(order)}) > ({', '.join('?' * len(order))})", position


def _position(db: sqlite3.Connection, interrupt: tuple[str, int], order: Sequence[str]) -> tuple[Any, ...] | None:
    query = f"SELECT {', '.join(order)} FROM interrupts i WHERE {_PLACE} AND i.seq = ?"
    found: tuple[Any, ...] | None = db.execute(query, (number_of(interrupt[0]), interrupt[1])).fetchone()
    return found


def interrupt(db: sqlite3.Connection, thread_id: str, seq: int) -> InterruptRow | None:
    row = db.execute(f"{_INTERRUPTS} WHERE {_PLACE} AND i.seq = ?", (number_of(thread_id), seq)).fetchone() if seq <= _LARGEST else None
    return None if row is None else _interrupt_of(db, row)


def _interrupt_of(db: sqlite3.Connection, row: tuple[Any, ...]) -> InterruptRow:
    number, place, agent, status, votes, closing = row[:6]
    thread_id = ids.thread_id(number)
    given = (one_event(db, thread_id, place, seq) for seq in (json.loads(votes) if votes is not None else ()))
    return InterruptRow(
        thread_id,
        agent,
        INTERRUPT_STATUSES[status],
        event_of(db, thread_id, row[6:]),
        tuple(vote for vote in given if vote is not None),
        None if closing is None else one_event(db, thread_id, place, closing),
    )


def waiting(db: sqlite3.Connection) -> list[tuple[str, int]]:
    query = f"SELECT t.number, i.seq FROM interrupts i CROSS JOIN threads t ON t.place = i.thread WHERE {_WAITING}"
    return [(ids.thread_id(number), seq) for number, seq in rows(db.execute(query))]


def tally(db: sqlite3.Connection, context: Mapping[str, Json] | None, now: int) -> list[Tally]:
    query, values = _where([(_WAITING, ()), *_context(context)])
    counted = f"""SELECT t.agent, i.kind, {_SNOOZED}, count(*) FROM interrupts i CROSS JOIN threads t ON t.place = i.thread
        WHERE {query} GROUP BY 1, 2, 3"""
    found = rows(db.execute(counted, (_snoozed(db, now), *values)))
    return [Tally(agent, REQUEST_KINDS[kind], bool(snoozed), count) for agent, kind, snoozed, count in found]


# ---- conditions ------------------------------------------------------------------------------------------------------------------

_SNOOZED = "(t.number || '_' || i.seq IN (SELECT value FROM json_each(?)))"


def _snoozed(db: sqlite3.Connection, now: int) -> str:
    """The interrupts that are snoozed now, as a JSON list of NUMBER_SEQ."""
    query = "SELECT key FROM records WHERE space = 'snooze' AND (expires_at IS NULL OR expires_at > ?)"
    places = (ids.interrupt_of(key) for (key,) in rows(db.execute(query, (now,))))
    return json.dumps([f"{number_of(place[0])}_{place[1]}" for place in places if place is not None])


def _where(conditions: Iterator[Condition] | Sequence[Condition]) -> Condition:
    asked = list(conditions)
    return " AND ".join(text for text, _ in asked) or "1", [value for _, values in asked for value in values]


def _equal(what: str, value: str) -> Condition:
    return (f"{what} = ?", [value]) if _fits(value) else ("0", ())


def _holds(q: str, texts: Sequence[str], as_json: str) -> Condition:
    """Whether one of the texts holds `q`, or that JSON holds it as JSON writes it."""
    if not _fits(q):
        return "0", ()
    tests = [*(f"instr(lower({text}), lower(?))" for text in texts), f"instr(lower({as_json}), lower(?))"]
    return f"({' OR '.join(tests)})", [*[q] * len(texts), json_text(q)[1:-1]]


def _context(wanted: Mapping[str, Json] | None) -> Iterator[Condition]:
    """Each pair by its name and the type of its value; what SQLite cannot hold is in no context."""
    for name, value in (wanted or {}).items():
        test, values = _same(value)
        is_there = f"EXISTS (SELECT 1 FROM json_each(t.context) AS pair WHERE pair.key = ? AND {test})"
        yield (is_there, [name, *values]) if _fits(name) else ("0", ())


def _same(value: Json) -> Condition:
    if value is None or isinstance(value, bool):
        return "pair.type = ?", [json.dumps(value)]
    if isinstance(value, str):
        return ("pair.type = 'text' AND pair.value = ?", [value]) if _fits(value) else ("0", ())
    if isinstance(value, int | float):
        return ("pair.type IN ('integer', 'real') AND pair.value = ?", [value]) if abs(value) <= _LARGEST else ("0", ())
    return "pair.type IN ('array', 'object') AND canonical(pair.value) = ?", [canonical(value)]


def _fits(text: str) -> bool:
    """Whether UTF-8 can hold it: half a surrogate pair cannot be asked for."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _limit(limit: int) -> int:
    return min(limit, _LARGEST)
