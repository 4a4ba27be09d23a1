"""A storm: many threads, workers that are killed and frozen, servers that are restarted, hints that are lost – and what became of every effect.

The driver stands outside the workers: it starts threads, answers for people and for the world, does the harm, and afterwards reads ledger and log.
Everything that chance decides comes from one seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from storm_worker import AGENT, Work, app_of, plan

from ownloop import App
from ownloop.doctor import examine
from ownloop.errors import OwnloopError, StoreError
from ownloop.interrupts import Interrupt
from ownloop.stores.base import ThreadRow
from ownloop.tools import Happened, NotHappened

EVERY = 2.0
"""Seconds between two faults."""
THAWED = 0.3
"""Seconds after which a worker that was frozen between two statements has gone past them."""
FEW = 5000


@dataclass(frozen=True)
class Plan:
    """What a storm is.

    Attributes:
        seconds: how long it takes at least: the threads start evenly over them, never more than `at_once` being open. It ends when all have started.
        sweep: the longest time between two looks of an engine at the rows.
        servers: harm to servers, in equal parts of the storm.
        also_lost: how many hints were lost elsewhere than in the workers.
        slack: seconds that a thread may be later, where other tests share the machine.
    """

    work: Work
    workers: int
    threads: int
    seconds: float
    sweep: float
    servers: Sequence[tuple[str, Callable[[], None]]] = ()
    at_once: int = 100
    also_lost: Callable[[], int] = lambda: 0
    slack: float = 0.0

    def part(self, harmed: int) -> float:
        """How many threads start before the next server is harmed."""
        return self.threads * (harmed + 1) / (len(self.servers) + 1)

    @property
    def patience(self) -> float:
        """How late a thread may be once nothing is harmed any more, in seconds."""
        return self.work.lease + 2 * self.sweep + self.slack


@dataclass
class Report:
    """What happened. `late`: seconds beyond its due time, of the latest thread after the last fault; `late_in_storm`: of the latest at all."""

    counts: Counter[str] = field(default_factory=Counter)
    late: float = 0.0
    late_in_storm: float = 0.0
    lasted: float = 0.0
    took: float = 0.0
    latest: ThreadRow | None = None
    wrong: list[str] = field(default_factory=list)

    def line(self, plan: Plan) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        return (
            f"{plan.work.engine}: {plan.workers} workers, {plan.threads} threads × {plan.work.steps} steps, seed {plan.work.seed}, lease "
            f"{plan.work.lease:g} s, {self.lasted:.0f} s of faults, ended {self.took:.1f} s after the last one; latest {self.late:.2f} s "
            f"(≤ {plan.patience:g} s; before it {self.late_in_storm:.2f} s); {counts}"
        )


# ---- workers -------------------------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def lives(self) -> bool:
        return self.process.poll() is None


@dataclass(frozen=True)
class Frozen:
    """When a worker stood still; `to` is None while it does. By the monotonic clock, as `since` for the day's."""

    worker: str
    since: datetime
    to: float | None = None


