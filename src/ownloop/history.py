"""The log, read: steps, operations, requests, counters. Pure: built from events, it changes only by `add`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, cast

from . import ids
from .clock import from_micros
from .events import Draft, Event, Json, canonical
from .interrupts import Actor, ApprovalPolicy, Decision, Interrupt, Vote

StepStatus = Literal["open", "ended", "skipped", "superseded"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What the model's answers cost so far."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    requests: int = 0

    def plus(self, recorded: Mapping[str, Json] | None) -> Usage:
        """With the usage of one more answer, as its `selected` event records it."""
        if not recorded:
            return self
        return Usage(
            self.input_tokens + int(recorded.get("input_tokens") or 0),
            self.output_tokens + int(recorded.get("output_tokens") or 0),
            self.cost_usd + float(recorded.get("cost_usd") or 0),
            self.requests + int(recorded.get("requests") or 1),
        )


class Events(Sequence[Event]):
    """A list that others cannot change, without a copy; it grows with the log."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, place: Any) -> Any:
        return self._events[place]

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)


@dataclass(slots=True)
class Request:
    """An interrupt in the log: its request, the votes so far, and what closed it."""

    event: Event
    status: str = "open"
    votes: list[Event] = field(default_factory=list)
    closing: Event | None = None

    @property
    def kind(self) -> str:
        return str(self.event.data["kind"])

    @property
    def is_open(self) -> bool:
        return self.status == "open"

    @property
    def expires_at(self) -> datetime | None:
        at = self.event.data.get("expires_at")
        return None if at is None else from_micros(at)

    def decision(self) -> Decision | None:
        """What a person, or the deadline, decided."""
        closing = self.closing
        if closing is None or closing.kind != "decision" or closing.data["kind"] in ("superseded", "withdrawn"):
            return None
        by = None if closing.by is None else _actor(closing.by, closing.data)
        votes = tuple(_vote(event) for event in self.votes)
        return Decision(closing.data["kind"], by, closing.data.get("note", ""), closing.at, closing.data.get("value"), votes)


def _vote(event: Event) -> Vote:
    return Vote(_actor(event.by or "", event.data), event.data["kind"], event.at)


def _actor(id: str, recorded: Mapping[str, Json]) -> Actor:
    return Actor(id, tuple(recorded.get("groups", ())))


@dataclass(slots=True)
class Op:
    """One operation of a step: its starts, its latest request, its first outcome."""

    key: str
    started: list[Event] = field(default_factory=list)
    request: Request | None = None
    outcome: Event | None = None
    tries: list[Event] = field(default_factory=list)

    @property
    def is_run(self) -> bool:
        return self.key.startswith("run:")

    @property
    def in_doubt(self) -> bool:
        """Started, and nobody recorded what became of it."""
        return bool(self.started) and self.outcome is None


