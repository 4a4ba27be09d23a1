"""What a person sees of one interrupt before deciding: first the call as this code renders it, then everybody else's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from markupsafe import Markup

from ...errors import NotAllowed
from ...events import Event, Json, canonical
from ...interrupts import GATES, QUESTIONS, Interrupt, Verb
from ..auth import Principal
from ..desk import Attempt, Desk
from . import diff
from .forms import BLANK, Builder, Field
from .schemas import inferred
from .timeline import Picture, picture
from .values import Sheet

BEFORE = 150
WINDOW = 300
VERBS: tuple[Verb, ...] = ("approve", "edit", "reject", "respond")


@dataclass(frozen=True)
class Look:
    """Everything the page of an interrupt shows.

    Attributes:
        call: the recorded arguments as HTML; `left_out`: how many characters of it were not delivered.
        offered: what this person may do; `refused`: why nothing, or why not the rest.
        earlier: what earlier edits changed since the agent's proposal.
        words: what the agent wrote, by label. `since`: messages that came after the call was selected.
    """

    one: Interrupt
    call: Markup
    result: Markup | None
    left_out: int
    offered: frozenset[str]
    refused: str
    earlier: list[diff.Change]
    outcome: list[diff.Change]
    words: list[tuple[str, str]]
    asked: Json
    since: list[Event]
    about: Picture
    snoozed: datetime | None
    attempts: list[Attempt] = field(default_factory=list)
    is_whole: bool = False


async def look(desk: Desk, who: Principal, id: str, *, whole: bool = False) -> Look:
    """Raises NotFound."""
    one = await desk.interrupt(who, id)
    events = await _events(desk, who, one)
    selected = next((event for event in events if event.kind == "selected" and event.step_id == one.step_id), None)
    sheet = Sheet(whole=whole)
    call = sheet.arguments(one.intent) if one.intent or one.kind in GATES else Markup("")
    result = sheet.value(held(one)) if one.kind == "result" else None
    offered, refused = _offered(one, who)
    now = desk.app.store.clock.now()
    return Look(
        one=one,
        call=call,
        result=result,
        left_out=sheet.left_out,
        offered=offered - ({"approve"} if sheet.left_out else frozenset()),
        refused=refused,
        earlier=_earlier(one, selected),
        outcome=_outcome(one),
        words=_words(selected),
        asked=next((event.data.get("input") for event in events if event.kind == "input"), None),
        since=[event for event in events if event.kind == "message" and event.seq > (selected.seq if selected else one.seq)],
        about=picture([event for event in events if event.kind != "input" or event.seq >= one.seq - BEFORE], now),
        snoozed=await desk.snoozed_until(one.id),
        attempts=await desk.attempts(who, one.id),
        is_whole=whole,
    )


async def _events(desk: Desk, who: Principal, one: Interrupt) -> list[Event]:
    """The stretch of the log around it, and the thread's first event."""
    if not who.scopes & {"threads:read", "admin"}:
        return []
    after = max(0, one.seq - BEFORE)
    first = await desk.events(who, one.thread_id, limit=1) if after else []
    return [*first, *await desk.events(who, one.thread_id, after=after, limit=WINDOW)]


def held(one: Interrupt) -> Json:
    """The result that waits to be shown to the model."""
    value = one.value
    return value["value"] if isinstance(value, dict) and set(value) == {"call", "value"} else value


def _offered(one: Interrupt, who: Principal) -> tuple[frozenset[str], str]:
    if one.status != "open" or one.kind not in GATES | QUESTIONS:
        return frozenset(), ""
    if not who.scopes & {"interrupts:decide", "admin"}:
        return frozenset(), "you may look, but not decide"
    offered, why = set[str](), ""
    for verb in VERBS if one.kind in GATES else ("answer",):
        try:
            one.may(verb, who.actor)
            offered.add(verb)
        except NotAllowed as refusal:
            why = str(refusal).partition(": ")[2].removesuffix("; nothing was decided") if verb in (*one.policy.allow, "answer") else why
    return frozenset(offered), why


def _earlier(one: Interrupt, selected: Event | None) -> list[diff.Change]:
    if selected is None or one.kind not in GATES or canonical(selected.data["arguments"]) == canonical(one.intent):
        return []
    return diff.changes(selected.data["arguments"], one.intent)


def _outcome(one: Interrupt) -> list[diff.Change]:
    """What the decision made of it."""
    decision = one.decision
    if decision is None or decision.kind != "edited":
        return []
    return diff.change_of(held(one) if one.kind == "result" else dict(one.intent), decision.value)


def _words(selected: Event | None) -> list[tuple[str, str]]:
    if selected is None:
        return []
    labels = {"reason": "Reason", "note": "Note", "summary": "Summary", "thought": "Thought", "reasoning": "Reasoning", "text": "Text"}
    return [(label, text) for key, label in labels.items() if isinstance(text := selected.data.get(key), str) and text.strip()]


# ---- forms for answers -------------------------------------------------------------------------------------------------------------


def edit_schema(one: Interrupt) -> Json:
    """The schema that an edit is checked against; a result has none but its present types."""
    if one.kind == "result":
        return inferred(held(one))
    return one.schema if isinstance(one.schema, dict) else inferred(dict(one.intent))


def edited_value(one: Interrupt) -> Json:
    return held(one) if one.kind == "result" else dict(one.intent)


def answer_schema(one: Interrupt) -> Json:
    """The schema of an answer, of what a call in doubt gave back."""
    return one.schema if isinstance(one.schema, dict) else {}


def answer_form(one: Interrupt, problems: Sequence[tuple[str, str]] = (), sent: Any = None) -> Field | None:
    """The fields of an answer, or None where a plain text or a choice will do."""
    if one.choices is not None or (one.kind != "in_doubt" and is_text(one)):
        return None
    builder = Builder(answer_schema(one), problems, "result" if one.kind == "in_doubt" else "answer")
    return builder.form(BLANK) if sent is None else builder.again(sent)


def is_text(one: Interrupt) -> bool:
    """Whether any text is an answer."""
    return isinstance(one.schema, dict) and one.schema.get("type") == "string" and not set(one.schema) & {"enum", "format", "pattern", "const"}
