"""One hand-out of one step: what the branch has met, how often, and where it parks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from .errors import ProgramChanged, Suspend, is_unwinding
from .events import Draft, Event, Json, Kind, canonical, sparse
from .history import Op, Request, StepLog
from .interrupts import ApprovalPolicy, InterruptKind, OnExpiry, Vote
from .wake import Wake

T = TypeVar("T")

UNAWAITED = "step.approved(…) was called without `await`"
"""Stands among what a branch has met from the call of `approved` until it is awaited."""
MOMENT = 25
"""Turns of the event loop in which siblings of a `gather` can read what is recorded for them."""


@dataclass
class Branch:
    """The state of a step while its branch runs. It begins anew on every wake, and with every hand-out.

    Attributes:
        upto: the position of the log at the hand-out: what people did later is not there yet.
        met: operations that this hand-out has read or begun.
        waiting: an operation has suspended; nothing new starts until the step is handed out again.
        closed: reason and result given to `step.close`.
        covered: a compaction may have left out what this (named) step holds; it is read before the first operation.
        passed: digests of the arguments of calls that this hand-out has asked for.
    """

    wake: Wake
    log: StepLog
    upto: int
    met: set[str] = field(default_factory=set)
    waiting: bool = False
    closed: tuple[str | None, Json] | None = None
    covered: bool = False
    passed: dict[str, str | None] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def arguments(self) -> Mapping[str, Json]:
        """The recorded arguments with people's edits."""
        return self.wake.history.effective(self.log, self.log.arguments, self.upto)

    async def read(self) -> None:
        """Have the whole step in memory, also what a compaction covers. Siblings wait for the one that reads, in their order."""
        async with self._reading:
            if self.covered:
                wake = self.wake
                wake.history.recall(await wake.store.recall(wake.thread_id, self.log.id, wake.history.covered))
                self.covered = False

    def begin_again(self, upto: int) -> None:
        """The program names the step once more in this wake: its operations are counted from the first again."""
        self.upto = upto
        self._counts.clear()

    def closed_requests(self, *kinds: InterruptKind) -> list[Request]:
        """Requests of these kinds that are closed, as seen from the hand-out."""
        history = self.wake.history
        return [one for one in self.log.requests.values() if one.kind in kinds and history.closing(one, self.upto) is not None]

    def key(self, kind: str, what: str = "", label: str | None = None) -> str:
        """The next operation of this kind and content: "run:deploy", then "run:deploy#2"; with a label "run:restart@web-1"."""
        base = kind + (f":{spelled(what)}" if what else "") + (f"@{spelled(label)}" if label else "")
        count = self._counts[base] = self._counts.get(base, 0) + 1
        return base if count == 1 else f"{base}#{count}"

    def op(self, key: str) -> Op | None:
        """What is recorded under a key; it counts as read from now on."""
        self.met.add(key)
        return self.log.ops.get(key)

    def suspend(self) -> Suspend:
        """The exception that unwinds this branch; nothing new starts in it."""
        self.waiting = True
        return self.wake.suspend()

    def or_suspend(self, found: T | None) -> T:
        """What an operation has given; unwinds this branch while that is nothing."""
        if found is None:
            raise self.suspend()
        return found

    def end(self, status: str | None = None) -> Draft:
        """The end of the step, with what `step.close` said."""
        reason, result = self.closed or (None, None)
        return Draft("ended", sparse(status=status, reason=reason or None, result=result), self.log.id)

    def check_may_start(self) -> None:
        """Nothing starts in a step that waits, or that a message superseded."""
        if self.waiting or self.log.ended is not None or is_unwinding():
            raise self.suspend()

    async def check_nothing_unread(self) -> None:
        """No function starts in a step that holds an approval which is not granted, or a call in doubt, that this hand-out has not read.

        Raises:
            ProgramChanged: the program went another way than the log.
        """
        if (what := await still_unread(self._unread)) is not None:
            raise ProgramChanged(self.log.id, f"{what}, and this program passed it by")

    def _unread(self) -> str | None:
        if UNAWAITED in self.met:
            return UNAWAITED
        for request in self.log.requests.values():
            if request.kind in ("approval", "result") and request.event.op not in self.met and not self._is_granted(request):
                state = "open" if self.wake.history.closing(request, self.upto) is None else request.event.data["kind"] + " and not granted"
                return f"{request.event.op} is {state}"
        doubts = (op.key for op in self.log.doubts() if op.key not in self.met and (self.log.id, op.key) not in self.wake.live)
        return next((f"{key} may have happened" for key in doubts), None)

    def _is_granted(self, request: Request) -> bool:
        if request.status in ("superseded", "withdrawn"):
            return True  # it asks nothing any more
        decision = None if self.wake.history.closing(request, self.upto) is None else request.decision()
        if decision is None or not decision.granted:
            return False
        if decision.kind == "approved" or decision.by is None:
            return True
        policy = ApprovalPolicy.from_json(canonical(request.event.data["policy"]))
        return policy.satisfied_by([Vote(decision.by, "edited", decision.at)]) or self._is_asked_anew(request, decision.value)

    def _is_asked_anew(self, edited: Request, arguments: Json) -> bool:
        """Whether the program has asked for these arguments, or did and people went on to others."""
        later = (one for one in self.log.requests.values() if one.event.seq > edited.event.seq and one.event.data.get("arguments") == arguments)
        return any(one.kind == "approval" and (one.event.op in self.met or (one.status == "decided" and self._is_granted(one))) for one in later)

    def request(self, kind: InterruptKind, key: str, fields: Mapping[str, Json], expires: datetime | timedelta | None = None) -> Draft:
        """A request of this step, for `park`."""
        return Draft("request", {"kind": kind, "name": self.log.name, **fields}, self.log.id, key, expires=expires)

    async def park(self, key: str, draft: Draft, *, on_expiry: OnExpiry = "reject") -> Event | None:
        """Wait for an interrupt: its closing event if there is one, else None, with the request in the log and this branch waiting.

        `draft` is the request if none was made yet. One that has expired is asked anew with `on_expiry="ask_again"` at once, with "fail" after a
        retry.
        """
        await self.read()
        history, wake = self.wake.history, self.wake
        op = self.op(key)
        request = op.request if op is not None else None
        if request is None or self._is_over(request, on_expiry):
            if self.log.ended is not None:
                raise self.suspend()
            events = await wake.begin(draft)
            request = self.log.requests[events[0].seq]
            on_expiry = "reject"  # one that is over at once is not asked for ever
        if self._is_overdue(request):
            await wake.settle(self._over(request))
            if on_expiry == "ask_again" and request.status == "expired":
                return await self.park(key, draft, on_expiry=on_expiry)
        closing = history.closing(request, self.upto)
        if closing is None:
            self.waiting = True
        return closing

    async def close_overdue(self) -> None:
        """Close what waits past its deadline although the program passed it by."""
        if overdue := [self._over(one) for one in self.log.open_requests() if self._is_overdue(one)]:
            await self.wake.settle(*overdue)

    def _is_overdue(self, request: Request) -> bool:
        return request.is_open and request.expires_at is not None and request.expires_at <= self.wake.now

    def _over(self, request: Request) -> Draft:
        """What closes a request whose deadline has passed."""
        if request.kind == "timer":
            return self._closing("outcome", request)
        if request.kind == "event":
            return self._closing("outcome", request, timed_out=True)
        return self._closing("decision", request, kind="expired")

    def _closing(self, event: Kind, request: Request, **fields: Json) -> Draft:
        return Draft(event, {"request": request.event.seq, **fields}, self.log.id, request.event.op)

    def _is_over(self, request: Request, on_expiry: OnExpiry) -> bool:
        """Whether a recorded request asks nothing any more, so that a new one must be made."""
        closing = self.wake.history.closing(request, self.upto)
        if request.status != "expired" or closing is None:
            return request.status in ("superseded", "withdrawn")
        return on_expiry == "ask_again" or (on_expiry == "fail" and closing.seq < self.wake.history.retried)

    def superseded(self) -> list[Draft]:
        """Open requests that the program passed by for a later one: they are closed with that word."""
        waiting = [one for one in self.log.open_requests() if one.event.op in self.met and one.kind != "child"]
        newest = max((one.event.seq for one in waiting), default=0)
        passed = [one for one in self.log.open_requests() if one.event.op not in self.met and one.event.seq < newest]
        kinds = ("approval", "question", "result", "event", "timer")
        return [self._closing("decision", one, kind="superseded") for one in passed if one.kind in kinds]


def spelled(name: str) -> str:
    """A name as a part of a key: no `#` of it is taken for a count, and every store can hold it."""
    return name.replace("#", "##").replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


async def still_unread(unread: Callable[[], str | None]) -> str | None:
    """What is unread although the siblings of a `gather` have had a moment to read theirs."""
    for _ in range(MOMENT):
        if unread() is None:
            return None
        await asyncio.sleep(0)
    return unread()
