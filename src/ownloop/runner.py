"""One wake of one handler, and its four ends: suspended, turn, failed, fenced."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import Any, Literal

from pydantic import TypeAdapter

from . import watch
from .calls import error_json
from .errors import OwnloopError, StoreError, Suspend, only_suspends
from .events import Draft, Json, to_json
from .history import History
from .intents import Intent, names_in_reach
from .step import Agents
from .stores.base import Claim, Fenced
from .thread import Thread
from .wake import Setting, Wake

log = logging.getLogger("ownloop")

CRASH_LIMIT = 5
"""Wakes in a row that may die without an end; one more and the thread is failed instead of killing the next worker."""

BUDGETS = "ownloop.llm.budget"
"""What holds budgets, imported when the first one is met: the core knows no model."""
Deps = Callable[[Thread[Any]], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True)
class Agent:
    """A handler as the App knows it."""

    name: str
    handler: Callable[[Thread[Any]], Any]
    intents: Mapping[str, type[Intent]]
    interject: bool
    returns: TypeAdapter[Any]
    budget: Any = None

    def known_intents(self) -> dict[str, type[Intent]]:
        """Declared ones, and those that the handler's code can name."""
        return {**{intent.intent_name: intent for intent in names_in_reach(self.handler)}, **self.intents}


class Runner:
    """Runs wakes of the agents of one App."""

    def __init__(self, setting: Setting, agents: Mapping[str, Agent], deps: Deps | None, resolve: Callable[[Any], str]) -> None:
        self._setting, self._agents, self._deps, self._resolve = setting, agents, deps or (lambda thread: nullcontext()), resolve
        self.wakes: set[Wake] = set()

    async def run_one(self, thread_id: str) -> bool:
        """Claim the thread, if it is runnable, and run its handler once; whether it is runnable again at once."""
        asked = self._setting.store.clock.ticks()
        if (claim := await self._setting.store.claim(thread_id, self._agents.keys(), self._setting.ttl)) is None:
            return False
        async with self.holding(claim, asked) as wake:
            with watch.current.wake(wake, claim, claim.row.agent):
                return await _OneWake(wake, claim, self._agents[claim.row.agent], self._deps, self.about(claim.row.agent)).run()

    @asynccontextmanager
    async def holding(self, claim: Claim, asked: float) -> AsyncIterator[Wake]:
        """The wake of a claim, its lease kept until the block is left, however that is."""
        events = await self._setting.store.load(claim.row.id, claim.row.head)
        wake = Wake(self._setting, claim, History(claim.row.id, events), asked)
        self._setting.keeper.hold(wake)
        self.wakes.add(wake)
        try:
            yield wake
        finally:
            self._setting.keeper.let_go(wake)
            self.wakes.discard(wake)

    def about(self, agent: str) -> Agents:
        """What steps of this agent must know of the program."""
        known = self._agents[agent].known_intents() if agent in self._agents else {}
        return Agents(known, self._resolve, self.result_type, self._check_budget)

    async def _check_budget(self, thread: Thread[Any]) -> None:
        """Before the model is asked: park the thread if its own budget, its parents' or that of its spawn is spent."""
        budget = self._agents[thread.agent].budget if thread.agent in self._agents else None
        if budget is not None or thread.parent is not None:
            await import_module(BUDGETS).check(thread, budget)

    def result_type(self, agent: str) -> TypeAdapter[Any]:
        """What an agent's results are validated by; plain JSON for one that this process does not have."""
        return self._agents[agent].returns if agent in self._agents else TypeAdapter(Any)


