"""The embedded engine keeps every promise of an engine, on each store that it may serve."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Collection, Iterator
from contextvars import ContextVar
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "stores"))
import postgres_server

from ownloop import App, Thread
from ownloop.clock import SystemClock
from ownloop.engines import Embedded
from ownloop.stores.memory import MemoryStore
from ownloop.stores.postgres import PostgresStore
from ownloop.testing import EngineContract
from ownloop.testing.engine_scene import Book


@pytest.mark.soak  # it hears commits as the one on SQLite does, and most other tests run on it
class TestEmbeddedInMemory(EngineContract):
    @pytest.fixture(autouse=True)
    def _store(self) -> None:
        self.store = MemoryStore()

    def make_app(self, **options: Any) -> App:
        return App(self.store, **options)


class TestEmbeddedOnSqlite(EngineContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/a.db"

    def make_app(self, **options: Any) -> App:
        return App(self.url, **options)


class TestEmbeddedOnPostgres(EngineContract):
    @pytest.fixture(autouse=True)
    def _schema(self) -> Iterator[None]:
        self.url = postgres_server.empty_url()
        yield
        postgres_server.done_with(self.url)

    def make_app(self, **options: Any) -> App:
        return App(self.url, engine=Embedded(), **options)


class Ahead(SystemClock):
    """The clock of a machine that is three seconds before the server's."""

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=3)


class Counting(PostgresStore):
    looks = 0

    async def runnable(self, agents: Collection[str], limit: int) -> tuple[list[str], datetime | None]:
        self.looks += 1
        return await super().runnable(agents, limit)


async def test_a_machine_whose_clock_is_before_the_servers_does_not_look_without_end(postgres_url: str) -> None:
    book, store = Book(), Counting(postgres_url, Ahead())
    app = App(store, engine=Embedded())
    app.add(book.sleeper, name="sleeper")
    async with app:
        thread = await app.start("sleeper", "2s")
        while thread not in book.ends:
            await asyncio.sleep(0.01)
    assert store.looks < 60, "about ten a second while the timer is only due here"


async def results(app: App, thread: str) -> AsyncIterator[Any]:
    """Of the thread's first turn."""
    async for event in app.stream(thread):
        assert event.kind != "failed", event
        if event.kind == "turn_ended":
            yield event.data["value"]
            return


@pytest.mark.parametrize("given", ["memory", "sqlite"])
async def test_a_wake_does_not_run_in_the_context_of_the_tool_that_started_its_thread(given: str, tmp_path: Path) -> None:
    app, who = App(MemoryStore() if given == "memory" else f"sqlite:///{tmp_path}/a.db"), ContextVar("who", default="nobody")

    @app.agent
    async def child(thread: Thread[Any]) -> str:
        return who.get()

    @app.agent
    async def parent(thread: Thread[Any]) -> str:
        async def delegate() -> str:
            who.set("the parent")
            return await app.start("child")

        return (await thread.step("once").run(delegate)).value

    async with app:
        started = [result async for result in results(app, await app.start("parent"))]
        assert [result async for result in results(app, started[0])] == ["nobody"]
