"""`thread_to_prompt`: the log as a model reads it. Short and made to be copied: own your prompt.

One tag per event, YAML inside. Views change what is shown, never what is recorded:
`thread_to_prompt(thread, hide_resolved_errors, keep_last_results(5))`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, Protocol

import yaml

from .events import Event, Json, sparse
from .history import History, Request, StepLog

View = Callable[[Sequence[Event]], Sequence[Event]]
"""What is shown of the events: any function from events to events; views are applied from left to right."""

EDITED = "A person changed this call. What counts is this version; do not select the original again."
PENDING = "These steps are still open; they wait for somebody. Do not select them again."
LEFT_OUT = "[left out]"
SUMMARISED = "This is a summary; the whole result is in the log."
SHORTEST = 40
"""Characters below which nothing is cut."""


class Readable(Protocol):
    """A `Thread` in its handler, or a `ThreadView` from `app.show`."""

    @property
    def id(self) -> str: ...
    @property
    def events(self) -> Sequence[Event]: ...


def thread_to_prompt(thread: Readable, *views: View) -> str:
    """The thread as text for a model: what came in, what was selected, what became of it, and what is still pending.

    Source: 12-factor agents, factor 3 ("own your context window").
    """
    events: Sequence[Event] = list(thread.events)
    for view in views:
        events = view(events)
    history = History(thread.id, events)  # only what the views let through is shown, in decisions and pending steps too
    parts = [tag(*shown) for event in events for shown in _shown(event, history)]
    return "\n\n".join([*parts, *_waiting(history)])


def tag(name: str, body: Json, **attributes: str | None) -> str:
    """`<name>`, the body as YAML, `</name>`. Text inside cannot close the tag."""
    text = body if isinstance(body, str) else yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000).rstrip()
    marks = "".join(f' {key}="{_attribute(value)}"' for key, value in attributes.items() if value)
    inside = text.replace("</", "<\\/")
    return f"<{name}{marks}>\n{inside}\n</{name}>" if body not in (None, {}, "") else f"<{name}{marks}/>"


def cut(value: Json, limit: int) -> Json:
    """The value if its text has no more than `limit` characters, else the beginning of its text and a mark."""
    text = value if isinstance(value, str) else yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000).rstrip()
    return value if len(text) <= limit else f"{text[:limit]}… [cut: {limit} of {len(text)} characters shown; the whole is in the log]"


def _attribute(value: str) -> str:
    return value.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


# ---- one event -----------------------------------------------------------------------------------------------------------------


def _shown(event: Event, history: History) -> list[tuple[str, Json]]:
    """The tags that an event becomes: none, one, or a selection with its end."""
    data = event.data
    step = history.steps.get(event.step_id) if event.step_id else None
    match event.kind:
        case "input":
            return [] if data["input"] is None else [("input", data["input"])]
        case "message":
            return [("message", {"by": event.by, "text": data["text"]} if event.by else data["text"])]
        case "appended":
            return [(_name(data["name"]), data["data"])]
        case "compacted":
            return [("summary", data["summary"])] if history.compacted is not None and event.seq == history.compacted.seq else []
        case "selected":
            return [(_name(data["intent"]), data["arguments"])]
        case "outcome" if step is not None and "request" not in data:
            return _result(event, step)
        case "decision" | "delivered" | "outcome":
            return _closed(event, history.requests.get(data.get("request", 0)))
        case "ended" if step is not None:
            return _ended(event, step)
    return []


def _result(event: Event, step: StepLog) -> list[tuple[str, Json]]:
    """What the step's last run that is not a judge came to, as people let the model see it."""
    run = step.result_run()
    if run is None or run.outcome is None or run.outcome.seq != event.seq:
        return []
    review = next((one for one in reversed(step.requests.values()) if one.kind == "result" and one.event.data["call"] == run.key), None)
    if review is not None:
        return _reviewed(step, review, event)
    return [_outcome(step, event)]


def _outcome(step: StepLog, event: Event) -> tuple[str, Json]:
    error = event.data.get("error")
    if error is None and "summary" in event.data:
        return f"{_name(step.name)}_result", {"note": SUMMARISED, "summary": event.data["summary"]}
    if error is None:
        return f"{_name(step.name)}_result", event.data.get("value")
    compact = {key: error[key] for key in ("type", "message", "where") if error.get(key)}
    if event.data.get("unknown"):
        compact["note"] = "it is not known whether this happened"
    return f"{_name(step.name)}_error", compact


