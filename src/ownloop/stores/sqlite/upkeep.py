"""Records, the outbox, and what keeps the file small and sound."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from ... import ids
from ...clock import from_micros, micros
from ...events import Json
from ..base import NoticeName, NoticeRow, Record
from ..rules import MAIL_KEPT
from ..values import dump
from .codec import THREAD_CODES, rows
from .transaction import Transaction

PRUNE_AT_ONCE = 500
"""Threads forgotten in one commit, so that nobody waits long for the lock."""

# ---- records ---------------------------------------------------------------------------------------------------------------------


def get(db: sqlite3.Connection, space: str, key: str, now: int) -> Record | None:
    found = db.execute("SELECT value, version, expires_at FROM records WHERE space = ? AND key = ?", (space, key)).fetchone()
    return None if found is None else _record(found[0], found[1], found[2], now)


def records(db: sqlite3.Connection, space: str, prefix: str, beyond: datetime | None, now: int) -> dict[str, Record]:
    """By the primary key, from the prefix to the last key that begins so; with `beyond` by the index of expiries."""
    values: list[Any] = [space, prefix, prefix]
    chosen = "space = ? AND key >= ? AND key < ? || char(0x10FFFF)"
    if beyond is not None:
        chosen, values = "expires_at > ? AND +space = ? AND substr(key, 1, ?) = ?", [micros(beyond), space, len(prefix), prefix]
    query = f"SELECT key, value, version, expires_at FROM records WHERE {chosen} ORDER BY key"
    found = ((row[0], _record(row[1], row[2], row[3], now)) for row in rows(db.execute(query, values)))
    return {key: record for key, record in found if record is not None}


def put(tx: Transaction, space: str, key: str, value: Json, expect: int | None, ttl: timedelta | None) -> bool:
    found = tx.db.execute("SELECT version, expires_at FROM records WHERE space = ? AND key = ?", (space, key)).fetchone()
    version, expires = found if found is not None else (0, None)
    is_gone = expires is not None and expires <= tx.now
    if expect is not None and expect != (0 if is_gone else version):
        return False
    tx.db.execute(
        "INSERT OR REPLACE INTO records (space, key, value, version, expires_at) VALUES (?, ?, ?, ?, ?)",
        (space, key, dump(value), version + 1, None if ttl is None else micros(tx.at + ttl)),
    )
    return True


def drop(tx: Transaction, space: str, key: str) -> bool:
    was_there = get(tx.db, space, key, tx.now) is not None
    tx.db.execute("DELETE FROM records WHERE space = ? AND key = ?", (space, key))
    return was_there


def _record(value: str, version: int, expires: int | None, now: int) -> Record | None:
    if expires is not None and expires <= now:
        return None
    return Record(json.loads(value), version, None if expires is None else from_micros(expires))


# ---- outbox ----------------------------------------------------------------------------------------------------------------------


def subscribe(tx: Transaction, names: Collection[NoticeName]) -> None:
    tx.db.executemany("INSERT OR IGNORE INTO subscriptions (name) VALUES (?)", [(name,) for name in names])


def has_notices(db: sqlite3.Connection, names: Collection[NoticeName], now: int) -> bool:
    query = f"SELECT 1 FROM outbox WHERE hidden_until <= ? AND name IN ({_marks(names)}) LIMIT 1"
    return db.execute(query, (now, *names)).fetchone() is not None


def notices(tx: Transaction, names: Collection[NoticeName], limit: int, ttl: timedelta) -> list[NoticeRow]:
    query = f"SELECT id, name, thread, seq, at, tries FROM outbox WHERE hidden_until <= ? AND name IN ({_marks(names)}) ORDER BY id LIMIT ?"
    found = rows(tx.db.execute(query, (tx.now, *names, limit)))
    hidden = micros(tx.at + ttl)
    tx.db.executemany("UPDATE outbox SET hidden_until = ?, tries = tries + 1 WHERE id = ?", [(hidden, row[0]) for row in found])
    return [NoticeRow(id, name, ids.thread_id(thread), seq, from_micros(at), tries) for id, name, thread, seq, at, tries in found]


def delivered(tx: Transaction, notice_ids: Collection[int]) -> None:
    tx.db.executemany("DELETE FROM outbox WHERE id = ?", [(notice,) for notice in notice_ids])


# ---- upkeep ----------------------------------------------------------------------------------------------------------------------


def prune(tx: Transaction, before: datetime) -> int:
    """Forget some old threads, and notices that nobody has taken for as long; 0 when no thread is left."""
    codes = ", ".join(str(THREAD_CODES[status]) for status in ("done", "cancelled", "closed"))
    waits = "EXISTS (SELECT 1 FROM interrupts WHERE thread = place AND interrupts.status = 0)"
    query = f"SELECT place FROM threads WHERE threads.status IN ({codes}) AND updated_at < ? AND NOT {waits} LIMIT {PRUNE_AT_ONCE}"
    old = rows(tx.db.execute(query, (micros(before),)))
    for table in ("events", "interrupts", "dedupe"):
        tx.db.executemany(f"DELETE FROM {table} WHERE thread = ?", old)
    tx.db.executemany("DELETE FROM threads WHERE place = ?", old)
    tx.db.execute("DELETE FROM outbox WHERE hidden_until < ?", (micros(before),))
    tx.known.forget()
    return len(old)


def sweep(tx: Transaction) -> None:
    """Forget what nobody can ask for any more: old mail, expired records, values that no event holds."""
    tx.db.execute("DELETE FROM mail WHERE at <= ?", (micros(tx.at - MAIL_KEPT),))
    tx.db.execute("DELETE FROM records WHERE expires_at <= ?", (tx.now,))
    held = "SELECT field.value FROM events, json_each(events.big) AS field WHERE events.big IS NOT NULL"
    tx.db.execute(f"DELETE FROM blobs WHERE hash NOT IN ({held})")


def check(db: sqlite3.Connection) -> list[str]:
    """What contradicts itself: the file, a log and its row, an interrupt and its events, an event and its big values."""
    found = [f"the file: {text}" for (text,) in rows(db.execute("PRAGMA quick_check")) if text != "ok"]
    logs = "SELECT thread, count(*) AS count, min(seq) AS first, max(seq) AS last FROM events GROUP BY thread"
    gaps = f"""SELECT t.number, t.head, coalesce(l.count, 0), l.first, l.last FROM threads t LEFT JOIN ({logs}) l ON l.thread = t.place
        WHERE t.head <> coalesce(l.count, 0) OR t.head <> coalesce(l.last, 0) OR l.first <> 1"""
    for number, head, count, first, last in rows(db.execute(gaps)):
        found.append(f"{ids.thread_id(number)}: its log has {count} events from {first} to {last}, its row says {head}")
    orphans = rows(db.execute("SELECT count(DISTINCT thread) FROM events WHERE thread NOT IN (SELECT place FROM threads)"))[0][0]
    found += [f"{orphans} logs have no row"] if orphans else []
    requests = """SELECT t.number, i.seq FROM interrupts i JOIN threads t ON t.place = i.thread
        LEFT JOIN events e ON e.thread = i.thread AND e.seq = i.seq WHERE e.kind IS NOT 10 OR (i.closing IS NOT NULL AND i.status = 0)"""
    found += [f"{ids.thread_id(number)}: the interrupt at {seq} contradicts the log" for number, seq in rows(db.execute(requests))]
    lost = """SELECT t.number, e.seq FROM threads t JOIN events e ON e.thread = t.place, json_each(e.big) AS field
        WHERE e.big IS NOT NULL AND field.value NOT IN (SELECT hash FROM blobs)"""
    found += [f"{ids.thread_id(number)}: a value of the event at {seq} is missing" for number, seq in rows(db.execute(lost))]
    return found


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))