class Workers:
    """The processes, and the harm done to them; `counts` says which."""

    def __init__(self, plan: Plan, folder: Path, counts: Counter[str]) -> None:
        self._plan, self._folder, self.counts = plan, folder, counts
        self._chance = random.Random(plan.work.seed)
        self.all: dict[str, Worker] = {}
        self.serving: set[str] = set()
        self.frozen: dict[str, Frozen] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> Worker:
        name = f"w{len(self.all) + 1}"
        log = self._folder / f"{name}.log"
        with log.open("wb") as file:
            words = replace(self._plan.work, name=name).words()
            worker = Worker(name, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=file), log)
        self.all[name] = worker
        return worker

    async def serves(self, worker: Worker) -> bool:
        """Wait until it does, or has ended before that."""
        assert worker.process.stdout is not None
        if await asyncio.to_thread(worker.process.stdout.readline) != b"ready\n":
            return False
        self.serving.add(worker.name)
        return True

    def living(self) -> list[Worker]:
        return [one for one in self.all.values() if one.lives()]

    def harm(self) -> None:
        """Kill or freeze one that serves; the killed one has a successor at once, the frozen one thaws within or beyond its lease. Where the machine
        is too slow to bring half of the workers back before the next fault, the fault is left out: a storm in which nobody works proves nothing."""
        awake = [one for one in self.living() if one.name in self.serving and self._thawed(one.name)]
        kind = self._chance.choice(("kill", "kill", "stop", "long stop"))
        if len(awake) * 2 < self._plan.workers:
            self.counts["faults left out"] += 1
            return
        worker = self._chance.choice(awake)
        self.counts[f"{kind}s"] += 1
        if kind == "kill":
            worker.process.kill()
            worker.process.wait()
            self._keep(self._replace())
        else:
            self._keep(self._freeze(worker, self._plan.work.lease * 1.3 if kind == "long stop" else self._plan.work.lease * 0.3))

    def _thawed(self, name: str) -> bool:
        thawed = self.frozen[name].to if name in self.frozen else 0.0
        return thawed is not None and time.monotonic() - thawed > THAWED

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

    async def _replace(self) -> None:
        """A successor that serves, as a supervisor sees to it: one that meets no database is started again."""
        give_up = time.monotonic() + 30
        while not await self.serves(worker := self.start()):
            assert time.monotonic() < give_up, f"{worker.name} ended ({worker.process.wait()}) before it served: {worker.log.read_text()[-3000:]}"
            self.counts["failed starts"] += 1
            await asyncio.sleep(0.5)

    async def _freeze(self, worker: Worker, seconds: float) -> None:
        self.frozen[worker.name] = Frozen(worker.name, datetime.now(UTC))
        worker.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        worker.process.send_signal(signal.SIGCONT)
        self.frozen[worker.name] = replace(self.frozen[worker.name], to=time.monotonic())

    async def calm(self) -> None:
        """Wait until the frozen have thawed and the successors serve."""
        await asyncio.gather(*self._tasks)

    def may_be_in(self, name: str) -> bool:
        """Whether a worker that began a call may still be in it."""
        return name in self.all and self.all[name].lives()

    def may_still_begin(self, asked: datetime) -> bool:
        """Whether a worker that was frozen when somebody asked has not yet found out that its lease is over."""
        return any(
            one.since < asked and (one.to is None or time.monotonic() - one.to < THAWED) and self.all[one.worker].lives()
            for one in self.frozen.values()
        )

    def end(self) -> None:
        for one in self.living():
            one.process.send_signal(signal.SIGCONT)
            one.process.kill()
        for one in self.all.values():
            one.process.communicate()


# ---- the ledger ----------------------------------------------------------------------------------------------------------------


class Ledger:
    """What the workers wrote down."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0
        self.effects: Counter[tuple[str, int]] = Counter()
        self.began: dict[tuple[str, int], set[str]] = {}
        self.counts: Counter[str] = Counter()

    def look(self) -> None:
        """Read what was added."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        for line in text.decode().splitlines():
            self._line(*line.split(" "))
        self._read += len(text)

    def _line(self, word: str, *rest: str) -> None:
        if word == "began":
            self.began.setdefault((rest[0], int(rest[1])), set()).add(rest[2])
        elif word == "effect":
            self.effects[rest[0], int(rest[1])] += 1
        else:
            self.counts[{"lost": "hints lost", "overlap": "overlaps refused", "fenced": f"begins refused ({rest[0]})"}[word]] += 1


# ---- the driver ----------------------------------------------------------------------------------------------------------------


