"""A thread's story, line by line: what was selected, who decided with what words, what ran, with what result, how long each wait was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..clock import from_micros
from ..events import Event, Json
from ..history import History, Op, Request, StepLog
from .brief import brief, fields, span
from .paper import Span
from .totals import spent

GOOD, BAD, ASKS, RUNS, QUIET = ("✓ ", "green"), ("✗ ", "red"), ("? ", "yellow"), ("▸ ", "cyan"), ("· ", "dim")
VERBS = {"approved": GOOD, "edited": GOOD, "responded": GOOD, "answered": GOOD}


@dataclass(frozen=True)
class Line:
    """One line. `group`: the step it belongs to; `running`: the call whose start it tells, of interest until that has an outcome."""

    at: datetime
    spans: tuple[Span, ...]
    group: str | None = None
    is_heading: bool = False
    running: Op | None = None


class Teller:
    """Turns events into lines, in the order they are given. It remembers what it has read."""

    def __init__(self, thread_id: str, limit: int = 300) -> None:
        self.history = History(thread_id, [])
        self._limit = limit
        self._named: set[str] = set()

    def tell(self, event: Event) -> list[Line]:
        """The lines of one more event."""
        self.history.add([event])
        step = self.history.steps.get(event.step_id) if event.step_id else None
        heading = [self._heading(event, step)] if step is not None and self._is_new(step) else []
        body = self._of_step(event, step) if step is not None else self._of_thread(event)
        return [*heading, *([self._line(event, body)] if body else [])]

    def _is_new(self, step: StepLog) -> bool:
        is_new = step.id not in self._named
        self._named.add(step.id)
        return is_new

    def _heading(self, event: Event, step: StepLog) -> Line:
        number = f"@{step.name}" if step.is_named else f"{step.number} {step.name}"
        arguments = fields(step.arguments, self._limit) if step.arguments else ""
        return Line(event.at, ((number, "bold"), "  ", arguments), step.id, is_heading=True)

    def _line(self, event: Event, body: tuple[Span, ...]) -> Line:
        op = self._op(event) if event.kind == "started" else None
        return Line(event.at, body, event.step_id, running=op)

    def _op(self, event: Event) -> Op | None:
        step = self.history.steps.get(event.step_id or "")
        return None if step is None else step.ops.get(event.op or "")

    def _short(self, value: Json) -> str:
        return brief(value, self._limit)

    # ---- the thread ------------------------------------------------------------------------------------------------------------

    def _of_thread(self, event: Event) -> tuple[Span, ...]:
        data, by = event.data, ((" by ", "dim"), event.by) if event.by else ()
        match event.kind:
            case "input":
                return (("input", "bold"), "  ", self._short(data["input"]) if data["input"] is not None else ("none", "dim"))
            case "message":
                return (("message", "bold"), *by, "  ", self._short(data["text"]))
            case "appended":
                return (("note ", "dim"), data["name"], "  ", self._short(data["data"]))
            case "compacted":
                return (("summary", "bold"), "  ", self._short(data["summary"]), *cost(data))
            case "model_failed":
                again = f", asked again at {from_micros(data['retry_at']):%H:%M:%S}" if "retry_at" in data else ""
                return (BAD, "the model failed: ", failure(data["error"], self._limit), again, *cost(data))
            case "turn_ended":
                return (("■ ", "green"), (f"turn {self.history.counters.turns} ended", "bold"), "  ", self._short(data.get("value")))
            case "failed":
                return (("■ ", "red"), ("failed", "bold red"), "  ", failure(data["error"], self._limit))
            case "control":
                return _control(event)
        return ()

    # ---- a step ----------------------------------------------------------------------------------------------------------------

    def _of_step(self, event: Event, step: StepLog) -> tuple[Span, ...]:
        if "request" in event.data:
            return self._closed(event, step)
        data, name = event.data, call_name(event.op)
        match event.kind:
            case "selected":
                return (QUIET, (spent(data), "dim")) if spent(data) else ()
            case "started":
                return (RUNS, name, (" started", "dim"))
            case "not_started":
                return (QUIET, name, (" was not started: the lease had run out", "dim"))
            case "tried":
                return (BAD, name, (f" try {data['try']} failed: ", "dim"), failure(data["error"], self._limit))
            case "outcome" | "late":
                return self._outcome(event, step, name)
            case "request":
                return asked(event)
            case "ended":
                return self._ended(data)
        return ()

    def _outcome(self, event: Event, step: StepLog, name: str) -> tuple[Span, ...]:
        op, data = step.ops.get(event.op or ""), event.data
        took = ((f"  {span(event.at - op.started[-1].at)}", "dim"),) if op is not None and op.started else ()
        late = ((" late, it changes nothing", "yellow"),) if event.kind == "late" else ()
        by = ((f" as {event.by} said", "dim"),) if event.by else ()
        if "error" in data:
            unknown = ((" (unknown whether it happened)", "yellow"),) if data.get("unknown") else ()
            return (BAD, name, ": ", failure(data["error"], self._limit), *unknown, *took, *cost(data), *late, *by)
        value = f"a {data['unwritable']} that cannot be written" if "unwritable" in data else self._short(data.get("value"))
        cached = (("  from the cache", "cyan"),) if data.get("cached") else ()
        summary = (("  summarised for the model", "dim"),) if data.get("summary") else ()
        return (GOOD, name, (" → ", "dim"), value, *took, *cached, *summary, *cost(data), *late, *by)

    def _ended(self, data: Any) -> tuple[Span, ...]:
        words = [str(data[key]) for key in ("status", "reason") if key in data]
        result = (" → ", self._short(data["result"])) if "result" in data else ()
        return (QUIET, (": ".join(words) or "closed", "dim"), *result) if words or result else ()

    def _closed(self, event: Event, step: StepLog) -> tuple[Span, ...]:
        """What came of something that waited, and how long that took."""
        request = step.requests.get(event.data["request"])
        if request is None:
            return ()
        waited = (f" after {span(event.at - request.event.at)}", "dim")
        if event.kind in ("decision", "vote"):
            return self._decided(event, request, waited)
        what = waits_for(request.event)
        if event.kind == "delivered":
            return (GOOD, what, (" came", "dim"), waited, (" → ", "dim"), self._short(event.data["payload"]))
        if event.data.get("timed_out"):
            return (QUIET, what, (" did not come in time", "dim"), waited)
        if "error" in event.data:
            return (BAD, what, ": ", failure(event.data["error"], self._limit), waited)
        value = ((" → ", "dim"), self._short(event.data["value"])) if "value" in event.data else ()
        return (GOOD, what, (" is over", "dim"), waited, *value)

    def _decided(self, event: Event, request: Request, waited: Span) -> tuple[Span, ...]:
        data, kind = event.data, event.data["kind"]
        if kind in ("superseded", "withdrawn", "expired"):
            why = {"expired": "nobody decided in time", "superseded": "the program asks something else now"}.get(kind, "nobody is asked any more")
            return (BAD if kind == "expired" else QUIET, f"{kind}: {why}", waited)
        by = ((" by ", "dim"), (event.by, "bold")) if event.by else ()
        note = ((": ", "dim"), f"“{brief(data['note'], self._limit)}”") if data.get("note") else ()
        word = "approves, more must" if event.kind == "vote" else kind
        return (VERBS.get(kind, BAD), word, *by, waited, *note, *self._new_value(data, request))

    def _new_value(self, data: Any, request: Request) -> tuple[Span, ...]:
        if "value" not in data:
            return ()
        value = data["value"]
        if request.kind == "in_doubt":
            return ((" → ", "dim"), f"it happened: {self._short(value.get('value'))}" if value["happened"] else "it did not happen")
        old = request.event.data.get("arguments")
        if data["kind"] == "edited" and isinstance(value, dict) and isinstance(old, dict):
            return ((" → ", "dim"), changes(old, value, self._limit))
        return ((" → ", "dim"), self._short(value))


def changes(old: dict[str, Json], new: dict[str, Json], limit: int = 200) -> str:
    """What an edit changed: `tag: v1 → v2`."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name) or (name in old) != (name in new)]
    parts = [f"{name}: {brief(old[name], limit) if name in old else 'none'} → {brief(new[name], limit) if name in new else 'none'}" for name in names]
    return " · ".join(parts) or "nothing changed"