@dataclass(slots=True)
class StepLog:
    """One step as the log tells it. `number` is None for a named step, `batch` is the number of the first step of the same answer."""

    id: str
    number: int | None
    name: str
    arguments: Mapping[str, Json]
    selected: Event | None = None
    batch: int = 0
    ended: Event | None = None
    ops: dict[str, Op] = field(default_factory=dict)
    requests: dict[int, Request] = field(default_factory=dict)
    last_own: int = 0

    @property
    def is_named(self) -> bool:
        return self.number is None

    @property
    def status(self) -> StepStatus:
        return "open" if self.ended is None else cast(StepStatus, self.ended.data.get("status", "ended"))

    @property
    def is_started(self) -> bool:
        return any(op.started or (op.is_run and op.outcome is not None) for op in self.ops.values())

    def open_requests(self) -> list[Request]:
        """What the step waits for."""
        return [request for request in self.requests.values() if request.is_open]

    def doubts(self) -> list[Op]:
        """Calls whose outcome is unknown."""
        return [op for op in self.ops.values() if op.is_run and op.in_doubt]

    def has_news(self, now: datetime) -> bool:
        """Whether something it waited for has come, or is due."""
        if not (waiting := self.open_requests()):
            return True
        closings = (request.closing for request in self.requests.values())
        came = any(closing is not None and closing.seq > self.last_own for closing in closings)
        return came or any(request.expires_at is not None and request.expires_at <= now for request in waiting)

    def runs(self) -> list[Op]:
        """Its calls in the order they were first recorded."""
        return [op for op in self.ops.values() if op.is_run]

    def result_run(self) -> Op | None:
        """The last run with an outcome that is not a judge's."""
        ended = [op for op in self.runs() if op.outcome is not None and not op.outcome.data.get("judge")]
        return max(ended, key=lambda op: op.outcome.seq if op.outcome else 0, default=None)

    @property
    def counts_as_error(self) -> bool:
        """Its last run failed and, once it has ended, no person answered in it."""
        if (last := self.result_run()) is None or last.outcome is None or "error" not in last.outcome.data:
            return False
        decisions = (request.decision() for request in self.requests.values() if self.ended is not None)
        return not any(decision is not None and decision.kind in ("answered", "responded") for decision in decisions)


@dataclass(slots=True)
class Counters:
    """What a compaction must remember of the events it covers. `asked`: how often the model has answered or failed."""

    steps: int = 0
    turns: int = 0
    batch: int = 0
    read: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    asked: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)

    def to_json(self) -> Json:
        return {**asdict(self), "usage": list(astuple(self.usage))}

    @classmethod
    def from_json(cls, recorded: Mapping[str, Json]) -> Counters:
        return cls(**{**recorded, "counts": dict(recorded["counts"]), "usage": Usage(*recorded["usage"])})


