"""Clocks that jump by hours while leases are held: threads change hands too early, and still nothing starts twice."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apart
import pytest

from ownloop import App
from ownloop.testing import FakeClock
from ownloop.tools import Happened, NotHappened


class JumpingClock(FakeClock):
    """Somebody sets the machine's clock; the counter of ticks goes on as if nothing had happened."""

    def ticks(self) -> float:
        return time.monotonic()

    def jump(self, by: timedelta) -> None:
        with self._gate:
            self._now += by
            moved = list(self._moved)
        for callback in moved:
            callback()


@pytest.fixture(params=["memory", "sqlite"])
async def apps(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[JumpingClock, list[App]]]:
    """Two processes on one store, as far as the store can tell."""
    clock = JumpingClock(datetime(2026, 1, 1, tzinfo=UTC))
    first = App("memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/a.db?synchronous=normal", clock=clock)
    second = App(first.store) if request.param == "memory" else App(f"sqlite:///{tmp_path}/a.db?synchronous=normal", clock=clock)
    yield clock, [first, second]
    for app in (first, second):
        await app.aclose()


async def test_jumps_by_hours_while_leases_are_held_start_nothing_twice(apps: tuple[JumpingClock, list[App]], tmp_path: Path) -> None:
    clock, both = apps
    effects, steps, chance = tmp_path / "effects", 6, random.Random(7)
    for app in both:
        apart.writer(app, str(effects), steps, 0.003)
        await app.__aenter__()
    threads = [await both[0].start("writer") for _ in range(20)]
    jumps, asked = 0, 0
    give_up = time.monotonic() + 40
    while len(await both[0].threads(status="done", limit=20)) < 20:
        assert time.monotonic() < give_up, await both[0].threads(limit=20)
        if jumps < 60:
            clock.jump(timedelta(hours=chance.choice([-5, -1, 1, 1, 3])))
            jumps += 1
        elif jumps == 60:  # whatever still holds a lease in the far future must be waited for, or the clock put right
            clock.jump(timedelta(days=3))
            jumps += 1
        else:
            clock.jump(timedelta(seconds=1))
        await asyncio.sleep(0.02)
        for question in await both[0].interrupts(kind="in_doubt", limit=100):
            asked += await _answer(both[0], question.id, f"{question.thread_id} {question.intent['number']}", effects)
        for failed in await both[0].threads(status="failed", limit=20):
            assert failed.error is not None
            assert failed.error.type == "poisoned"
            await both[0].retry(failed.id)
    done = Counter(line.rsplit(" ", 1)[0] for line in apart.lines(effects))
    print(f"{jumps} jumps, {asked} questions")
    assert done == {f"{thread} {number}": 1 for thread in threads for number in range(steps)}
    assert jumps > 5


async def _answer(app: App, id: str, line: str, effects: Path) -> int:
    """A person who gives the call time to end, then looks."""
    await asyncio.sleep(0.05)
    if (await app.interrupt(id)).status != "open":
        return 0  # its outcome came after all
    there = any(one.rsplit(" ", 1)[0] == line for one in apart.lines(effects))
    await app.answer(id, Happened("x") if there else NotHappened(), by="ann")
    return 1
