"""The search: every state that a scenario can reach, each looked at once; or one way through by chance."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from checked_program import plan
from protocol_moves import Moves
from protocol_states import Result, Scenario, State, Violation, Worker, deadline_of, label_of, micros_of

from ownloop.testing.store_scene import TTL


class Explorer(Moves):
    """All states that a scenario can reach on a store."""

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
                for label, after in self._moves(state):
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
        """One way through, chosen by chance, until nothing can happen any more; workers move more often than the world does."""
        result, state, way = Result(), self.first, list[str]()
        try:
            while moves := list(self._moves(state)):
                self._check_rest(state)
                work = [move for move in moves if ":" in move[0] and "crash" not in move[0]]
                label, state = chance.choice(work if work and chance.random() < 0.8 else moves)
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
        ends = {seq: deadline_of(item) for seq, item in state.thread.interrupts.items()}
        waits = tuple((seq, max(at - micros_of(state.now), 0)) for seq, at in ends.items() if at is not None)
        log = tuple(label_of(event) for event in state.thread.events)
        status = tuple(item.status for item in state.thread.interrupts.values())
        counters = (row.status, row.woken, row.seen, lease, due, state.thread.barrier, waits)
        mail = tuple(len(box) for box in state.mail.values())
        return hash((counters, log, status, tuple(workers), mail, state.budget, state.effects, state.credit, state.wakes))

    def _worker_key(self, state: State, one: Worker) -> tuple[Any, ...]:
        if one.epoch < state.thread.row.epoch and one.phase in ("effect", "result"):  # its fact is all that is left of it
            return (1, 0, one.own[-1:], one.phase, one.start)
        times = (one.until > state.now, (state.now - one.now).total_seconds())
        return (state.thread.row.epoch - one.epoch, one.snapshot, one.own, one.phase, one.start, times[: 1 + self.scenario.waits])

    # ---- rest --------------------------------------------------------------------------------------------------------------------

    def _check_rest(self, state: State) -> None:
        """Where nobody works and nothing is runnable, a look at the whole log must find nothing left to do. And nowhere does a wait stand open
        beside the event that it waits for."""
        if any(state.mail.values()) and any(
            item.status == "open" and item.request.data["kind"] == "event" for item in state.thread.interrupts.values()
        ):
            raise Violation("an event that had come was never delivered")
        if any(worker is not None for worker in state.workers):
            return
        self._enter(state)
        row = state.thread.row
        if (row.lease_until is not None and row.lease_until > state.now) or self._claim(state, 0) is not None:
            return
        events = state.thread.events
        if row.status == "open":
            at = state.now if row.due is not None else state.now + 9 * TTL  # without a timer it sleeps for ever
            action = plan(events, at, row.head, self.scenario.waits, self._step)
            if action.verb != "park":
                raise Violation(f"a wake-up was lost: the thread sleeps, and there is something to {action.verb}")
        if row.status == "done":
            read = max((event.data["read"] for event in events if event.kind in ("turn_ended", "selected")), default=0)
            if any(event.kind == "message" and event.seq > read for event in events):
                raise Violation("a wake-up was lost: the turn is over and a message was never read")
            if state.effects and not any(event.kind == "outcome" and event.op == "run:deploy" for event in events):
                raise Violation("the result of an effect that took place was lost")


__all__ = ["Explorer", "Scenario", "Violation"]
