"""What every store keeps. The docstrings are the promises; `ownloop.testing.StoreContract` holds a store to them.

A thread is one row and its log. The row coordinates: `head` (last position), `woken` (position of the last event from outside), `seen` (how much
of the log the last ended wake had read), `epoch`, `released`, `lease_until`, `due`, `status`. Runnable is

    status = 'open' AND (lease_until <= now OR (lease_until IS NULL AND (woken > seen OR due <= now)))

and, for steps set aside past the end of a turn, `status = 'done' AND due <= now`. "Now" is always the store's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, TypedDict, TypeVar, Unpack, cast, get_args

from ..clock import Clock
from ..events import Draft, Event, Json
from ..ids import thread_number
from ..interrupts import InterruptKind, InterruptStatus

Status = Literal["open", "paused", "done", "failed", "cancelled", "closed"]
ENDED: frozenset[str] = frozenset({"cancelled", "closed"})
"""Statuses that nothing leaves: no event from outside is taken."""
ControlVerb = Literal["pause", "resume", "cancel", "retry", "close", "hold", "release_hold"]
NoticeName = Literal["thread.started", "thread.done", "thread.failed", "thread.cancelled", "thread.closed", "interrupt.opened", "interrupt.resolved"]


class Fenced(Exception):
    """A begin was refused: the lease is lost, the thread is not open, or something must be read first.

    `why`: "lease", "superseded", "overtaken", or the thread's status.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"refused: {why}")
        self.why = why


class Refused(Exception):
    """An event from outside was refused. `why`: "missing", "decided", "expired", "digest", "votes", "moved", or the thread's status."""

    def __init__(self, why: str) -> None:
        super().__init__(f"refused: {why}")
        self.why = why


@dataclass(frozen=True, slots=True)
class ThreadRow:
    """One thread's row. `turns`: how many have ended; `last_end`: its last `turn_ended` or `failed` event; `parent`: thread id and position of
    the request that spawned it."""

    id: str
    agent: str
    key: str | None
    status: Status
    turns: int
    head: int
    woken: int
    seen: int
    epoch: int
    released: int
    lease_until: datetime | None
    due: datetime | None
    context: Mapping[str, Json]
    parent: tuple[str, int] | None
    created_at: datetime
    updated_at: datetime
    last_end: Event | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease: until it runs out nobody else begins anything in this thread.

    Attributes:
        row: the thread as it is now; `row.head` is the snapshot, `row.epoch` this wake's.
        now: the store's clock at the claim; time inside the wake.
        holds: what the operator's breakpoints on this thread and its agent say (None: every intent).
    """

    row: ThreadRow
    now: datetime
    holds: tuple[str | None, ...] = ()

    @property
    def crashes(self) -> int:
        """How many wakes in a row before this one died without an end."""
        return self.row.epoch - 1 - self.row.released


@dataclass(frozen=True, slots=True)
class Begun:
    """What a begin wrote, and, of a selecting one, the breakpoints as they stood in that commit."""

    events: list[Event]
    holds: tuple[str | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class NewThread:
    """A thread to create, with the events it begins with."""

    agent: str
    drafts: Sequence[Draft]
    key: str | None = None
    context: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pulse:
    """What somebody who holds a lease must know."""

    status: Status
    woken: int
    epoch: int


@dataclass(frozen=True, slots=True)
class InterruptRow:
    """An interrupt's request and what closed it."""

    thread_id: str
    agent: str
    status: str
    request: Event
    votes: tuple[Event, ...] = ()
    closing: Event | None = None

    def after(self, answer: Event) -> InterruptRow:
        """As it is once a `vote` or a person's `decision` has been recorded."""
        return replace(self, votes=(*self.votes, answer)) if answer.kind == "vote" else replace(self, status="decided", closing=answer)


@dataclass(frozen=True, slots=True)
class Record:
    """A value of the `records` table. `version` rises with every put."""

    value: Json
    version: int
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NoticeRow:
    """An undelivered line of the outbox."""

    id: int
    name: NoticeName
    thread_id: str
    interrupt_seq: int | None
    at: datetime
    tries: int


@dataclass(frozen=True, slots=True)
class Note:
    """What is remembered about an owner ("customer:42"), beside all threads; `at`: when it was last written."""

    owner: str
    key: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Tally:
    """How many interrupts wait for a person, of one agent and kind, snoozed or not."""

    agent: str
    kind: str
    is_snoozed: bool
    count: int


