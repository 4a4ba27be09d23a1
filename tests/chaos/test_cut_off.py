"""A worker that is cut off from Postgres, and comes back after its lease: nothing begins twice, and what it did is kept."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import surgeon
from proxy import How, Proxy, proxy
from storm_servers import Postgres, postgres

from ownloop import App
from ownloop.events import Event

LEASE = 1.0


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres(quick=True) as server:
        yield server


@asynccontextmanager
async def far_worker(url: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker behind the proxy."""
    words = (surgeon.__file__, url, str(folder), str(LEASE))
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=subprocess.PIPE)
    try:
        await hears(process, "ready")
        yield process
    finally:
        process.kill()
        await process.wait()


async def hears(process: asyncio.subprocess.Process, line: str) -> None:
    """Wait until the worker says so."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while (said := await process.stdout.readline()).decode().strip() != line:
            assert said, f"it ended without saying {line!r}"


async def until(look: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    give_up = time.monotonic() + seconds
    while not (found := await look()):
        assert time.monotonic() < give_up, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)
    return found


async def lease_is_over(app: App, thread: str) -> bool:
    row = await app.store.thread(thread)
    assert row is not None
    return row.lease_until is not None and row.lease_until <= datetime.now(UTC)


async def is_done(app: App, thread: str) -> bool:
    return (await app.show(thread)).status == "done"


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def chosen(events: list[Event]) -> list[str]:
    return [event.data["intent"] for event in events if event.kind == "selected"]


def ledger(folder: Path) -> list[str]:
    return (folder / "ledger").read_text().splitlines()


@asynccontextmanager
async def theatre(server: Postgres, folder: Path, name: str) -> AsyncIterator[tuple[App, Proxy, asyncio.subprocess.Process]]:
    """An App on the near side that does not serve yet, and a worker on the far side."""
    app = App(f"{server.url}&schema={name}")
    await app.threads(limit=1)  # makes the schema
    async with proxy(server.socket) as line, far_worker(line.url(f"schema={name}"), folder) as worker:
        yield app, line, worker


@pytest.mark.parametrize("how", ["reset", "stall"])
async def test_a_worker_that_is_cut_off_in_a_tool_keeps_the_fact_and_begins_nothing_twice(server: Postgres, tmp_path: Path, how: How) -> None:
    (tmp_path / "far thinks").touch()
    async with theatre(server, tmp_path, f"tool_{how}") as (app, line, far):
        thread = await app.start("surgeon", key="one")
        await hears(far, "operating one")
        line.cut(how)
        await until(lambda: lease_is_over(app, thread), "its lease has run out")
        surgeon.surgeon(app, tmp_path, "near")
        async with app:
            question = (await until(lambda: app.interrupts(kind="in_doubt"), "the near worker asks whether it happened"))[0]
            (tmp_path / "far operates").touch()
            await until(lambda: asyncio.to_thread(lambda: "effect one far" in ledger(tmp_path)), "the far worker has operated")
            await asyncio.sleep(0.3)
            assert "outcome" not in kinds(await app.store.events(thread)), "the line is cut"
            line.mend()
            await until(lambda: is_done(app, thread), "the fact came through, and the thread went on")
            assert (await app.interrupt(question.id)).status == "withdrawn"
            events = await app.store.events(thread)
        assert ledger(tmp_path) == ["began one far", "effect one far"]
        assert (kinds(events).count("started"), kinds(events).count("outcome")) == (1, 1)
        assert next(event for event in events if event.kind == "outcome").data["value"] == "by far"
        assert chosen(events) == ["operate", "done"]
        await _works_again(server, tmp_path, far, f"tool_{how}")


async def test_a_start_that_arrives_after_its_lease_is_refused(server: Postgres, tmp_path: Path) -> None:
    for name in ("near thinks", "far operates"):
        (tmp_path / name).touch()
    async with theatre(server, tmp_path, "late") as (app, line, far):
        thread = await app.start("surgeon", key="one")
        await hears(far, "thinking one")
        line.cut("stall")
        (tmp_path / "far thinks").touch()  # its selection is under way, and does not arrive
        await until(lambda: asyncio.sleep(0, line.stopped > 0), "something waits in the line")
        await until(lambda: lease_is_over(app, thread), "its lease has run out")
        surgeon.surgeon(app, tmp_path, "near")
        async with app:
            await until(lambda: asyncio.sleep(0, (tmp_path / "ledger").exists()), "the near worker took over, and operates")
            before = await app.store.events(thread)
            line.mend()
            await asyncio.sleep(0.5)
            assert await app.store.events(thread) == before, "what came late was refused"
            (tmp_path / "near operates").touch()
            await until(lambda: is_done(app, thread), "the near worker goes on")
            assert chosen(await app.store.events(thread)) == ["operate", "done"]
        assert ledger(tmp_path) == ["began one near", "effect one near"]
        await _works_again(server, tmp_path, far, "late")


async def _works_again(server: Postgres, folder: Path, far: asyncio.subprocess.Process, name: str) -> None:
    """The far worker is well, and does the next thread alone."""
    app = App(f"{server.url}&schema={name}")
    try:
        thread = await app.start("surgeon", key="two")
        await hears(far, "operating two")
        await until(lambda: is_done(app, thread), "the far worker works again")
        assert ledger(folder)[-2:] == ["began two far", "effect two far"]
    finally:
        await app.aclose()
