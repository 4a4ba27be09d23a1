"""Workers that die by SIGKILL at any moment: every effect takes place once, or a person was asked about it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import Counter
from pathlib import Path

import apart

from ownloop import App
from ownloop.tools import Happened, NotHappened

KILLS = 200
AT_WORK = 16
STEPS = 12


async def test_two_hundred_kills_lose_no_selection_and_repeat_no_effect_in_silence(tmp_path: Path) -> None:
    url, path, chance = f"sqlite:///{tmp_path}/a.db", tmp_path / "effects", random.Random(2026)
    app = App(url)  # only asks and answers; it runs nothing
    threads: list[str] = []
    worker = json.dumps(["write", url, str(path), str(STEPS), "0.004", "250ms", "8"])
    asked = poisoned = 0
    with apart.process("nursery") as nursery:
        nursery.says("nursing")
        for _ in range(KILLS):
            while len(await app.threads(status="open", limit=1000)) < AT_WORK:  # every kill finds a process at work
                threads.append(await app.start("writer"))
            nursery.tell(worker)
            pid = int(nursery.says("ready"))
            await asyncio.sleep(chance.uniform(0, 0.15))
            os.kill(pid, signal.SIGKILL)
            await apart.until(lambda pid=pid: not _lives(pid), "the process is gone")
            asked += await _answer(app, path)
            poisoned += await _retry(app)
        nursery.tell(worker)
        last = int(nursery.says("ready"))

        async def all_done() -> bool:
            nonlocal asked, poisoned
            asked += await _answer(app, path)
            poisoned += await _retry(app)
            return len(await app.threads(status="done", limit=1000)) == len(threads)

        await apart.until(all_done, "every thread is done", 60)
        os.kill(last, signal.SIGKILL)
    print(f"{KILLS} kills, {len(threads)} threads of {STEPS} effects: asked {asked} times, poisoned {poisoned} times")
    effects = Counter(line.rsplit(" ", 1)[0] for line in apart.lines(path))
    assert effects == {f"{thread} {number}": 1 for thread in threads for number in range(STEPS)}
    assert asked > 5, "the kills hit nothing"
    for thread in threads:
        chosen = [event.data for event in await app.store.events(thread) if event.kind == "selected"]
        assert [one["intent"] for one in chosen] == ["write"] * STEPS + ["done"]
        assert [one["arguments"].get("number") for one in chosen] == [*range(STEPS), None]
    assert await app.store.check() == []
    await app.aclose()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def _answer(app: App, path: Path) -> int:
    """A person who looks at the file, and tells the truth."""
    open_questions = await app.interrupts(kind="in_doubt", limit=1000)
    there = {line.rsplit(" ", 1)[0] for line in apart.lines(path)}
    for question in open_questions:
        number = question.intent["number"]
        happened = f"{question.thread_id} {number}" in there
        await app.answer(question, Happened("x") if happened else NotHappened(), by="ann")
    return len(open_questions)


async def _retry(app: App) -> int:
    """More than five deaths in a row without progress stop a thread; it says so, and goes on when told."""
    failed = await app.threads(status="failed", limit=1000)
    for one in failed:
        assert one.error is not None
        assert one.error.type == "poisoned"
        assert "wakes in a row died without an end" in one.error.message
        await app.retry(one.id)
    return len(failed)
