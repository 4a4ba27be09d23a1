"""The pages: the list of many open requests, and a long thread, as a server renders them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from ownloop import Actor, App
from ownloop.events import Draft
from ownloop.server import Auth, create
from ownloop.stores.base import NewThread

from .agents import Gate
from .measure import Result, main, median, scratch

OPEN = 10_000
EVENTS = 50_000
ANA = Actor("ana", ("release-managers",))


@asynccontextmanager
async def visitor(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that has logged in, without a network in between."""
    await app._open()
    auth = Auth(app)
    site = create(app, wakes=False, auth=auth)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://localhost") as client:
        await client.post("/login", data={"code": await auth.sessions.code(ANA)})
        yield client


async def timed(client: httpx.AsyncClient, path: str, rounds: int) -> tuple[float, float, int]:
    """Median seconds to the first byte and to the last, and the bytes."""
    first, whole, size = [], [], 0
    for _ in range(rounds):
        began = time.perf_counter()
        async with client.stream("GET", path) as answer:
            assert answer.status_code == 200, answer.status_code
            first.append(time.perf_counter() - began)
            size = len(await answer.aread())
        whole.append(time.perf_counter() - began)
    return median(first), median(whole), size


async def listing(path: Path, rounds: int) -> Result:
    gate = Gate(f"sqlite:///{path}")
    await gate.park(OPEN)
    gate = Gate(f"sqlite:///{path}")
    async with visitor(gate.app) as client:
        await timed(client, "/", 3)
        _, page, size = await timed(client, "/", rounds)
        _, narrow, _ = await timed(client, "/?q=nothing+like+it", rounds)
    await gate.app.aclose()
    return Result(
        f"the inbox's first page, {OPEN:,} requests open",
        "≤ 50 ms",
        f"{page * 1e3:.0f} ms, {size / 1024:.0f} KiB (a search that finds nothing {narrow * 1e3:.0f} ms)",
        "—",
        page <= 0.05,
    )


def long_log() -> list[Draft]:
    """Steps of five events, as a model and a tool would write them."""
    drafts = [Draft("input", {"input": "work"})]
    for number in range(1, EVENTS // 5 + 1):
        step = f"stp_0000000000000_{number}"
        usage = {"input_tokens": 1200, "output_tokens": 40, "cost_usd": 0.002}
        call = {"intent": "search", "arguments": {"query": f"question {number}"}, "read": len(drafts), "usage": usage, "latency_ms": 900}
        drafts.append(Draft("selected", call, step))
        drafts.append(Draft("started", {}, step, "run:search"))
        drafts.append(Draft("outcome", {"value": {"found": ["a result of some length"] * 5}}, step, "run:search"))
        drafts.append(Draft("message", {"text": f"and {number}?"}, by="ana"))
        drafts.append(Draft("ended", {}, step))
    return drafts[:EVENTS]


async def thread(path: Path, rounds: int) -> Result:
    app = App(f"sqlite:///{path}")
    await app._open()
    id, _ = await app.store.create(NewThread("long", long_log()))
    async with visitor(app) as client:
        await timed(client, f"/threads/{id}", 2)
        first, _, size = await timed(client, f"/threads/{id}", rounds)
        middle, _, _ = await timed(client, f"/threads/{id}?after=25000", rounds)
    await app.aclose()
    worst = max(first, middle)
    return Result(
        f"the page of a thread of {EVENTS:,} events, to its first byte",
        "≤ 300 ms, < 1 MB",
        f"{first * 1e3:.0f} ms, {size / 1024:.0f} KiB (from the middle {middle * 1e3:.0f} ms)",
        "—",
        worst <= 0.3 and size < 1_000_000,
    )


def measure(rounds: int = 15) -> list[Result]:
    with scratch() as folder:
        return [asyncio.run(thread(folder / "thread.db", rounds)), asyncio.run(listing(folder / "list.db", rounds))]


if __name__ == "__main__":
    main(measure)