class Driver:
    """The people and the world of a storm, through an App that runs no wakes."""

    def __init__(self, plan: Plan, app: App, workers: Workers, ledger: Ledger, report: Report) -> None:
        self._plan, self._app, self._workers, self._ledger, self._report = plan, app, workers, ledger, report
        self._chance = random.Random(f"{plan.work.seed}/driver")
        self._free = plan.at_once
        self.harmed = 0
        self.keys: dict[str, str] = {}
        """Thread ids, and the keys they were started with."""

    async def start_all(self) -> None:
        """Start the threads, spread over the storm."""
        began = time.monotonic()
        for number in range(self._plan.threads):
            await asyncio.sleep(max(0.0, began + self._plan.seconds * number / self._plan.threads - time.monotonic()))
            await self._insist(self._room)
            await self._insist(lambda number=number: self._start(f"t{number}"))
        self._report.lasted = time.monotonic() - began

    async def _room(self) -> None:
        """Wait until another thread may start: after the harm that comes before it, and not into a queue that only grows."""
        while len(self.keys) >= self._plan.part(self.harmed):
            await asyncio.sleep(0.05)
        if self._free == 0:
            while len(await self._app.threads(status="open", limit=self._plan.at_once)) >= self._plan.at_once:
                await asyncio.sleep(0.1)
            self._free = max(1, self._plan.at_once - len(await self._app.threads(status="open", limit=self._plan.at_once)))
        self._free -= 1

    async def _start(self, key: str) -> None:
        self.keys[await self._app.start(AGENT, key=key)] = key
        work = self._plan.work
        for number, kind in enumerate(plan(key, work.steps, work.seed)):
            if kind == "event" and number % 2:  # half of them come before anybody waits
                await self._app.emit("go", number, key=f"{key}/{number}", id=f"{key}/{number}")

    async def _insist(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Again until the store has taken it: every verb here may be said twice."""
        while True:
            try:
                return await act()
            except StoreError:
                self._report.counts["driver's errors"] += 1
                await asyncio.sleep(0.2)

    async def answer_for_ever(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            await self._insist(self._answer_some)

    async def _answer_some(self) -> None:
        waiting = await self._app.interrupts(kinds=("approval", "event", "in_doubt"), limit=FEW)
        self._ledger.look()
        for one in waiting:
            if self._chance.random() < 0.5:  # the others at another look
                await self._answer(one)
        for failed in await self._app.threads(status="failed", limit=FEW):
            assert failed.error is not None and failed.error.type == "poisoned", failed.error
            self._report.counts["poisoned"] += 1
            await self._app.retry(failed.id)

    async def _answer(self, one: Interrupt) -> None:
        try:
            if one.kind == "approval":
                await self._app.approve(one, by="ops")
            elif one.kind == "event":
                await self._app.emit("go", 1, key=one.value["key"], id=one.value["key"])
            elif (truth := self._truth(one)) is not None:
                await self._app.answer(one, truth, by="ann")
                self._report.counts[f"asked, {'happened' if isinstance(truth, Happened) else 'not happened'}"] += 1
        except StoreError:
            raise
        except OwnloopError:  # withdrawn meanwhile: the worker that was thought dead has said it itself
            self._report.counts["answers too late"] += 1

    def _truth(self, question: Interrupt) -> Happened | NotHappened | None:
        """What a person finds out who looks at the ledger; None while nobody can know yet."""
        if (key := self.keys.get(question.thread_id)) is None:
            return None
        effect = key, int(question.intent["number"])
        if effect in self._ledger.effects:
            return Happened(f"{effect[0]}/{effect[1]}")
        if any(map(self._workers.may_be_in, self._ledger.began.get(effect, ()))) or self._workers.may_still_begin(question.created_at):
            return None
        return NotHappened()

    async def until_all_end(self, seconds: float) -> None:
        """Wait for the end of every thread."""
        began = time.monotonic()
        while await self._app.threads(status="open", limit=1) or await self._app.threads(status="failed", limit=1):
            assert time.monotonic() < began + seconds, f"not ended: {await self._left()}"
            await asyncio.sleep(0.1)
        self._report.took = time.monotonic() - began

    async def _left(self) -> str:
        views = [one for status in ("open", "failed") for one in await self._app.threads(status=status, limit=3)]
        rows = [await self._app.store.thread(one.id) for one in views]
        kinds = [[event.kind for event in (await self._app.store.events(one.id))[-5:]] for one in views]
        return f"{list(zip(rows, kinds, strict=True))}"


class Watch:
    """Sees how late threads are taken: during the storm, and, from `calm` on, after the last fault."""

    def __init__(self, plan: Plan, app: App, report: Report) -> None:
        self._plan, self._app, self._report = plan, app, report
        self._since: dict[tuple[str, int], datetime] = {}
        self.calm: datetime | None = None

    async def look_for_ever(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                await self._look()
            await asyncio.sleep(0.1)

    async def _look(self) -> None:
        for id in (await self._app.store.runnable([AGENT], FEW))[0]:
            row = await self._app.store.thread(id)
            if row is None or (at := ready_since(row, self._plan.work.lease)) is None:
                continue
            first = self._since.setdefault((id, row.epoch), at)
            now = datetime.now(UTC)
            self._report.late_in_storm = max(self._report.late_in_storm, (now - first).total_seconds())
            if self.calm is not None and (late := (now - max(first, self.calm)).total_seconds()) > self._report.late:
                self._report.late, self._report.latest = late, row


def ready_since(row: ThreadRow, lease: float) -> datetime | None:
    """Since when somebody should have taken this thread; None if nobody should. A dead wake counts from its last renewal."""
    now = datetime.now(UTC)
    if row.status != "open":
        return None
    if row.lease_until is not None:
        return row.lease_until - timedelta(seconds=lease) if row.lease_until <= now else None
    if row.woken > row.seen:
        return row.updated_at
    return row.due if row.due is not None and row.due <= now else None


# ---- the storm -----------------------------------------------------------------------------------------------------------------


async def run(plan: Plan, folder: Path) -> Report:
    """Let it loose, wait for the end, and judge. Prints the report; what is wrong stands in it.

    Raises:
        AssertionError: some thread does not end.
    """
    report, ledger = Report(), Ledger(Path(plan.work.ledger))
    app = app_of(replace(plan.work, name="driver"))
    await app.threads(limit=1)  # makes the schema
    workers = Workers(plan, folder, report.counts)
    driver, watch = Driver(plan, app, workers, ledger, report), Watch(plan, app, report)
    try:
        assert all(await asyncio.gather(*(workers.serves(workers.start()) for _ in range(plan.workers))))
        async with beside(driver.answer_for_ever(), watch.look_for_ever()):
            await asyncio.gather(driver.start_all(), blow(plan, workers, driver))
            watch.calm = datetime.now(UTC)
            await workers.calm()
            await driver.until_all_end(60 + plan.threads / 10)
        ledger.look()
        report.counts += ledger.counts + Counter({"hints lost": plan.also_lost()})
        await judge(plan, app, driver, ledger, report)
    finally:
        workers.end()
        await app.aclose()
    print(report.line(plan))
    return report


@contextlib.asynccontextmanager
async def beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Other work while the block runs; an error of it ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        yield
        for task in tasks:
            task.cancel()


async def blow(plan: Plan, workers: Workers, driver: Driver) -> None:
    """A fault every two seconds, and each server's at its place in the storm, until all threads have started."""
    while len(driver.keys) < plan.threads:
        await asyncio.sleep(EVERY)
        if driver.harmed < len(plan.servers) and len(driver.keys) >= plan.part(driver.harmed):
            name, harm = plan.servers[driver.harmed]
            await asyncio.to_thread(harm)
            workers.counts[name] += 1
            driver.harmed += 1
        workers.harm()


async def judge(plan: Plan, app: App, driver: Driver, ledger: Ledger, report: Report) -> None:
    """Every thread ended in order, every selection is there once, every effect took place once, and the log is legal."""
    report.wrong += _effects(plan, driver, ledger)
    for id, key in driver.keys.items():
        events = await app.store.events(id)
        numbers = [event.data["arguments"].get("number") for event in events if event.kind == "selected"]
        if numbers != [*range(plan.work.steps), None]:
            report.wrong.append(f"{key}: selected {numbers}")
        if (view := await app.show(id)).status != "done" or view.result != plan.work.steps:
            report.wrong.append(f"{key}: {view.status}, {view.result!r}")
    report.wrong += [f"doctor: {one.thread_id} {one.kind} {one.what}" for one in await examine(app)]
    if report.late > plan.patience:
        report.wrong.append(f"a thread was {report.late:.1f} s late, {plan.patience:g} s are allowed: {report.latest}")


def _effects(plan: Plan, driver: Driver, ledger: Ledger) -> Iterator[str]:
    keys = set(driver.keys.values())
    if keys != {f"t{number}" for number in range(plan.threads)}:
        yield f"{len(keys)} threads of {plan.threads}"
    for effect in [(key, number) for key in keys for number in range(plan.work.steps)]:
        if ledger.effects[effect] != 1:
            yield f"effect {effect}: {ledger.effects[effect]} times, begun by {sorted(ledger.began.get(effect, ()))}"
    if strange := set(ledger.effects) - {(key, number) for key in keys for number in range(plan.work.steps)}:
        yield f"effects that nobody planned: {strange}"
