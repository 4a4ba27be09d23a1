"""What waits for somebody, who may answer, and what an answer means. Pure rules: nothing here reads a clock or a store."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, TypedDict, get_args

from .clock import duration
from .errors import NotAllowed
from .events import Json, digest

InterruptKind = Literal["approval", "question", "result", "event", "timer", "child", "in_doubt", "budget", "hold"]
InterruptStatus = Literal["open", "decided", "expired", "superseded", "withdrawn"]
DecisionKind = Literal["approved", "edited", "rejected", "responded", "expired", "answered"]
Verb = Literal["approve", "edit", "reject", "respond", "answer"]
OnExpiry = Literal["reject", "ask_again", "fail"]

DECIDES: Mapping[Verb, DecisionKind] = {"approve": "approved", "edit": "edited", "reject": "rejected", "respond": "responded", "answer": "answered"}
ALL: tuple[Verb, ...] = ("approve", "edit", "reject", "respond")
GATES: frozenset[str] = frozenset({"approval", "result", "hold"})
"""Kinds that are decided with approve, edit, reject or respond."""
QUESTIONS: frozenset[str] = frozenset({"question", "in_doubt", "budget"})
"""Kinds that are answered."""
DECIDABLE: frozenset[str] = GATES | QUESTIONS
"""Kinds that a person can close; the others wait for a clock, an event or a child."""


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """Who answers, as authentication proved it. Equal to its id when compared with a string."""

    id: str
    groups: Collection[str] = ()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Actor):
            return self.id == other.id and set(self.groups) == set(other.groups)
        return self.id == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    @classmethod
    def of(cls, by: Actor | str) -> Actor:
        """A string is an actor without groups; groups that are one string are one group.

        Raises:
            ValueError: for an empty id.
        """
        actor = cls(by.id, _names(by.groups)) if isinstance(by, Actor) else cls(by)
        if not isinstance(actor.id, str) or not actor.id.strip():
            raise ValueError(f"by={by!r} names nobody; pass the id that authentication proved")
        return actor

    def is_in(self, names: Collection[str]) -> bool:
        """Whether the id or one of the groups is among `names`."""
        return self.id in names or any(group in names for group in self.groups)


@dataclass(frozen=True, slots=True)
class Vote:
    """One person's yes on an interrupt that needs several."""

    by: Actor
    kind: DecisionKind
    at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """How an interrupt ended. `value`: the edited arguments, the response or the answer; `by` is None where a deadline decided."""

    kind: DecisionKind
    by: Actor | None
    note: str
    at: datetime
    value: Json = None
    votes: tuple[Vote, ...] = ()

    @property
    def granted(self) -> bool:
        """Whether the call may run."""
        return self.kind in ("approved", "edited")


class Rules(TypedDict, total=False):
    """The fields of an `ApprovalPolicy` as keywords."""

    by: Sequence[str] | str
    quorum: int
    not_by: Sequence[str] | str
    expires: timedelta | str | None
    on_expiry: OnExpiry
    escalate: Sequence[tuple[str | timedelta, str]]
    allow: Sequence[Verb]
    reason: str


