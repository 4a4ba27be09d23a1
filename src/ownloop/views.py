"""What people and programs see of a thread: frozen values made from the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from .events import Event, Json, sparse
from .history import History, Op, Request, StepLog, StepStatus, Usage
from .interrupts import Interrupt
from .stores.base import Status, ThreadRow
from .tools import ErrorInfo

OperationState = Literal["done", "failed", "waiting", "running", "unknown", "expired", "superseded", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a step.

    Attributes:
        kind: "run", or the kind of interrupt it is.
        name: the function, the question, the event, the child's agent; "" where there is none.
        state: how it stands; "unknown" – started, and no outcome yet.
        value: a run's result, an answer, a payload, or a decision as {"kind", "by", "note", "value"}.
    """

    kind: str
    name: str
    state: OperationState
    value: Json = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class StepView:
    """A step: what was chosen (`proposed`), what it became (`intent`), and what was done about it."""

    id: str
    name: str
    intent: Mapping[str, Json]
    proposed: Mapping[str, Json]
    status: StepStatus
    operations: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True)
class ThreadView:
    """A thread as it stands.

    `turn` counts from 1; `result` is what the last ended turn returned; `interrupts` are the open ones.
    """

    id: str
    agent: str
    key: str | None
    status: Status
    turn: int
    result: Json
    error: ErrorInfo | None
    context: Mapping[str, Json]
    steps: tuple[StepView, ...]
    interrupts: tuple[Interrupt, ...]
    events: tuple[Event, ...]
    usage: Usage
    created_at: datetime
    updated_at: datetime


def thread_view(row: ThreadRow, events: Sequence[Event] = (), interrupts: Sequence[Interrupt] = ()) -> ThreadView:
    """A row as a view; with its log also its steps and what was used."""
    history, end = History(row.id, events), row.last_end
    result = end.data.get("value") if end is not None and end.kind == "turn_ended" else None
    error = _error(end) if row.status == "failed" else None
    turn = row.turns if row.status in ("done", "closed") and row.turns else row.turns + 1
    shown = tuple(step_views(history)), tuple(interrupts), tuple(events), history.counters.usage
    return ThreadView(row.id, row.agent, row.key, row.status, turn, result, error, row.context, *shown, row.created_at, row.updated_at)


def step_views(history: History) -> list[StepView]:
    """All steps that the history holds, selected ones in order, named ones where they began."""
    return [step_view(history, step) for step in history.steps.values() if step.selected is not None or step.is_named]


def step_view(history: History, step: StepLog) -> StepView:
    """One step, as far as the log has been read."""
    effective = history.effective(step, step.arguments, 1 << 62)
    return StepView(step.id, step.name, effective, step.arguments, step.status, tuple(operation(op) for op in step.ops.values()))


def operation(op: Op) -> Operation:
    """One operation as a value."""
    if (request := op.request) is None:
        return _run(op, op.key.removeprefix("run:"))
    data = request.event.data
    name = data.get("question") or data.get("event") or data.get("agent") or data.get("call") or data.get("name") or ""
    return Operation(data["kind"], name, _state(request), _value(request), _error(request.closing))


def _run(op: Op, name: str) -> Operation:
    if op.outcome is None:
        return Operation("run", name, "unknown" if op.started else "running")
    data = op.outcome.data
    if "error" in data:
        return Operation("run", name, "unknown" if data.get("unknown") else "failed", None, _error(op.outcome))
    return Operation("run", name, "done", data.get("value"))


def _state(request: Request) -> OperationState:
    if request.is_open:
        return "waiting"
    if request.status == "decided":
        return "failed" if request.closing is not None and "error" in request.closing.data else "done"
    return request.status  # type: ignore[return-value]  # expired, superseded, withdrawn


def _value(request: Request) -> Json:
    closing, decision = request.closing, request.decision()
    if decision is not None:
        if request.kind == "question":
            return decision.value
        by = None if decision.by is None else decision.by.id
        return {"kind": decision.kind, "by": by, "note": decision.note, "value": decision.value}
    if closing is None:
        return None
    return closing.data.get("payload", closing.data.get("value"))


def _error(event: Event | None) -> ErrorInfo | None:
    error = None if event is None else event.data.get("error")
    return None if error is None else ErrorInfo.of(error)


def note_view(event: Event) -> StepView:
    """A message, a note or a summary in the form of a step, for a summariser: name "message", the note's name, or "summary"."""
    if event.kind == "message":
        what, name, said = "message", "message", sparse(text=event.data["text"], by=event.by)
    elif event.kind == "appended":
        what, name, said = "note", event.data["name"], {"data": event.data["data"]}
    else:
        what, name, said = "summary", "summary", {"text": event.data["summary"]}
    return StepView(f"{what}_{event.seq}", name, said, said, "ended")
