"""What engines on a server of their own share, with a server that takes every hint and delivers none."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from ownloop import App
from ownloop.engines import courier
from ownloop.engines.courier import Courier
from ownloop.stores.base import Store
from ownloop.testing.engine_scene import Book


class Deaf(Courier):
    async def send(self, thread_id: str, delay: float) -> None:
        return None

    async def deliver(self, stop: asyncio.Event) -> None:
        await stop.wait()


async def test_a_thread_goes_on_within_two_sweeps_of_the_end_of_its_lease(tmp_path: Path) -> None:
    book, engine = Book(), Deaf("a deaf server", "1s")
    app = App(f"sqlite:///{tmp_path}/a.db", engine=engine)
    app.add(book.reader, name="reader")
    ends: dict[str, float] = {}
    begun: dict[str, float] = {}
    threads = [await app.start("reader") for _ in range(8)]
    for number, thread in enumerate(threads):
        lease = 0.3 + 0.25 * number
        assert await app.store.claim(thread, ["reader"], timedelta(seconds=lease))
        ends[thread] = time.monotonic() + lease
    async with app, asyncio.timeout(20):
        while len(begun) < len(threads):
            begun |= {thread: time.monotonic() for thread in book.wakes if thread not in begun}
            await asyncio.sleep(0.01)
    late = [begun[thread] - ends[thread] for thread in threads]
    print("after the end of the lease:", *(f"{one:.2f} s" for one in late))
    assert min(late) >= 0 and max(late) < 2 * 1.2 + 0.5
    assert engine.swept == len(threads) and sorted(book.wakes) == sorted(threads)


class Slow(Deaf):
    """Its server takes a while to take a hint."""

    sent, seconds = 0, 0.0

    async def send(self, thread_id: str, delay: float) -> None:
        self.sent += 1
        await asyncio.sleep(self.seconds)


async def test_threads_that_a_slow_server_was_hinted_of_do_not_wait_until_it_was_hinted_of_all(tmp_path: Path) -> None:
    book, engine = Book(), Slow("a slow server", "500ms")
    app = App(f"sqlite:///{tmp_path}/a.db", engine=engine, concurrency=5)
    app.add(book.waiter, name="waiter")
    for number in range(60):
        await app.start("waiter", key=str(number))
    engine.sent, engine.seconds = 0, 0.05
    async with app:
        try:
            async with asyncio.timeout(20):
                while len(book.wakes) < 5:
                    await asyncio.sleep(0.01)
            assert engine.sent < 40
        finally:
            book.gate.set()


async def serving(engine: Courier, folder: Path) -> App:
    app, book = App(f"sqlite:///{folder}/a.db", engine=engine), Book()
    app.add(book.reader, name="reader")
    await app.__aenter__()
    return app


class Mute(Deaf):
    asked = False

    async def deliver(self, stop: asyncio.Event) -> None:
        self.asked = True
        await asyncio.Event().wait()


async def test_a_server_that_never_answers_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(courier, "LAST_WORDS", 0.2)
    app = await serving(engine := Mute("a mute server"), tmp_path)
    async with asyncio.timeout(10):
        while not engine.asked:
            await asyncio.sleep(0.01)
        await app.aclose()
    assert [record.message for record in caplog.records] == [
        "a mute server has not heard in 0.2 s that this worker ends; it tries elsewhere what it does not know of"
    ]


class Panic(BaseException):
    """As bindings to Rust raise them."""


class Unsteady(Deaf):
    def __init__(self) -> None:
        super().__init__("an unsteady server")
        self.tries = 0

    async def deliver(self, stop: asyncio.Event) -> None:
        self.tries += 1
        if self.tries % 2:
            raise Panic("called unwrap on a None")


async def test_a_delivery_that_panics_or_ends_by_itself_is_tried_again_and_told_of_once_a_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(courier, "RETRY", 0.02)
    app = await serving(engine := Unsteady(), tmp_path)
    async with asyncio.timeout(10):
        while engine.tries < 8:
            await asyncio.sleep(0.01)
        assert sum("nothing comes from an unsteady server (Panic: called unwrap on a None)" in record.message for record in caplog.records) == 1
        monkeypatch.setattr(courier, "TELL", 0.0)  # a minute later
        while len(caplog.records) < 2:
            await asyncio.sleep(0.01)
        await app.aclose()


# ---- clocks ----------------------------------------------------------------------------------------------------------------------


class Ahead:
    """A store, to a worker whose clock is ahead of it."""

    def __init__(self, store: Any, ahead: timedelta) -> None:
        self._store, self._ahead, self.clock = store, ahead, self

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Echo(Courier):
    """Its server brings every hint as soon as that was asked for. The worker's clock is ahead of the store's."""

    def __init__(self, ahead: timedelta) -> None:
        super().__init__("an echo", "500ms")
        self.hints, self.tries, self._ahead = deque[tuple[float, str]](), 0, ahead

    def attach(self, store: Any, agents: Any, concurrency: int) -> None:
        super().attach(cast("Store", Ahead(store, self._ahead)), agents, concurrency)

    async def send(self, thread_id: str, delay: float) -> None:
        self.hints.append((time.monotonic() + delay, thread_id))

    async def deliver(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(0.001)
            for hint in [hint for hint in self.hints if hint[0] <= time.monotonic()]:
                self.hints.remove(hint)
                self.tries += 1
                if (delay := await self.run(hint[1])) is not None:
                    await self.send(hint[1], delay)


@pytest.mark.parametrize("ahead", [timedelta(seconds=0.4), timedelta(hours=1)])
async def test_a_worker_whose_clock_is_ahead_of_the_stores_does_not_ask_all_the_time_until_it_is_so_late(tmp_path: Path, ahead: timedelta) -> None:
    """A timer, and a lease that somebody else holds."""
    book, engine = Book(), Echo(ahead)
    app = App(f"sqlite:///{tmp_path}/a.db", engine=engine)
    for name in ("reader", "sleeper"):
        app.add(getattr(book, name), name=name)
    held = await app.start("reader")
    assert await app.store.claim(held, ["reader"], timedelta(seconds=1))
    async with app, asyncio.timeout(20):
        sleeping = await app.start("sleeper", "1s")
        began = time.monotonic()
        await app.send(held, "hello")
        while not (book.ends and book.seen.get(held)):
            await asyncio.sleep(0.01)
    assert 1 <= time.monotonic() - began < 1 + 2 * 0.6 + 0.5
    assert sleeping in book.ends and engine.tries < 20


async def test_a_thread_of_another_store_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two stores of which somebody has forgotten to name the engines."""
    engine, other = Echo(timedelta()), App(f"sqlite:///{tmp_path}/other.db", engine=Deaf("deaf"))
    foreign = [await other.start("reader") for _ in range(3)]
    app = App(f"sqlite:///{tmp_path}/a.db", engine=engine)
    app.add(Book().reader, name="reader")
    async with app, asyncio.timeout(10):
        for thread in foreign:
            await engine.wake(thread)
        while engine.tries < 3:
            await asyncio.sleep(0.01)
    await other.aclose()
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"an echo brought {foreign[0]}, which is not in sqlite:///{tmp_path}/a.db" in told and "each needs its own (task_queue=, name=)" in told


