"""Processes that freeze (SIGSTOP) until their lease has run out, and go on."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import apart
import pytest

from ownloop import App
from ownloop.tools import NotHappened

LEASE = "300ms"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/a.db"


async def kinds(app: App, thread: str) -> list[str]:
    return [event.kind for event in await app.store.events(thread)]


async def lease_is_over(app: App, thread: str) -> bool:
    row = await app.store.thread(thread)
    assert row is not None
    return row.lease_until is not None and row.lease_until <= datetime.now(UTC)


async def is_done(app: App, thread: str) -> bool:
    return (await app.show(thread)).status == "done"


async def test_a_frozen_worker_keeps_its_finished_effect_and_begins_nothing_more(url: str, tmp_path: Path) -> None:
    effects, gate = tmp_path / "effects", tmp_path / "gate"
    app = App(url, lease=LEASE)
    thread = await app.start("deployer")
    with apart.process("deploy", url, effects, gate, "", LEASE) as frozen:
        frozen.says("began")
        frozen.send_signal(signal.SIGSTOP)
        await apart.until(lambda: lease_is_over(app, thread), "the lease has run out")
        apart.deployer(app, str(effects), str(gate), approval=False)
        async with app:  # somebody else takes over, and asks
            question = (await apart.until(lambda: app.interrupts(kind="in_doubt"), "somebody asks"))[0]
            gate.touch()
            frozen.send_signal(signal.SIGCONT)
            await apart.until(lambda: is_done(app, thread), "the thread is done")
            assert (await app.interrupt(question.id)).status == "withdrawn"
            events = await app.store.events(thread)
    outcome = next(event for event in events if event.kind == "outcome")
    assert (outcome.data["value"], outcome.by) == ("live", None), "the result that the frozen worker had is kept"
    assert [line.split()[1] for line in apart.lines(effects)] == [str(frozen.pid)]
    assert [event.kind for event in events].count("started") == 1
    assert [event.data["intent"] for event in events if event.kind == "selected"] == ["deploy", "done"]


@pytest.mark.parametrize("answered", [False, True], ids=["nobody answers", "a person says it did not happen"])
async def test_a_function_about_to_start_is_not_called_once_the_lease_is_gone(url: str, tmp_path: Path, answered: bool) -> None:
    effects = tmp_path / "effects"
    app = App(url, lease=LEASE)
    thread = await app.start("deployer")
    with apart.process("freeze", url, effects, LEASE) as frozen:
        frozen.says("frozen")
        await apart.until(lambda: lease_is_over(app, thread), "the lease has run out")
        assert "started" in await kinds(app, thread)
        apart.deployer(app, str(effects), approval=False)
        async with app:
            question = (await apart.until(lambda: app.interrupts(kind="in_doubt"), "somebody asks"))[0]
            if answered:
                await app.answer(question, NotHappened(), by="ann")
                await apart.until(lambda: is_done(app, thread), "the thread is done")
            frozen.send_signal(signal.SIGCONT)
            frozen.says("thawed")
            await apart.until(lambda: has(app, thread, "not_started"), "the frozen worker says that it started nothing")
            await apart.until(lambda: is_done(app, thread), "the thread is done")
            assert (await app.interrupts(thread=thread)) == []
    assert len(apart.lines(effects)) == 1, "it ran once"


async def has(app: App, thread: str, kind: str) -> bool:
    return kind in await kinds(app, thread)


async def test_a_handler_that_blocks_its_loop_longer_than_the_lease_keeps_it(url: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    app = App(url, lease=LEASE)
    entered = asyncio.Event()

    @app.agent(name="deployer")
    async def blocks(thread: object) -> str:
        entered.set()
        await asyncio.sleep(0)
        time.sleep(1.2)
        apart.add_line(str(effects), "here")
        return "done"

    thread = await app.start("deployer")
    with apart.process("deploy", url, effects, "", "", LEASE) as other:
        other_ready = asyncio.to_thread(other.says, "ready")
        other.send_signal(signal.SIGSTOP)  # it may not be first
        async with app:
            await entered.wait()
            other.send_signal(signal.SIGCONT)
            await other_ready
            await apart.until(lambda: is_done(app, thread), "the thread is done")
            row = await app.store.thread(thread)
    assert row is not None
    assert row.epoch == 1, "nobody else has claimed it"
    assert apart.lines(effects) == ["here"]
