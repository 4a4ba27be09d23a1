"""The mailbox: events that wait for whoever waits for them."""

from __future__ import annotations

import json

from ...events import Draft, Event, Json
from ..base import ENDED
from ..values import dump
from .codec import rows
from .transaction import Row, Transaction


def emit(tx: Transaction, name: str, key: str | None, id: str | None, payload: Json) -> bool:
    known = "SELECT 1 FROM mail WHERE name = ? AND id = ? AND key IS ? AND id IS NOT NULL"
    if id is not None and tx.db.execute(known, (name, id, key)).fetchone():
        return False
    text = dump(payload)
    insert = "INSERT INTO mail (name, key, id, at, payload) VALUES (?, ?, ?, ?, ?)"
    number = tx.db.execute(insert, (name, key, id, tx.now, text)).lastrowid
    assert number is not None
    waits = "SELECT thread, min(seq) FROM interrupts WHERE status = 0 AND kind = 3 AND name = ? AND key IS ? GROUP BY thread"
    for place, seq in rows(tx.db.execute(waits, (name, key))):
        row = tx.at_place(place)
        if row.status not in ENDED:
            tx.touch(row)
            deliver(tx, row, tx.event(row, seq), number, id, text, outside=True)
            row.status = "open" if row.status == "done" else row.status
    return True


def deliver(tx: Transaction, row: Row, request: Event, number: int, id: str | None, payload: str, *, outside: bool) -> Event:
    """Close a wait with an event of the mailbox, and remember which one the thread had."""
    data = {"request": request.seq, "payload": json.loads(payload), **({"mail": id} if id else {})}
    event = tx.append(row, Draft("delivered", data, request.step_id, request.op), outside=outside)
    tx.db.execute("UPDATE interrupts SET mail = ? WHERE thread = ? AND seq = ?", (number, row.place, request.seq))
    return event