class ThreadFilter(TypedDict, total=False):
    """Which threads; what is None does not matter.

    Attributes:
        context: those whose context holds these pairs; a name that is not there differs from null.
        q: those whose agent, key or input (as JSON, up to `rules.VALUE_LIMIT`) holds this text; A to Z in either case.
        limit: at most so many, by default 50.
        after: the last id of the page before.
    """

    agent: str | None
    status: str | None
    key: str | None
    context: Mapping[str, Json] | None
    q: str | None
    limit: int
    after: str | None


class InterruptFilter(TypedDict, total=False):
    """Which interrupts; what is None does not matter.

    Attributes:
        kinds: of one of these kinds.
        name: whose request has this name: the intent's, or the named step's.
        status: by default "open"; None: whatever it is.
        context: those of threads whose context holds these pairs; a name that is not there differs from null.
        q: those whose agent, thread's key, name, question or arguments (as JSON, up to `rules.VALUE_LIMIT`) hold this text; A to Z in either case.
        snoozed: True: those that a record of the space "snooze" names by their id; False: the others.
        order: "age", oldest first, which is the default; or "urgency": what a person can decide and has a deadline, soonest first, then the others
            by age.
        limit: at most so many, by default 50.
    """

    agent: str | None
    kind: str | None
    kinds: Collection[str] | None
    name: str | None
    status: str | None
    context: Mapping[str, Json] | None
    q: str | None
    snoozed: bool | None
    order: Literal["age", "urgency"]
    limit: int


F = TypeVar("F", ThreadFilter, InterruptFilter)


def asked(kind: type[F], filters: F) -> F:
    """The filters as they are: a name or a value that is mistyped would find nothing, or everything, and say nothing.

    Raises:
        TypeError: there is no such filter, or the agent is no name.
        ValueError: there is no such status, no such kind of interrupt, or `after` is no thread's id.
    """
    given = cast(Mapping[str, Any], filters)
    if unknown := given.keys() - kind.__annotations__.keys():
        raise TypeError(f"{min(unknown)}= is no filter; choose from {', '.join(kind.__annotations__)}")
    if not isinstance(given.get("agent"), str | None):
        raise TypeError(f"agent={given['agent']!r}: a filter takes the agent's name, a text")
    known = {"status": get_args(Status if kind is ThreadFilter else InterruptStatus), "kind": get_args(InterruptKind)}
    for name, values in known.items():
        if given.get(name) is not None and given[name] not in values:
            raise ValueError(f"{name}={given[name]!r} is none of {', '.join(values)}")
    if given.get("after") is not None and thread_number(given["after"]) is None:
        raise ValueError(f"after={given['after']!r} is no thread's id; give the last one of the page before")
    return filters


