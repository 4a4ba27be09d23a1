"""What is wrong with a store, and what is stuck and since when: findings, each with its next step. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from . import ids
from .app import App
from .clock import from_micros
from .events import Event, clip
from .history import History, Op, Request, StepLog
from .interrupts import DECIDABLE
from .stores.base import ENDED, ThreadRow
from .views import StepView, step_views

FindingKind = Literal["store", "log", "failed", "program_changed", "in_doubt", "running", "lease", "due", "deadline", "unserved", "no_agent"]
PROGRAM_CHANGED = frozenset({"ProgramChanged", "CallNoLongerValid", "UnknownIntent", "StepIgnored", "TwoLoops"})
"""Errors that say: the program of today does not fit the log."""
GRACE = timedelta(seconds=1)
"""How late a worker may be before that is a finding."""
LONG = timedelta(minutes=10)
"""How long a call may run before somebody should look."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        thread_id: whose, or None for the store itself.
        kind: what sort of thing, from a closed list.
        what: in a sentence.
        since: since when, where that is known.
        next_step: what to do about it, with the command.
    """

    thread_id: str | None
    kind: FindingKind
    what: str
    since: datetime | None
    next_step: str


def failed_call(steps: Sequence[StepView]) -> tuple[str, str] | None:
    """If a call of the last step failed: the step's id, and the call's name. The failure stays in the log: `retry` gives it to the program again."""
    names = [one.name for one in steps[-1].operations if one.kind == "run" and one.state == "failed"] if steps else []
    return (steps[-1].id, names[0]) if names else None


async def examine(app: App, *, grace: timedelta = GRACE, long: timedelta = LONG) -> list[Finding]:
    """Everything that is wrong, oldest first; empty when all is well. Reads every log.

    Args:
        grace: how late a worker may be.
        long: how long a call may run before it is named.
    """
    rows = [row async for row in _rows(app)]
    findings = [_of_store(text) for text in await app.store.check()]
    now = app.store.clock.now()
    for row in rows:
        look = _Look(row, await app.store.events(row.id), now, grace, long, frozenset(app.agents))
        findings += look.findings()
    return sorted(findings, key=lambda one: (one.since is not None, one.since or now))


async def _rows(app: App) -> AsyncIterator[ThreadRow]:
    await app.threads(limit=1)  # opens the store
    after: str | None = None
    while page := await app.store.threads(limit=500, after=after):
        for row in page:
            yield row
        after = page[-1].id


def _of_store(text: str) -> Finding:
    thread, _, what = text.partition(": ")
    is_thread = ids.thread_number(thread) is not None
    next_step = "keep a copy of the file; take the log out with `ownloop export`, and restore a backup if it is not whole"
    return Finding(thread if is_thread else None, "store", what if is_thread else text, None, next_step)


@dataclass
class _Look:
    """One thread under examination."""

    row: ThreadRow
    events: list[Event]
    now: datetime
    grace: timedelta
    long: timedelta
    agents: frozenset[str]
    history: History = field(init=False)

    def __post_init__(self) -> None:
        self.history = History(self.row.id, [])

    def findings(self) -> Iterator[Finding]:
        for event, what in illegal(self.row.id, self.events, self.history):
            where = f"event {event.seq} ({event.kind}): {what}"
            yield self._found("log", where, event.at, f"look at it with `ownloop show {self.row.id} --events`; no worker should go on with it")
        yield from self._failure()
        yield from self._calls()
        yield from self._deadlines()
        yield from self._unserved()

    def _found(self, kind: FindingKind, what: str, since: datetime | None, next_step: str) -> Finding:
        return Finding(self.row.id, kind, what, since, next_step)

    def _command(self, verb: str, *words: str) -> str:
        return " ".join(("ownloop", verb, self.row.id, *words))

    @property
    def _is_held(self) -> bool:
        """Whether some process holds the lease now."""
        return self.row.lease_until is not None and self.row.lease_until > self.now

    # ---- failures --------------------------------------------------------------------------------------------------------------

    def _failure(self) -> Iterator[Finding]:
        row = self.row
        if row.status != "failed" or row.last_end is None:
            return
        error = row.last_end.data.get("error", {})
        name, at, retry = error.get("type", "unknown"), row.last_end.at, f"`{self._command('retry')}`"
        what = f"{name}: {clip(error.get('message', ''), 500)}"
        if name in PROGRAM_CHANGED:
            yield self._found("program_changed", f"program changed: {what}", at, f"deploy a program that fits the log, then {retry}")
        else:
            mend = self._after_a_failed_call(retry) if name == "StepFailed" else f"mend the cause, then {retry}"
            yield self._found("failed", f"failed: {what}", at, mend)

    def _after_a_failed_call(self, retry: str) -> str:
        """Who makes it again is not `retry`."""
        failed = failed_call(step_views(self.history))
        step = None if failed is None or ids.is_named(failed[0]) else failed[0]
        fork = "" if step is None else f", or make the call again in a copy: `{self._command('fork', '--before', step)}`"
        return f"a program that looks at `outcome.ok` goes on after {retry}{fork}"

    # ---- calls -----------------------------------------------------------------------------------------------------------------

    def _calls(self) -> Iterator[Finding]:
        for step in self.history.steps.values():
            for op in step.doubts():
                if (found := self._call(step, op)) is not None:
                    yield found

    def _call(self, step: StepLog, op: Op) -> Finding | None:
        name, since = f"{op.key.removeprefix('run:')} of {step.id}", op.started[-1].at
        asked = next((one for one in step.open_requests() if one.kind == "in_doubt" and one.event.data["call"] == op.key), None)
        if asked is not None:
            interrupt = ids.interrupt_id(self.row.id, asked.event.seq)
            next_step = f"find out, then `ownloop decide {interrupt} answer --happened` or `--not-happened`"
            return self._found("in_doubt", f"{name} may have happened; somebody is asked ({interrupt})", since, next_step)
        if self._is_held:
            is_long = self.now - since >= self.long
            next_step = f"look at it with `{self._command('show', '-f')}`, or stop it with `{self._command('pause')}`"
            return self._found("running", f"{name} is running since {_time(since)}", since, next_step) if is_long else None
        return self._unasked(step, op, name, since)

    def _unasked(self, step: StepLog, op: Op, name: str, since: datetime) -> Finding:
        """A call without outcome about which nobody is asked now."""
        if self.row.status in ENDED:
            what = f"{name} was started before the thread was {self.row.status}, and no outcome came; nobody is asked any more"
            return self._found("in_doubt", what, since, "look at the other side whether it happened; nothing here will start it again")
        decided = (one.event for one in step.requests.values() if one.kind == "in_doubt" and one.status == "decided")
        answered = [one.seq for one in decided if one.data["call"] == op.key]
        if answered and answered[-1] > op.started[-1].seq:
            return self._found("in_doubt", f"{name} may have happened; somebody has answered, and no worker has read it yet", since, self._revive())
        next_step = {"failed": f"`{self._command('retry')}`, then a worker asks", "paused": f"`{self._command('resume')}`, then a worker asks"}.get(
            self.row.status, "start a worker: it asks a person, or does what the tool promises"
        )
        return self._found("in_doubt", f"{name} may have happened, and nobody was asked yet", since, next_step)

    # ---- clocks ----------------------------------------------------------------------------------------------------------------

    def _late(self, at: datetime | None) -> bool:
        return at is not None and at + self.grace <= self.now

    def _overdue(self) -> list[Request]:
        return [one for one in self.history.requests.values() if one.is_open and self._late(one.expires_at)]

    def _deadlines(self) -> Iterator[Finding]:
        """Open interrupts whose time is up."""
        if self._is_held:
            return
        for one in self._overdue():
            interrupt, at = ids.interrupt_id(self.row.id, one.event.seq), one.expires_at
            name = one.event.data.get("name", "")
            if one.kind in DECIDABLE:
                what = f"{one.kind} of {name} ({interrupt}) is past its deadline, and no worker recorded that"
                yield self._found("deadline", what, at, self._revive())
            else:
                what = f"the {'sleep' if one.kind == 'timer' else 'wait'} of {name} ({interrupt}) is over, and nobody served it"
                yield self._found("due", what, at, self._revive())

    def _revive(self) -> str:
        verb = {"paused": "resume", "failed": "retry"}.get(self.row.status)
        return f"`{self._command(verb)}`" if verb else f"start a worker for {self.row.agent or 'it'}: `ownloop worker FILE.py`"

    def _unserved(self) -> Iterator[Finding]:
        """What a worker should have taken and none did."""
        row = self.row
        if self._late(row.lease_until):
            what = "the wake that held its lease died, and no worker took the thread"
            yield self._found("lease", what, row.lease_until, self._revive())
        if row.status != "open" or row.lease_until is not None:
            return
        if row.woken > row.seen and self._late(row.updated_at):
            yield self._missing("it has news", row.updated_at)
        elif self._late(row.due) and not self._overdue():
            yield self._found("due", "a timer is over (the model's pause, a deadline), and nobody served it", row.due, self._revive())

    def _missing(self, what: str, since: datetime) -> Finding:
        if self.agents and self.row.agent not in self.agents:
            known = ", ".join(sorted(self.agents))
            next_step = f"serve an App that has the agent {self.row.agent!r}, or `{self._command('close')}`"
            return self._found("no_agent", f"{what}, and this App has no agent {self.row.agent!r} (it has {known})", since, next_step)
        return self._found("unserved", f"{what}, and no worker took it", since, self._revive())


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


# ---- legal transitions -------------------------------------------------------------------------------------------------------------

FACTS = frozenset({"outcome", "late", "not_started", "tried"})
"""What may still come in whatever the thread's status: a fact is never fenced."""
BEGINS = frozenset({"started", "request", "appended", "compacted", "turn_ended", "failed"})
"""What needs an open thread."""


