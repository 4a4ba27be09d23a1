"""Several processes on one file at once: one winner each, nothing started twice, work shared, and news within a tenth of a second."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apart
import pytest

from ownloop import App


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/a.db"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def parked(app: App, effects: Path, count: int, expires: str | None = None) -> list[str]:
    """Ids of the interrupts of so many threads that wait for an approval."""
    apart.deployer(app, str(effects), expires=expires)
    async with app:
        for _ in range(count):
            await app.start("deployer")

        async def wait() -> list[Any]:
            found = await app.interrupts(limit=count)
            return found if len(found) == count else []

        found = await apart.until(wait, "all wait")
    return [one.id for one in found]


async def test_of_two_hundred_double_decisions_each_has_one_winner_and_the_losers_hear_who(url: str, tmp_path: Path, stack: ExitStack) -> None:
    effects = tmp_path / "effects"
    app = App(f"{url}?synchronous=normal", concurrency=200)
    ids = await parked(app, effects, 200)
    people = {by: stack.enter_context(apart.process("decide", url, by)) for by in ("ann", "ben")}
    for person in people.values():
        person.says("ready")
    results: dict[str, dict[str, tuple[str, str]]] = {by: {} for by in people}
    for place in range(0, len(ids), 10):  # a barrier every ten: a process that stalls for a moment misses one round, not the race
        batch, moment = ids[place : place + 10], time.monotonic() + 0.02
        for by, person in people.items():
            person.tell("\n".join(batch if by == "ann" else reversed(batch)))
            person.tell(f"go {moment}")
        for by, person in people.items():
            results[by] |= {id: (what, winner) for id, what, winner in json.loads(person.says("results"))}
    for id in ids:
        ann, ben = results["ann"][id], results["ben"][id]
        assert {ann[0], ben[0]} == {"won", "lost"}, (ann, ben)
        winner = "ann" if ann[0] == "won" else "ben"
        assert (ann[1], ben[1]) == (winner, winner), "the loser is told who won"
    async with app:

        async def all_done() -> bool:
            return len(await app.threads(status="done", limit=200)) == 200

        await apart.until(all_done, "all are done")
    wins = Counter(winner for _, winner in results["ann"].values())
    print(f"won: {dict(wins)}")
    assert len(wins) == 2, "they did not meet"
    assert len(apart.lines(effects)) == 200
    assert len({line.split()[0] for line in apart.lines(effects)}) == 200, "each ran once"


async def test_a_decision_counts_until_the_millisecond_of_its_deadline(url: str, tmp_path: Path, stack: ExitStack) -> None:
    time_file = tmp_path / "time"
    clock = apart.FileClock(str(time_file))
    clock.set(datetime(2026, 1, 1, tzinfo=UTC))
    app = App(url, clock=clock)
    first, second, third = await parked(app, tmp_path / "effects", 3, expires="1h")
    deadline = datetime(2026, 1, 1, 1, tzinfo=UTC)
    person = stack.enter_context(apart.process("decide", url, "ann", time_file))
    person.says("ready")
    came = {}
    for id, at in ((first, -1), (second, 0), (third, 1)):
        clock.set(deadline + timedelta(milliseconds=at))
        person.tell(f"{id}\ngo 0")
        came[at] = json.loads(person.says("results"))[0][1]
    assert came == {-1: "won", 0: "expired", 1: "expired"}


async def test_two_processes_share_a_hundred_threads_and_start_nothing_twice(url: str, tmp_path: Path, stack: ExitStack) -> None:
    effects, steps = tmp_path / "effects", 5
    app = App(url)
    threads = await asyncio.gather(*(app.start("writer") for _ in range(100)))
    workers = [stack.enter_context(apart.process("write", url, effects, steps, 0.002, "30s", 8)) for _ in range(2)]
    pids = {worker.says("ready") for worker in workers}

    async def all_done() -> bool:
        return len(await app.threads(status="done", limit=100)) == 100

    began = time.monotonic()
    await apart.until(all_done, "all are done", 60)
    print(f"100 threads of {steps} steps in {time.monotonic() - began:.2f} s")
    written = [line.split() for line in apart.lines(effects)]
    assert Counter((thread, number) for thread, number, _ in written) == {(one, str(number)): 1 for one in threads for number in range(steps)}
    shares = Counter(pid for _, _, pid in written)
    print(f"shares {sorted(shares.values())}")
    assert set(shares) == pids
    assert min(shares.values()) >= 25, shares
    await app.aclose()


@pytest.mark.alone
async def test_a_decision_in_one_process_wakes_a_thread_in_another_at_once(url: str, tmp_path: Path, stack: ExitStack) -> None:
    effects = tmp_path / "effects"
    app = App(url)
    ids = await parked(app, effects, 15)
    app = App(url)
    worker = stack.enter_context(apart.process("deploy", url, effects, "", "approval", "30s"))
    worker.says("ready")
    delays = []
    for id in ids:
        await asyncio.sleep(0.02)
        told = time.monotonic()
        await app.approve(id, by="ann")
        delays.append(float(worker.says("began")) - told)
    print(f"from approve() to the tool in the other process: median {statistics.median(delays) * 1000:.0f} ms, longest {max(delays) * 1000:.0f} ms")
    assert statistics.median(delays) < 0.1, delays
    assert max(delays) < 0.5, delays
    await app.aclose()


async def test_two_apps_in_one_process_never_hold_a_thread_both(url: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    apps = [App(url) for _ in range(2)]
    for app in apps:
        apart.writer(app, str(effects), 3)
    for _ in range(30):
        thread = await apps[0].start("writer")
        await asyncio.gather(*(app.run_one(thread) for app in apps for _ in range(3)))
        row = await apps[1].store.thread(thread)
        assert row is not None
        assert (row.status, row.epoch) == ("done", 1)
    assert len(apart.lines(effects)) == len(set(apart.lines(effects))) == 90
    for app in apps:
        await app.aclose()
