"""Bodies that are read, and the shapes of what is answered: the latter describe `shown.plain` for OpenAPI, they do not make it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..events import Kind
from ..history import StepStatus
from ..interrupts import DecisionKind, InterruptKind, InterruptStatus, Verb
from ..stores.base import Status as ThreadStatus
from ..views import OperationState

Json = Any
"""Any JSON value."""
Object = dict[str, Any]
ThreadId = Annotated[str, Field(description="`thr_…`", examples=["thr_01JD3N8Q0V4KC"])]
InterruptId = Annotated[str, Field(description="`int_…`", examples=["int_01JD3N8Q0V4KC_12"])]
Key = Annotated[str, Field(min_length=1, max_length=500)]
Text = Annotated[str, Field(max_length=1_000_000)]
Note = Annotated[str, Field(max_length=4_000, description="Shown to the model, and kept for the audit.")]
Digest = Annotated[str, Field(min_length=1, max_length=128, description="The `digest` of the interrupt as it was shown.")]

# ---- bodies ----------------------------------------------------------------------------------------------------------------------


class Body(BaseModel):
    """What is not named here is refused: above all who acts, which only authentication says."""

    model_config = ConfigDict(extra="forbid")


class StartThread(Body):
    agent: Annotated[str, Field(min_length=1, max_length=500)]
    input: Json = None
    key: Annotated[Key | None, Field(description="Your own id: the same key is the same thread.")] = None
    context: Annotated[Object | None, Field(description='By what threads can be listed and scoped: {"tenant": "acme"}.')] = None


class SendMessage(Body):
    text: Text
    dedupe: Annotated[Key | None, Field(description="The same value on the same thread is the same message.")] = None
    supersede: Annotated[bool, Field(description="End every step that has started nothing, in the same commit.")] = False


class EmitEvent(Body):
    name: Annotated[str, Field(min_length=1, max_length=500)]
    payload: Annotated[Json, Field(description="Anything but null.")]
    key: Key | None = None
    id: Annotated[Key | None, Field(description="An id that was known already makes the event do nothing.")] = None


class Steer(Body):
    reason: Annotated[str, Field(max_length=4_000)] = ""


class Hold(Body):
    on: Annotated[Key | None, Field(description="An intent's name: hold, or release, only there.")] = None


class Fork(Body):
    before: Annotated[str | None, Field(max_length=1_000, description="A step's id (`stp_…`): the copy ends before it.")] = None
    key: Key | None = None


class Approve(Body):
    decision: Literal["approve"]
    digest: Digest
    note: Note = ""


class Edit(Body):
    decision: Literal["edit"]
    digest: Digest
    arguments: Annotated[Json, Field(description="The full new arguments, or the full new result; no patch.")]
    note: Note = ""


class Reject(Body):
    decision: Literal["reject"]
    digest: Digest
    note: Note = ""


class Respond(Body):
    decision: Literal["respond"]
    digest: Digest
    value: Annotated[Json, Field(description="Becomes the call's result; nothing runs.")]
    note: Note = ""


class Answer(Body):
    decision: Literal["answer"]
    digest: Digest
    value: Annotated[Json, Field(description='The answer; of a call in doubt {"happened": true, "value": …} or {"happened": false}.')]
    note: Note = ""


Decide = Annotated[Approve | Edit | Reject | Respond | Answer, Field(discriminator="decision")]


class Snooze(Body):
    until: Annotated[datetime | None, Field(description="With a time zone, to come, before the deadline; null: no longer.")]


# ---- answers ---------------------------------------------------------------------------------------------------------------------


class Shape(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Actor(Shape):
    id: str
    groups: list[str]


class Vote(Shape):
    by: Actor
    kind: DecisionKind
    at: datetime


class Decision(Shape):
    kind: DecisionKind
    by: Actor | None
    note: str
    at: datetime
    value: Json
    votes: list[Vote]
    granted: bool


class ApprovalPolicy(Shape):
    by: list[str]
    quorum: int
    not_by: list[str]
    expires: Annotated[float | None, Field(description="Seconds.")]
    on_expiry: Literal["reject", "ask_again", "fail"]
    escalate: Annotated[list[tuple[float, str]], Field(description="Seconds, and whom to tell then.")]
    allow: list[Verb]
    reason: str


class Interrupt(Shape):
    id: InterruptId
    thread_id: ThreadId
    step_id: str | None
    agent: str
    kind: InterruptKind
    status: InterruptStatus
    name: str
    intent: Annotated[Object, Field(description="The recorded arguments that are to run.")]
    question: str
    schema_: Annotated[Json, Field(alias="schema", description="The JSON Schema of an answer, or of the arguments.")]
    choices: list[Json] | None
    policy: ApprovalPolicy
    votes: list[Vote]
    digest: Annotated[str, Field(description="SHA-256 (hex) of what was recorded; a decision repeats it.")]
    created_at: datetime
    expires_at: datetime | None
    decision: Decision | None
    url: str | None
    value: Json


class InterruptPage(Shape):
    items: list[Interrupt]
    next: Annotated[str | None, Field(description="The cursor of the page after (`after=`), or null.")]


class Snoozed(Shape):
    id: InterruptId
    until: datetime | None


class Event(Shape):
    seq: Annotated[int, Field(description="Its position in the thread, from 1, without gaps.")]
    kind: Kind
    at: datetime
    step_id: str | None
    op: str | None
    by: str | None
    data: Object


class EventPage(Shape):
    items: list[Event]
    next: Annotated[int | None, Field(description="Where the page after begins (`after=`), or null.")]


class ErrorInfo(Shape):
    type: str
    message: str
    where: str | None


class Operation(Shape):
    kind: str
    name: str
    state: OperationState
    value: Json
    error: ErrorInfo | None


class StepView(Shape):
    id: str
    name: str
    intent: Object
    proposed: Object
    status: StepStatus
    operations: list[Operation]


class Usage(Shape):
    input_tokens: int
    output_tokens: int
    cost_usd: float
    requests: int


class ThreadView(Shape):
    id: ThreadId
    agent: str
    key: str | None
    status: ThreadStatus
    turn: int
    result: Json
    error: ErrorInfo | None
    context: Object
    steps: list[StepView]
    interrupts: Annotated[list[Interrupt], Field(description="The open ones.")]
    events: Annotated[list[Event], Field(description="The log; empty in lists, and with events=false.")]
    usage: Usage
    created_at: datetime
    updated_at: datetime


class ThreadPage(Shape):
    items: list[ThreadView]
    next: Annotated[str | None, Field(description="The cursor of the page after (`after=`), or null.")]


class Emitted(Shape):
    is_new: Annotated[bool, Field(description="False: that id was known, and nothing was done.")]


class Taken(Shape):
    is_new: Annotated[bool, Field(description="False: it was taken before, and changed nothing now.")]


class ProblemError(Shape):
    pointer: Annotated[str | None, Field(description="Where in the body (RFC 6901).")] = None
    parameter: Annotated[str | None, Field(description="Which parameter of the query, the path or the headers.")] = None
    detail: str


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="allow")
    type: Annotated[str, Field(description="`urn:ownloop:error:` and the kind of problem.", examples=["urn:ownloop:error:already-decided"])]
    title: str
    status: int
    detail: Annotated[str, Field(description="What is wrong, the rule, the next step.")]
    errors: Annotated[list[ProblemError] | None, Field(description="What does not fit, one by one.")] = None
    interrupt: Annotated[Interrupt | None, Field(description="As it is now: who decided what and when.")] = None


class Health(Shape):
    status: Literal["ok"]
