"""What a process costs that serves threads: system calls when idle, syncs per commit, memory and tasks for those that wait, and a full disk."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apart
import pytest

from ownloop import App
from ownloop.errors import StoreFull

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is missing")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/a.db"


def traced(path: Path) -> dict[str, int]:
    """Calls by name, of what `strace -c` wrote."""
    rows = [line.split() for line in path.read_text().splitlines()]
    return {row[-1]: int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit() and row[-1] != "total"}


@pytest.mark.alone
@needs_strace
async def test_an_idle_process_that_serves_makes_few_system_calls(url: str, tmp_path: Path) -> None:
    app = App(url)
    for _ in range(50):
        await app.start("deployer")
    seconds = 3
    with apart.process("deploy", url, tmp_path / "effects", "", "approval", "30s") as worker:
        worker.says("ready")

        async def all_wait() -> bool:
            return len(await app.interrupts(limit=50)) == 50

        await apart.until(all_wait, "all threads wait")
        await asyncio.sleep(0.3)
        trace = tmp_path / "strace"
        strace = subprocess.Popen(["strace", "-c", "-f", "-o", str(trace), "-p", str(worker.pid)], stderr=subprocess.PIPE, text=True)
        assert strace.stderr is not None
        assert "attached" in strace.stderr.readline()
        await asyncio.sleep(seconds)
        strace.send_signal(signal.SIGINT)
        await asyncio.to_thread(strace.communicate)
    calls = traced(trace)
    print(f"idle: {sum(calls.values()) / seconds:.0f} system calls a second: {calls}")
    assert 0 < sum(calls.values()) / seconds <= 200, calls
    await app.aclose()


@needs_strace
@pytest.mark.parametrize(("threads", "steps", "least", "most"), [(1, 40, 0.6, 1.5), (200, 4, 0.0, 0.4)], ids=["one by one", "200 at once"])
def test_every_commit_is_synced_and_those_of_many_threads_share_one(
    url: str, tmp_path: Path, threads: int, steps: int, least: float, most: float
) -> None:
    trace = tmp_path / "strace"
    before = ("strace", "-f", "-c", "-e", "trace=fdatasync,fsync", "-o", str(trace))
    with apart.process("finish", url, tmp_path / "effects", threads, steps, before=before) as worker:
        events = int(worker.says("events"))
        worker.wait(30)
    syncs = sum(traced(trace).values())
    print(f"{threads} threads: {events} events, {syncs} syncs")
    assert least <= syncs / events <= most


async def test_ten_thousand_parked_threads_cost_few_tasks_and_little_memory(url: str, tmp_path: Path) -> None:
    with apart.process("park", f"{url}?synchronous=normal", tmp_path / "effects", 10_000) as worker:
        tasks, grown, seconds = json.loads(worker.says("parked"))
        print(f"10,000 parked threads: {tasks} tasks, {grown / 1e6:.1f} MB more, parked after {seconds:.1f} s")
        app = App(url)
        delays = []
        for waiting in await app.interrupts(limit=7):
            told = time.monotonic()
            await app.approve(waiting, by="ann")
            delays.append(float(worker.says("began")) - told)
        woken = statistics.median(delays)
        print(f"one of them wakes after {woken * 1000:.0f} ms (median of 7), {max(delays) * 1000:.0f} ms at most")
        await app.aclose()
    assert tasks <= 50
    assert grown <= 20e6
    assert woken < 0.1


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "none", folder], check=False).returncode == 0
    if not mounted:
        pytest.skip("a small disk can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


async def test_a_disk_that_fills_up_in_the_middle_of_a_run_costs_no_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    effects, steps = tmp_path / "effects", 40
    with small_disk(tmp_path / "disk") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 32_900_000)
        app = App(f"sqlite:///{disk}/a.db", lease="300ms")
        apart.writer(app, str(effects), steps, result=20_000)
        with caplog.at_level(logging.WARNING):
            async with app:
                thread = await app.start("writer")
                await apart.until(lambda: "is full; nothing was written" in caplog.text, "the disk is full")
                written = len(apart.lines(effects))
                with pytest.raises(StoreFull, match="Free some space"):
                    for _ in range(100):
                        await app.send(thread, "y" * 50_000)
                ballast.unlink()

                async def is_done() -> bool:
                    for question in await app.interrupts(kind="in_doubt"):
                        raise AssertionError(f"nobody died, and yet: {question.question}")
                    return (await app.show(thread)).status == "done"

                await apart.until(is_done, "the thread goes on")
                assert await app.store.check() == []
    print(f"the disk was full after {written} of {steps} effects")
    assert 0 < written < steps
    assert [line.split()[1] for line in apart.lines(effects)] == [str(number) for number in range(steps)]
