"""PgQueuer: how soon a wake starts, how many a second, what they cost, and how late timers are.

Workers are processes of their own on a server whose commits are synced. Times are taken by the machine's monotonic clock: in the process that starts
a thread before the call, in the worker at the handler's first line. Statements are counted in the worker, in psycopg.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from typing import Any

import psycopg

from ownloop import App, Thread
from ownloop.stores.postgres import connect

from .measure import Result, main, median
from .postgres import _server

WORKERS = (1, 2, 4)
IDLE_SECONDS = 10
SHARE = 0.7
"""Of what two workers can do: so many timers are due a second."""
TIMERS_SECONDS = 240
"""All timers are due within so long; a slow machine gets fewer of them."""
PATIENCE = 60.0


# ---- the worker ------------------------------------------------------------------------------------------------------------------


class Statements:
    """How many statements this process has sent."""

    def __init__(self) -> None:
        self.count = 0
        for kind in (psycopg.AsyncCursor, psycopg.Cursor):
            self._count(kind)

    def _count(self, kind: Any) -> None:
        execute = kind.execute

        def counted(*args: Any, **options: Any) -> Any:
            self.count += 1
            return execute(*args, **options)

        kind.execute = counted


def work(url: str) -> None:
    """Serve until standard input ends; each wake is a line, and so is the answer to a line: how many statements were sent."""
    statements, app = Statements(), App(url)

    @app.agent(name="timed")
    async def timed(thread: Thread) -> None:
        os.write(1, f"wake {json.dumps([thread.input, time.monotonic(), time.time()])}\n".encode())

    async def serve() -> None:
        async with app:
            os.write(1, b"ready\n")
            while await asyncio.to_thread(sys.stdin.readline):
                os.write(1, f"sent {statements.count}\n".encode())

    asyncio.run(serve())


def patiently(condition: Callable[[], bool], pause: float, what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(pause)


class Worker:
    """Such a process, and the lines that it has said."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-m", "bench.wakes", "worker", url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.wakes: dict[Any, tuple[float, float]] = {}
        self._sent: list[int] = []
        self._ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._ready.wait(60), "the worker did not begin"

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, _, rest = line.partition(" ")
            if word == "wake":
                name, at, clock = json.loads(rest)
                self.wakes[name] = (at, clock)
            elif word == "sent":
                self._sent.append(int(rest))
            self._ready.set()

    def until(self, name: Any) -> None:
        """Wait for the wake of a thread."""
        patiently(lambda: name in self.wakes, 0.001, f"a wake of thread {name}")

    def statements(self) -> int:
        """How many it has sent until now."""
        assert self._process.stdin is not None
        known = len(self._sent)
        self._process.stdin.write("\n")
        patiently(lambda: len(self._sent) > known, 0.005, "the worker's count of statements")
        return self._sent[-1]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


@contextmanager
def workers(url: str, count: int) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Worker(url))) for _ in range(count)]


@asynccontextmanager
async def client(url: str) -> AsyncIterator[App]:
    """An App that runs nothing."""
    app = App(url)
    try:
        await app.threads(limit=1)
        yield app
    finally:
        await app.aclose()


def run_sql(url: str, query: str, values: Any = ()) -> None:
    place = connect.parse(url)
    with psycopg.connect(place.conninfo, autocommit=True) as db:
        db.execute(place.sql(query).encode(), values)


# ---- what is measured ------------------------------------------------------------------------------------------------------------


def latencies(url: str, count: int) -> list[float]:
    """Seconds from the call of `start` to the handler, one after the other, in order of size."""

    async def run(worker: Worker) -> list[float]:
        found = []
        async with client(url) as app:
            for number in range(count + 20):
                told = time.monotonic()
                await app.start("timed", number)
                await asyncio.to_thread(worker.until, number)
                found.append(worker.wakes[number][0] - told)
                await asyncio.sleep(0.02)
        return sorted(found[20:])  # the first ones find cold connections

    with workers(url, 1) as (worker,):
        return asyncio.run(run(worker))


def floor_latency() -> float:
    """Seconds from an INSERT with NOTIFY on one raw connection until another one has heard and read it."""
    url = _server().server_url(durable=True)
    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as two:
        one.execute("CREATE TABLE IF NOT EXISTS floor_wakes (n bigint)")
        two.execute("LISTEN floor_wakes")
        found = []
        for number in range(100):
            told = time.monotonic()
            with one.transaction():
                one.execute("INSERT INTO floor_wakes VALUES (%s)", (number,))
                one.execute("NOTIFY floor_wakes")
            next(two.notifies(timeout=5, stop_after=1))
            two.execute("SELECT max(n) FROM floor_wakes")
            found.append(time.monotonic() - told)
        one.execute("DROP TABLE floor_wakes")
    return median(found)


THREADS = """WITH made AS (
        INSERT INTO ownloop.threads (number, agent, status, created_at, updated_at, head, woken, seen)
        SELECT n, 'timed', 'open', ownloop.now(), ownloop.now(), 1, 1, 0 FROM generate_series(1, %(count)s) AS n RETURNING number)
    INSERT INTO ownloop.events (thread, at, seq, kind, step, op, data) SELECT number, 0, 1, 'input', '', '', '{"input":' || number || '}' FROM made"""