def failure(error: Json, limit: int = 300) -> str:
    """A recorded error in one line."""
    where = f" ({error['where']})" if error.get("where") else ""
    return f"{error['type']}: {brief(error['message'], limit)}{where}"


def cost(data: Any) -> tuple[Span, ...]:
    """What it cost, where that is known."""
    return ((f"  {spent(data)}", "dim"),) if spent(data) else ()


def call_name(op: str | None) -> str:
    """`deploy` of "run:deploy", `deploy#2` of "run:deploy#2"."""
    return (op or "").removeprefix("run:")


def waits_for(request: Event) -> str:
    """What a request is about, in a few words."""
    data = request.data
    match data["kind"]:
        case "event":
            return f"event {data['event']}" + (f" {data['key']}" if data.get("key") is not None else "")
        case "timer":
            return "sleep"
        case "child":
            return f"child {data['agent']} {data.get('child', '')}".rstrip()
        case "question":
            return "the question"
        case "in_doubt":
            return f"{call_name(data['call'])} is in doubt"
    return f"{data['kind']} of {data.get('name', '')}"


def asked(request: Event) -> tuple[Span, ...]:
    """That something waits, and for whom."""
    data, ident = request.data, ()
    until = ((f", until {from_micros(data['expires_at']):%Y-%m-%d %H:%M:%S}Z", "dim"),) if "expires_at" in data else ident
    who = (" of ", ", ".join(data["policy"]["by"])) if data.get("policy", {}).get("by") else ()
    match data["kind"]:
        case "approval" | "result":
            what = "approval" if data["kind"] == "approval" else "a look at the result"
            return (ASKS, f"asks {what}", *who, *until)
        case "question" | "in_doubt":
            return (ASKS, ("asks", ""), *who, ": " if not who else " : ", brief(data["question"], 300), *until)
        case "hold":
            return (ASKS, "held by the operator's breakpoint")
    return (QUIET, f"waits for {waits_for(request)}", *until)