def _reviewed(step: StepLog, review: Request, event: Event) -> list[tuple[str, Json]]:
    decision, name = review.decision(), f"{_name(step.name)}_result"
    if decision is None:
        return [(name, "a person looks at this result first")] if review.is_open else []
    if decision.kind == "approved":
        return [_outcome(step, event)]
    if decision.kind in ("edited", "responded"):
        return [(name, decision.value)]
    return [(name, {"withheld": decision.note or "a person withheld this result"})]


def _closed(event: Event, request: Request | None) -> list[tuple[str, Json]]:
    """What came of a wait: a decision, an answer, an event, a child's end."""
    if request is None or request.kind in ("in_doubt", "timer", "result", "budget"):
        return []
    decision = request.decision()
    if request.kind == "event":
        return [("event", {"name": request.event.data["event"], "payload": event.data.get("payload", "none came in time")})]
    if request.kind == "child":
        return [("child_result", event.data.get("error", event.data.get("value")))]
    if decision is None:
        return []
    if request.kind == "question":
        answer = "nobody answered in time" if decision.kind == "expired" else decision.value
        return [("answer", {"question": request.event.data["question"], "answer": answer, **sparse(by=event.by)})]
    return _decided(event, request)


def _decided(event: Event, request: Request) -> list[tuple[str, Json]]:
    decision = request.decision()
    assert decision is not None
    name = _name(str(request.event.data.get("name", "call")))
    said = sparse(by=event.by, note=decision.note or None)
    match decision.kind:
        case "approved":
            return [(f"{name}_approved", said)] if request.kind == "approval" else []
        case "edited":
            return [(f"{name}_edited", {"note": EDITED, "arguments": decision.value, **sparse(by=event.by, reason=decision.note or None)})]
        case "responded":
            return [(f"{name}_result", decision.value)]
        case "expired":
            return [(f"{name}_expired", "nobody decided in time; it was not run")]
    return [(f"{name}_rejected", {**said, "result": "it was not run"})]


def _ended(event: Event, step: StepLog) -> list[tuple[str, Json]]:
    data, name = event.data, _name(step.name)
    status = data.get("status")
    if status == "superseded":
        return [(f"{name}_superseded", {"by": data.get("reason"), "result": "it was not run"})]
    if status == "skipped" and not step.is_started:
        return [(f"{name}_skipped", "the turn ended first; it was not run")]
    closed = {key: data[key] for key in ("reason", "result") if key in data}
    return [(f"{name}_closed", closed)] if closed else []


def _waiting(history: History) -> list[str]:
    steps = [_pending(history, step) for step in history.open_steps() if step.open_requests()]
    return [tag("pending", {"note": PENDING, "steps": steps})] if steps else []


def _pending(history: History, step: StepLog) -> Json:
    waits = [request.event.data.get("question") or request.event.data.get("event") or request.kind for request in step.open_requests()]
    return {"step": step.name, "arguments": dict(history.effective(step, step.arguments, 1 << 62)), "waits_for": waits}


def _name(text: str) -> str:
    """A tag's name: letters, digits and underscores."""
    return "".join(char if char.isalnum() or char == "_" else "_" for char in text) or "step"


# ---- views ---------------------------------------------------------------------------------------------------------------------


def hide_resolved_errors(events: Sequence[Event]) -> Sequence[Event]:
    """Leave out ended steps that failed once a later step of the same intent has succeeded."""
    ended = {event.step_id for event in events if event.kind == "ended"}
    names = {event.step_id: event.data["intent"] for event in events if event.kind == "selected"}
    succeeded: dict[str, int] = {}
    failed: dict[str, int] = {}
    for event in events:
        if event.kind != "outcome" or event.step_id not in names or "request" in event.data:
            continue
        if "error" in event.data:
            failed[event.step_id or ""] = event.seq
        else:
            failed.pop(event.step_id or "", None)
            succeeded[names[event.step_id]] = event.seq
    resolved = {step for step, seq in failed.items() if step in ended and succeeded.get(names[step], 0) > seq}
    return [event for event in events if event.step_id not in resolved]