def illegal(thread_id: str, events: list[Event], history: History) -> Iterator[tuple[Event, str]]:
    """Events that the protocol does not allow where they stand, each with the rule; `history` reads them on the way.

    Source: the wake protocol (docs/design.md, "Storage and the wake protocol").
    """
    status, position = "open", 0
    for event in events:
        position += 1
        if event.seq != position:
            yield event, f"position {position} is missing"
            position = event.seq
        if position == 1 and event.kind != "input":
            yield event, "a log begins with the thread's input"
        if (why := _against_status(event, status) or _against_step(event, history) or _against_request(event, history)) is not None:
            yield event, why
        history.add([event])
        status = _status(event, status)


def _status(event: Event, before: str) -> str:
    if event.kind == "failed":
        return "failed"
    if event.kind != "control":
        return before
    after = {"pause": "paused", "resume": "open", "retry": "open", "cancel": "cancelled", "close": "closed"}
    return after.get(str(event.data["verb"]), before)


def _against_status(event: Event, status: str) -> str | None:
    if status in ENDED and event.kind not in FACTS:
        return f"the thread was {status} already"
    if status in ("paused", "failed") and event.kind in BEGINS:
        return f"the thread was {status}, and this begins something"
    if status == "failed" and event.kind in ("selected", "model_failed"):
        return "the thread had failed, and nobody retried it"
    return None