class History:
    """A thread's log from the last compaction on.

    Attributes:
        events: in order of position.
        head: the last position that was read.
        counters: exact over the whole log, whatever was left out of `events`.
        own: positions that this wake wrote itself.
        retried: position of the operator's last `retry`.
    """

    def __init__(self, thread_id: str, events: Iterable[Event]) -> None:
        self.thread_id = thread_id
        self.events: list[Event] = []
        self.head = 0
        self.own: set[int] = set()
        self.steps: dict[str, StepLog] = {}
        self.requests: dict[int, Request] = {}
        self.notes: set[str] = set()
        self._open: dict[str, StepLog] = {}
        self._messages: list[Event] = []
        self._early: list[Event] = []  # what closed requests that are not here (yet)
        self.model_failures: list[Event] = []
        self.compacted: Event | None = None
        self.retried = 0
        self.counters = Counters()
        known = list(events)
        if (last := max((event for event in known if event.kind == "compacted"), key=lambda event: event.seq, default=None)) is not None:
            self.compacted, self.counters = last, Counters.from_json(last.data["counters"])
        self._gap = self.covered, set[int](last.data["kept"] if last is not None else ())  # up to where the log was not read, but for these positions
        self.add(known)

    @property
    def covered(self) -> int:
        """The last position that the summary covers."""
        return 0 if self.compacted is None else int(self.compacted.data["upto"])

    @property
    def turn(self) -> int:
        return self.counters.turns + 1

    # ---- growing -------------------------------------------------------------------------------------------------------------

    def add(self, events: Iterable[Event]) -> None:
        """Take in the log as it was read: in order of position, without gaps. What this wake wrote itself is known already."""
        for event in events:
            if event.seq > self.head and event.seq not in self.own:
                self._insert(event)
            self.head = max(self.head, event.seq)

    def wrote(self, events: Sequence[Event]) -> None:
        """Take in what this wake wrote; events from outside before them stay unseen until the log is read again."""
        for event in [one for one in events if one.seq > self.head and one.seq not in self.own]:  # a branch beside may have read it first
            self._insert(event)
        self.own.update(event.seq for event in events)
        while self.head + 1 in self.own:
            self.head += 1

    def _insert(self, event: Event) -> None:
        if self.events and self.events[-1].seq > event.seq:
            self.events = sorted([*self.events, event], key=lambda one: one.seq)  # a new list: whoever holds a view of the old one keeps it
        else:
            self.events.append(event)
        self._apply(event)

    def recall(self, events: Iterable[Event]) -> None:
        """Take in covered events of a named step or covered notes, as far as the log was read without them; they change no counter.

        A request that nothing has closed was withdrawn, or the summary would have kept it.
        """
        upto, known = self._gap
        fresh = [event for event in events if event.seq <= upto and event.seq not in known]
        known.update(event.seq for event in fresh)
        early, self._early = self._early, []
        for event in [*fresh, *early]:
            self._apply(event)
        self._withdraw(self.requests[event.seq] for event in fresh if event.kind == "request")
        for step in [self.step(event.step_id) for event in fresh[:1] if event.step_id]:  # older ones came later: again by position
            step.requests = dict(sorted(step.requests.items()))
            for request in step.requests.values():
                step.ops[request.event.op or ""].request = request

    def _apply(self, event: Event) -> None:
        if "usage" in event.data and event.seq > self.covered:
            self.counters.usage = self.counters.usage.plus(event.data["usage"])
        if event.kind == "selected":
            self._select(event)
        elif "request" in event.data:
            self._close(event)
        elif event.step_id is not None:
            self._apply_to_step(event)
        elif event.kind == "appended":
            self.notes.add(event.data["name"])
        elif event.kind == "message":
            self._messages.append(event)
        elif event.kind == "model_failed":
            self.model_failures.append(event)
            self.counters.asked += event.seq > self.covered and "limited" not in event.data
        elif event.kind == "turn_ended":
            self._end_turn(event)
        elif event.kind == "control":
            self._control(event)

    def _select(self, event: Event) -> None:
        data = event.data
        number = ids.step_of(event.step_id or "")
        assert isinstance(number, int)
        batch = data.get("batch", number)
        step = StepLog(event.step_id or "", number, data["intent"], data["arguments"], event, batch, last_own=event.seq)
        self.steps[step.id] = self._open[step.id] = step
        if event.seq <= self.covered:
            return
        counters = self.counters
        counters.steps, counters.batch, counters.read = max(counters.steps, number), batch, data.get("read", event.seq)
        counters.asked += number == batch
        counters.counts[data["intent"]] = counters.counts.get(data["intent"], 0) + 1
        if "usage" in data:
            counters.prompt_tokens = int(data.get("prompt_tokens", data["usage"].get("input_tokens") or 0))
        self.model_failures.clear()

    def _control(self, event: Event) -> None:
        if event.data["verb"] == "retry":
            self.retried = event.seq
            self.model_failures.clear()
        elif event.data["verb"] in ("cancel", "close"):
            self._withdraw(self.requests.values())

    def _end_turn(self, event: Event) -> None:
        named = (step for step in self.steps.values() if step.is_named)
        self._withdraw(request for step in named for request in step.requests.values())
        if event.seq > self.covered:
            self.counters.turns += 1
            self.counters.counts.clear()
            self.counters.read = max(self.counters.read, event.data.get("read", 0))
            self.model_failures.clear()

    @staticmethod
    def _withdraw(requests: Iterable[Request]) -> None:
        for request in requests:
            if request.is_open and request.kind != "child":
                request.status = "withdrawn"

    def step(self, step_id: str) -> StepLog:
        """The step, made on first sight if it is a named one."""
        known = self.steps.get(step_id)
        if known is None:
            name = ids.step_of(step_id)
            number = name if isinstance(name, int) else None
            known = self.steps[step_id] = StepLog(step_id, number, str(name), {})
            if number is not None:  # all that is left of a covered step: its children
                known.ended = Event(0, "ended", from_micros(0), step_id)
        return known

    def _apply_to_step(self, event: Event) -> None:
        step = self.step(event.step_id or "")
        if event.kind == "ended":
            step.ended = step.ended or event  # a message may have superseded it while the turn ended
            self._open.pop(step.id, None)
            self._withdraw(step.requests.values())
            return
        op = step.ops.setdefault(event.op or "", Op(event.op or ""))
        step.last_own = event.seq
        if event.kind == "started":
            op.started.append(event)
        elif event.kind == "not_started":
            op.started = [start for start in op.started if start.seq != event.data["started"]]
        elif event.kind == "tried":
            op.tries.append(event)
        elif event.kind == "outcome":
            op.outcome = op.outcome or event
            self._withdraw(one for one in step.requests.values() if one.kind == "in_doubt" and one.event.data["call"] == event.op)
        elif event.kind == "request":
            op.request = step.requests[event.seq] = self.requests[event.seq] = Request(event)

    def _close(self, event: Event) -> None:
        if (request := self.requests.get(event.data["request"])) is None:
            self._early.append(event)
        elif event.kind == "vote":
            request.votes.append(event)
        elif request.closing is None:
            request.closing, request.status = event, closing_status(event)

    # ---- reading ---------------------------------------------------------------------------------------------------------------

    def selected(self) -> list[StepLog]:
        """The steps that a model chose, in order."""
        return sorted((step for step in self.steps.values() if step.number is not None and step.selected), key=lambda step: step.number or 0)

    def open_steps(self) -> list[StepLog]:
        """Those that have not ended, in order; as quick on a long log as on a short one."""
        return sorted(self._open.values(), key=lambda step: step.number or 0)

    def is_aside(self, step: StepLog) -> bool:
        """Open although the model has been asked again since."""
        return step.ended is None and step.number is not None and step.batch < self.counters.batch

    def closing(self, request: Request, upto: int) -> Event | None:
        """What closed it, as seen from position `upto`: later events from outside are not there yet."""
        event = request.closing
        return event if event is not None and (event.seq <= upto or event.seq in self.own) else None

    def unread(self) -> list[Event]:
        """Messages that no selection has read."""
        self._messages = [event for event in self._messages if event.seq > self.counters.read]  # what was read once stays read
        return sorted(self._messages, key=lambda event: event.seq)

    def effective(self, step: StepLog, proposed: Mapping[str, Json], upto: int) -> Mapping[str, Json]:
        """The arguments after the edits that people made, as seen from `upto`."""
        arguments = proposed
        for request in step.requests.values():
            closing = self.closing(request, upto)
            edited = closing is not None and closing.kind == "decision" and closing.data["kind"] == "edited" and request.kind in ("approval", "hold")
            if edited and closing is not None and request.event.data["arguments"] == arguments:
                arguments = closing.data["value"]
        return arguments

    def errors_in_a_row(self) -> int:
        """Steps whose last run failed, newest first, until one that does not count. An open step without a run is passed over."""
        selected = (step for step in reversed(self.steps.values()) if step.number is not None and step.selected)
        return self._errors(selected, self.counters.errors)

    @staticmethod
    def _errors(newest_first: Iterable[StepLog], before: int) -> int:
        row = 0
        for step in newest_first:
            if step.counts_as_error:
                row += 1
            elif step.ended is not None or step.result_run() is not None:
                return row
        return row + before

    def backs_off(self, now: datetime) -> bool:
        """Whether the model's last failure asks for time."""
        return any(from_micros(failure.data.get("retry_at", 0)) > now for failure in self.model_failures[-1:])

    def due(self, after: datetime) -> datetime | None:
        """The earliest moment after `after` at which a wait or the model's backoff is over."""
        times = [request.expires_at for request in self.requests.values() if request.is_open]
        times += [from_micros(event.data["retry_at"]) for event in self.model_failures[-1:] if "retry_at" in event.data]
        return min((at for at in times if at is not None and at > after), default=None)

    def child(self, thread_id: str) -> Request | None:
        """The request that spawned this child."""
        return next((one for one in self.requests.values() if one.event.data.get("child") == thread_id), None)

    def coverable(self, keep_last: int) -> list[StepLog]:
        """Ended steps that a compaction may cover: all but the last `keep_last`, and none that ended after something that was not read yet."""
        ended = [step for step in self.selected() if step.ended is not None and step.ended.seq <= self.head]
        return ended[: max(0, len(ended) - keep_last)]

    def compaction(self, covered: Sequence[StepLog]) -> tuple[int, list[int], Counters]:
        """The last position covered, the positions before it that are kept, and the counters as of there, without what later summaries cost."""
        gone = {step.id for step in covered}
        upto = max(self.covered, *(step.ended.seq for step in covered if step.ended))  # what was set aside may have ended after its successors
        kept = [event.seq for event in self.events if event.seq <= upto and self._is_kept(event, gone)]
        before = [replace(self.compacted, data={**self.compacted.data, "usage": None})] if self.compacted is not None else []
        counters = History(self.thread_id, [*(event for event in self.events if event.seq <= upto), *before]).counters
        counters.errors = self._errors(reversed(covered), self.counters.errors)
        return upto, kept, counters

    def cover(self, compacted: Event, covered: Sequence[StepLog]) -> None:
        """Forget what a compaction of this wake covers."""
        upto, kept = compacted.data["upto"], set(compacted.data["kept"])
        self.events = [event for event in self.events if event.seq > upto or event.seq in kept or event.kind == "input"]
        for step in covered:
            del self.steps[step.id]
        self.compacted = compacted
        self.counters.errors = compacted.data["counters"]["errors"]

    def _is_kept(self, event: Event, gone: set[str]) -> bool:
        if event.kind == "message":
            return event.seq > self.counters.read
        if (request := self.requests.get(event.data.get("request", event.seq))) is not None and request.kind == "child":
            return True  # its end too, which belongs to no step
        if event.step_id is None:
            return False
        step = self.step(event.step_id)
        is_withdrawn = request is not None and request.status == "withdrawn"  # it would look open again where the turn's end is not read
        return not is_withdrawn and bool(step.open_requests() or step.doubts()) if step.is_named else event.step_id not in gone


