"""Dying before and after every append: what a user's agent does then, counted."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..app import App
from ..events import Draft, Event, Json, canonical
from ..interrupts import Interrupt
from ..stores.base import Store
from ..stores.memory import MemoryStore
from ..tools import Happened, NotHappened, Promise
from .clock import FakeClock
from .driving import Drive

APPENDS = ("begin", "spawn", "fact", "settle", "finish", "release")
OTHERS = ("claim", "runnable", "events", "load", "recall", "get", "put", "notices", "delivered", "pulse")
PERSON = "the person of crash_everywhere"


class Died(BaseException):
    """The process is dead."""


@dataclass
class CrashReport:
    """What came of it.

    Attributes:
        runs: how many times the scenario was run, the undisturbed one included.
        starts: by tool: the most times it was started in any run. More than in the undisturbed run means a repetition.
        asked: every question about a call in doubt that a person was asked, as "tool at death N before|after".
        lost: what differed at the end from the undisturbed run, as a sentence each; empty when nothing was lost.
        silent: tools with effects that were started more often than in the undisturbed run without a person being asked, as a sentence each.
    """

    runs: int = 0
    starts: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


@dataclass
class _Fate:
    """When a process dies: at the n-th append, before or after it. `happened`: what really became of every call."""

    at: int = 0
    after: bool = False
    count: int = 0
    is_dead: bool = False
    happened: dict[tuple[str, str], Json] = field(default_factory=dict)


@dataclass
class _Run:
    """What one run of the scenario came to."""

    fate: _Fate
    starts: Counter[str] = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)
    repeatable: set[str] = field(default_factory=set)
    ends: list[Json] = field(default_factory=list)


class _Person(Drive):
    """A drive that survives the death of its process, and answers questions about calls in doubt truthfully."""

    def __init__(self, make: Callable[[], App], clock: FakeClock, fate: _Fate, run: _Run) -> None:
        self._make, self._fate, self._tally, self._asked, self._repeatable = make, fate, run.starts, run.asked, run.repeatable
        super().__init__(self._born(), clock)

    def _born(self) -> App:
        app = self._make()
        app.witness = self._witness
        _mortal(app.store, self._fate)
        return app

    def _witness(self, promise: Promise) -> None:
        self._tally[promise.name] += 1
        if promise.repeatable:
            self._repeatable.add(promise.name)

    async def settle(self) -> None:
        while True:
            await self.app._open()  # a store may have tasks of its own, which do not end
            before = asyncio.all_tasks()
            try:
                await super().settle()
            except Died:
                await self._bury(before)
                continue
            if not await self._answer_doubts():
                return

    async def advance(self, by: Any) -> None:
        self.clock.advance(by)
        await self.settle()

    async def _bury(self, before: set[asyncio.Task[Any]]) -> None:
        """Wait until nothing of the dead process moves, and start the next one after its leases have run out."""
        while moving := [task for task in asyncio.all_tasks() - before if not task.done()]:
            await asyncio.wait(moving, timeout=5)
        dead = self.app
        self._fate.is_dead, self._fate.at = False, 0
        dead._keeper.close()
        if not isinstance(dead.store, MemoryStore):
            await dead.store.close()
        self.app = self._born()
        self.clock.advance("31s")

    async def _answer_doubts(self) -> int:
        doubts = await self.app.interrupts(kind="in_doubt", limit=1_000)
        for doubt in doubts:
            call = doubt.value["call"]
            self._asked.append(f"{call.removeprefix('run:')} at death {self._fate.count} {'after' if self._fate.after else 'before'}")
            await self.app.answer(doubt, self._truth(doubt, call), by=PERSON)
        return len(doubts)

    def _truth(self, doubt: Interrupt, call: str) -> Happened | NotHappened:
        known = self._fate.happened.get((doubt.step_id or "", call))
        return NotHappened() if known is None or "error" in known else Happened(known.get("value"))


def _mortal(store: Store, fate: _Fate) -> None:
    """Let every append of this store count, and the fated one kill."""
    if getattr(store, "_fate", None) is fate:
        return
    store._fate = fate  # type: ignore[attr-defined]  # marks a store of this run
    for name in (*APPENDS, *OTHERS):
        setattr(store, name, _dying(getattr(store, name), name, fate))


def _dying(method: Callable[..., Awaitable[Any]], name: str, fate: _Fate) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        if name == "fact":
            _note(fate, args[2])
        if fate.is_dead:
            raise Died
        if name not in APPENDS:
            return await method(*args, **kwargs)
        fate.count += 1
        is_fatal = fate.count == fate.at
        if is_fatal and not fate.after:
            fate.is_dead = True
            raise Died
        result = await method(*args, **kwargs)
        if is_fatal:
            fate.is_dead = True
        if fate.is_dead:
            raise Died
        return result

    return call


def _note(fate: _Fate, draft: Draft | Event) -> None:
    if draft.kind == "outcome" and draft.step_id is not None and draft.op is not None:
        fate.happened[draft.step_id, draft.op] = dict(draft.data)


async def crash_everywhere(
    scenario: Callable[[Drive], Awaitable[None]], make_app: Callable[[Any, FakeClock], App], *, url: str | Callable[[], str] | None = None
) -> CrashReport:
    """Run a scenario again and again, with the worker dying before and after every append, and compare with the undisturbed run.

    After each death a new App is made, the clock moves past the lease, and the scenario goes on. Questions about calls in doubt are answered
    truthfully. `make_app(url, clock)` gets the URL of a new SQLite file, or with `url="memory://"` one memory store in its place; or what the
    function `url` gives, which is asked for an empty store for each run.
    """
    report = CrashReport()
    plain = await _run(scenario, make_app, url, _Fate(), report)
    for at in range(1, plain.fate.count + 1):
        for after in (False, True):
            run = await _run(scenario, make_app, url, _Fate(at, after), report)
            _compare(report, plain, run, f"death {at} {'after' if after else 'before'}")
    return report


async def _run(scenario: Any, make_app: Any, url: str | Callable[[], str] | None, fate: _Fate, report: CrashReport) -> _Run:
    clock, run = FakeClock(), _Run(fate)
    with tempfile.TemporaryDirectory(prefix="ownloop-") as folder:
        file = f"sqlite:///{Path(folder) / 'run.db'}?synchronous=normal"
        place: Any = MemoryStore(clock) if url == "memory://" else url() if callable(url) else file
        person = _Person(lambda: make_app(place, clock), clock, fate, run)
        try:
            await scenario(person)
            await person.settle()
            run.ends = await _ends(person.app)
        finally:
            await person.app.aclose()
    report.runs += 1
    for name, count in run.starts.items():
        report.starts[name] = max(report.starts.get(name, 0), count)
    report.asked += run.asked
    return run


async def _ends(app: App) -> list[Json]:
    """How every thread ended: its status, result, selections and what was done. Ordered by that: ids of one millisecond have no order."""
    ends = []
    for row in await app.threads(limit=10_000):
        view = await app.show(row.id)
        selected = [event.data["intent"] for event in view.events if event.kind == "selected"]
        done = sorted(event.op or "" for event in view.events if event.kind == "outcome" and event.op)
        ends.append({"agent": view.agent, "status": view.status, "result": view.result, "selected": selected, "done": done})
    return sorted(ends, key=lambda end: canonical([end["agent"], end["done"], end["selected"], end["result"]]))


def _compare(report: CrashReport, plain: _Run, run: _Run, death: str) -> None:
    if len(plain.ends) != len(run.ends):
        report.lost.append(f"{death}: {len(run.ends)} threads instead of {len(plain.ends)}")
    for wanted, got in zip(plain.ends, run.ends, strict=False):
        for name in wanted:
            if wanted[name] != got[name]:
                report.lost.append(f"{death}: {wanted['agent']} has {name} {got[name]!r} instead of {wanted[name]!r}")
    asked = Counter(question.split(" at death ")[0].split("#")[0].split("@")[0] for question in run.asked)
    for name, count in run.starts.items():
        if name not in run.repeatable and count > plain.starts[name] + asked[name]:
            report.silent.append(f"{death}: {name} was started {count} times instead of {plain.starts[name]}, and nobody was asked")