def _against_step(event: Event, history: History) -> str | None:
    step = history.steps.get(event.step_id or "")
    if event.kind == "selected":
        return "the step was selected before" if step is not None else None
    if step is None or "request" in event.data:
        return None
    if step.ended is not None and (event.kind in ("started", "request") or (event.kind == "ended" and step.status != "superseded")):
        return "the step had ended"
    op = step.ops.get(event.op or "")
    if op is None:
        return "an outcome of a call that never started" if event.kind == "not_started" else None
    if event.kind == "outcome" and op.outcome is not None:
        return f"{op.key} had its outcome at {op.outcome.seq}; a second one is `late`"
    return _second_start(event, step, op) if event.kind == "started" else None


def _second_start(event: Event, step: StepLog, op: Op) -> str | None:
    """A function with effects starts again only with a person's, a verify step's or the tool's own word."""
    if op.outcome is not None:
        return f"{op.key} started again although its outcome is recorded at {op.outcome.seq}"
    if not op.started or event.data.get("in_doubt") == "retry":
        return None
    doubts = [one for one in step.requests.values() if one.kind == "in_doubt" and one.event.data["call"] == op.key]
    if any(one.is_open for one in doubts):
        return f"{op.key} started again although a person is asked whether it happened"
    return None if "after" in event.data else f"{op.key} started again, and nobody said that its start at {op.started[-1].seq} did not happen"


def _against_request(event: Event, history: History) -> str | None:
    if "request" not in event.data or event.kind == "late" or event.data["request"] == 0:
        return None
    request = history.requests.get(event.data["request"])
    if request is None:
        return f"it answers a request at {event.data['request']}, and there is none"
    if not request.is_open:
        return f"the interrupt at {request.event.seq} was {request.status} already"
    by_person = event.kind == "vote" or (event.kind == "decision" and event.by is not None)
    if by_person and "expires_at" in request.event.data and event.at >= from_micros(request.event.data["expires_at"]):
        return f"the interrupt at {request.event.seq} had expired"
    return None