def throughput(count: int, threads: int) -> tuple[float, float]:
    """Wakes a second of so many workers that are given this many threads in one commit, and statements that each wake has cost."""
    url = _server().fresh_url(durable=True)
    with workers(url, count) as found:
        time.sleep(1)
        before = sum(one.statements() for one in found)
        run_sql(url, THREADS, {"count": threads})
        patiently(lambda: sum(len(one.wakes) for one in found) >= threads, 0.01, f"{threads} wakes")
        time.sleep(0.5)  # the last jobs are cleared away
        cost = (sum(one.statements() for one in found) - before) / threads
    times = sorted(at for one in found for at, _ in one.wakes.values())
    return (threads - 1) / (times[-1] - times[0]), cost


def idle() -> float:
    """Statements a second of a worker that has nothing to do."""
    with workers(_server().fresh_url(durable=True), 1) as (worker,):
        time.sleep(2)
        before = worker.statements()
        time.sleep(IDLE_SECONDS)
        return (worker.statements() - before) / IDLE_SECONDS


TIMERS = """WITH made AS (
        INSERT INTO ownloop.threads (number, agent, status, created_at, updated_at, head, woken, seen, due)
        SELECT n, 'timed', 'open', ownloop.now(), ownloop.now(), 1, 0, 1, ownloop.now() + %(first)s + (n * %(gap)s)::bigint
        FROM generate_series(1, %(count)s) AS n RETURNING number, due)
    INSERT INTO ownloop.events (thread, at, seq, kind, step, op, data) SELECT number, 0, 1, 'input', '', '', '{"input":' || due || '}' FROM made"""


def lags(timers: int, rate: float) -> list[float]:
    """Seconds by which the wakes of so many timers came too late, `rate` of them due a second, with two workers; in order of size."""
    url = _server().fresh_url(durable=True)
    with workers(url, 2) as found:
        began = time.monotonic()
        run_sql(url, TIMERS, {"first": 5_000_000 + timers * 60, "gap": 1_000_000 / rate, "count": timers})
        run_sql(url, "ANALYZE ownloop.threads")
        give_up = began + 60 + timers / rate * 1.3
        while sum(len(one.wakes) for one in found) < timers and time.monotonic() < give_up:
            time.sleep(0.1)
        late = sorted(clock - due / 1e6 for one in found for due, (_, clock) in one.wakes.items())
    assert len(late) == timers, f"{len(late)} of {timers} timers fired"
    return late


def waiting(timers: int, wakes: int) -> list[float]:
    """The latencies while so many threads wait for the clock, within an hour."""
    url = _server().fresh_url(durable=True)
    asyncio.run(_migrated(url))
    run_sql(url, TIMERS, {"first": 30_000_000, "gap": 3.6e9 / timers, "count": timers})
    run_sql(url, "ANALYZE ownloop.threads")
    return latencies(url, wakes)


async def _migrated(url: str) -> None:
    async with client(url):
        return


def at(found: list[float], share: float) -> float:
    return found[min(len(found) - 1, int(len(found) * share))]


def measure(quick: bool = False) -> list[Result]:
    found, floor = latencies(_server().fresh_url(durable=True), 50 if quick else 400), floor_latency()
    p50, p99 = at(found, 0.5), at(found, 0.99)
    results = [
        Result(
            "PgQueuer, an idle system: from start() to the handler in another process",
            "p50 ≤ 15 ms, p99 ≤ 250 ms",
            f"p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms ({len(found)} wakes)",
            f"{floor * 1e3:.1f} ms for INSERT, NOTIFY and one SELECT",
            p50 <= 0.015 and p99 <= 0.25,
        )
    ]
    threads = 600 if quick else 4_000
    speeds = {count: throughput(count, threads) for count in WORKERS}
    results += [
        Result(
            f"PgQueuer, {threads:,} threads at once: wakes a second with {', '.join(map(str, WORKERS))} worker processes",
            "–",
            " / ".join(f"{speed:,.0f}" for speed, _ in speeds.values()),
            "–",
            True,
        ),
        Result(
            "PgQueuer, the same: SQL statements a wake, those of the store counted (calls that meet share one)",
            "–",
            " / ".join(f"{cost:.1f}" for _, cost in speeds.values()),
            "–",
            True,
        ),
    ]
    sent = idle()
    results.append(Result("PgQueuer, a worker with nothing to do: statements a second", "≤ 5", f"{sent:.1f}", "–", sent <= 5))
    rate = speeds[2][0] * SHARE
    timers = min(3_000 if quick else 100_000, int(rate * TIMERS_SECONDS))
    late, slowed = lags(timers, rate), waiting(timers, 50 if quick else 300)
    results += [
        Result(
            f"PgQueuer, {timers:,} timers, {rate:,.0f} due a second ({SHARE:.0%} of what two workers can do): lag with two workers",
            "p99 ≤ 1 s",
            f"p50 {at(late, 0.5) * 1e3:,.0f} ms, p99 {at(late, 0.99) * 1e3:,.0f} ms, longest {late[-1]:.1f} s",
            "–",
            at(late, 0.99) <= 1,
        ),
        Result(
            f"PgQueuer, from start() to the handler while {timers:,} timers wait",
            "p50 ≤ 25 ms",
            f"p50 {at(slowed, 0.5) * 1e3:.1f} ms, p99 {at(slowed, 0.99) * 1e3:.1f} ms",
            f"p50 {p50 * 1e3:.1f} ms without",
            at(slowed, 0.5) <= 0.025,
        ),
    ]
    return results


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(sys.argv[2])
    else:
        main(lambda: measure("--quick" in sys.argv))