def _control(event: Event) -> tuple[Span, ...]:
    data = event.data
    past = {"pause": "paused", "resume": "resumed", "cancel": "cancelled", "retry": "retried", "close": "closed", "hold": "hold set"}
    word = past.get(data["verb"], "hold released")
    on = (" on ", data["on"]) if data.get("on") else ()
    by = ((" by ", "dim"), (event.by, "bold")) if event.by else ()
    reason = ((": ", "dim"), f"“{brief(data['reason'])}”") if data.get("reason") else ()
    return (("‖ " if data["verb"] in ("pause", "hold") else "■ " if data["verb"] in ("cancel", "close") else "▸ ", "yellow"), word, *on, *by, *reason)


def told(thread_id: str, events: Iterable[Event], limit: int = 300) -> list[Line]:
    """The whole story, the lines of a step together, without starts whose outcome is known."""
    teller, lines = Teller(thread_id, limit), list[Line]()
    for event in events:
        lines += teller.tell(event)
    first: dict[str, int] = {}
    for place, line in enumerate(lines):
        if line.group is not None:
            first.setdefault(line.group, place)
    order = sorted(range(len(lines)), key=lambda place: (first.get(lines[place].group or "", place), place))
    return [lines[place] for place in order if lines[place].running is None or lines[place].running.outcome is None]  # type: ignore[union-attr]