def closing_status(event: Event | Draft) -> str:
    """The status that a closing event gives to its interrupt."""
    if event.kind == "decision" and event.data["kind"] in ("expired", "superseded", "withdrawn"):
        return str(event.data["kind"])
    return "expired" if event.data.get("timed_out") else "decided"


def interrupt_of(thread_id: str, agent: str, request: Request, base_url: str | None = None) -> Interrupt:
    """An interrupt as people see it, from what is recorded of it."""
    event, data = request.event, request.event.data
    id = ids.interrupt_id(thread_id, event.seq)
    about = {key: data[key] for key in ("event", "key", "call", "error") if key in data} or None
    carried = [Vote(_actor(item["by"], item), item["kind"], from_micros(item["at"])) for item in data.get("votes", ())]  # the editor's, after an edit
    return Interrupt(
        id=id,
        thread_id=thread_id,
        step_id=event.step_id,
        agent=agent,
        kind=data["kind"],
        status=request.status,  # type: ignore[arg-type]  # the store keeps the closed set
        name=data.get("name", ""),
        intent=data.get("arguments", {}),
        question=data.get("question", ""),
        schema=data.get("schema"),
        choices=None if data.get("choices") is None else tuple(data["choices"]),
        policy=ApprovalPolicy.from_json(canonical(data.get("policy", {}))),
        votes=(*carried, *(_vote(vote) for vote in request.votes)),
        digest=data["digest"],
        created_at=event.at,
        expires_at=request.expires_at,
        decision=request.decision(),
        url=None if base_url is None else f"{base_url.rstrip('/')}/interrupts/{id}",
        value=data.get("value") if data["kind"] == "result" else data.get("child", about),
        seq=event.seq,
    )
