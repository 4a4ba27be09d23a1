"""Workers that die, freeze and are told to stop, and a server that restarts: real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "stores"))
sys.path.insert(0, str(Path(__file__).parent.parent / "processes"))
sys.path.insert(0, str(Path(__file__).parent.parent / "chaos"))
import apart
from storm_servers import Postgres, postgres

from ownloop import App
from ownloop.engines import PgQueuer
from ownloop.engines.pgqueuer import SWEEP
from ownloop.testing.engine_scene import Book
from ownloop.tools import NotHappened

LEASE = 2.0
SLACK = 5.0
"""Seconds that a busy machine may take besides."""


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


class Worker(apart.Process):
    """pgqueuer_worker.py."""

    def __init__(self, *args: object) -> None:
        command = [sys.executable, str(Path(__file__).with_name("pgqueuer_worker.py")), *map(str, args)]
        environment = {**os.environ, "PYTHONPATH": str(apart.SOURCE), "PYTHONUNBUFFERED": "1"}
        subprocess.Popen.__init__(self, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment)


@contextmanager
def worker(*args: object) -> Iterator[Worker]:
    started = Worker(*args)
    try:
        started.says("ready")
        yield started
    finally:
        started.end()


def engine_for(heartbeat: str) -> PgQueuer:
    return PgQueuer(heartbeat=heartbeat)


@pytest.mark.parametrize(
    ("number", "heartbeat"), [(signal.SIGKILL, "1s"), (signal.SIGSTOP, "60s"), pytest.param(signal.SIGKILL, "60s", marks=pytest.mark.soak)]
)
async def test_a_worker_that_dies_or_freezes_is_followed_by_another(url: str, tmp_path: Path, number: signal.Signals, heartbeat: str) -> None:
    effects, gate = tmp_path / "effects", tmp_path / "gate"
    client = App(url)
    with worker(url, effects, gate, f"{LEASE:g}s", heartbeat, "30s") as first:
        thread = await client.start("deployer")
        first.says("began")
        first.send_signal(number)
        silent = time.monotonic()
        other = App(url, engine=engine_for(heartbeat), lease=f"{LEASE:g}s")
        apart.deployer(other, str(effects), str(gate), approval=False)
        async with other:
            (question,) = await apart.until(lambda: client.interrupts(kind="in_doubt"), "another worker asks")
            took = time.monotonic() - silent
            print(f"{number.name}, heartbeat {heartbeat}: elsewhere after {took:.1f} s")
            assert took <= LEASE + 2 * SWEEP * 1.2 + SLACK
            gate.touch()
            if number == signal.SIGKILL:
                await client.answer(question, NotHappened(), by="ann")
            else:
                first.send_signal(signal.SIGCONT)  # its fact is kept, and withdraws the question
            await apart.until(lambda: is_done(client, thread), "it is done")
    assert len(apart.lines(effects)) == 1
    assert await client.store.check() == []
    await client.aclose()


async def is_done(app: App, thread: str) -> bool:
    return (await app.show(thread)).status == "done"


async def test_told_to_stop_it_ends_what_runs_and_leaves_the_rest(url: str, tmp_path: Path) -> None:
    effects, gate = tmp_path / "effects", tmp_path / "gate"
    client = App(url)
    with worker(url, effects, gate, "30s", "60s", "30s") as first:
        thread = await client.start("deployer")
        first.says("began")
        first.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        later = await client.start("deployer")
        await asyncio.sleep(0.5)
        assert first.poll() is None, "it waits for what runs"
        gate.touch()
        first.says("left")
        assert first.wait(60) == 0
    rows = [await client.store.thread(one) for one in (thread, later)]
    assert [(row.lease_until, row.epoch) for row in rows if row] == [(None, 1), (None, 0)]
    assert "outcome" in [event.kind for event in await client.store.events(thread)]
    await client.aclose()


async def test_told_to_stop_it_does_not_wait_for_ever(url: str, tmp_path: Path) -> None:
    effects, gate = tmp_path / "effects", tmp_path / "gate"
    client = App(url)
    with worker(url, effects, gate, f"{LEASE:g}s", "60s", "500ms") as first:
        thread = await client.start("deployer")
        first.says("began")
        first.send_signal(signal.SIGTERM)
        began = time.monotonic()
        await asyncio.to_thread(first.wait, 60)
        print(f"it left after {time.monotonic() - began:.1f} s")
    async with serving(client, effects, gate):
        await apart.until(lambda: client.interrupts(kind="in_doubt", thread=thread), "whoever follows asks whether it happened")
    assert apart.lines(effects) == []


IMPATIENT = """
import asyncio
from pathlib import Path
from ownloop import App, Intent, Thread
from ownloop.engines import PgQueuer

class Work(Intent):
    "Work."

async def work() -> None:
    Path("began").touch()
    await asyncio.sleep(60)

app = App({url!r}, engine=PgQueuer(drain="200ms"))

@app.agent
async def worker(thread: Thread) -> None:
    step = await thread.next_step(lambda thread: Work())
    await step.run(work)
"""


async def test_what_an_impatient_end_cuts_off_is_told_once_and_is_no_error(url: str, tmp_path: Path) -> None:
    (tmp_path / "impatient.py").write_text(IMPATIENT.format(url=url))
    command = [sys.executable, "-m", "ownloop", "worker", "impatient.py"]
    async with App(url) as client:
        await client.start("worker")
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            async with asyncio.timeout(60):
                while not (tmp_path / "began").exists():
                    await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            said, _ = await asyncio.to_thread(process.communicate, timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert said.count("left to their leases") == 1 and "ERROR" not in said and "Traceback" not in said, said


def serving(app: App, effects: Path, gate: Path) -> App:
    apart.deployer(app, str(effects), str(gate), approval=False)
    return app


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres(quick=True) as server:
        yield server


@pytest.mark.parametrize("how", ["fast", "immediate"])
async def test_a_restart_of_the_server_stops_no_worker(server: Postgres, how: Literal["fast", "immediate"]) -> None:
    book, app = Book(), App(server.store(how), lease="15s")
    for name in ("reader", "waiter"):
        app.add(getattr(book, name), name=name)
    async with app:
        held = [await app.start("waiter") for _ in range(4)]
        await apart.until(lambda: len(book.wakes) == 4, "four handlers are in flight")
        await asyncio.to_thread(server.restart, how)
        back = time.monotonic()
        told = [await _again(lambda: app.start("reader", key="0")), *[await _again(lambda n=n: app.start("reader", key=n)) for n in "123456789"]]
        await apart.until(lambda: set(told) <= set(book.wakes), "every wake after it has started")
        took = time.monotonic() - back
        print(f"{how}: ten wakes after the restart started within {took:.1f} s")
        assert took < 5
        book.gate.set()
        await apart.until(lambda: _all_done(app, [*held, *told]), "all are done")
        assert sorted(book.wakes) == sorted([*held, *told]), "none is started twice"


async def _again(work: Any) -> Any:
    """What was cut off may be tried again: the key makes it the same thread."""
    from ownloop.errors import StoreError

    while True:
        try:
            return await work()
        except StoreError:
            await asyncio.sleep(0.05)


async def _all_done(app: App, threads: list[str]) -> bool:
    rows = [await app.store.thread(one) for one in threads]
    return all(row is not None and row.status == "done" for row in rows)
