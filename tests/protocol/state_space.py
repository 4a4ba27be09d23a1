"""Every order of what three workers, crashes, leases and the world can do to one thread, driven through the real `MemoryStore`.

A state is the store's own thread and what each worker knows. A worker is a wake as `runner.py` runs it: it claims, looks at the log up to its
snapshot, does one thing after another (select, ask for approval, note, begin, effect, fact, wait, finish) and parks by `release(seen=snapshot)`.
Each step of a worker is one call of the store, or the effect itself. Between any two of them anything may happen.
"""

from __future__ import annotations

import copy
import random
from collections import Counter, deque
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, get_origin, get_type_hints

from program import Action, plan
from ownloop import ids
from ownloop.events import Draft, Event
from ownloop.stores.base import Fenced, NewThread, Refused
from ownloop.stores.memory import MemoryStore
from ownloop.stores.memory.tables import Thread
from ownloop.testing import FakeClock
from ownloop.testing.store_scene import TTL

MAX_WAKES = 4
"""Wakes that one event from outside may cause, productive ones included; more is a spin."""
BEGUN = ("selected", "started", "request", "appended", "turn_ended")


class Violation(AssertionError):
    """The protocol broke its word."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A wake in flight: its epoch, the head at its claim, what it wrote itself, and until when it believes in its lease."""

    epoch: int
    snapshot: int
    until: datetime
    now: datetime
    own: tuple[int, ...] = ()
    phase: str = "look"  # look, effect, result, stop (a begin was refused, nothing more begins)
    start: int = 0

    def sees(self, events: Sequence[Event]) -> list[Event]:
        return [event for event in events if event.seq <= self.snapshot or event.seq in self.own]

    @property
    def head(self) -> int:
        """What it has read without a gap."""
        head = self.snapshot
        while head + 1 in self.own:
            head += 1
        return head


@dataclass(frozen=True, slots=True)
class State:
    """`budget`: what may still happen, by name. `effects`: how often the deployment really took place. `credit`: events from outside that may
    still cause a wake in which nothing is done; `wakes`: claims since the last of them."""

    thread: Any
    mail: Any
    now: datetime
    workers: tuple[Worker | None, ...]
    budget: tuple[tuple[str, int], ...]
    effects: int = 0
    credit: int = 1
    wakes: int = 0

    def has(self, name: str) -> bool:
        return dict(self.budget).get(name, 0) > 0

    def spend(self, name: str) -> State:
        left = Counter(dict(self.budget))
        left[name] -= 1
        return replace(self, budget=tuple(sorted((+left).items())))

    def told(self) -> State:
        """Something came from outside: one more wake may find nothing to do. (At most two are saved up: stricter, and fewer states.)"""
        return replace(self, credit=min(self.credit + 1, 2), wakes=0)


@dataclass(frozen=True)
class Scenario:
    """What may happen: how many workers, and how often each of "crash", "freeze", "decide", "message", "pause", "resume", "cancel", "emit",
    "supersede". `waits`: the program waits for an event, with a timeout, before it ends."""

    workers: int
    budget: dict[str, int]
    waits: bool = False
    limit: int = 5_000_000


@dataclass
class Result:
    states: int = 0
    transitions: int = 0
    taken: Counter[str] = field(default_factory=Counter)


