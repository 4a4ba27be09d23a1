"""What engines on a server of their own share, with a server that takes every hint and delivers none."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest

from ownloop import App
from ownloop.engines import courier
from ownloop.engines.courier import Courier
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
