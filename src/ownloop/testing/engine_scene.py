"""What every promise of an engine stands on: Apps on one store, agents that write down their wakes, and waiting."""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, TypeVar

import pytest

from ..app import App
from ..engines.base import Engine, RunOne
from ..stores.base import ThreadRow
from ..thread import Thread

T = TypeVar("T")
PATIENCE = 20.0
"""Seconds that a wake may take of which nobody has told."""
LONGEST = 6
"""How many times that a promise may take as a whole: an engine for which a test waits in vain has broken it."""


class Silent:
    """An engine that tells nobody and runs nothing: the App of a process whose hints are lost."""

    async def wake(self, thread_id: str, *, at: datetime | None = None, tx: Any = None) -> None:
        return None

    async def serve(self, run_one: RunOne) -> None:
        await asyncio.Event().wait()


class Book:
    """What the wakes of this test have done.

    Attributes:
        wakes: the threads, in the order in which their wakes began.
        seen: for each thread the messages that a wake has had before it.
        most: how many wakes ran at once.
        overlaps: threads of which two wakes ran at once.
        gate: what agent `waiter` waits for.
        seconds: how long a wake of `reader` takes.
    """

    def __init__(self) -> None:
        self.wakes: list[str] = []
        self.seen: dict[str, set[str]] = {}
        self.ends: dict[str, datetime] = {}
        self.running: Counter[str] = Counter()
        self.most = 0
        self.overlaps: list[str] = []
        self.gate = asyncio.Event()
        self.seconds = 0.0

    @contextmanager
    def wake(self, thread: Thread[Any]) -> Iterator[None]:
        if self.running[thread.id]:
            self.overlaps.append(thread.id)
        self.running[thread.id] += 1
        self.most = max(self.most, self.running.total())
        self.wakes.append(thread.id)
        try:
            yield
        finally:
            self.running[thread.id] -= 1
            texts = {event.data["text"] for event in thread.events if event.kind == "message"}
            self.seen[thread.id] = self.seen.get(thread.id, set()) | texts

    async def reader(self, thread: Thread[Any]) -> None:
        """Reads what there is, and is done."""
        with self.wake(thread):
            await asyncio.sleep(self.seconds)

    async def waiter(self, thread: Thread[Any]) -> None:
        """Its wake lasts until the gate opens."""
        with self.wake(thread):
            await self.gate.wait()

    async def sleeper(self, thread: Thread[Any]) -> None:
        """Parks for as long as its input says; its end is written down."""
        with self.wake(thread):
            await thread.step("nap").sleep(str(thread.input))
            self.ends[thread.id] = thread.now


class EngineFixtures:
    """What an engine's test gives, and what the promises use."""

    pytestmark = pytest.mark.asyncio
    patience = PATIENCE
    """Seconds that a wake may take of which nobody has told."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, test in list(vars(cls).items()):
            if name.startswith("test_") and asyncio.iscoroutinefunction(test):
                setattr(cls, name, _bounded(test))

    def make_app(self, **options: Any) -> App:
        """`App(URL, engine=…, **options)`: a new App with an engine of its own, on the one store of this test, which is empty at first. Called more
        than once in a test: they are as processes beside each other."""
        raise NotImplementedError(f"{type(self).__name__} must give make_app(**options)")

    async def lose_hints(self, app: App) -> None:
        """Take away every hint that was not delivered yet. For engines that keep them outside of this process."""

    @pytest.fixture
    def book(self) -> Book:
        return Book()

    def app(self, book: Book, *names: str, **options: Any) -> App:
        """An App with these agents of the book; by default all."""
        app = self.make_app(**options)
        for name in names or ("reader", "waiter", "sleeper"):
            app.add(getattr(book, name), name=name)
        app.aclose = functools.partial(self._end, book, app.aclose)  # type: ignore[method-assign]  # what `async with` calls
        return app

    async def _end(self, book: Book, aclose: Callable[[], Awaitable[None]]) -> None:
        if sys.exc_info()[0] is not None:  # a promise is broken already, and a good engine waits for what runs
            book.gate.set()
        try:
            async with asyncio.timeout(self.patience):
                await aclose()
        except TimeoutError:
            raise AssertionError(f"not within {self.patience:g} s: `serve` was cancelled, and returns") from None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[App]:
        """An App that only writes, and tells no engine."""
        app = self.make_app()
        app._engine = Silent()
        try:
            await app.threads(limit=1)
            yield app
        finally:
            await app.aclose()

    def transaction(self, app: App) -> AbstractAsyncContextManager[Any]:
        """A transaction of the caller's, in the database of the App's store, on a connection of its own."""
        return _postgres_transaction(app.store)

    async def until(self, look: Callable[[], T | Awaitable[T]], what: str, seconds: float | None = None) -> T:
        """Look until it is so."""
        give_up = time.monotonic() + (seconds or self.patience)
        while time.monotonic() < give_up:
            found = look()
            found = await found if isinstance(found, Awaitable) else found
            if found:
                return found
            await asyncio.sleep(0.01)
        raise AssertionError(f"not within {seconds or self.patience:g} s: {what}")

    async def done(self, app: App, *threads: str) -> list[ThreadRow]:
        """Wait until these have ended their turn and no wake holds them."""

        async def rows() -> list[ThreadRow]:
            found = [row for thread in threads if (row := await app.store.thread(thread)) is not None]
            return found if len(found) == len(threads) and all(row.status == "done" and row.lease_until is None for row in found) else []

        return await self.until(rows, f"{len(threads)} threads are done") if threads else []


def _bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(self: EngineFixtures, *args: Any, **fixtures: Any) -> None:
        seconds = LONGEST * self.patience
        try:
            async with asyncio.timeout(seconds):
                await test(self, *args, **fixtures)
        except TimeoutError as error:
            raise AssertionError(f"not within {seconds:g} s: a verb, or `wake`, or `serve` that was cancelled, returns") from error

    return bounded


def engine_of(app: App) -> Engine:
    """The App's engine, once it is open."""
    assert app._engine is not None
    return app._engine


@asynccontextmanager
async def _postgres_transaction(store: Any) -> AsyncIterator[Any]:
    import psycopg

    async with await psycopg.AsyncConnection.connect(store.place.conninfo, autocommit=True) as connection, connection.transaction():
        yield connection
