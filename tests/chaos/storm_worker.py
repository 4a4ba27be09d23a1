"""A worker of the storms: one agent whose every step has an effect, written into a ledger that ownloop knows nothing of.

Run as a program with one argument, the JSON of a `Work`; it says "ready" when it serves.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

from ownloop import App, Intent, Thread, engines
from ownloop.engines.base import Agents, Attached, Engine, RunOne
from ownloop.errors import StoreError
from ownloop.stores.base import Fenced, Store

AGENT = "striker"
Kind = Literal["plain", "approve", "nap", "event"]


@dataclass(frozen=True)
class Work:
    """What a worker is told: `lost`, the share of hints it drops; `server`, how the engine finds its own server; `lease`, seconds."""

    name: str
    url: str
    engine: str
    ledger: str
    lease: float
    steps: int
    seed: int
    lost: float = 0.0
    server: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 50

    def words(self) -> list[str]:
        return [sys.executable, __file__, json.dumps(asdict(self))]


# ---- the ledger ----------------------------------------------------------------------------------------------------------------


def note(path: str | Path, *words: object) -> None:
    """One write, so that a kill leaves the whole line or nothing."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, (" ".join(map(str, words)) + "\n").encode())
    os.close(file)


# ---- the agent -----------------------------------------------------------------------------------------------------------------


class Do(Intent):
    """The next step of the plan."""

    number: int
    kind: Kind


class Done(Intent):
    """Nothing is left to do."""


def plan(key: str, steps: int, seed: int) -> list[Kind]:
    """What a thread waits for before each of its effects: two approvals, timers and events in ten, in an order of its own."""
    waits: list[Kind] = ["approve", "nap", "event"] * max(1, steps // 5)
    kinds: list[Kind] = (waits + ["plain"] * steps)[:steps]
    random.Random(f"{seed}/{key}").shuffle(kinds)
    return kinds


def striker(app: App, work: Work) -> None:
    chance = random.Random(f"{work.seed}/{work.name}")

    async def decide(thread: Thread) -> Do | Done:
        number = thread.count(Do)
        return Done() if number == work.steps else Do(number=number, kind=plan(str(thread.key), work.steps, work.seed)[number])

    async def strike(key: str, number: int) -> str:
        note(work.ledger, "began", key, number, work.name)
        await asyncio.sleep(chance.uniform(0, 0.05))
        note(work.ledger, "effect", key, number, work.name)
        await asyncio.sleep(chance.uniform(0, 0.05))
        return f"{key}/{number}"

    async def handle(thread: Thread) -> int:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Done():
                    return thread.count(Do)
                case Do(number=number, kind=kind):
                    if kind == "approve" and not await step.approved(by="ops"):
                        raise AssertionError("nobody rejects")
                    if kind == "nap":
                        await step.sleep(f"{200 + 400 * (number % 5)}ms")
                    if kind == "event":
                        await step.wait_for("go", key=f"{thread.key}/{number}")
                    (await step.run(strike, str(thread.key), number)).value  # noqa: B018  # a failure fails the thread

    app.add(handle, name=AGENT, intents=(Do, Done))


# ---- the App of a storm --------------------------------------------------------------------------------------------------------


class Deaf:
    """A store that tells the engine of a commit only so often."""

    def __init__(self, store: Store, is_lost: Callable[[], bool]) -> None:
        self._store, self._is_lost = store, is_lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def listen(self, heard: Callable[[Collection[str] | None], None]) -> Callable[[], None]:
        return self._store.listen(lambda ids: None if self._is_lost() else heard(ids))


class Lossy:
    """An engine that loses hints: those it is given, and those it hears of the store."""

    def __init__(self, engine: Engine, is_lost: Callable[[], bool]) -> None:
        self._engine, self._is_lost = engine, is_lost

    def attach(self, store: Store, agents: Agents, concurrency: int) -> None:
        if isinstance(self._engine, Attached):
            self._engine.attach(cast(Store, Deaf(store, self._is_lost)), agents, concurrency)

    async def wake(self, thread_id: str, *, at: datetime | None = None, tx: Any = None) -> None:
        if not self._is_lost():
            await self._engine.wake(thread_id, at=at, tx=tx)

    async def serve(self, run_one: RunOne) -> None:
        await self._engine.serve(run_one)


def engine_of(work: Work) -> Engine:
    engine: Engine = getattr(engines, work.engine)(**work.server)
    return engine


def app_of(work: Work) -> App:
    """An App of this engine that loses so many of its hints, each written down."""
    chance = random.Random(f"{work.seed}/{work.name}/hints")

    def is_lost() -> bool:
        lost = chance.random() < work.lost
        if lost:
            note(work.ledger, "lost", work.name)
        return lost

    return App(work.url, lease=f"{work.lease}s", concurrency=work.concurrency, engine=Lossy(engine_of(work), is_lost))


def count_refusals(app: App, work: Work) -> None:
    """Write down what the lease refuses: a claim while another worker holds the thread, and a begin of one who has lost it."""
    claim, begin = app.store.claim, app.store.begin

    async def counted_claim(thread_id: str, *rest: Any) -> Any:
        claimed = await claim(thread_id, *rest)
        if claimed is None:
            with suppress(StoreError):
                row = await app.store.thread(thread_id)
                if row is not None and row.lease_until is not None and row.lease_until > app.store.clock.now():
                    note(work.ledger, "overlap", thread_id, work.name)
        return claimed

    async def counted_begin(thread_id: str, *rest: Any, **options: Any) -> Any:
        try:
            return await begin(thread_id, *rest, **options)
        except Fenced as refusal:
            note(work.ledger, "fenced", refusal.why, work.name)
            raise

    app.store.claim, app.store.begin = counted_claim, counted_begin  # type: ignore[method-assign]


async def serve(work: Work) -> None:
    app = app_of(work)
    striker(app, work)
    count_refusals(app, work)
    async with app:
        os.write(1, b"ready\n")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Work(**json.loads(sys.argv[1]))))
