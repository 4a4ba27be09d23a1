"""What comes from outside: create, message, control, decide. Each is one unit of work of a commit; `MemoryStore` is the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ... import ids
from ...events import Draft, Event
from ..base import ENDED, ControlVerb, NewThread, Refused
from ..rules import after_control, stopped_child
from ..values import number_of
from .codec import INTERRUPT_CODES, REQUEST_CODES, rows
from .transaction import Row, Transaction
from .wakes import tell_parent


def create(tx: Transaction, new: NewThread) -> tuple[str, bool]:
    if new.key is not None:
        known = tx.db.execute("SELECT number FROM threads WHERE agent = ? AND key = ?", (new.agent, new.key)).fetchone()
        if known is not None:
            return ids.thread_id(known[0]), False
    number = tx.free_number()
    tx.create(number, new)
    return ids.thread_id(number), True


def message(tx: Transaction, thread_id: str, drafts: Sequence[Draft], dedupe: str | None, at_head: int | None) -> tuple[Event, bool]:
    row = tx.find(number_of(thread_id))
    if row is None:
        raise Refused("missing")
    if dedupe is not None:
        known = tx.db.execute("SELECT seq FROM dedupe WHERE thread = ? AND token = ?", (row.place, dedupe)).fetchone()
        if known is not None:
            return tx.event(row, known[0]), False
    if row.status in ENDED:
        raise Refused(row.status)
    if at_head is not None and row.head != at_head:
        raise Refused("moved")
    tx.touch(row)
    events = [tx.append(row, draft, outside=True) for draft in drafts]
    row.barrier = row.barrier if at_head is None else row.head
    _reopen(row)
    if dedupe is not None:
        tx.db.execute("INSERT INTO dedupe (thread, token, seq) VALUES (?, ?, ?)", (row.place, dedupe, events[0].seq))
    return events[0], True


def control(tx: Transaction, thread_id: str, verb: ControlVerb, draft: Draft) -> bool:
    row = tx.find(number_of(thread_id))
    if row is None:
        raise Refused("missing")
    return _control(tx, row, verb, draft)


def decide(tx: Transaction, thread_id: str, seq: int, draft: Draft, digest: str | None, votes: int) -> Event:
    row = tx.find(number_of(thread_id))
    if row is None:
        raise Refused("missing")
    _check_decision(tx, row, seq, digest, votes)
    tx.touch(row)
    event = tx.append(row, draft, outside=draft.kind == "decision")
    if draft.kind == "decision":
        _reopen(row)
    return event


def _check_decision(tx: Transaction, row: Row, seq: int, digest: str | None, votes: int) -> None:
    status = tx.status_of(row, seq)
    if status is None:
        raise Refused("missing")
    request = tx.event(row, seq).data
    expires = request.get("expires_at")
    if status != INTERRUPT_CODES["open"]:
        raise Refused("expired" if status == INTERRUPT_CODES["expired"] else "decided")
    if expires is not None and tx.now >= expires:
        raise Refused("expired")
    if digest is not None and digest != request["digest"]:
        raise Refused("digest")
    if votes != len(tx.votes(row, seq)):
        raise Refused("votes")


def _control(tx: Transaction, row: Row, verb: ControlVerb, draft: Draft) -> bool:
    was, status = row.status, after_control(verb, row.status)
    if was == status and verb not in ("retry", "hold", "release_hold"):
        return False
    tx.touch(row)
    tx.append(row, draft, outside=verb in ("resume", "retry"), status=status)
    row.status = status
    if verb == "retry":
        row.released = row.epoch
    if status in ENDED:
        _end(tx, row, verb, draft)
    return True


def _end(tx: Transaction, row: Row, verb: ControlVerb, draft: Draft) -> None:
    """Take the lease away and withdraw what is open; cancel goes down to the children."""
    row.epoch += 1
    row.released, row.lease_until, row.due = row.epoch, None, None
    query = f"SELECT seq FROM interrupts WHERE thread = ? AND status = 0 AND kind = {REQUEST_CODES['child']}"
    children = [tx.event(row, seq).data["child"] for (seq,) in rows(tx.db.execute(query, (row.place,)))]
    tx.withdraw(row, "1")
    if row.parent_seq is not None:
        tell_parent(tx, row, stopped_child(row.parent_seq, row.status, draft))
    for child in children if row.status == "cancelled" else []:
        below = tx.find(number_of(child))
        if below is not None and below.status not in ENDED:
            _control(tx, below, verb, replace(draft, data={**draft.data, "reason": f"its parent {row.id} was cancelled"}))


def _reopen(row: Row) -> None:
    if row.status == "done":
        row.status = "open"
