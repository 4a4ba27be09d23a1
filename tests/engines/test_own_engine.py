"""`EngineContract` as somebody uses it for an engine of his own: the one of docs/operations.md passes, and each broken one fails, and soon."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ownloop import App
from ownloop.engines.base import RunOne
from ownloop.testing import EngineContract
from ownloop.testing.engine_scene import Book

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
NAMES: dict[str, Any] = {}
exec(re.findall(r"```python\n(# polling\.py\n.*?)```", PAGE.read_text(), re.DOTALL)[0], NAMES)
Polling: Any = NAMES["Polling"]


@pytest.mark.soak  # below a part of it
class TestPolling(EngineContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/a.db"

    def make_app(self, **options: Any) -> App:
        return App(self.url, engine=Polling(), **options)


class Greedy(Polling):
    """Runs all that there is."""

    def attach(self, store: Any, agents: Any, concurrency: int) -> None:
        super().attach(store, agents, 1000)


class Inline(Polling):
    """A verb returns once the wake has ended."""

    run_one: RunOne | None = None

    async def serve(self, run_one: RunOne) -> None:
        self.run_one = run_one
        await super().serve(run_one)

    async def wake(self, thread_id: str, *, at: datetime | None = None, tx: Any = None) -> None:
        if self.run_one is not None:
            await self.run_one(thread_id)


class Endless(Polling):
    """Waits at its end for what never comes."""

    async def serve(self, run_one: RunOne) -> None:
        try:
            await super().serve(run_one)
        finally:
            await asyncio.Event().wait()


class Tenacious(Polling):
    """Goes on looking while it ends."""

    async def serve(self, run_one: RunOne) -> None:
        looking = asyncio.ensure_future(super().serve(run_one))
        try:
            await asyncio.Event().wait()
        finally:
            while self.running:
                await asyncio.sleep(0.01)
            looking.cancel()


class Thorough(Polling):
    """Ends once it has run all that it was told of."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[str] = set()

    async def wake(self, thread_id: str, *, at: datetime | None = None, tx: Any = None) -> None:
        self.known.add(thread_id)

    async def serve(self, run_one: RunOne) -> None:
        try:
            await super().serve(run_one)
        finally:
            for thread_id in sorted(self.known):
                await run_one(thread_id)


class Abrupt(Polling):
    """Cancels what runs when it ends."""

    async def serve(self, run_one: RunOne) -> None:
        looking = asyncio.ensure_future(super().serve(run_one))
        try:
            await asyncio.Event().wait()
        finally:
            for task in self.running.values():
                task.cancel()
            looking.cancel()


class Once(Polling):
    """Its end is for good."""

    has_ended = False

    async def serve(self, run_one: RunOne) -> None:
        try:
            await (asyncio.Event().wait() if self.has_ended else super().serve(run_one))
        finally:
            self.has_ended = True


AGAIN = "test_an_app_that_was_closed_may_be_opened_again"
ROOM = "test_once_it_was_told_to_end_it_starts_nothing_although_it_has_room"
END = "test_the_end_starts_nothing_waits_for_what_runs_and_leaves_the_rest"
MOST = "test_no_more_handlers_run_at_once_than_it_was_told"
DOUBLED = "test_a_doubled_hint_runs_no_second_wake"
LOST = "test_a_hint_that_is_lost_while_it_serves_is_a_delay"


@pytest.mark.parametrize(
    ("engine", "promise"), [(Greedy, MOST), (Inline, DOUBLED), (Endless, LOST), (Tenacious, ROOM), (Thorough, END), (Abrupt, END), (Once, AGAIN)]
)
async def test_a_good_engine_keeps_it_and_a_broken_one_fails_and_keeps_nobody_waiting(engine: Any, promise: str, tmp_path: Path) -> None:
    async with asyncio.timeout(60):
        await kept(Polling, promise, f"sqlite:///{tmp_path}/good.db", seconds=20)
        with pytest.raises(AssertionError):
            await kept(engine, promise, f"sqlite:///{tmp_path}/broken.db", seconds=0.5)


async def kept(engine: Any, promise: str, url: str, seconds: float) -> None:
    class Mine(EngineContract):
        patience = seconds

        def make_app(self, **options: Any) -> App:
            return App(url, engine=engine(), **options)

    await getattr(Mine(), promise)(Book())