class _OneWake:
    def __init__(self, wake: Wake, claim: Claim, agent: Agent, deps: Deps, about: Agents) -> None:
        self._wake, self._claim, self._agent, self._deps, self._about = wake, claim, agent, deps, about
        self._thread = self._enter(frozenset())

    def _enter(self, passed: frozenset[str]) -> Thread[Any]:
        return Thread(self._wake, self._about, interject=self._agent.interject, passed=passed)

    async def run(self) -> bool:
        if self._claim.crashes > CRASH_LIMIT:
            return await self._fail(_poisoned(self._claim.crashes), tells=False)
        try:
            value = await self._handle()
        except BaseException as error:
            self._wake.seal(error)
            await self._wake.drain()
            await self._about.check_budget(self._thread)
            return await self._unwound(error)
        self._wake.seal()
        await self._wake.drain()
        await self._about.check_budget(self._thread)  # sealed: it only counts
        if self._waits(value):
            return await self._suspend()
        return await self._end_turn(value)

    async def _handle(self) -> Any:
        """The handler's value; with `interject` it is entered again when a message came while everything waits."""
        async with self._deps(self._thread) as deps:
            passed: frozenset[str] = frozenset()
            while True:
                self._thread.deps = deps
                try:
                    return await self._agent.handler(self._thread)
                except BaseException as error:
                    handed = frozenset(self._thread._handed)
                    if not (only_suspends(error) and self._is_interjected(handed - passed)):
                        raise
                    passed |= handed
                await self._wake.drain()
                self._thread = self._enter(passed)

    def _is_interjected(self, handed: frozenset[str]) -> bool:
        wake = self._wake
        return self._agent.interject and bool(handed) and wake.stopping is None and wake.sealed is None and bool(wake.history.unread())

    def _waits(self, value: Any) -> bool:
        """Whether the handler returned while something it asked for is still open: softly (None), or by swallowing a Suspend."""
        wake = self._wake
        if not isinstance(wake.sealed, Suspend) or wake.stopping not in (None, "shutdown") or (wake.stopping is not None and wake.raised):
            return True
        branches = (*self._thread._handed.values(), *self._thread._named.values())
        return any(branch.waiting for branch in branches) and (value is None or wake.raised)

    async def _unwound(self, error: BaseException) -> bool:
        if only_suspends(error):
            return await self._suspend()
        if isinstance(self._wake.sealed, StoreError | BaseExceptionGroup):  # whatever the handler made of it
            log.error("%s: the wake ended, the store failed: %s", self._wake.thread_id, error)
            return await self._suspend()
        error = error.split(Suspend)[1] or error if isinstance(error, BaseExceptionGroup) else error
        if not isinstance(error, Exception):
            raise error  # a cancelled loop, KeyboardInterrupt: the lease runs out, the thread goes on elsewhere
        return await self._fail(error, tells=not isinstance(error, OwnloopError))

    async def _suspend(self) -> bool:
        wake = self._wake
        if wake.stopping in ("lost", "cancelled", "closed"):
            return False
        try:
            if leftovers := self._thread._leftovers():
                await wake.settle(*leftovers)
            return await wake.release()
        except (Suspend, StoreError) as error:
            log.warning("%s: not released (%r); its lease runs out by itself", wake.thread_id, error)
            return False

    async def _end_turn(self, value: Any) -> bool:
        wake = self._wake
        wake.sealed = None  # the questions of calls in doubt are still asked
        try:
            ends, aside = await self._thread._end_turn()
        except Suspend:
            return await self._suspend()
        data = self._written(value)
        turn = Draft("turn_ended", {**data, "read": self._read()})
        return await self._finish("done", [*ends, turn], data, wake.history.due(wake.now) if aside else None, aside)

    def _written(self, value: Any) -> dict[str, Json]:
        try:
            return {"value": self._wake.setting.redact(to_json(self._agent.returns.dump_python(value, mode="json", warnings=False)))}
        except Exception as error:
            kind = type(value).__qualname__
            log.warning("%s returned a %s that cannot be written (%s), its value is None; return JSON or a model", self._agent.name, kind, error)
            return {"value": None, "unwritable": kind}

    def _read(self) -> int:
        """Up to where messages have been read: by a selection, or by this turn, whose snapshot held them; not what came while the model was asked."""
        history = self._wake.history
        last = max((step.selected.seq for step in history.selected() if step.selected), default=0)
        missed = any(message.seq < last for message in history.unread())
        return history.counters.read if missed else max(history.counters.read, self._wake.snapshot)

    async def _fail(self, error: Exception, *, tells: bool) -> bool:
        wake = self._wake
        log.error("%s of %s failed: %s: %s", wake.thread_id, self._agent.name, type(error).__name__, error, exc_info=error)
        data = {"error": wake.setting.redact(error_json(error))}
        return await self._finish("failed", [Draft("failed", data)], data if tells else None, None, ())

    async def _finish(self, status: Literal["done", "failed"], drafts: list[Draft], told: Json, due: datetime | None, aside: Sequence[str]) -> bool:
        """End the wake with its thread; `told` is the data that the parent hears, or None."""
        wake, parent = self._wake, self._claim.row.parent
        tell = None if parent is None or told is None else Draft("outcome", {**told, "request": parent[1]})
        drafts = list(watch.current.beginning(wake, drafts))
        try:
            return await wake.store.finish(wake.thread_id, wake.epoch, drafts, status=status, seen=wake.history.head, due=due, aside=aside, tell=tell)
        except Fenced as refusal:
            wake.stop("lost" if refusal.why == "lease" else refusal.why)
            return await self._suspend()


def _poisoned(crashes: int) -> OwnloopError:
    error: type[OwnloopError] = type("poisoned", (OwnloopError,), {})
    return error(
        f"{crashes} wakes in a row died without an end, so no worker runs it any more; "
        "look at what the handler does first (memory, a native crash, os._exit), fix it, then retry the thread"
    )
