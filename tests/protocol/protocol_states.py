"""What the state-space check explores: states, workers, scenarios."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, get_origin, get_type_hints

from ownloop.events import Event
from ownloop.stores.memory.tables import Thread


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


def at_once(call: Coroutine[Any, Any, Any]) -> Any:
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


def micros_of(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


def deadline_of(item: Any) -> int | None:
    return item.request.data.get("expires_at") if item.status == "open" else None


def label_of(event: Event) -> tuple[Any, ...]:
    data = event.data
    value = data.get("value")
    said = value.get("happened") if isinstance(value, dict) else None
    return event.kind, event.step_id, event.op, data.get("request"), data.get("kind"), data.get("started"), data.get("read"), said
