"""Every order of what three workers, crashes, leases and the world can do to one thread, driven through the real `MemoryStore`.

A state is the store's own thread and what each worker knows. A worker is a wake as `runner.py` runs it: it claims, looks at the log up to its
snapshot, does one thing after another (select, ask for approval, note, begin, effect, fact, wait, finish) and parks by `release(seen=snapshot)`.
Each step of a worker is one call of the store, or the effect itself. Between any two of them anything may happen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from checked_program import Action, plan
from protocol_states import Scenario, State, Violation, Worker, at_once, copied

from ownloop import ids
from ownloop.events import Draft, Event
from ownloop.stores.base import Fenced, NewThread, Refused
from ownloop.stores.memory import MemoryStore
from ownloop.testing import FakeClock
from ownloop.testing.store_scene import TTL

MAX_WAKES = 4
"""Wakes that one event from outside may cause, productive ones included; more is a spin."""
BEGUN = ("selected", "started", "request", "appended", "turn_ended")


class Moves:
    """What can happen in a state, done by the store itself, and what must hold of every call."""

    def __init__(self, scenario: Scenario, store_class: type[MemoryStore] = MemoryStore) -> None:
        self.scenario = scenario
        self.clock = FakeClock()
        self.store = store_class(self.clock)
        self.id, _ = at_once(self.store.create(NewThread("bot", [Draft("input", {"input": 1})])))
        thread = self.store._threads[self.id]
        budget = tuple(sorted(scenario.budget.items()))
        self.first = State(thread, {}, self.clock.now(), (None,) * scenario.workers, budget)

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
        claim = at_once(self.store.claim(self.id, ["bot"], TTL))
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
                at_once(self.store.finish(self.id, worker.epoch, action.drafts, status="done", seen=worker.head, due=None))
                return self._replaced(self._left(state, worker.epoch), place, None)
            if action.verb == "settle":
                events = at_once(self.store.settle(self.id, worker.epoch, action.drafts))
            else:
                selecting = action.verb == "select"
                events = at_once(self.store.begin(self.id, worker.epoch, action.drafts, known=worker.head, selecting=selecting)).events
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
            event = at_once(self.store.fact(self.id, worker.epoch, draft, started=started))
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
        at_once(self.store.release(self.id, worker.epoch, seen=seen, due=action.due))
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
                    at_once(self.store.control(self.id, verb, Draft("control", {"verb": verb}, by="ann")))  # type: ignore[arg-type]  # a verb
                except Refused:
                    continue
                yield verb, self._left(state.spend(verb).told())
        if state.has("emit"):
            self._enter(state)
            at_once(self.store.emit("paid", None, None, {"sum": 1}))
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
                at_once(self.store.message(self.id, [Draft("message", {"text": "hello"}, by="ann")]))
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
            at_once(self.store.decide(self.id, seq, draft, digest=None, votes=0))
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
            at_once(self.store.message(self.id, [Draft("message", {"text": "stop"}, by="ann"), *ends], at_head=state.thread.row.head))
        except Refused:
            return
        yield "supersede", self._left(state.spend("supersede").told())
