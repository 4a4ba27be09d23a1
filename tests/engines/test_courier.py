"""What engines on a server of their own share, with a server that takes every hint and delivers none."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path

from ownloop import App
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
