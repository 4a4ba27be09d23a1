"""Ten thousand threads that wait for an approval: what they take on disk, and how fast the first fifty are listed."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from ownloop import App

from .agents import Gate
from .measure import Result, file_bytes, main, median, scratch

THREADS = 10_000
LISTED = 50


async def listing_seconds(path: Path) -> list[float]:
    app, seconds = App(f"sqlite:///{path}"), []
    for _ in range(200):
        began = time.perf_counter()
        found = await app.interrupts(limit=LISTED)
        seconds.append(time.perf_counter() - began)
        assert len(found) == LISTED
    await app.aclose()
    return seconds


def floor_listing_seconds(folder: Path) -> float:
    """The same number of rows out of a table of as many, by its index."""
    with closing(sqlite3.connect(folder / "floor.db", isolation_level=None)) as db:
        db.execute("CREATE TABLE waiting (at INTEGER PRIMARY KEY, data TEXT)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO waiting VALUES (?, ?)", ((at, "x" * 200) for at in range(THREADS)))
        db.execute("COMMIT")
        seconds = []
        for _ in range(200):
            began = time.perf_counter()
            db.execute("SELECT at, data FROM waiting ORDER BY at LIMIT ?", (LISTED,)).fetchall()
            seconds.append(time.perf_counter() - began)
    return median(seconds)


def measure() -> list[Result]:
    with scratch() as folder:
        path = folder / "fleet.db"
        asyncio.run(Gate(f"sqlite:///{path}?synchronous=normal").park(1))
        base = file_bytes(path)
        began = time.perf_counter()
        asyncio.run(Gate(f"sqlite:///{path}?synchronous=normal").park(THREADS))
        made = time.perf_counter() - began
        size = (file_bytes(path) - base) / THREADS
        seconds = median(asyncio.run(listing_seconds(path)))
        floor = floor_listing_seconds(folder)
    return [
        Result(
            f"bytes on disk per parked thread, {THREADS:,} threads",
            "≤ 1,200",
            f"{size:,.0f} ({THREADS / made:,.0f} threads parked a second)",
            "–",
            size <= 1200,
        ),
        Result(
            f"the first {LISTED} open interrupts of {THREADS:,}",
            "≤ 1 ms",
            f"{seconds * 1e3:.2f} ms",
            f"{floor * 1e3:.2f} ms for {LISTED} rows",
            seconds <= 0.001,
        ),
    ]


if __name__ == "__main__":
    main(measure)
