"""Running the command line in this process (quick) and in processes of its own (true)."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
DESK = str(HERE / "desk.py")
SOURCE = str(HERE.parent.parent / "src")


@dataclass
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Said]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("OWNLOOP_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


ON_POSTGRES = {"test_json", "test_two_terminals"}
"""Tests of commands that ask much of a store."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "url" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in ON_POSTGRES:
        metafunc.parametrize("url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if getattr(request, "param", "sqlite") == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/t.db"


@pytest.fixture
def run(url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("threads", "--json")` on this test's store, in this process."""
    from ownloop.cli.program import run as act

    def one(*words: str, store: str | None = url) -> Said:
        if store is None:
            monkeypatch.delenv("OWNLOOP_STORE", raising=False)
        else:
            monkeypatch.setenv("OWNLOOP_STORE", store)
        capfd.readouterr()
        code = act(words)
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return one


@pytest.fixture
def settled(url: str) -> Callable[..., list[str]]:
    """`settled("deploy", "ask")`: threads that have come as far as they can without anybody."""
    sys.path.insert(0, str(HERE)) if str(HERE) not in sys.path else None
    import desk

    return lambda *inputs, **more: asyncio.run(desk.settled(url, *inputs, **more))


def environment(url: str, **more: str) -> dict[str, str]:
    path = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**path, "PYTHONPATH": SOURCE, "OWNLOOP_STORE": url, "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1", **more}


@dataclass
class Terminal:
    """A command that runs in a process of its own; its lines with the time each came."""

    process: subprocess.Popen[str]
    lines: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append((time.time(), line.rstrip("\n")))

    def until(self, text: str, seconds: float = 15) -> tuple[float, str]:
        """The first line that holds the text."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in list(self.lines):
                if text in line[1]:
                    return line
            time.sleep(0.005)
        raise AssertionError(f"{text!r} did not come within {seconds} s; there was: {self.lines}")


@pytest.fixture
def terminal(url: str) -> Iterator[Callable[..., Terminal]]:
    """`terminal("worker", DESK)` starts a command; it is ended after the test."""
    running: list[Terminal] = []

    def start(*words: str, **more: str) -> Terminal:
        command = [sys.executable, "-m", "ownloop", *words]
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        running.append(Terminal(subprocess.Popen(command, text=True, env=environment(url, **more), **both)))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.wait()
