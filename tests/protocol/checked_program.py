"""The handler of the state-space check: what a wake does next, as a pure function of what it sees.

step 1: selected → approval asked → a note → (approved) deploy begun → its outcome → perhaps an event waited for → the turn ends
every later step: a reply, which ends the turn
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ownloop.clock import from_micros
from ownloop.events import Draft, Event
from ownloop.testing.store_scene import TTL

RUN = "run:deploy"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. `started`: the operation's first start, where that counts; `due`: when to be woken, for a "park"."""

    verb: str
    drafts: tuple[Draft, ...] = ()
    started: int | None = None
    due: datetime | None = None


def plan(view: Sequence[Event], now: datetime, head: int, waits: bool, step_id: Callable[[int], str]) -> Action:
    """What a wake that sees this much of the log does next."""
    selected = [event for event in view if event.kind == "selected"]
    ended = {event.step_id for event in view if event.kind == "ended"}
    if not selected or selected[-1].step_id in ended:
        number = len(selected) + 1
        draft = Draft("selected", {"intent": "deploy" if number == 1 else "reply", "arguments": {}, "read": head}, step_id(number))
        return Action("select", (draft,))
    if len(selected) > 1:
        return _finish(view, selected, head)
    return _deploy(view, selected, now, head, waits)


def _deploy(view: Sequence[Event], selected: Sequence[Event], now: datetime, head: int, waits: bool) -> Action:
    step = selected[-1].step_id
    approval = _request(view, "approval:x")
    if approval is None:
        return Action("ask", (Draft("request", {"kind": "approval", "name": "deploy"}, step, "approval:x"),))
    granted = _closing(view, approval) is not None  # looked at first; the note is written after it
    if not any(event.kind == "appended" for event in view):
        return Action("note", (Draft("appended", {"name": "note", "data": 1}),))
    if not granted:
        return Action("park", due=None)
    run = _run(view, step)
    if run is not None:
        return run
    return (_wait(view, step, now) if waits else None) or _finish(view, selected, head)


def _run(view: Sequence[Event], step: str | None) -> Action | None:
    """Start the call, or find out what became of it; None once there is an outcome."""
    if any(event.kind == "outcome" and event.op == RUN for event in view):
        return None
    refuted = {event.data["started"] for event in view if event.kind == "not_started"}
    starts = [event for event in view if event.kind == "started" and event.seq not in refuted]
    if not starts:
        return Action("start", (Draft("started", {}, step, RUN),))
    key = f"doubt:{RUN}@{starts[-1].seq}"
    doubt = _request(view, key)
    if doubt is None:
        return Action("doubt", (Draft("request", {"kind": "in_doubt", "name": "deploy", "call": RUN}, step, key),))
    answer = _closing(view, doubt)
    if answer is None:
        return Action("park")
    if answer.data["value"]["happened"]:
        return Action("conclude", (Draft("outcome", {"value": "done"}, step, RUN),), starts[0].seq)
    return Action("start", (Draft("started", {"after": starts[-1].seq}, step, RUN),), starts[0].seq)


def _wait(view: Sequence[Event], step: str | None, now: datetime) -> Action | None:
    """Wait for an event, at most a lease's length; None when that is over."""
    request = _request(view, "wait:paid")
    if request is None:
        data = {"kind": "event", "name": "deploy", "event": "paid", "key": None}
        return Action("wait", (Draft("request", data, step, "wait:paid", expires=TTL),))
    if _closing(view, request) is not None:
        return None
    until = from_micros(request.data["expires_at"])
    if until <= now:
        return Action("settle", (Draft("outcome", {"request": request.seq, "timed_out": True}, step, "wait:paid"),))
    return Action("park", due=until)


def _finish(view: Sequence[Event], selected: Sequence[Event], head: int) -> Action:
    """End the turn. Messages up to `head` have been read, unless one came while the model was asked."""
    last = selected[-1]
    read = max(event.data["read"] for event in selected)
    missed = any(event.kind == "message" and read < event.seq < last.seq for event in view)
    drafts = (Draft("ended", {}, last.step_id), Draft("turn_ended", {"value": 1, "read": read if missed else max(read, head)}))
    return Action("finish", drafts)


def _request(view: Sequence[Event], op: str) -> Event | None:
    return next((event for event in view if event.kind == "request" and event.op == op), None)


def _closing(view: Sequence[Event], request: Event) -> Event | None:
    return next((event for event in view if event.kind != "request" and event.data.get("request") == request.seq), None)
