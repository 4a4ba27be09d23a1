"""Clocks that jump by hours while leases are held: threads change hands too early, and still nothing starts twice."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apart
import pytest

from ownloop import App
from ownloop.errors import AlreadyDecided
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


async def jump_about(clock: JumpingClock, chance: random.Random, jumps: int) -> None:
    """Hours to and fro; at last three days ahead, so that no lease stays in the far future."""
    for _ in range(jumps):
        clock.jump(timedelta(hours=chance.choice([-3, -1, 1, 3])))
        await asyncio.sleep(0.02)
    clock.jump(timedelta(days=3))


async def test_jumps_by_hours_while_leases_are_held_start_nothing_twice(apps: tuple[JumpingClock, list[App]], tmp_path: Path) -> None:
    clock, both = apps
    effects, steps, jumps = tmp_path / "effects", 5, 60
    for app in both:
        apart.writer(app, str(effects), steps, 0.04)
        await app.__aenter__()
    threads = [await both[0].start("writer") for _ in range(20)]
    jumping = asyncio.ensure_future(jump_about(clock, random.Random(7), jumps))
    questions: set[str] = set()
    give_up = time.monotonic() + 40
    while len(await both[0].threads(status="done", limit=20)) < 20:
        assert time.monotonic() < give_up, await both[0].threads(limit=20)
        await asyncio.sleep(0.005)
        if jumping.done():
            clock.jump(timedelta(seconds=1))
        for question in await both[0].interrupts(kind="in_doubt", limit=100):
            questions.add(question.id)
            await _answer(both[0], question.id, f"{question.thread_id} {question.intent['number']}", effects)
        for failed in await both[0].threads(status="failed", limit=20):
            assert failed.error is not None
            assert failed.error.type == "poisoned"
            await both[0].retry(failed.id)
    await jumping
    done = Counter(line.rsplit(" ", 1)[0] for line in apart.lines(effects))
    print(f"{jumps} jumps, {len(questions)} questions")
    assert done == {f"{thread} {number}": 1 for thread in threads for number in range(steps)}
    assert questions, "the jumps hit nothing"


async def _answer(app: App, id: str, line: str, effects: Path) -> None:
    """A person who gives the call time to end, then looks."""
    await asyncio.sleep(0.2)
    there = any(one.rsplit(" ", 1)[0] == line for one in apart.lines(effects))
    with suppress(AlreadyDecided):  # its outcome came after all
        await app.answer(id, Happened("x") if there else NotHappened(), by="ann")
