"""Every look at the log, at threads and interrupts: what is asked for stands in the query, so that a page holds as many as were wanted."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Unpack

from ... import ids
from ...events import Event, Json
from ..base import InterruptFilter, InterruptRow, Pulse, Tally, ThreadFilter, ThreadRow
from ..rules import json_text
from ..values import dump, number_of
from .codec import EVENT, LARGEST, THREAD, event_of, moment_of, step_column, thread_of

Condition = tuple[str, Sequence[Any]]
"""A piece of SQL and its values."""
_LOG = f"SELECT {EVENT} FROM ownloop.events WHERE thread = %s"
_ROW = f"jsonb_build_array({', '.join(f'e.{name}' for name in EVENT.split(', '))})"
_END = f"(SELECT {_ROW} FROM ownloop.events e WHERE e.thread = t.number AND e.seq = t.last_end)"
_THREADS = f"SELECT {', '.join(f't.{name}' for name in THREAD.split(', '))}, {_END} FROM ownloop.threads t"
AT_ONCE = 1 << 62


class Reads:
    """What reads. `_rows` runs a statement; a single one sees one state of the database."""

    async def _rows(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    # ---- the log ---------------------------------------------------------------------------------------------------------------

    async def load(self, thread_id: str, upto: int) -> list[Event]:
        query = f"""WITH last AS MATERIALIZED (
                SELECT covers FROM ownloop.events WHERE thread = %(me)s AND kind = 'compacted' AND seq <= %(upto)s ORDER BY seq DESC LIMIT 1)
            SELECT {EVENT} FROM ownloop.events WHERE thread = %(me)s AND seq <= %(upto)s AND seq > coalesce((SELECT covers[1] FROM last), 0)
            UNION ALL SELECT {EVENT} FROM ownloop.events WHERE thread = %(me)s AND seq <= %(upto)s
                AND seq <= (SELECT covers[1] FROM last) AND seq = ANY (ARRAY[1] || (SELECT covers[2:] FROM last)) ORDER BY seq"""
        return await self._log(thread_id, query, {"me": number_of(thread_id), "upto": min(upto, LARGEST)})

    async def events(self, thread_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        query = f"{_LOG} AND seq > %s ORDER BY seq LIMIT %s"
        return await self._log(thread_id, query, (number_of(thread_id), min(after, LARGEST), limit))

    async def recall(self, thread_id: str, step_id: str | None, upto: int) -> list[Event]:
        which, values = ("kind = 'appended'", []) if step_id is None else ("step = %s", [step_column(step_id)])
        named = " AND left(step, 1) = '@'" if step_id is not None and ids.is_named(step_id) else ""
        query = f"{_LOG} AND {which}{named} AND seq <= %s ORDER BY seq"
        return await self._log(thread_id, query, [number_of(thread_id), *values, min(upto, LARGEST)])

    async def _log(self, thread_id: str, query: str, values: Any) -> list[Event]:
        rows = await self._rows(query, values)
        blobs = await self._blobs_of(row[-1] for row in rows)
        return [event_of(thread_id, row, blobs) for row in rows]

    async def _blobs_of(self, bigs: Iterable[Mapping[str, str] | None]) -> Mapping[str, str]:
        hashes = {found for big in bigs for found in (big or {}).values()}
        return await self._blobs(hashes) if hashes else {}

    async def _blobs(self, hashes: Collection[str]) -> Mapping[str, str]:
        found = await self._rows("SELECT hash, json FROM ownloop.blobs WHERE hash = ANY (%s)", (list(hashes),))
        return {str(row[0]): str(row[1]) for row in found}

    # ---- threads ---------------------------------------------------------------------------------------------------------------

    async def thread(self, thread_id: str) -> ThreadRow | None:
        found = await self._threads("t.number = %s", [number_of(thread_id)])
        return found[0] if found else None

    async def _threads(self, where: str, values: Sequence[Any]) -> list[ThreadRow]:
        rows = await self._rows(f"{_THREADS} WHERE {where}", values)
        blobs = await self._blobs_of(row[-1][-1] if row[-1] is not None else None for row in rows)
        return [thread_of(row[:-1], None if row[-1] is None else event_of(ids.thread_id(row[0]), row[-1], blobs)) for row in rows]

    async def find(self, agent: str, key: str) -> str | None:
        found = await self._rows("SELECT number FROM ownloop.threads WHERE agent = %s AND key = %s", (agent, key)) if fits(agent, key) else []
        return ids.thread_id(found[0][0]) if found else None

    async def pulse(self, thread_ids: Collection[str]) -> dict[str, Pulse]:
        asked = [number_of(thread_id) for thread_id in thread_ids]
        found = await self._rows("SELECT number, status, woken, epoch FROM ownloop.threads WHERE number = ANY (%s)", (asked,))
        return {ids.thread_id(number): Pulse(status, woken, epoch) for number, status, woken, epoch in found}

    async def heads(self, thread_ids: Collection[str]) -> dict[str, int]:
        asked = [number_of(thread_id) for thread_id in thread_ids]
        found = await self._rows("SELECT number, head FROM ownloop.threads WHERE number = ANY (%s)", (asked,))
        return {ids.thread_id(number): head for number, head in found}

    async def runnable(self, agents: Collection[str], limit: int) -> tuple[list[str], datetime | None]:
        """Two ranges of one index an agent: what is ready at once, and what is by the clock. The clock is asked once, in a subselect: compared with
        the bare function the index would not be used."""
        query = f"""SELECT found.place, found.number FROM unnest(%(agents)s::text[]) AS mine, LATERAL (
                (SELECT ready + {AT_ONCE} AS place, number FROM ownloop.threads WHERE agent = mine AND ready < 0 ORDER BY ready LIMIT %(limit)s)
                UNION ALL (SELECT ready, number FROM ownloop.threads
                    WHERE agent = mine AND ready >= 0 AND ready <= (SELECT ownloop.now()) ORDER BY ready LIMIT %(limit)s)) AS found
            UNION ALL SELECT (SELECT ready FROM ownloop.threads WHERE agent = mine AND ready > (SELECT ownloop.now()) ORDER BY ready LIMIT 1), NULL
                FROM unnest(%(agents)s::text[]) AS mine"""
        rows = await self._rows(query, {"agents": sorted(set(agents)), "limit": limit})
        ready = sorted((place, number) for place, number in rows if number is not None)
        return [ids.thread_id(number) for _, number in ready[:limit]], moment_of(
            min((at for at, number in rows if number is None and at is not None), default=None)
        )

    async def threads(self, **filters: Unpack[ThreadFilter]) -> list[ThreadRow]:
        query, values = where(_asked_of_threads(filters))
        return await self._threads(f"{query} ORDER BY number DESC LIMIT %s", [*values, filters.get("limit", 50)])

    # ---- interrupts --------------------------------------------------------------------------------------------------------------

    async def interrupt(self, thread_id: str, seq: int) -> InterruptRow | None:
        found = await self._part([("i.thread = %s AND i.seq = %s", [number_of(thread_id), min(seq, LARGEST)])], _AGE, 1)
        return found[0] if found else None

    async def interrupts(
        self, *, thread: str | None = None, after: tuple[str, int] | None = None, **filters: Unpack[InterruptFilter]
    ) -> list[InterruptRow]:
        """By urgency in two parts, each in the order of an index: those with a deadline, then the others."""
        asked, limit = list(_asked_of_interrupts(thread, filters)), min(filters.get("limit", 50), LARGEST)
        place = None if after is None else await self._place(after)
        if filters.get("order") != "urgency":
            order = ("i.seq",) if thread is not None and after is None else _AGE
            return await self._part([*asked, *_beyond(place and place[1:], _AGE)], order, limit)
        found: list[InterruptRow] = []
        if place is None or place[0] is not None:
            urgent = ("i.decidable AND i.expires_at IS NOT NULL", ())
            found = await self._part([urgent, *asked, *_beyond(place, _URGENT)], _URGENT, limit)
            place = None
        if len(found) < limit:
            rest = ("(NOT i.decidable OR i.expires_at IS NULL)", ())
            found += await self._part([rest, *asked, *_beyond(place and place[1:], _AGE)], _AGE, limit - len(found))
        return found

    async def _place(self, interrupt: tuple[str, int]) -> tuple[Any, ...] | None:
        query = "SELECT CASE WHEN decidable THEN expires_at END, at, thread, seq FROM ownloop.interrupts WHERE thread = %s AND seq = %s"
        found = await self._rows(query, (number_of(interrupt[0]), min(interrupt[1], LARGEST)))
        return found[0] if found else None

    async def _part(self, asked: Sequence[Condition], order: Sequence[str], limit: int) -> list[InterruptRow]:
        query, values = where(asked)
        rows = await self._rows(f"{_INTERRUPTS} WHERE {query} ORDER BY {', '.join(order)} LIMIT %s", [*values, limit])
        blobs = await self._blobs_of(event[-1] for row in rows for event in (row[3], *row[4], row[5]) if event is not None)
        return [_interrupt_of(row, blobs) for row in rows]

    async def waiting(self) -> list[tuple[str, int]]:
        found = await self._rows("SELECT thread, seq FROM ownloop.interrupts WHERE status = 'open' AND decidable")
        return [(ids.thread_id(number), seq) for number, seq in found]

    async def tally(self, *, context: Mapping[str, Json] | None = None) -> list[Tally]:
        query, values = where([("i.status = 'open' AND i.decidable", ()), *_context(context)])
        counted = f"""SELECT t.agent, i.kind, {_SNOOZED}, count(*) FROM ownloop.interrupts i JOIN ownloop.threads t ON t.number = i.thread
            WHERE {query} GROUP BY 1, 2, 3"""
        return [Tally(agent, kind, snoozed, count) for agent, kind, snoozed, count in await self._rows(counted, values)]


# ---- queries ---------------------------------------------------------------------------------------------------------------------

_ONE = f"(SELECT {_ROW} FROM ownloop.events e WHERE e.thread = i.thread AND e.seq = i.%s)"
_VOTES = f"ARRAY(SELECT {_ROW} FROM ownloop.events e WHERE e.thread = i.thread AND e.seq = ANY (i.votes) ORDER BY e.seq)"
_INTERRUPTS = f"""SELECT t.number, t.agent, i.status, {_ROW}, {_VOTES}, {_ONE.replace("%s", "closing")}
    FROM ownloop.interrupts i JOIN ownloop.threads t ON t.number = i.thread JOIN ownloop.events e ON e.thread = i.thread AND e.seq = i.seq"""
_AGE = ("i.at", "i.thread", "i.seq")
_URGENT = ("i.expires_at", *_AGE)
_SNOOZED = """('int_' || substr(ownloop.thread_id(i.thread), 5) || '_' || i.seq IN (
    SELECT key FROM ownloop.records WHERE space = 'snooze' AND (expires_at IS NULL OR expires_at > (SELECT ownloop.now()))))"""


def _interrupt_of(row: Sequence[Any], blobs: Mapping[str, str]) -> InterruptRow:
    number, agent, status, request, votes, closing = row
    thread_id = ids.thread_id(number)
    given = tuple(event_of(thread_id, vote, blobs) for vote in votes)
    return InterruptRow(
        thread_id, agent, status, event_of(thread_id, request, blobs), given, None if closing is None else event_of(thread_id, closing, blobs)
    )


def _asked_of_threads(filters: ThreadFilter) -> Iterator[Condition]:
    for column, value in (("agent", filters.get("agent")), ("key", filters.get("key")), ("status", filters.get("status"))):
        if value is not None:
            yield _equal(f"t.{column}", value)
    if (after := filters.get("after")) is not None:
        yield "t.number < %s", [number_of(after)]
    yield from _context(filters.get("context"))
    if q := filters.get("q"):
        said = "(SELECT ownloop._field(e.data, 'input') FROM ownloop.events e WHERE e.thread = t.number AND e.seq = 1)"
        yield _holds(q, ("t.agent", "t.key"), said)


def _asked_of_interrupts(thread: str | None, filters: InterruptFilter) -> Iterator[Condition]:
    """The usual status stands in the text, not in the values: only so the indexes on the open ones are used."""
    if (status := filters.get("status", "open")) is not None:
        yield ("i.status = 'open'", ()) if status == "open" else ("i.status = %s", [status])
    if thread is not None:
        yield "i.thread = %s", [number_of(thread)]
    if (kind := filters.get("kind")) is not None:
        yield "i.kind = %s", [kind]
    if (kinds := filters.get("kinds")) is not None:
        yield "i.kind = ANY (%s)", [list(kinds)]
    if (agent := filters.get("agent")) is not None:
        yield _equal("t.agent", agent)
    yield from _context(filters.get("context"))
    if (snoozed := filters.get("snoozed")) is not None:
        yield f"{_SNOOZED} = %s", [snoozed]
    if (name := filters.get("name")) is not None:
        yield _equal("coalesce(ownloop._text(e.data, 'name'), '')", name)
    if q := filters.get("q"):
        texts = ("t.agent", "t.key", "ownloop._text(e.data, 'name')", "ownloop._text(e.data, 'question')")
        yield _holds(q, texts, "ownloop._field(e.data, 'arguments')")


def _beyond(place: Sequence[Any] | None, order: Sequence[str]) -> Iterator[Condition]:
    if place is not None:
        yield f"({', '.join(order)}) > ({', '.join(['%s'] * len(order))})", place


def where(conditions: Iterable[Condition]) -> Condition:
    """All of them."""
    asked = list(conditions)
    return " AND ".join(text for text, _ in asked) or "true", [value for _, values in asked for value in values]


def _equal(what: str, value: str) -> Condition:
    return (f"{what} = %s", [value]) if fits(value) else ("false", ())


def _holds(q: str, texts: Sequence[str], as_json: str) -> Condition:
    """Whether one of the texts holds `q`, or that JSON holds it as JSON writes it; `lower` of collation C knows A to Z only."""
    if not fits(q):
        return "false", ()
    tests = [f"""strpos(lower({text} COLLATE "C"), lower(%s COLLATE "C")) > 0""" for text in (*texts, as_json)]
    return f"({' OR '.join(tests)})", [*[q] * len(texts), json_text(q)[1:-1]]


_UNHELD = re.compile(r"(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])")
"""NUL or half a surrogate pair in JSON, escaped: a backslash before it that is itself escaped makes it plain text."""


def _context(wanted: Mapping[str, Json] | None) -> Iterator[Condition]:
    """By the index those that contain it, and of these the ones whose pairs are equal; what jsonb cannot hold is in no context."""
    if not wanted:
        return
    text = dump(dict(wanted))
    if not fits(text) or _UNHELD.search(text):
        yield "false", ()
        return
    yield "t.searched @> %s::jsonb", [text]
    for name, value in wanted.items():
        yield "t.searched -> %s = %s::jsonb", [name, dump(value)]


def fits(*texts: str) -> bool:
    """Whether Postgres can hold them: neither NUL nor half a surrogate pair can be asked for."""
    try:
        return all("\x00" not in text for text in texts if text.encode() is not None)
    except UnicodeEncodeError:
        return False
