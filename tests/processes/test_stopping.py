"""Telling a working process something: pause, cancel, SIGTERM, Ctrl-C."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import apart
import pytest

from ownloop import App


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/a.db"


@pytest.mark.alone
@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_what_runs_in_another_process_hears_of_it_within_a_second(url: str, verb: str) -> None:
    app = App(url)
    threads = {agent: await app.start(agent) for agent in ("model", "read", "effect")}
    heard = {}
    with apart.process("stop", url) as worker:
        assert {worker.says("began") for _ in threads} == set(threads)
        for agent, thread in threads.items():
            told = time.monotonic()
            await getattr(app, verb)(thread, by="ann")
            what, at = worker.says("stopped").split()
            assert what == agent
            heard[agent] = float(at) - told

        async def facts() -> bool:
            return any(event.kind == "outcome" for event in await app.store.events(threads["effect"]))

        await apart.until(facts, "the effect's outcome is recorded")
    print(f"{verb} heard after", {agent: f"{seconds * 1000:.0f} ms" for agent, seconds in heard.items()})
    assert max(heard.values()) < 1, heard
    outcome = next(event for event in await app.store.events(threads["effect"]) if event.kind == "outcome")
    assert outcome.data["value"] == "finished all the same"
    for agent in ("model", "read"):
        assert not any(event.kind in ("outcome", "started") for event in await app.store.events(threads[agent]))
    await app.aclose()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
async def test_a_process_that_is_told_to_end_finishes_what_it_started_and_lets_go_of_its_leases(url: str, tmp_path: Path, number: int) -> None:
    effects, gate = tmp_path / "effects", tmp_path / "gate"
    app = App(url)
    one, many = await app.start("deployer"), await app.start("writer")
    with apart.process("run", url, effects, gate) as worker:
        worker.says("began")
        await apart.until(lambda: apart.lines(effects), "it writes")
        worker.send_signal(number)
        time.sleep(0.1)  # it would have ended by now if it did not wait
        assert worker.poll() is None, "it waits for what it has started"
        gate.touch()
        worker.says("left")
        assert worker.wait(10) == 0
    row = await app.store.thread(many)
    assert row is not None
    assert (row.status, row.lease_until) == ("open", None), "it began nothing more, and no lease keeps the next process out"
    for thread in (one, many):
        log = [(event.kind, event.step_id) for event in await app.store.events(thread)]
        assert [step for kind, step in log if kind == "started"] == [step for kind, step in log if kind == "outcome"], "what was started is recorded"
    written = len(apart.lines(effects))
    began = time.monotonic()
    with apart.process("run", url, effects, gate) as following:

        async def both_done() -> bool:
            return len(await app.threads(status="done")) == 2

        await apart.until(both_done, "the next process goes on")
        print(f"{written} of 41 effects before the signal; the next process did the rest in {time.monotonic() - began:.2f} s; the lease was 60 s")
        following.send_signal(number)
        assert following.wait(10) == 0
    assert time.monotonic() - began < 20
    effects_of = [line.split()[:2] if line.startswith("thr_") else line.split()[:1] for line in apart.lines(effects)]
    assert len(effects_of) == 41, "nothing is lost"
    assert len({tuple(one) for one in effects_of}) == 41, "and nothing ran twice"
    await app.aclose()
