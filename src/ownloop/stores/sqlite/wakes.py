"""The transitions of a wake: claim, begin, fact, settle, release, finish. Each is one unit of work of a commit; `MemoryStore` is the reference."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

from ... import ids
from ...clock import micros
from ...events import Draft, Event
from ..base import ENDED, Begun, Claim, Fenced, NewThread, Pulse
from ..rules import MAIL_KEPT, closed_as, is_progress, watched
from ..values import number_of
from .codec import EVENT_CODES, EVENT_COLUMNS, INTERRUPT_CODES, REQUEST_CODES, event_of, rows, step_column
from .mail import deliver
from .transaction import Row, Transaction

_OPEN = INTERRUPT_CODES["open"]


def claim(tx: Transaction, thread_id: str, agents: Collection[str] | None, ttl: timedelta) -> Claim | None:
    row = tx.find(number_of(thread_id))
    if row is None or (agents is not None and row.agent not in agents):
        return None
    is_free = row.status not in ENDED and (row.lease_until is None or row.lease_until <= tx.now)
    if not (row.is_runnable(tx.now) if agents is not None else is_free):
        return None
    tx.touch(row)
    row.epoch, row.updated_at = row.epoch + 1, tx.now
    row.lease_until = micros(tx.at + ttl)
    row.status = "open" if row.status == "done" else row.status
    return Claim(tx.view(row), tx.at, tx.holds(row))


def renew(tx: Transaction, leases: Mapping[str, int], ttl: timedelta) -> dict[str, Pulse | None]:
    result: dict[str, Pulse | None] = {}
    for thread_id, epoch in leases.items():
        row = tx.find(number_of(thread_id))
        if row is None or not row.is_held(epoch, tx.now):
            result[thread_id] = None
            continue
        row.lease_until = micros(tx.at + ttl)
        result[thread_id] = Pulse(row.status, row.woken, epoch)
    return result


def release(tx: Transaction, thread_id: str, epoch: int, seen: int, due: datetime | None) -> bool:
    row = tx.find(number_of(thread_id))
    if row is None or row.epoch != epoch:
        return False
    tx.touch(row)
    row.lease_until, row.seen, row.released, row.updated_at = None, seen, epoch, tx.now
    row.due = None if due is None else micros(due)
    return row.is_runnable(tx.now)


def begin(tx: Transaction, thread_id: str, epoch: int, drafts: Sequence[Draft], known: int, selecting: bool) -> Begun:
    row = _open(tx, thread_id, epoch, known, selecting)
    events: list[Event] = []
    for draft in drafts:
        if (place := watched(draft, known)) is not None and tx.outcome(row, replace(draft, op=place[0]), place[1]):
            raise Fenced("overtaken")
        event = tx.append(row, draft)
        events.append(event)
        if draft.kind == "request" and draft.data["kind"] == "event":
            events += _look_into_mailbox(tx, row, event)
    if any(is_progress(draft) for draft in drafts):
        row.released = max(row.released, epoch - 1)
    return Begun(events, tx.holds(row) if selecting else None)


def spawn(tx: Transaction, thread_id: str, epoch: int, draft: Draft, child: NewThread, known: int) -> Event:
    row = _open(tx, thread_id, epoch, known)
    number = tx.free_number()
    event = tx.append(row, replace(draft, data={**draft.data, "child": ids.thread_id(number)}))
    tx.create(number, child, parent=(row.number, event.seq))
    return event


def fact(tx: Transaction, thread_id: str, epoch: int, draft: Draft, started: int | None) -> Event:
    row = tx.open(number_of(thread_id))
    is_held = row.is_held(epoch, tx.now)
    if draft.kind == "outcome" and tx.outcome(row, draft, started or 0):
        draft = replace(draft, kind="late")
    event = tx.append(row, draft, outside=not is_held)
    if draft.kind == "outcome":
        tx.withdraw(row, f"step IS ? AND kind = {REQUEST_CODES['in_doubt']} AND name IS ?", step_column(draft.step_id), draft.op)
        if is_held:
            row.released = max(row.released, epoch - 1)
    return event


def settle(tx: Transaction, thread_id: str, epoch: int, drafts: Sequence[Draft]) -> list[Event]:
    row = _fence(tx, thread_id, epoch, ("open", "paused", "failed", "done"))
    return [tx.append(row, draft) for draft in drafts if tx.status_of(row, draft.data["request"]) == _OPEN]


def finish(
    tx: Transaction,
    thread_id: str,
    epoch: int,
    drafts: Sequence[Draft],
    status: Literal["done", "failed"],
    seen: int,
    due: datetime | None,
    aside: Collection[str],
    tell: Draft | None,
) -> bool:
    row = _open(tx, thread_id, epoch, known=1 << 62)
    read = next((draft.data["read"] for draft in drafts if draft.kind == "turn_ended"), row.head)
    goes_on = status == "done" and (_message_after(tx, row, read) or _closed_after(tx, row, seen, aside))
    for draft in drafts:
        tx.append(row, draft)
    row.status = "open" if goes_on else status
    row.turns += status == "done"
    row.lease_until, row.released = None, epoch
    row.seen = min(read, seen) if goes_on else row.head
    row.due = None if due is None else micros(due)
    if tell is not None:
        tell_parent(tx, row, tell)
    return goes_on


def _fence(tx: Transaction, thread_id: str, epoch: int, statuses: Collection[str]) -> Row:
    """The row, if this wake may still write to it."""
    row = tx.find(number_of(thread_id))
    if row is None or not row.is_held(epoch, tx.now):
        raise Fenced(row.status if row is not None and row.status in ENDED else "lease")
    if row.status not in statuses:
        raise Fenced(row.status)
    tx.touch(row)
    return row


def _open(tx: Transaction, thread_id: str, epoch: int, known: int, selecting: bool = False) -> Row:
    row = _fence(tx, thread_id, epoch, ("open", "paused") if selecting else ("open",))
    if row.barrier > known:
        raise Fenced("superseded")
    return row


def _look_into_mailbox(tx: Transaction, row: Row, request: Event) -> list[Event]:
    """The oldest event of the wait's name and key, since the thread's start, that it has not had."""
    name, key = request.data["event"], request.data["key"]
    had = "SELECT max(mail) FROM interrupts WHERE thread = ? AND name = ? AND key IS ? AND mail IS NOT NULL"
    last = tx.db.execute(had, (row.place, name, key)).fetchone()[0] or 0
    query = "SELECT number, id, payload FROM mail WHERE name = ? AND key IS ? AND number > ? AND at >= ? AND at > ? ORDER BY number LIMIT 1"
    found = tx.db.execute(query, (name, key, last, row.created_at, micros(tx.at - MAIL_KEPT))).fetchone()
    return [] if found is None else [deliver(tx, row, request, *found, outside=False)]


def _message_after(tx: Transaction, row: Row, seq: int) -> bool:
    query = f"SELECT 1 FROM events WHERE thread = ? AND seq > ? AND kind = {EVENT_CODES['message']} LIMIT 1"
    return tx.db.execute(query, (row.place, seq)).fetchone() is not None


def _closed_after(tx: Transaction, row: Row, seq: int, steps: Collection[str]) -> bool:
    """Whether something closed an interrupt of one of these steps after a position."""
    wanted = {step_column(step) for step in steps}
    kinds = ", ".join(str(EVENT_CODES[kind]) for kind in ("decision", "outcome", "delivered"))
    query = f"SELECT {EVENT_COLUMNS} FROM events WHERE thread = ? AND seq > ? AND kind IN ({kinds})"
    for event in (event_of(tx.db, row.id, found) for found in rows(tx.db.execute(query, (row.place, seq)))) if wanted else ():
        if closed_as(event) is not None:
            closed = tx.db.execute("SELECT step FROM interrupts WHERE thread = ? AND seq = ?", (row.place, event.data["request"])).fetchone()
            if closed is not None and closed[0] in wanted:
                return True
    return False


def tell_parent(tx: Transaction, row: Row, tell: Draft) -> None:
    parent = tx.find(row.parent)
    if parent is None or parent.status in ENDED or tx.status_of(parent, tell.data["request"]) != _OPEN:
        return
    tx.touch(parent)
    tx.append(parent, tell, outside=True)
    if parent.status == "done":
        parent.status = "open"