@dataclass(frozen=True)
class ApprovalPolicy:
    """Who must agree, and until when.

    Attributes:
        by: ids or groups that may answer; empty: anyone.
        quorum: how many different people must approve.
        not_by: ids or groups that may not, even if `by` names them.
        expires: a deadline, counted from the commit of the request by the store's clock: a duration or "6h".
        on_expiry: "reject" – not granted, with `decision.kind == "expired"`; "ask_again" – a new request opens; "fail" – the thread fails.
        escalate: pairs of a duration and whom to tell then; it tells, it never decides.
        allow: the answers that are offered.
        reason: why this needs somebody, shown beside the call.
    """

    by: Sequence[str] | str = ()
    quorum: int = 1
    not_by: Sequence[str] | str = ()
    expires: timedelta | str | None = None
    on_expiry: OnExpiry = "reject"
    escalate: Sequence[tuple[str | timedelta, str]] = ()
    allow: Sequence[Verb] = ALL
    reason: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", _names(self.by))
        object.__setattr__(self, "not_by", _names(self.not_by))
        object.__setattr__(self, "allow", _names(self.allow))
        object.__setattr__(self, "expires", None if self.expires is None else duration(self.expires))
        object.__setattr__(self, "escalate", tuple((duration(after), whom) for after, whom in self.escalate))
        if self.quorum < 1:
            raise ValueError(f"quorum={self.quorum}; at least one person must agree: write quorum=1, or ask nobody")
        if not self.allow or set(self.allow) - set(ALL):
            raise ValueError(f"allow={self.allow!r}; choose from {', '.join(ALL)}")
        if self.on_expiry not in get_args(OnExpiry):
            raise ValueError(f'on_expiry={self.on_expiry!r}; choose "reject", "ask_again" or "fail"')

    def who(self) -> Json:
        """The part that identifies an approval: who must agree and how, never by when."""
        return {"by": sorted(self.by), "quorum": self.quorum, "not_by": sorted(self.not_by), "allow": sorted(self.allow)}

    def to_json(self) -> Json:
        """As recorded in the request, durations in seconds; what is not there is the default."""
        changed = (one for one in fields(self) if getattr(self, one.name) != one.default)
        return {one.name: _seconds(getattr(self, one.name)) for one in changed}

    @classmethod
    @lru_cache(maxsize=256)
    def from_json(cls, recorded: str) -> ApprovalPolicy:
        """What `to_json` recorded, as canonical JSON: thousands of interrupts share a few policies."""
        values = json.loads(recorded)
        expires, escalate = values.get("expires"), [(timedelta(seconds=after), whom) for after, whom in values.get("escalate", ())]
        return cls(**{**values, "expires": None if expires is None else timedelta(seconds=expires), "escalate": escalate})

    def refuses(self, actor: Actor) -> str | None:
        """Why this actor may not answer, or None."""
        if actor.is_in(self.not_by):
            return f"the policy excludes {', '.join(self.not_by)}, so somebody else has to"
        if self.by and not actor.is_in(self.by):
            return f"the policy asks for {', '.join(self.by)}, so let one of them decide"
        return None

    def satisfied_by(self, votes: Sequence[Vote]) -> bool:
        """Whether these votes are enough: different people, each allowed."""
        return len({vote.by.id for vote in votes if self.refuses(vote.by) is None}) >= self.quorum


@dataclass(frozen=True)
class Interrupt:
    """Something a thread waits for, as it was recorded and shown.

    Attributes:
        name: the intent's name (for a named step: the step's name).
        intent: the recorded arguments that are to run.
        question, schema, choices: what is asked and the JSON Schema of an answer; `schema` of an approval is that of its arguments.
        digest: SHA-256 (hex) of what was recorded; it never changes.
        value: for a `result`, what waits to be shown to the model; for a `child`, its id; for an `event`, its name and key; for a call
            `in_doubt`, which one and why.
        url: where a person finds it, when the App has a `base_url`.
    """

    id: str
    thread_id: str
    step_id: str | None
    agent: str
    kind: InterruptKind
    status: InterruptStatus
    name: str
    intent: Mapping[str, Json]
    question: str
    schema: Json
    choices: tuple[Json, ...] | None
    policy: ApprovalPolicy
    votes: tuple[Vote, ...]
    digest: str
    created_at: datetime
    expires_at: datetime | None
    decision: Decision | None = None
    url: str | None = None
    value: Json = None
    seq: int = field(default=0, repr=False)

    def may(self, verb: Verb, actor: Actor) -> None:
        """Check that this actor may give this kind of answer.

        Raises:
            NotAllowed: with the rule that forbids it.
        """
        asked = ("answer", "reject") if self.kind == "budget" else ("answer",) if self.kind in QUESTIONS else ()
        offered = self.policy.allow if self.kind in GATES else asked
        if verb not in offered:
            what = ", ".join(offered) or "nothing: it waits for an event, a clock or a child"
            raise NotAllowed(self, actor, f"{verb} is not offered for this {self.kind}; it offers {what}")
        if (why := self.policy.refuses(actor)) is not None:
            raise NotAllowed(self, actor, why)
        if verb == "approve" and any(vote.by.id == actor.id for vote in self.votes):
            raise NotAllowed(self, actor, f"{actor.id} agreed already, and {self.policy.quorum} different people must")


def interrupt_digest(thread_id: str, step_id: str | None, request: Mapping[str, Json]) -> str:
    """The digest of what a person is shown: the recorded JSON, never a fresh dump of a class.

    Source: consent integrity ("what you approve is what executes"); canonical JSON after RFC 8785.
    """
    shown = {key: request[key] for key in ("kind", "name", "arguments", "question", "schema", "choices", "value") if key in request}
    return digest({"thread": thread_id, "step": step_id, **shown})


def _seconds(value: Any) -> Json:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return [_seconds(item) for item in value] if isinstance(value, tuple) else value


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
