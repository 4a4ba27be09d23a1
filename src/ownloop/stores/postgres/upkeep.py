"""Records, the outbox, notes, and what keeps the tables small and sound."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from ... import ids
from ...clock import Clock, from_micros, micros
from ...events import Json
from ..base import Note, NoticeName, NoticeRow, Record
from ..rules import MAIL_KEPT, query_words, words_of
from ..values import dump
from .codec import moment_of
from .connect import span
from .reads import fits

WORD = 200
"""Characters of a word that count: Postgres holds no word of more than 2,046 bytes."""
_CURRENT = "(expires_at IS NULL OR expires_at > (SELECT ownloop.now()))"


class Upkeep:
    """What stands beside the threads."""

    clock: Clock

    async def _rows(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    async def _one(self, query: str, values: Any = ()) -> Any:
        return (await self._rows(query, values))[0][0]

    # ---- notes -----------------------------------------------------------------------------------------------------------------

    async def note(self, owner: str, key: str, text: str) -> Note:
        words = sorted({word[:WORD] for word in words_of(text) if fits(word)})
        at = await self._one("SELECT ownloop.note(%s, %s, %s, %s::text[])", (owner, key, dump(text), words))
        return Note(owner, key, text, from_micros(at))

    async def notes(self, owner: str, query: str | None = None, *, limit: int = 50) -> list[Note]:
        wanted = [
            f"'{word[:WORD]}':*" for word in query_words(query or "") if fits(word)
        ]  # a word is letters and digits: nothing in it is an operator
        if query is not None and not wanted:
            return []
        found = "owner = %s AND words @@ %s::tsquery" if query is not None else "owner = %s"
        rank = "(SELECT count(*) FROM unnest(%s::text[]) AS one WHERE words @@ one::tsquery) DESC, " if query is not None else ""
        values = [owner, *([" | ".join(wanted), wanted] if query is not None else []), limit]
        rows = await self._rows(f"SELECT owner, key, text, at FROM ownloop.notes WHERE {found} ORDER BY {rank}at DESC, number DESC LIMIT %s", values)
        return [Note(owner, key, json.loads(text), from_micros(at)) for owner, key, text, at in rows]

    async def forget_notes(self, owner: str, key: str | None = None) -> int:
        return int(await self._one("SELECT ownloop.forget_notes(%s, %s)", (owner, key)))

    # ---- records ---------------------------------------------------------------------------------------------------------------

    async def get(self, space: str, key: str) -> Record | None:
        query = f"SELECT value, version, expires_at FROM ownloop.records WHERE space = %s AND key = %s AND {_CURRENT}"
        rows = await self._rows(query, (space, key)) if fits(space, key) else []
        return _record(*rows[0]) if rows else None

    async def put(self, space: str, key: str, value: Json, *, expect: int | None = None, ttl: timedelta | None = None) -> bool:
        return bool(await self._one("SELECT ownloop.put(%s, %s, %s, %s, %s)", (space, key, dump(value), expect, span(ttl))))

    async def drop(self, space: str, key: str) -> bool:
        return bool(await self._one("SELECT ownloop.drop(%s, %s)", (space, key)))

    async def records(self, space: str, prefix: str = "", *, beyond: datetime | None = None) -> dict[str, Record]:
        """By the primary key, from the prefix on; with `beyond` by the index of expiries."""
        query = f"SELECT key, value, version, expires_at FROM ownloop.records WHERE space = %s AND key >= %s AND starts_with(key, %s) AND {_CURRENT}"
        later = ("", []) if beyond is None else (" AND expires_at > %s", [micros(beyond)])
        rows = await self._rows(f"{query}{later[0]} ORDER BY key", [space, prefix, prefix, *later[1]])
        return {key: _record(value, version, expires) for key, value, version, expires in rows}

    # ---- outbox ----------------------------------------------------------------------------------------------------------------

    async def subscribe(self, names: Collection[NoticeName]) -> None:
        await self._rows("SELECT ownloop.subscribe(%s::text[])", (list(names),))

    async def notices(self, names: Collection[NoticeName], limit: int, ttl: timedelta) -> list[NoticeRow]:
        query = "SELECT id, name, thread, seq, at, tries - 1 FROM ownloop.notices(%s::text[], %s, %s) ORDER BY id"
        found = await self._rows(query, (list(names), limit, span(ttl)))
        return [NoticeRow(id, name, ids.thread_id(thread), seq, from_micros(at), tries) for id, name, thread, seq, at, tries in found]

    async def delivered(self, notice_ids: Collection[int]) -> None:
        if notice_ids:
            await self._rows("SELECT ownloop.delivered(%s::bigint[])", (list(notice_ids),))

    # ---- upkeep ----------------------------------------------------------------------------------------------------------------

    async def prune(self, before: datetime) -> int:
        forgotten = 0
        while some := await self._one("SELECT ownloop.prune(%s)", (micros(before),)):
            forgotten += some
        await self._rows("SELECT ownloop.sweep(%s)", (span(MAIL_KEPT),))
        return forgotten

    async def check(self) -> list[str]:
        """What contradicts itself: a log and its row, an interrupt and its events, an event and its big values."""
        logs = "SELECT thread, count(*) AS count, min(seq) AS first, max(seq) AS last FROM ownloop.events GROUP BY thread"
        gaps = f"""SELECT t.number, t.head, coalesce(l.count, 0), l.first, l.last FROM ownloop.threads t LEFT JOIN ({logs}) l ON l.thread = t.number
            WHERE t.head <> coalesce(l.count, 0) OR t.head <> coalesce(l.last, 0) OR l.first <> 1"""
        found = [
            f"{ids.thread_id(number)}: its log has {count} events from {first} to {last}, its row says {head}"
            for number, head, count, first, last in await self._rows(gaps)
        ]
        orphans = "SELECT count(DISTINCT e.thread) FROM ownloop.events e WHERE NOT EXISTS (SELECT FROM ownloop.threads t WHERE t.number = e.thread)"
        found += [f"{count} logs have no row" for count in [await self._one(orphans)] if count]
        requests = """SELECT i.thread, i.seq FROM ownloop.interrupts i LEFT JOIN ownloop.events e ON e.thread = i.thread AND e.seq = i.seq
            LEFT JOIN ownloop.events c ON c.thread = i.thread AND c.seq = i.closing
            WHERE e.kind IS DISTINCT FROM 'request' OR (i.closing IS NOT NULL AND (i.status = 'open' OR c.request IS DISTINCT FROM i.seq))"""
        found += [f"{ids.thread_id(number)}: the interrupt at {seq} contradicts the log" for number, seq in await self._rows(requests)]
        lost = """SELECT DISTINCT e.thread, e.seq FROM ownloop.events e, jsonb_each_text(e.big) AS field
            WHERE NOT EXISTS (SELECT FROM ownloop.blobs b WHERE b.hash = field.value)"""
        return found + [f"{ids.thread_id(number)}: a value of the event at {seq} is missing" for number, seq in await self._rows(lost)]


def _record(value: str, version: int, expires: int | None) -> Record:
    return Record(json.loads(value), version, moment_of(expires))