def keep_last_results(n: int) -> View:
    """Show the values of the last `n` results; of the older ones only that there was one.

    Raises:
        ValueError: n is negative.
    """
    if n < 0:
        raise ValueError(f"keep_last_results({n}): how many results to keep, 0 or more")

    def view(events: Sequence[Event]) -> Sequence[Event]:
        results = [event.seq for event in events if event.kind in ("outcome", "delivered") and ("value" in event.data or "payload" in event.data)]
        old = set(results[: max(0, len(results) - n)])
        return [_without_value(event) if event.seq in old else event for event in events]

    return view


def _without_value(event: Event) -> Event:
    shown = {key: LEFT_OUT if key in ("value", "payload") else value for key, value in event.data.items() if key != "summary"}
    return replace(event, data=shown)


def token_budget(n: int, count: Callable[[str], int] | None = None) -> View:
    """Leave out the oldest ended steps and notes until the prompt is within `n` tokens; the input, the summary, unread messages and open steps stay.

    If that is not enough, long texts among what stays are cut, with a mark: first results and answers, then the summary, then the input and
    messages; never the arguments of a step. Put it last: views after it are not counted. `count` gives the tokens of a text; by default one token
    per four characters, rounded up.
    """
    tokens = count or (lambda text: -(-len(text) // 4))

    def cost(events: Sequence[Event]) -> tuple[dict[int, int], int]:
        history = History("thr_0000000000000", events)
        by_event = {event.seq: sum(tokens(f"{tag(*shown)}\n\n") for shown in _shown(event, history)) for event in events}
        return by_event, sum(by_event.values()) + sum(tokens(text) for text in _waiting(history))

    def view(events: Sequence[Event]) -> Sequence[Event]:
        by_event, total = cost(events)
        dropped = set[int]()
        for group in _droppable(events, History("thr_0000000000000", events)):
            if total <= n:
                break
            dropped.update(event.seq for event in group)
            total -= sum(by_event[event.seq] for event in group)
        kept = [event for event in events if event.seq not in dropped]
        return kept if total <= n else _shortened(kept, lambda shown: cost(shown)[1] <= n)

    return view


def _shortened(events: Sequence[Event], fits: Callable[[Sequence[Event]], bool]) -> Sequence[Event]:
    """The events with their longest texts cut shorter and shorter until they fit, or nothing is left to cut."""
    shown, kinds = events, set[str]()
    for more in (("outcome", "delivered", "decision"), ("compacted",), ("input", "message")):
        kinds.update(more)
        limit = max((len(str(value)) for event in events if event.kind in kinds for value in event.data.values()), default=0)
        while limit > SHORTEST:
            limit //= 2
            shown = [_with_cuts(event, max(limit, SHORTEST)) if event.kind in kinds else event for event in events]
            if fits(shown):
                return shown
    return shown


def _with_cuts(event: Event, limit: int) -> Event:
    if event.kind == "decision" and event.data["kind"] not in ("answered", "responded"):
        return event  # arguments, or a word of a person
    data = {key: cut(value, limit) if key in ("value", "payload", "summary", "input", "text") else value for key, value in event.data.items()}
    if "error" in data:
        data["error"] = {**data["error"], "message": cut(data["error"]["message"], limit)}
    return replace(event, data=data)


def _droppable(events: Sequence[Event], history: History) -> list[list[Event]]:
    """What may be left out, oldest first: ended steps as a whole, and single events that belong to no step."""
    groups: dict[object, list[Event]] = {}
    unread = {event.seq for event in history.unread()}
    for event in events:
        step = history.steps.get(event.step_id) if event.step_id else None
        if event.kind in ("input", "compacted") or event.seq in unread or (step is not None and step.ended is None and not step.is_named):
            continue
        groups.setdefault(event.step_id or event.seq, []).append(event)
    return list(groups.values())


def redact(fn: Callable[[Json], Json]) -> View:
    """Show every event's data as `fn` makes it: for what may be in the log and must not reach the model. `fn` may change what it gets."""

    def view(events: Sequence[Event]) -> Sequence[Event]:
        return [replace(event, data={**_mapping(fn(deepcopy(dict(event.data)))), **_bones(event)}) for event in events]

    return view


def _bones(event: Event) -> dict[str, Json]:
    """What ties events together; there is nothing to hide in it."""
    return {key: event.data[key] for key in ("kind", "request", "call", "batch", "read", "verb", "upto", "kept", "counters") if key in event.data}


def _mapping(value: Json) -> Mapping[str, Json]:
    if not isinstance(value, Mapping):
        raise TypeError(f"the function given to redact() returned {type(value).__name__}; it gets an event's data, a dict, and returns one")
    return value
