"""What all stores decide alike, as pure functions of rows and events."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from ..clock import micros
from ..events import Draft, Event, Json, canonical
from ..history import closing_status
from ..interrupts import DECIDABLE, interrupt_digest
from .base import ENDED, ControlVerb, NoticeName, Refused, Status

MAIL_KEPT = timedelta(days=7)
VALUE_LIMIT = 64 * 1024
"""Characters of JSON above which a value is stored once, by content hash."""
QUERY_WORDS = 40
"""Words of a query that count; a longer expression is beyond what SQLite parses."""


def deadline(expires: datetime | timedelta | None, now: datetime) -> datetime | None:
    """A deadline as a time: durations count from the commit."""
    return now + expires if isinstance(expires, timedelta) else expires


def complete(draft: Draft, thread_id: str, now: datetime) -> dict[str, Json]:
    """The data of an event at its commit: `expires_at` in microseconds, and a request's digest."""
    data = dict(draft.data)
    if (at := deadline(draft.expires, now)) is not None:
        data["expires_at"] = micros(at)
    if draft.kind == "request":
        data["digest"] = interrupt_digest(thread_id, draft.step_id, data)
    return data


def closed_as(event: Event | Draft) -> str | None:
    """The status that this event gives to the interrupt in its `data["request"]`, or None if it closes none."""
    if "request" not in event.data:
        return None
    return closing_status(event) if event.kind in ("decision", "outcome", "delivered") else None


def watched(draft: Draft, known: int) -> tuple[str | None, int] | None:
    """An operation and a position: an outcome of it after there makes this draft pointless, a second start or a question about a call in doubt."""
    if draft.kind == "started" and "after" in draft.data:
        return draft.op, draft.data["after"]
    if draft.kind == "request" and draft.data["kind"] == "in_doubt":
        return draft.data.get("call"), known
    return None


def is_progress(event: Draft) -> bool:
    """Whether the wake that wrote this will not do it again: the crash count starts anew."""
    return event.kind in ("selected", "outcome")


def after_control(verb: ControlVerb, status: Status) -> Status:
    """The status that a control verb leads to; the same one where it changes nothing.

    Raises:
        Refused: with the status, where the verb makes no sense.
    """
    if verb in ("hold", "release_hold"):
        if status in ENDED:
            raise Refused(status)
        return status
    table: dict[str, dict[str, Status]] = {
        "pause": {"open": "paused", "paused": "paused"},
        "resume": {"paused": "open", "open": "open"},
        "retry": {"failed": "open", "open": "open"},
        "cancel": dict.fromkeys(("open", "paused", "done", "failed", "cancelled"), "cancelled"),
        "close": dict.fromkeys(("open", "paused", "done", "failed", "closed"), "closed"),
    }
    if status not in table[verb]:
        raise Refused(status)
    return table[verb][status]


def stopped_child(request: int, status: str, control: Draft) -> Draft:
    """What a parent hears of a child that somebody cancelled or closed; `request` is the position of the parent's request."""
    reason = control.data.get("reason")
    message = f"the child was {status}" + (f" by {control.by}" if control.by else "") + (f": {reason}" if reason else "")
    return Draft("outcome", {"request": request, "error": {"type": status.capitalize(), "message": message}})


def notice_of(event: Draft, status: str | None = None) -> NoticeName | None:
    """The notice that an event causes, if any: of interrupts only where a person can decide them; `status` is what a `control` led to."""
    if event.kind == "input":
        return "thread.started"
    if event.kind == "failed":
        return "thread.failed"
    if event.kind == "turn_ended":
        return "thread.done"
    if event.kind == "request":
        return "interrupt.opened" if event.data["kind"] in DECIDABLE else None
    if event.kind == "decision":
        return "interrupt.resolved"
    if event.kind == "control" and status in ("cancelled", "closed"):
        return "thread.cancelled" if status == "cancelled" else "thread.closed"
    return None


def words_of(text: str) -> list[str]:
    """The words of a text, small and without accents, in order: how notes are searched."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(char))
    return re.findall(r"[^\W_]+", plain)


def query_words(query: str) -> list[str]:
    """What a query looks for: each word once."""
    return list(dict.fromkeys(words_of(query)))[:QUERY_WORDS]


def matches(text: str, wanted: Sequence[str]) -> int:
    """How many of the wanted words begin a word of the text."""
    words = words_of(text)
    return sum(any(word.startswith(one) for word in words) for one in wanted)


def agrees(context: Mapping[str, Json], wanted: Mapping[str, Json] | None) -> bool:
    """Whether a context holds these pairs; a name that is not there differs from null."""
    return all(name in context and _is_same(context[name], value) for name, value in (wanted or {}).items())


def _is_same(one: Json, other: Json) -> bool:
    if type(one) in (int, float) and type(other) in (int, float):
        return bool(one == other)
    return canonical(one) == canonical(other)


def holds(text: str, wanted: str) -> bool:
    """Whether a text holds another; A to Z in either case, as SQLite's `lower` has it."""
    return wanted.translate(_LOWER) in text.translate(_LOWER)


_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def json_text(value: Json) -> str:
    """A value as stores write it, where they search it; empty if it is too large to be searched."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= VALUE_LIMIT else ""