# ---- a server that is away -------------------------------------------------------------------------------------------------------


class Silent(Deaf):
    """Its server does not answer, until it does."""

    def __init__(self) -> None:
        super().__init__("a silent server")
        self.asked, self.answers = 0, asyncio.Event()

    async def send(self, thread_id: str, delay: float) -> None:
        self.asked += 1
        await self.answers.wait()


async def test_while_a_server_is_silent_one_verb_waits_for_it_and_not_all_and_it_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(courier, "PATIENCE", 0.3)
    monkeypatch.setattr(courier, "RETRY", 0.3)
    engine = Silent()

    async def timed() -> float:
        began = time.monotonic()
        await engine.wake("thr_1")
        return time.monotonic() - began

    assert min(await asyncio.gather(*(timed() for _ in range(10)))) >= 0.3
    assert engine.asked == 10, "nobody knew"
    await asyncio.sleep(0.35)
    took = await asyncio.gather(*(timed() for _ in range(10)))
    assert engine.asked == 11 and sum(one > 0.1 for one in took) == 1
    await asyncio.sleep(0.35)
    engine.answers.set()
    await engine.wake("thr_1")
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "a silent server takes no hints (TimeoutError: no answer in time)",
        "a silent server takes hints again",
    ]


async def test_an_answer_to_what_was_asked_before_it_went_silent_does_not_say_that_it_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(courier, "PATIENCE", 0.3)
    engine = Silent()
    first = asyncio.ensure_future(engine.wake("thr_1"))
    await asyncio.sleep(0.1)
    second = asyncio.ensure_future(engine.wake("thr_2"))
    await first
    engine.answers.set()
    await second
    assert len(caplog.records) == 1 and "takes no hints" in caplog.text
