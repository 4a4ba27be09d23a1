"""Where a fork is cut: before a selection. Whole ended steps are copied; nothing open or started is."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import NotFound
from .events import Draft, Event
from .history import History, StepLog

COPIED = ("input", "message", "appended", "turn_ended")


def cut(thread_id: str, events: Sequence[Event], before: str | None) -> list[Event]:
    """The events that a fork begins with, with their old positions.

    Raises:
        NotFound: no step of that id was selected in this thread.
    """
    end = next((event.seq for event in events if event.kind == "selected" and event.step_id == before), None)
    if before is not None and end is None:
        raise NotFound("selected step", before, (event.step_id or "" for event in events if event.kind == "selected"))
    first = [event for event in events if event.kind != "compacted" and (end is None or event.seq < end)]
    history = History(thread_id, first)
    return [event for event in first if _is_copied(event, history)]


def _is_copied(event: Event, history: History) -> bool:
    if (asked := history.requests.get(event.data.get("request", 0))) is not None:  # votes and what closes go with what asked
        return _is_copied(asked.event, history)
    if event.step_id is None:
        return event.kind in COPIED
    step = history.steps[event.step_id]
    if not step.is_named:
        return step.ended is not None and event.seq not in [one.event.seq for one in step.open_requests() if one.kind == "child"]
    return event.kind != "late" and _is_over(step, event)


def _is_over(step: StepLog, event: Event) -> bool:
    """Whether the operation of a named step that this event belongs to has its outcome."""
    op = step.ops.get(event.op or "")
    if op is not None and op.request is not None and op.request.kind == "in_doubt":  # it goes with its call: a later start may have its name
        op = step.ops.get(op.request.event.data["call"])
    return op is not None and (op.outcome is not None or (op.request is not None and op.request.closing is not None))


def renumbered(events: Sequence[Event]) -> list[Draft]:
    """Events as drafts for a new thread: their references point to the new positions. `Store.create` gives the steps their new ids."""
    position = {event.seq: place for place, event in enumerate(events, 1)}
    drafts = []
    for event in events:
        data = dict(event.data)
        for name in ("request", "started", "after"):
            if name in data:
                data[name] = position.get(data[name], 0)
        if "read" in data:
            data["read"] = max((position[seq] for seq in position if seq <= data["read"]), default=0)
        drafts.append(Draft(event.kind, data, event.step_id, event.op, event.by))
    return drafts