class Store(Protocol):
    """A log per thread and the row that coordinates it.

    Every method is one transaction: all of it is on disk when the call returns, or none of it ever is. Whoever is told "ok" was told after the
    commit. Positions are given by the store, contiguous from 1. Refusals raise `Fenced` or `Refused`, trouble with the medium a `StoreError`.
    """

    clock: Clock
    url: str

    async def open(self) -> None:
        """Connect, create or migrate the schema; may be called again. Raises NotAStore, NewerSchema, StoreReadOnly."""
        ...

    async def close(self) -> None:
        """Finish what was begun and let go of every resource."""
        ...

    def listen(self, heard: Callable[[Collection[str] | None], None]) -> Callable[[], None]:
        """Call `heard` after every commit, from any thread: with the ids of the threads it touched, or None when another process committed (within
        100 ms). Returns how to stop."""
        ...

    # ---- the wake -----------------------------------------------------------------------------------------------------------

    async def claim(self, thread_id: str, agents: Collection[str] | None, ttl: timedelta) -> Claim | None:
        """Take the lease if the thread is runnable and of one of `agents`: `epoch += 1`. With `agents=None`: of any agent, and also if it is not
        runnable, as long as it is open, paused, done or failed and nobody holds a lease (the lease outside a wake). A done thread opens."""
        ...

    async def runnable(self, agents: Collection[str], limit: int) -> tuple[list[str], datetime | None]:
        """Ids of threads that can be claimed, longest ready first, and the next moment at which another one may become so."""
        ...

    def renew(self, leases: Mapping[str, int], ttl: timedelta) -> dict[str, Pulse | None]:
        """Prolong leases (thread id → epoch) that have not run out; None where the lease is lost. A lease that ran out is never revived. Left out is
        what could not be asked: somebody's transaction holds its row, and it was not prolonged.
        Blocking; callable from any OS thread."""
        ...

    async def pulse(self, thread_ids: Collection[str]) -> dict[str, Pulse]:
        """The same look without renewing anything."""
        ...

    async def release(self, thread_id: str, epoch: int, *, seen: int, due: datetime | None) -> bool:
        """End the wake: `lease_until = NULL, seen, due, released = epoch`, only for its own epoch. Returns whether the thread is runnable at once."""
        ...

    async def begin(self, thread_id: str, epoch: int, drafts: Sequence[Draft], *, known: int, selecting: bool = False) -> Begun:
        """Append what the handler is about to do. Requires its own epoch and a lease that has not run out; an open status (a `selecting` one passes
        on a paused thread); and that no superseding message came after position `known`.

        - A `request` opens an interrupt; its `data` gets `digest`, and `expires_at` from the draft's `expires`.
        - A `request` of kind "event" also looks into the mailbox in the same commit: the oldest event of its name and key emitted since the thread's
          start that this thread has not had is delivered at once (the events then hold a `delivered`).
        - A `started` whose data holds `after` is refused as "overtaken" when an outcome of its operation stands after that position; so is the
          question about a call in doubt when an outcome of the call stands after `known`: nobody is asked about a known fact.
        - `selected` counts as progress: the wakes before this one are not counted as crashes any more.
        """
        ...

    async def spawn(self, thread_id: str, epoch: int, draft: Draft, child: NewThread, *, known: int) -> Event:
        """`begin` of one request of kind "child" and the creation of that child in one commit; the event's data holds its id as `child`."""
        ...

    async def fact(self, thread_id: str, epoch: int, draft: Draft, *, started: int | None = None) -> Event:
        """Append what happened. Never fenced. The first outcome of an operation wins and withdraws an open in-doubt interrupt of it; a later one is
        appended as `late`. Without a held lease of this epoch it also sets `woken = head`. `started` is the position of the operation's first
        `started`; an outcome is looked for after it. An outcome counts as progress."""
        ...

    async def settle(self, thread_id: str, epoch: int, drafts: Sequence[Draft]) -> list[Event]:
        """Close interrupts of this thread by clock or program (`data["request"]` names them): expired, timed out, over, superseded. Fenced like a
        begin, whatever the status. An interrupt that is not open any more is left as it is; the result holds only what was written."""
        ...

    async def finish(
        self,
        thread_id: str,
        epoch: int,
        drafts: Sequence[Draft],
        *,
        status: Literal["done", "failed"],
        seen: int,
        due: datetime | None,
        aside: Collection[str] = (),
        tell: Draft | None = None,
    ) -> bool:
        """End the turn, or fail, and release the lease in one commit; fenced like a begin that needs an open status.

        Withdraws the open interrupts of the steps that `drafts` end, and those of named steps (never of kind "child"). For "done": if a message
        stands after `data["read"]` of the `turn_ended` draft, or something closed an interrupt of a step in `aside` after position `seen`, the
        thread stays open and is runnable at once (returned). `tell` is the outcome for the parent's open request, appended there in the same
        commit, the parent's row locked first; if that request is not open any more, nothing is told.
        """
        ...

    # ---- from outside ---------------------------------------------------------------------------------------------------------

    async def create(self, new: NewThread) -> tuple[str, bool]:
        """A new thread, open and runnable; or the id of the one with that agent and key, and False. The drafts' step ids become those of the
        new thread. What the drafts tell of the past (a fork) causes no notice but "thread.started"."""
        ...

    async def message(self, thread_id: str, drafts: Sequence[Draft], *, dedupe: str | None = None, at_head: int | None = None) -> tuple[Event, bool]:
        """Append a message (the first draft) and wake the thread; a done thread opens. With a `dedupe` that this thread has had: the first event and
        False. With `at_head`: Refused("moved") if the log is longer; more drafts end steps that the message supersedes."""
        ...

    async def control(self, thread_id: str, verb: ControlVerb, draft: Draft) -> bool:
        """Change a thread's status: pause (open → paused), resume (paused → open, wakes), retry (failed or open → open, wakes, forgets crashes),
        cancel and close (→ cancelled, closed: the lease is taken away, open interrupts are withdrawn, the parent hears of it as an error; cancel
        goes down to open children in the same commit). hold and release_hold only write. False, and nothing written, where the thread is in that
        state already; Refused with its status where the verb makes no sense."""
        ...

    async def decide(self, thread_id: str, seq: int, draft: Draft, *, digest: str | None, votes: int) -> Event:
        """Append a `decision` or a `vote` on the interrupt at `seq` in one statement that checks: it is open, not expired by the store's clock, its
        digest is the one given, and it has `votes` votes so far. A decision closes it and wakes the thread; a done thread opens.
        Raises Refused("missing" | "decided" | "expired" | "digest" | "votes")."""
        ...

    async def emit(self, name: str, key: str | None, id: str | None, payload: Json) -> bool:
        """Put an event into the mailbox and deliver it to the oldest open wait for it in every thread. False: that id was known, nothing was done.
        Kept 7 days for those who wait later. Takes the same lock as a wait on (name, key)."""
        ...

    # ---- reading ----------------------------------------------------------------------------------------------------------------

    async def load(self, thread_id: str, upto: int) -> list[Event]:
        """What a wake must read, up to a position: everything after the last compaction, that compaction, the first event, and the events it kept."""
        ...

    async def events(self, thread_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """The log itself, in order."""
        ...

    async def recall(self, thread_id: str, step_id: str | None, upto: int) -> list[Event]:
        """Events of a named step, or (with None) the handler's notes, up to a position: what `load` may have left out."""
        ...

    async def thread(self, thread_id: str) -> ThreadRow | None:
        """One row."""
        ...

    async def find(self, agent: str, key: str) -> str | None:
        """The id of the thread with that agent and key."""
        ...

    async def threads(self, **filters: Unpack[ThreadFilter]) -> list[ThreadRow]:
        """Rows, newest first."""
        ...

    async def interrupts(
        self, *, thread: str | None = None, after: tuple[str, int] | None = None, **filters: Unpack[InterruptFilter]
    ) -> list[InterruptRow]:
        """Interrupts, of one thread or of all, in the order that is asked for; `after` is the last one of the page before."""
        ...

    async def waiting(self) -> list[tuple[str, int]]:
        """All open interrupts that a person can decide: thread id and position, in no order."""
        ...

    async def tally(self, *, context: Mapping[str, Json] | None = None) -> list[Tally]:
        """How many of those there are, in threads whose context holds these pairs."""
        ...

    async def heads(self, thread_ids: Collection[str]) -> dict[str, int]:
        """The last position of each of these logs that is there."""
        ...

    async def interrupt(self, thread_id: str, seq: int) -> InterruptRow | None:
        """One interrupt with its votes and what closed it."""
        ...

    # ---- notes -----------------------------------------------------------------------------------------------------------------

    async def note(self, owner: str, key: str, text: str) -> Note:
        """Write the note with that key; one that says the same already is left as it is, with its time."""
        ...

    async def notes(self, owner: str, query: str | None = None, *, limit: int = 50) -> list[Note]:
        """An owner's notes, newest first. With a query: those with a word that begins as one of the query's words does (`rules.words_of`), the
        best match first and the newest of equals. A query is only words: nothing in it is an operator, and one without a word finds nothing."""
        ...

    async def forget_notes(self, owner: str, key: str | None = None) -> int:
        """Delete one note, or all of an owner; how many there were. Nothing else deletes a note: `prune` leaves them alone."""
        ...

    # ---- records, outbox, upkeep -----------------------------------------------------------------------------------------------

    async def get(self, space: str, key: str) -> Record | None:
        """A record that has not expired."""
        ...

    async def put(self, space: str, key: str, value: Json, *, expect: int | None = None, ttl: timedelta | None = None) -> bool:
        """Write a record. `expect`: only if its version is this (0: only if there is none); False otherwise. The version goes on rising over an
        expiry, so that who held the record then cannot write over the next holder's."""
        ...

    async def drop(self, space: str, key: str) -> bool:
        """Delete a record; whether there was one."""
        ...

    async def records(self, space: str, prefix: str = "", *, beyond: datetime | None = None) -> dict[str, Record]:
        """The records of a space whose key begins so, by key; with `beyond` only those that expire, and after that time: where all are written with
        one `ttl`, those written since."""
        ...

    async def subscribe(self, names: Collection[NoticeName]) -> None:
        """From now on commits write these notices into the outbox, in the same transaction, whoever commits."""
        ...

    async def notices(self, names: Collection[NoticeName], limit: int, ttl: timedelta) -> list[NoticeRow]:
        """Take undelivered notices, hidden from others for `ttl`; not told of again once `delivered` says so."""
        ...

    async def delivered(self, notice_ids: Collection[int]) -> None:
        """Forget notices."""
        ...

    async def prune(self, before: datetime) -> int:
        """Forget threads that are done, cancelled or closed, wait for nothing and were last touched before that time; notices that nobody has taken
        since; and mail older than 7 days. How many threads."""
        ...

    async def check(self) -> list[str]:
        """What is wrong with the store itself: gaps in a log, a row that contradicts its log. Empty when all is well."""
        ...
