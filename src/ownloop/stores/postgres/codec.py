"""Between drafts and the JSON of a call, between rows and events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ... import ids
from ...clock import from_micros, micros
from ...events import Draft, Event, Json
from ...interrupts import DECIDABLE
from ..base import NewThread, ThreadRow
from ..rules import closed_as, complete, notice_of
from ..values import apart, dump

EVENT = "seq, kind, at, step, op, actor, data, big"
"""The columns of an event."""
THREAD = (
    "number, agent, key, status, turns, head, woken, seen, epoch, released, lease_until, due, context, parent, parent_seq, "
    "created_at, updated_at, last_end"
)
LARGEST = (1 << 31) - 1
"""The last position that Postgres can hold."""
_EPOCH = from_micros(0)
_STEP = 17
"""Where a step's own part begins in its id."""
_PLAIN = frozenset(("kind", "step", "op", "by", "data"))
_FOLLOWED = frozenset(("request", "vote", "turn_ended"))
_decode = json.JSONDecoder().decode


def box(key: str | None) -> str:
    """The key of an event, as a column holds it."""
    return "" if key is None else f"={key}"


def step_column(step_id: str | None) -> str:
    """The end of a step's id, by which it is known within its thread."""
    return "" if step_id is None else step_id[_STEP:]


# ---- drafts ----------------------------------------------------------------------------------------------------------------------


def recorded(draft: Draft, thread_id: str) -> dict[str, Json]:
    """The data of the event that the draft will be, but for a deadline that counts from the commit."""
    return complete(replace(draft, expires=None) if isinstance(draft.expires, timedelta) else draft, thread_id, _EPOCH)


def wire(draft: Draft, data: Mapping[str, Json], *, is_new: bool = False, child: int | None = None) -> dict[str, Json]:
    """A draft as the functions take it: its data as text, and beside it what they must know of it, by the rules that all stores share."""
    sent: dict[str, Json] = {"kind": draft.kind, **_packed(data)}
    if draft.step_id is not None:
        sent["step"] = draft.step_id[_STEP:]
    if draft.op is not None:
        sent["op"] = draft.op
    if draft.by is not None:
        sent["by"] = draft.by
    if isinstance(draft.expires, timedelta):
        sent["expires_in"] = draft.expires // timedelta.resolution
    if draft.kind == "request":
        sent |= _asked(data, child)
    elif isinstance(data.get("request"), int):
        sent["request"] = data["request"]
        if (closes := closed_as(draft)) is not None:
            sent["closes"] = closes
    if draft.kind == "compacted":
        sent["covers"] = [data["upto"], *data["kept"]]
    notice = notice_of(draft)
    if notice is not None and (not is_new or notice == "thread.started"):
        sent["notice"] = notice
    return sent


def is_plain(sent: Mapping[str, Json], *, selecting: bool = False) -> bool:
    """Whether nothing follows from the draft in another table than that of events; at a selection the ends of steps are looked after."""
    return sent.keys() <= _PLAIN and sent["kind"] not in _FOLLOWED and (selecting or sent["kind"] != "ended")


def _asked(data: Mapping[str, Json], child: int | None) -> dict[str, Json]:
    """What stands in the columns of an interrupt."""
    kind = data["kind"]
    asked: dict[str, Json] = {"asks": kind, "digest": data["digest"], "decidable": kind in DECIDABLE}
    if kind == "event":
        asked |= {"name": data["event"], "box": box(data["key"])}
    elif kind == "in_doubt":
        asked["name"] = data.get("call")
    if child is not None:
        asked["child"] = child
    if "expires_at" in data:
        asked["expires"] = data["expires_at"]
    return asked


def _packed(data: Mapping[str, Json]) -> dict[str, Json]:
    """The data as text, and the values that stand apart."""
    text, big, blobs = apart(data)
    return {} if text is None else {"data": text, **({"big": big, "blobs": blobs} if big else {})}


def newborn(new: NewThread, number: int) -> dict[str, Json]:
    """A thread to create, with the events it begins with; their step ids become its own."""
    thread_id = ids.thread_id(number)
    own = [replace(one, step_id=None if one.step_id is None else f"stp_{thread_id[4:]}{one.step_id[_STEP:]}") for one in new.drafts]
    sent: dict[str, Json] = {
        "thread": number,
        "agent": new.agent,
        "key": new.key,
        "drafts": [wire(one, recorded(one, thread_id), is_new=True) for one in own],
    }
    if new.context:
        sent["context"] = dump(dict(new.context))
    ends = [place for place, one in enumerate(new.drafts, 1) if one.kind in ("turn_ended", "failed")]
    if ends:
        sent |= {"end": ends[-1], "turns": sum(one.kind == "turn_ended" for one in new.drafts)}
    return sent


def written(draft: Draft, data: dict[str, Json], seq: int, at: int, kind: str | None = None) -> Event:
    """The event that a draft became."""
    if isinstance(draft.expires, timedelta):
        data = {**data, "expires_at": at + draft.expires // timedelta.resolution}
    return Event(seq, kind or draft.kind, from_micros(at), draft.step_id, draft.op, draft.by, data)  # type: ignore[arg-type]  # a kind


# ---- rows ------------------------------------------------------------------------------------------------------------------------


def event_of(thread_id: str, row: Sequence[Any], blobs: Mapping[str, str]) -> Event:
    """An event from the columns `EVENT`."""
    seq, kind, at, step, op, actor, data, big = row
    value: dict[str, Json] = _decode(data) if data is not None else {}
    for name, found in (big or {}).items():
        value[name] = _decode(blobs[found])
    return Event(seq, kind, from_micros(at), f"stp_{thread_id[4:]}{step}" if step else None, op or None, actor, value)


def thread_of(row: Sequence[Any], last_end: Event | None) -> ThreadRow:
    """A thread from the columns `THREAD`."""
    number, agent, key, status, turns, head, woken, seen, epoch, released, lease, due, context, parent, parent_seq, created, updated, _ = row
    return ThreadRow(
        id=ids.thread_id(number),
        agent=agent,
        key=key,
        status=status,
        turns=turns,
        head=head,
        woken=woken,
        seen=seen,
        epoch=epoch,
        released=released,
        lease_until=moment_of(lease),
        due=moment_of(due),
        context={} if context is None else _decode(context),
        parent=None if parent is None else (ids.thread_id(parent), parent_seq),
        created_at=from_micros(created),
        updated_at=from_micros(updated),
        last_end=last_end,
    )


def moment_of(at: int | None) -> datetime | None:
    return None if at is None else from_micros(at)


def micros_of(at: datetime | None) -> int | None:
    return None if at is None else micros(at)
