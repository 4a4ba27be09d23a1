"""examples/demo.py, as `make demo` runs it: without a terminal, on one, and answered from elsewhere."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ownloop import Actor, App

ROOT = Path(__file__).resolve().parent.parent
DEMO = [sys.executable, str(ROOT / "examples" / "demo.py")]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """As empty as `env -i` leaves it, with a folder for temporary files whose name has a space."""
    (tmp_path / "t m p").mkdir()
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path / "t m p"), **kept}


def left_behind(environment: dict[str, str]) -> list[Path]:
    return list(Path(environment["TMPDIR"]).iterdir())


def test_without_a_terminal_it_says_so_answers_itself_and_cleans_up(environment: dict[str, str]) -> None:
    before = time.monotonic()
    done = subprocess.run(DEMO, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - before < 30
    told = done.stdout
    assert "There is no terminal here, so the demo answers itself" in told
    assert "\x1b" not in told
    first, killed, again = re.split(r"^[23]  ", told, flags=re.MULTILINE)
    assert first.index("asks approval") < first.index("ownloop decide int_") < first.index("deploy started") < first.index("stands at v1.10.0")
    assert "production stands at v1.11.0, and the log does not know it" in killed
    assert "as verify said" in killed
    assert "1 release made, started once" in killed
    assert "production stands at v1.11.0, still" in again
    assert "1 release made, started 2 times, under one key" in again
    assert left_behind(environment) == []


class Terminal:
    """The demo on a pseudo-terminal."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(DEMO[0], DEMO, {**environment, "TERM": "xterm", "COLUMNS": "200"})
        self.seen = ""

    def read_until(self, pattern: str) -> re.Match[str]:
        while (found := re.search(pattern, self.seen)) is None:
            self.seen += os.read(self.fd, 4096).decode(errors="replace")
        return found

    def stop(self, number: int = signal.SIGINT) -> None:
        """What Ctrl-C, or a plain kill, does to it."""
        os.kill(self.pid, number)
        assert self.finish() == 130

    def finish(self) -> int:
        try:
            while chunk := os.read(self.fd, 4096):
                self.seen += chunk.decode(errors="replace")
        except OSError:  # Linux's way to say that the other side has closed
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_refusal_at_the_prompt_deploys_nothing_and_the_demo_goes_on(environment: dict[str, str]) -> None:
    terminal = Terminal(environment)
    terminal.read_until(r"approve\? \[y/n\] ")
    os.write(terminal.fd, b"hm\n")
    terminal.read_until(r"(?s)approve\? \[y/n\] .*approve\? \[y/n\] ")
    os.write(terminal.fd, b"n\n")
    terminal.read_until(r"refused v1\.10\.0 to production \(not now\)")
    terminal.read_until(r"is empty")
    terminal.read_until(r"2  Killed after")
    terminal.stop()


def test_an_answer_from_another_terminal_ends_the_prompt(environment: dict[str, str]) -> None:
    terminal = Terminal(environment)
    terminal.read_until(r"approve\? \[y/n\] ")
    command = terminal.read_until(r"decide (int_\w+) approve.*--store (\S+)")
    asyncio.run(approve(command[2].strip("'"), command[1]))
    terminal.read_until(r"\[y/n\] \r\n")
    assert "mia" in terminal.read_until(r"approved.*")[0]
    terminal.read_until(r"2  Killed after")
    terminal.stop()


async def approve(store: str, interrupt: str) -> None:
    app = App(store)
    await app.approve(interrupt, by=Actor("mia", ["release-managers"]))
    await app.aclose()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_it_leaves_nothing_behind(environment: dict[str, str], number: int) -> None:
    terminal = Terminal(environment)
    terminal.read_until(r"approve\? \[y/n\] ")
    terminal.stop(number)
    assert left_behind(environment) == []
