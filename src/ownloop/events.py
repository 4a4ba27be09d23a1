"""What a log is made of: `Event`, its closed list of kinds, and the canonical JSON that digests are taken over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic_core import to_jsonable_python

Kind = Literal[
    "input",  # the thread's first event: {input}
    "message",  # somebody wrote: {text}
    "selected",  # the model chose a step: {intent, arguments, schema, read, batch?, usage?, prompt_tokens?, model?, latency_ms?, …}
    "ended",  # a step is over: {status?, reason?, result?}
    "started",  # a function with effects is about to run: {args?, in_doubt?}
    "not_started",  # …and did not, because the lease had run out: {started}
    "tried",  # one try of a function failed and another follows: {try, error}
    "outcome",  # what became of an operation: {value, usage?, cached?} | {error, unknown?} | {request, …}
    "late",  # a second outcome; it changes nothing
    "request",  # something waits: {kind, …}; the event's position is the interrupt's number
    "vote",  # one of several approvals: {request, kind, note?}
    "decision",  # an interrupt is closed: {request, kind, value?, note?}
    "delivered",  # a wait got its event: {request, payload, mail}
    "appended",  # the handler wrote a note: {name, data}
    "compacted",  # ended steps are covered by a summary: {summary, upto, kept, counters, usage?}
    "model_failed",  # asking the model failed: {error, attempt, retry_at?, limited?, usage?}
    "turn_ended",  # the handler returned: {value, read}
    "failed",  # an exception escaped: {error}
    "control",  # pause, resume, cancel, retry, close, hold, release_hold: {verb, reason?}
]

Json = Any
"""What `json.loads` gives: dict, list, str, int, float, bool, None."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a thread's log.

    Attributes:
        seq: its position in the thread, from 1, without gaps.
        at: when the store committed it, by the store's clock, UTC.
        step_id: the step it belongs to, or None for the thread itself.
        op: the operation inside the step ("run:deploy", "approval:3f9a…#2"), or None.
        by: the id of the actor, for what came from a person.
        data: JSON; its fields by kind stand beside `Kind`.
    """

    seq: int
    kind: Kind
    at: datetime
    step_id: str | None = None
    op: str | None = None
    by: str | None = None
    data: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Draft:
    """An event before the store gave it a position and a time.

    `expires` becomes `data["expires_at"]` (microseconds since 1970) at the commit, counted from the store's clock.
    """

    kind: Kind
    data: Mapping[str, Json] = field(default_factory=dict)
    step_id: str | None = None
    op: str | None = None
    by: str | None = None
    expires: datetime | timedelta | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of streamed text; never stored."""

    kind: ClassVar[Literal["delta"]] = "delta"
    text: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running tool or an outside job is: the latest value only.

    `done` and `total` are in the tool's own unit; `started_at` is when the first report came, so that a reader can estimate.
    """

    kind: ClassVar[Literal["progress"]] = "progress"
    done: float
    total: float | None = None
    text: str = ""
    started_at: datetime | None = None


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical(value: Json) -> str:
    """JSON with sorted keys and no white space: equal values give equal text (after RFC 8785, for what JSON can hold)."""
    return _encode(value)


def digest(value: Json) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def to_json(value: object) -> Json:
    """A value as plain JSON: pydantic models, dataclasses, dates, sets, paths and the like are converted.

    Raises:
        ValueError: for what has no JSON form (an open file, NaN, a number of 5,000 digits, a class of your own without fields).
    """
    if value is None or type(value) is bool or (type(value) is str and value.isascii()):
        return value  # the usual argument and result
    plain = to_jsonable_python(value, inf_nan_mode="constants")
    canonical(plain)  # refuses NaN and infinities, which JSON does not have
    return plain


def sparse(**fields: Json) -> dict[str, Json]:
    """The fields that are not None: what is not there is not written."""
    return {name: value for name, value in fields.items() if value is not None}


def clip(text: str, limit: int) -> str:
    """The text, or its beginning and a mark of how much is missing."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more characters)"