def now(call: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        call.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the memory store waited for something")


def copied(thread: Any) -> Any:
    """A thread of the store that shares nothing that changes."""
    twin = copy.copy(thread)
    for name in NAMES:
        setattr(twin, name, getattr(thread, name).copy())
    for seq, item in thread.interrupts.items():
        mine = twin.interrupts[seq] = copy.copy(item)
        mine.votes = item.votes.copy()
    return twin


NAMES = [one.name for one in fields(Thread) if get_origin(get_type_hints(Thread)[one.name]) in (list, dict)]


class Explorer:
    """All states that a scenario can reach on a store, each looked at once."""

    def __init__(self, scenario: Scenario, store_class: type[MemoryStore] = MemoryStore) -> None:
        self.scenario = scenario
        self.clock = FakeClock()
        self.store = store_class(self.clock)
        self.id, _ = now(self.store.create(NewThread("bot", [Draft("input", {"input": 1})])))
        thread = self.store._threads[self.id]
        budget = tuple(sorted(scenario.budget.items()))
        self.first = State(thread, {}, self.clock.now(), (None,) * scenario.workers, budget)

    # ---- search --------------------------------------------------------------------------------------------------------------

    def run(self) -> Result:
        """Visit everything.

        Raises:
            Violation: with the shortest way to it.
        """
        result = Result()
        first = self._key(self.first)
        came: dict[int, tuple[int, str]] = {first: (0, "")}
        queue = deque([(self.first, first)])
        while queue:
            state, key = queue.popleft()
            result.states += 1
            label = ""
            try:
                moves = 0
                for label, after in self._moves(state):
                    moves += 1
                    result.transitions += 1
                    result.taken[label.split(":")[-1]] += 1
                    known = self._key(after)
                    if known not in came:
                        came[known] = (key, label)
                        queue.append((after, known))
                self._check_rest(state)
            except Violation as broken:
                raise Violation(f"{broken}; after: {' '.join([*self._way(came, key), label])}") from None
            if result.states > self.scenario.limit:
                raise AssertionError(f"more than {self.scenario.limit} states")
        return result

    def walk(self, chance: random.Random) -> Result:
        """One way through, chosen by chance, until nothing can happen any more."""
        result, state, way = Result(), self.first, list[str]()
        try:
            while moves := list(self._moves(state)):
                self._check_rest(state)
                label, state = chance.choice(moves)
                way.append(label)
                result.taken[label.split(":")[-1]] += 1
            self._check_rest(state)
        except Violation as broken:
            raise Violation(f"{broken}; after: {' '.join(way)}") from None
        return result

    @staticmethod
    def _way(came: dict[int, tuple[int, str]], key: int) -> list[str]:
        labels: list[str] = []
        while came[key][0]:
            key, label = came[key]
            labels.append(label)
        return labels[::-1]

    def _key(self, state: State) -> int:
        """What the future depends on: times and epochs count only as distances, workers are alike."""
        row = state.thread.row
        workers = sorted(self._worker_key(state, one) for one in state.workers if one is not None)
        lease = None if row.lease_until is None else row.lease_until > state.now
        due = None if row.due is None else max(row.due - state.now, -TTL)
        waits = tuple((seq, max(at - _micros(state.now), 0)) for seq, item in state.thread.interrupts.items() if (at := _deadline(item)) is not None)
        log = tuple(_label(event) for event in state.thread.events)
        status = tuple(item.status for item in state.thread.interrupts.values())
        counters = (row.status, row.woken, row.seen, lease, due, state.thread.barrier, waits)
        mail = tuple(len(box) for box in state.mail.values())
        return hash((counters, log, status, tuple(workers), mail, state.budget, state.effects, state.credit, state.wakes))

    def _worker_key(self, state: State, one: Worker) -> tuple[Any, ...]:
        if one.epoch < state.thread.row.epoch and one.phase in ("effect", "result"):  # its fact is all that is left of it
            return (1, 0, one.own[-1:], one.phase, one.start)
        times = (one.until > state.now, (state.now - one.now).total_seconds())
        return (state.thread.row.epoch - one.epoch, one.snapshot, one.own, one.phase, one.start, times[: 1 + self.scenario.waits])

    # ---- moves -----------------------------------------------------------------------------------------------------------------

    def _moves(self, state: State) -> Iterator[tuple[str, State]]:
        """Everything that can happen next. A worker that another one has replaced is dealt with first where the store refuses it: that changes
        nothing, now or later, so it need not be tried in every order."""
        for place, worker in enumerate(state.workers):
            if worker is not None and worker.epoch < state.thread.row.epoch and worker.phase in ("look", "stop"):
                label, after = self._work(state, place, worker)
                if after.workers[place] is None and after.thread.events == state.thread.events and after.thread.row == state.thread.row:
                    yield label, after
                    return
        idle = True
        for place, worker in enumerate(state.workers):
            if worker is None:
                if idle and (claimed := self._claim(state, place)) is not None:  # idle workers are alike: one of them tries
                    yield f"{place}:claim", claimed
                idle = False
                continue
            self._try_to_revive(state, worker)
            yield self._work(state, place, worker)
            if state.has("crash"):
                yield f"{place}:crash", self._replaced(state.spend("crash").told(), place, None)
        yield from self._world(state)

    def _enter(self, state: State) -> None:
        """Bring the store to a state; what it does from here on touches nothing of it."""
        self.store._threads[self.id] = copied(state.thread)
        self.store._mail = {place: list(box) for place, box in state.mail.items()}
        self.store._mails = sum(map(len, state.mail.values()))
        self.clock._now = state.now

    def _left(self, state: State, by: int | None = None) -> State:
        """The state after a call of the store, and what must hold of every call. `by`: the epoch of the wake that called."""
        before, after = state.thread, self.store._threads[self.id]
        new = after.events[len(before.events) :]
        if after.row.epoch < before.row.epoch or after.row.released < before.row.released:
            raise Violation("an epoch went back")
        if [event.seq for event in after.events] != list(range(1, after.row.head + 1)):
            raise Violation("the log has a gap")
        if before.row.status == "cancelled" and any(event.kind not in ("outcome", "late", "not_started") for event in new):
            raise Violation("something began after the cancel")
        if before.row.status == "paused" and any(event.kind in ("started", "request") for event in new):
            raise Violation("something began while paused")
        held = before.row.lease_until is not None and before.row.lease_until > state.now
        if by is not None and (by != before.row.epoch or not held) and any(event.kind in BEGUN for event in new):
            raise Violation("a wake that lost its lease began something")
        if held and after.row.lease_until is None and by != before.row.epoch and after.row.status != "cancelled":
            raise Violation("a lease was taken away by somebody else")
        self._check_log(after.events, new)
        return replace(state, thread=after, mail=self.store._mail)

    @staticmethod
    def _check_log(events: Sequence[Event], new: Sequence[Event]) -> None:
        for event in new:
            before = events[: event.seq - 1]
            request = event.data.get("request")
            if request is not None and any(one.data.get("request") == request for one in before):
                raise Violation("an interrupt was closed twice")
            outcomes = [one for one in before if one.kind == "outcome" and one.op == "run:deploy"]
            if event.kind == "outcome" and event.op == "run:deploy" and outcomes:
                raise Violation("an operation has two outcomes")
            if event.kind == "decision" and outcomes and events[request - 1].data["kind"] == "in_doubt":
                raise Violation("a call in doubt was answered although its outcome is known")
            superseded = any(one.kind == "ended" and one.step_id == event.step_id for one in before)
            if event.kind in ("started", "request") and superseded:
                raise Violation("something began in a step that a message had superseded")

    @staticmethod
    def _replaced(state: State, place: int, worker: Worker | None) -> State:
        workers = list(state.workers)
        workers[place] = worker
        return replace(state, workers=tuple(workers))

    # ---- a worker ----------------------------------------------------------------------------------------------------------------

    def _claim(self, state: State, place: int) -> State | None:
        self._enter(state)
        claim = now(self.store.claim(self.id, ["bot"], TTL))
        if claim is None:
            return None
        before = state.thread.row
        if before.lease_until is not None and before.lease_until > state.now:
            raise Violation("two workers hold the lease")
        if claim.row.epoch <= before.epoch:
            raise Violation("a claim did not raise the epoch")
        if state.wakes >= MAX_WAKES:
            raise Violation("the thread spins: it is woken again and again by nothing")
        worker = Worker(claim.row.epoch, claim.row.head, state.now + TTL, claim.now)
        return self._replaced(replace(self._left(state), wakes=state.wakes + 1), place, worker)

    def _try_to_revive(self, state: State, worker: Worker) -> None:
        """The lease keeper of a worker that was frozen: what ran out stays lost."""
        row = state.thread.row
        if row.epoch != worker.epoch or row.lease_until is None or row.lease_until > state.now:
            return
        self._enter(state)
        if self.store.renew({self.id: worker.epoch}, TTL)[self.id] is not None:
            raise Violation("a lease that had run out was revived")

    def _work(self, state: State, place: int, worker: Worker) -> tuple[str, State]:
        if worker.phase == "effect":
            return self._effect(state, place, worker)
        if worker.phase == "result":
            return f"{place}:result", self._fact(state, place, worker, Draft("outcome", {"value": "done"}, self._step(1), "run:deploy"), worker.start)
        view = worker.sees(state.thread.events)
        action = plan(view, worker.now, worker.head, self.scenario.waits, self._step)
        if worker.phase == "stop" or action.verb == "park":
            return f"{place}:release", self._release(state, place, worker, action)
        if action.verb == "conclude":
            return f"{place}:conclude", self._fact(state, place, worker, action.drafts[0], action.started)
        return f"{place}:{action.verb}", self._begin(state, place, worker, action)

    def _step(self, number: int) -> str:
        return ids.step_id(self.id, number)

    def _begin(self, state: State, place: int, worker: Worker, action: Action) -> State:
        """Write what is about to happen; refused, the wake begins nothing more, and one whose lease is lost is over."""
        self._enter(state)
        try:
            if action.verb == "finish":
                now(self.store.finish(self.id, worker.epoch, action.drafts, status="done", seen=worker.head, due=None))
                return self._replaced(self._left(state, worker.epoch), place, None)
            if action.verb == "settle":
                events = now(self.store.settle(self.id, worker.epoch, action.drafts))
            else:
                selecting = action.verb == "select"
                events = now(self.store.begin(self.id, worker.epoch, action.drafts, known=worker.head, selecting=selecting)).events
        except Fenced as refusal:
            stopped = None if refusal.why in ("lease", "cancelled") else replace(worker, phase="stop")
            return self._replaced(self._left(state, worker.epoch), place, stopped)
        after = self._left(state, worker.epoch)
        own = (*worker.own, *(event.seq for event in events))
        if action.verb == "settle" and not events:  # somebody was first; the next wake reads it
            return self._replaced(after, place, replace(worker, phase="stop"))
        if action.verb == "start":
            return self._replaced(after, place, replace(worker, own=own, phase="effect", start=action.started or events[0].seq))
        return self._replaced(after, place, replace(worker, own=own))

    def _effect(self, state: State, place: int, worker: Worker) -> tuple[str, State]:
        """Right before the call the worker looks at its lease by its own clock."""
        if state.now < worker.until:
            if state.effects:
                raise Violation("the effect took place twice")
            return f"{place}:effect", self._replaced(replace(state, effects=1), place, replace(worker, phase="result"))
        started = max(event.seq for event in state.thread.events if event.kind == "started" and event.seq in worker.own)
        draft = Draft("not_started", {"started": started}, self._step(1), "run:deploy")
        after = self._fact(state, place, worker, draft, None)
        return f"{place}:not_started", self._replaced(after, place, replace(worker, phase="stop"))

    def _fact(self, state: State, place: int, worker: Worker, draft: Draft, started: int | None) -> State:
        self._enter(state)
        try:
            event = now(self.store.fact(self.id, worker.epoch, draft, started=started))
        except Fenced:
            raise Violation("the result of an effect that took place was refused") from None
        after = self._left(state)
        row = state.thread.row
        if row.epoch != worker.epoch or row.lease_until is None or row.lease_until <= state.now:
            after = after.told()
        if event.kind == "late":  # the wake reads the log again
            return self._replaced(after, place, replace(worker, own=tuple(range(worker.snapshot + 1, event.seq + 1)), phase="look"))
        return self._replaced(after, place, replace(worker, own=(*worker.own, event.seq), phase="look"))

    def _release(self, state: State, place: int, worker: Worker, action: Action) -> State:
        self._enter(state)
        seen = 0 if worker.phase == "stop" else worker.snapshot
        now(self.store.release(self.id, worker.epoch, seen=seen, due=action.due))
        after = self._left(state, worker.epoch)
        if not worker.own and worker.epoch == state.thread.row.epoch:
            if after.credit == 0:
                raise Violation("a wake found nothing to do, and no event from outside had caused it")
            after = replace(after, credit=after.credit - 1)
        return self._replaced(after, place, None)

    # ---- the world ---------------------------------------------------------------------------------------------------------------

    def _world(self, state: State) -> Iterator[tuple[str, State]]:
        yield from self._time(state)
        yield from self._people(state)
        for verb in ("pause", "resume", "cancel"):
            if state.has(verb) and (verb != "resume" or state.thread.row.status == "paused"):
                self._enter(state)
                try:
                    now(self.store.control(self.id, verb, Draft("control", {"verb": verb}, by="ann")))  # type: ignore[arg-type]  # a verb
                except Refused:
                    continue
                yield verb, self._left(state.spend(verb).told())
        if state.has("emit"):
            self._enter(state)
            now(self.store.emit("paid", None, None, {"sum": 1}))
            yield "emit", self._left(state.spend("emit").told())

    def _time(self, state: State) -> Iterator[tuple[str, State]]:
        """A lease's length passes: freely when nobody who lives is hurt by it, else somebody was frozen for so long."""
        row = state.thread.row
        held = row.lease_until is not None and row.lease_until > state.now
        lives = any(worker is not None and worker.epoch == row.epoch for worker in state.workers)
        later = replace(state, now=state.now + TTL).told()
        if held and lives:
            if state.has("freeze"):
                yield "freeze", later.spend("freeze")
        elif held or (row.due is not None and row.due > state.now):
            yield "time", later

    def _people(self, state: State) -> Iterator[tuple[str, State]]:
        for seq, item in state.thread.interrupts.items():
            kind = item.request.data["kind"]
            if kind == "approval":
                yield from self._decide(state, seq, item, "decide", Draft("decision", {"request": seq, "kind": "approved"}, by="ann"))
            elif kind == "in_doubt":  # the person looks, and tells the truth
                value = {"happened": state.effects > 0, "value": "done"}
                yield from self._decide(state, seq, item, "", Draft("decision", {"request": seq, "kind": "answered", "value": value}, by="ann"))
        if state.has("message"):
            self._enter(state)
            try:
                now(self.store.message(self.id, [Draft("message", {"text": "hello"}, by="ann")]))
                yield "message", self._left(state.spend("message").told())
            except Refused:
                pass
        if state.has("supersede"):
            yield from self._supersede(state)

    def _decide(self, state: State, seq: int, item: Any, price: str, draft: Draft) -> Iterator[tuple[str, State]]:
        last = state.thread.events[-1].kind
        if (price and not state.has(price)) if item.status == "open" else last not in ("decision", "outcome", "turn_ended", "control"):
            return  # nobody decides; what is closed is tried right after it was closed
        self._enter(state)
        try:
            now(self.store.decide(self.id, seq, draft, digest=None, votes=0))
        except Refused:
            if item.status == "open":
                raise Violation("an open interrupt could not be decided") from None
            return
        if item.status != "open":
            raise Violation(f"an interrupt that was {item.status} was decided")
        yield f"{price or 'answer'}", self._left((state.spend(price) if price else state).told())

    def _supersede(self, state: State) -> Iterator[tuple[str, State]]:
        """`send(supersede=True)`: the step ends unless it has started something."""
        events = state.thread.events
        over = {event.step_id for event in events if event.kind in ("ended", "started")}
        ends = [Draft("ended", {"status": "superseded"}, one.step_id) for one in events if one.kind == "selected" and one.step_id not in over]
        self._enter(state)
        try:
            now(self.store.message(self.id, [Draft("message", {"text": "stop"}, by="ann"), *ends], at_head=state.thread.row.head))
        except Refused:
            return
        yield "supersede", self._left(state.spend("supersede").told())

    # ---- rest --------------------------------------------------------------------------------------------------------------------

    def _check_rest(self, state: State) -> None:
        """Where nobody works and nothing is runnable, a look at the whole log must find nothing left to do. And nowhere does a wait stand open
        beside the event that it waits for."""
        if any(state.mail.values()) and any(item.status == "open" and item.request.data["kind"] == "event" for item in state.thread.interrupts.values()):
            raise Violation("an event that had come was never delivered")
        if any(worker is not None for worker in state.workers):
            return
        self._enter(state)
        row = state.thread.row
        if (row.lease_until is not None and row.lease_until > state.now) or self._claim(state, 0) is not None:
            return
        events = state.thread.events
        if row.status == "open":
            if row.due is not None and row.due > state.now:
                return
            action = plan(events, state.now, row.head, self.scenario.waits, self._step)
            if action.verb != "park":
                raise Violation(f"a wake-up was lost: the thread sleeps, and there is something to {action.verb}")
        if row.status == "done":
            read = max((event.data["read"] for event in events if event.kind in ("turn_ended", "selected")), default=0)
            if any(event.kind == "message" and event.seq > read for event in events):
                raise Violation("a wake-up was lost: the turn is over and a message was never read")
            if state.effects and not any(event.kind == "outcome" and event.op == "run:deploy" for event in events):
                raise Violation("the result of an effect that took place was lost")


def _micros(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


def _deadline(item: Any) -> int | None:
    return item.request.data.get("expires_at") if item.status == "open" else None


def _label(event: Event) -> tuple[Any, ...]:
    data = event.data
    value = data.get("value")
    said = value.get("happened") if isinstance(value, dict) else None
    return event.kind, event.step_id, event.op, data.get("request"), data.get("kind"), data.get("started"), data.get("read"), said
