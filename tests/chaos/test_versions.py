"""An old and a new version of a program at work side by side: nothing is lost, the doctor says what does not fit, and `retry` heals it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import clerk
import pytest
from storm_servers import postgres

from ownloop import App


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/a.db"
    else:
        with postgres(quick=True) as server:
            yield server.url


EDITS = {
    "old": {},
    "new": {"Deploy": "Ship", "step.run(charge, thread.key, cents)": 'step.run(charge, thread.key, cents, "eur")'},
    "both": {"class Charge": "class Ship(Deploy): ...\n\n\nclass Charge", "-> Deploy": "-> Deploy | Ship", "return Deploy(": "return Ship("},
}
"""What is changed in the old program: an intent is renamed and a branch changed; and a program that reads the logs of the two."""


def program(folder: Path, version: str) -> Path:
    text = Path(clerk.__file__).read_text()
    for old, new in EDITS[version].items():
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{version}.py"
    path.write_text(text)
    return path


@contextmanager
def worker(url: str, ledger: Path, version: str) -> Iterator[subprocess.Popen[bytes]]:
    path = program(ledger.parent, version)
    process = subprocess.Popen([sys.executable, str(path), url, str(ledger), version], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


@contextmanager
def frozen(process: subprocess.Popen[bytes]) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def command(url: str, *words: str) -> tuple[int, str]:
    """What `ownloop` does and says."""
    environment = {**os.environ, "OWNLOOP_STORE": url, "NO_COLOR": "1", "COLUMNS": "400"}
    done = subprocess.run([sys.executable, "-m", "ownloop", *words], capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout + done.stderr


async def until(look: Callable[[], Coroutine[Any, Any, bool]], what: str) -> None:
    give_up = time.monotonic() + 60
    while not await look():
        assert time.monotonic() < give_up, f"not within 60 s: {what}"
        await asyncio.sleep(0.02)


class Desk:
    """Who starts threads and answers."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.ids: dict[str, str] = {}

    async def start(self, *keys: str) -> None:
        """Start threads, and wait until they are parked."""
        for key in keys:
            self.ids[key] = await self.app.start("clerk", key=key)

        async def parked() -> bool:
            waiting = {one.thread_id for one in await self.app.interrupts()}
            return {self.ids[key] for key in keys} <= waiting and await self._are_let_go(keys)

        await until(parked, f"{keys} are parked")

    async def _are_let_go(self, keys: Collection[str]) -> bool:
        """Whether no worker is in the middle of a wake of them: one that freezes there would keep them, or the file."""
        rows = [await self.app.store.thread(self.ids[key]) for key in keys]
        return all(row is not None and row.lease_until is None for row in rows)

    async def answer(self, *keys: str) -> None:
        for key in keys:
            if key.startswith("deploy"):
                await self.app.approve((await self.app.interrupts(thread=self.ids[key]))[0], by="ops")
            else:
                await self.app.emit("bank", "paid", key=key)

    async def are(self, status: str, *keys: str) -> None:
        """Wait until they are so; their errors' types."""

        async def look() -> bool:
            return {(await self.app.show(self.ids[key])).status for key in keys} == {status} and await self._are_let_go(keys)

        await until(look, f"{keys} are {status}")


async def test_two_versions_side_by_side_lose_nothing_and_what_does_not_fit_is_named_and_healed(url: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    app = App(url)
    desk = Desk(app)
    with ExitStack() as stack:
        old = stack.enter_context(worker(url, ledger, "old"))
        await desk.start("deploy-1", "deploy-2", "charge-1", "charge-2")
        new = stack.enter_context(worker(url, ledger, "new"))
        with frozen(old):  # the new one meets logs of the old one
            await desk.start("deploy-3")
            await desk.answer("deploy-1", "charge-1")
            await desk.are("failed", "deploy-1", "charge-1")
        with frozen(new):  # and the other way round
            await desk.answer("deploy-2", "charge-2", "deploy-3")
            await desk.are("done", "deploy-2", "charge-2")
            await desk.are("failed", "deploy-3")
        code, said = command(url, "doctor")
        print(said)
        assert code == 1
        for key, words in {
            "deploy-1": ("UnknownIntent", "no class is named 'deploy'; known: charge, done, ship"),
            "charge-1": ("ProgramChanged", "run:charge is recorded with other arguments than the program passes now"),
            "deploy-3": ("UnknownIntent", "no class is named 'ship'; known: charge, deploy, done"),
        }.items():
            (about,) = [one for one in said.split("✗ ") if one.startswith(desk.ids[key])]
            assert all(word in about for word in ("program changed", *words)), about
        assert not [key for key in ("deploy-2", "charge-2") if desk.ids[key] in said]
    with worker(url, ledger, "both"):
        for key in ("deploy-1", "charge-1", "deploy-3"):
            assert f"ownloop retry {desk.ids[key]}" in said
            assert command(url, "retry", desk.ids[key])[0] == 0
        await desk.are("done", "deploy-1", "charge-1", "deploy-3")
    assert command(url, "doctor")[0] == 0
    assert Counter(ledger.read_text().splitlines()) == {
        "charge-1 charged 100 old": 1,
        "charge-1 receipt both": 1,
        "charge-2 charged 100 old": 1,
        "charge-2 receipt old": 1,
        "deploy-1 deployed v1 both": 1,
        "deploy-2 deployed v1 old": 1,
        "deploy-3 deployed v1 both": 1,
    }
    assert [len(await app.interrupts(thread=id, kind="approval", status="decided")) for key, id in desk.ids.items() if "deploy" in key] == [1, 1, 1]
    await app.aclose()
