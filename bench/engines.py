"""How soon a thread starts on each engine, in an idle system: from the call of `app.start` to the handler's first line, one thread at a time.

The floor is the engine without ownloop behind it: a hint until it comes back. Temporal is its development server, Restate a cluster of three nodes
with two copies of everything; both and PostgreSQL run on this machine, every commit synced. `--quick`: 20 starts each instead of 200.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ownloop import App, Thread, ids
from ownloop.engines.courier import Courier

from .measure import Result, main, scratch
from .postgres import _server

WARM, PAUSE = 10, 0.03
QUICK = 20
TESTS = Path(__file__).parents[1] / "tests" / "engines"


def measure(rounds: int = 200) -> list[Result]:
    """One row an engine; an engine that cannot be measured here is a row that says why."""
    with scratch() as folder:
        return [
            shown("embedded, SQLite", lambda: (None, times(App(f"sqlite:///{folder}/a.db"), rounds))),
            shown("PgQueuer", lambda: (None, times(App(_server().fresh_url(durable=True)), rounds))),
            shown("Temporal", lambda: beside(temporal, rounds)),
            shown("Restate, three nodes", lambda: beside(restate, rounds)),
        ]


def beside(server: Callable[[], AbstractContextManager[Callable[[], Courier]]], rounds: int) -> tuple[list[float], list[float]]:
    """The engine alone, and ownloop on it."""
    with server() as engine:
        floor = asyncio.run(alone(engine(), rounds))
        return floor, times(App(_server().fresh_url(durable=True), engine=engine()), rounds)


def shown(name: str, part: Callable[[], tuple[list[float] | None, list[float]]]) -> Result:
    began = time.monotonic()
    try:
        result = row(name, *part())
    except Exception as reason:  # a server that is not installed, one that does not answer: the other engines are measured nevertheless
        said = " ".join(f"{type(reason).__name__}: {reason}".split())[:300]
        result = Result(f"idle, app.start → handler: {name}", "–", f"not run: {said}", "–", False)
    print(f"{time.monotonic() - began:5.1f} s  {name}: {result.measured}", file=sys.stderr, flush=True)
    return result


def row(name: str, floor: list[float] | None, ours: list[float]) -> Result:
    p50, p99 = part(ours, 0.5), part(ours, 0.99)
    measured = f"p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
    if floor is None:
        return Result(f"idle, app.start → handler: {name}", "p50 ≤ 15 ms, p99 ≤ 250 ms", measured, "–", p50 <= 0.015 and p99 <= 0.25)
    base = part(floor, 0.5)
    shown = f"p50 {base * 1e3:.1f} ms, p99 {part(floor, 0.99) * 1e3:.1f} ms"
    return Result(f"idle, app.start → handler: {name}", "p50 ≤ the engine alone + 15 ms", measured, shown, p50 <= base + 0.015)


def part(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Starts:
    """When each handler began."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._refused: Exception | None = None

    def begin(self, key: str) -> None:
        self._at[key] = time.perf_counter()
        self._changed.set()

    async def after(self, key: str, wake: Callable[[], Awaitable[object]]) -> float:
        """Seconds from the call of `wake` until it began."""
        asked = time.perf_counter()
        await wake()
        await self._began(key)
        await asyncio.sleep(PAUSE)
        return self._at[key] - asked

    async def all(self, keys: list[str], wake: Callable[[str], Awaitable[object]]) -> list[float]:
        """Seconds of each after the warm-up. Raises TimeoutError where it takes far too long."""
        most = 10 + 0.4 * len(keys)
        try:
            async with asyncio.timeout(most):
                await self._first(keys[0], wake)
                return [await self.after(key, partial(wake, key)) for key in keys[1:]][WARM:]
        except TimeoutError:
            raise TimeoutError(f"{len(self._at)} of {len(keys)} handlers began within {most:.0f} s; the last refusal: {self._refused!r}") from None

    async def _first(self, key: str, wake: Callable[[str], Awaitable[object]]) -> None:
        """Until a server knows its workers, hints are refused (Restate: 404) or lost: then it is called again."""
        while key not in self._at:
            try:
                await wake(key)
            except Exception as error:
                self._refused = error
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._began(key)

    async def _began(self, key: str) -> None:
        while key not in self._at:
            self._changed.clear()
            await self._changed.wait()


def times(app: App, rounds: int) -> list[float]:
    """Seconds from the call of `app.start` to the handler."""

    async def run() -> list[float]:
        starts = Starts()

        async def handler(thread: Thread[Any]) -> None:
            starts.begin(str(thread.key))

        app.add(handler, name="bot")
        async with app:
            return await starts.all(keys(rounds), lambda key: app.start("bot", key=key))

    return asyncio.run(run())


async def alone(engine: Courier, rounds: int) -> list[float]:
    """Seconds from a hint until it comes back, with nothing behind the engine."""
    starts = Starts()

    async def run_one(thread_id: str) -> bool:
        starts.begin(thread_id)
        return False

    serving = asyncio.ensure_future(engine.serve(run_one))
    try:
        return await starts.all(keys(rounds), engine.wake)
    finally:
        serving.cancel()
        await asyncio.wait({serving})


def keys(rounds: int) -> list[str]:
    return [ids.thread_id(number) for number in range(1, rounds + WARM + 2)]


# ---- servers: the tests' own -----------------------------------------------------------------------------------------------------


@contextmanager
def temporal() -> Iterator[Callable[[], Courier]]:
    from ownloop.engines import Temporal

    queues = iter("ab")
    with tests("temporal_server").temporal() as server:
        yield lambda: Temporal(server.target, task_queue=next(queues))


@contextmanager
def restate() -> Iterator[Callable[[], Courier]]:
    from ownloop.engines import Restate

    names = iter("ab")
    with tests("restate_cluster").restate() as cluster:
        yield lambda: Restate(cluster.ingress, admin=cluster.admin, name=next(names), listen=f"127.0.0.1:{tests('temporal_server').free_port()}")


def tests(module: str) -> Any:
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    return importlib.import_module(module)


if __name__ == "__main__":
    main(lambda: measure(QUICK if "--quick" in sys.argv else 200))
