"""The real program in a process of its own, in a folder of its own; and a browser without JavaScript."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import httpx

from .conftest import DESK, environment

AGENT = Path(DESK).read_text()
GROUP = "release-managers"


class Program:
    """`ownloop WORDS`; what it prints, as it comes."""

    def __init__(self, folder: Path, *words: str, **more: str) -> None:
        self.folder = folder
        self._log = folder / f"log-{time.monotonic_ns()}.txt"
        env = {name: value for name, value in environment("").items() if name != "OWNLOOP_STORE"}
        with self._log.open("w") as log:
            command = [sys.executable, "-m", "ownloop", *words]
            self.process = subprocess.Popen(
                command, cwd=folder, env={**env, "PYTHONUNBUFFERED": "1", **more}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def told(self) -> str:
        return self._log.read_text()

    def until(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.told)) is None:
            assert time.monotonic() < end, f"{pattern!r} did not come; there was: {self.told}"
            time.sleep(0.02)
        return found

    def where(self) -> dict[str, Any]:
        """What `--json` says once it is ready."""
        return dict(json.loads(self.until(r'\{"version".*\}\n')[0]))

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def end(self) -> int:
        return self.process.wait(60)


@contextmanager
def running(folder: Path, *words: str, **more: str) -> Iterator[Program]:
    program = Program(folder, *words, **more)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.process.terminate()
            try:
                program.process.wait(10)
            except subprocess.TimeoutExpired:
                program.process.kill()
                program.process.wait()


def said(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    env = {name: value for name, value in environment("").items() if name != "OWNLOOP_STORE"}
    command = [sys.executable, "-m", "ownloop", *words]
    return subprocess.run(command, cwd=folder, env={**env, **more}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


def quick(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The same in this process: for what a test needs, and is not about."""
    from ownloop.cli.program import run

    out, err, before, here = io.StringIO(), io.StringIO(), dict(os.environ), Path.cwd()
    try:
        os.environ.update(more)
        os.chdir(folder)
        with redirect_stdout(out), redirect_stderr(err):
            code = run(words)
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def browser(login: str) -> httpx.Client:
    """Logged in by the link, as a person does it: look at the page, press the button."""
    url, _, code = login.partition("/login?code=")
    visitor = httpx.Client(base_url=url, timeout=10)
    assert visitor.get("/login", params={"code": code}).status_code == 200
    assert visitor.post("/login", data={"code": code}).status_code == 303
    return visitor


def wait(until: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def children(pid: int) -> list[int]:
    """The processes that this one has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
