"""examples/demo.py, as `make demo` runs it: without a terminal, on one, answered from elsewhere, stopped and gone on with; and `ownloop demo`."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from ownloop import Actor, App

ROOT = Path(__file__).resolve().parent.parent
DEMO = [sys.executable, str(ROOT / "examples" / "demo.py")]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """As empty as `env -i` leaves it, with a folder for temporary files whose name has a space."""
    (tmp_path / "t m p").mkdir()
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path / "t m p"), "DEMO_FOLDER": str(tmp_path / "kept" / "demo"), **kept}


def left_behind(environment: dict[str, str]) -> list[Path]:
    """What a stopped demo left, besides the lock beside its folder."""
    kept = Path(environment["DEMO_FOLDER"])
    return [*Path(environment["TMPDIR"]).iterdir(), *([kept] if kept.exists() else [])]


def browser(login: str) -> httpx.Client:
    """Logged in by the link, as a person does it: look at the page, press the button."""
    url, _, code = login.partition("/login?code=")
    visitor = httpx.Client(base_url=url, timeout=10)
    assert visitor.get("/login", params={"code": code}).status_code == 200
    assert visitor.post("/login", data={"code": code}).status_code == 303
    return visitor


def test_without_a_terminal_it_says_so_answers_itself_and_cleans_up(environment: dict[str, str]) -> None:
    done = subprocess.run(DEMO, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
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
    assert re.search(r"inbox +http://127\.0\.0\.1:\d+/login\?code=", first)
    assert "4  Yours" not in told
    assert left_behind(environment) == []


class Terminal:
    """The demo on a pseudo-terminal."""

    def __init__(self, environment: dict[str, str], command: list[str] = DEMO) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, {**environment, "TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1"})
        self._raw = b""

    @property
    def seen(self) -> str:
        """What it says, without bold and dim."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._raw.decode(errors="replace"))

    def read_until(self, pattern: str, seconds: float = 90) -> re.Match[str]:
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < end, f"{pattern!r} did not come; there was: {self.seen}"
            if select.select([self.fd], [], [], 0.2)[0]:
                self._raw += os.read(self.fd, 4096)
        return found

    def stop(self, number: int = signal.SIGINT, code: int = 130) -> None:
        """What Ctrl-C, or a plain kill, does to it."""
        os.kill(self.pid, number)
        assert self.finish() == code

    def finish(self) -> int:
        try:
            while chunk := os.read(self.fd, 4096):
                self._raw += chunk
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


def test_an_answer_in_the_browser_ends_the_prompt(environment: dict[str, str]) -> None:
    terminal = Terminal(environment)
    terminal.read_until(r"approve\? \[y/n\] ")
    visitor = browser(terminal.read_until(r"inbox +(http://\S+)\s")[1])
    (waiting,) = visitor.get("/v1/interrupts").json()["items"]
    assert "v1.10.0" in visitor.get(f"/interrupts/{waiting['id']}").text
    url = f"/v1/interrupts/{waiting['id']}/decision"
    assert visitor.post(url, json={"decision": "approve", "digest": waiting["digest"]}).status_code == 200
    terminal.read_until(r"production stands at v1\.10\.0")
    terminal.stop()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_stopped_while_it_waits_it_goes_on_from_there_the_next_time(environment: dict[str, str], number: int, code: int) -> None:
    terminal = Terminal(environment)
    terminal.read_until(r"approve\? \[y/n\] ")
    interrupt = terminal.read_until(r"decide (int_\w+) approve")[1]
    terminal.stop(number, code)
    assert left_behind(environment) == [Path(environment["DEMO_FOLDER"])]
    again = Terminal(environment)
    again.read_until(r"going on +thr_\w+ was started .* ago by a process that is no more")
    assert again.read_until(r"decide (int_\w+) approve")[1] == interrupt
    again.read_until(r"approve\? \[y/n\] ")
    os.write(again.fd, b"y\n")
    again.read_until(r"production stands at v1\.10\.0")
    again.read_until(r"2  Killed after")
    again.stop()
    assert left_behind(environment) == []


def test_at_the_end_the_inbox_stays_open_until_ctrl_c_and_what_waits_there_is_kept(environment: dict[str, str]) -> None:
    terminal = Terminal(environment)
    terminal.read_until(r"approve\? \[y/n\] ")
    os.write(terminal.fd, b"y\n")
    terminal.read_until(r"(?s)4  Yours.*v1\.13\.0.*approve\? \[y/n\] ")
    visitor = browser(terminal.read_until(r"inbox +(http://\S+)\s")[1])
    assert [one["intent"]["tag"] for one in visitor.get("/v1/interrupts").json()["items"]] == ["v1.13.0"]
    terminal.stop()
    again = Terminal(environment)
    again.read_until(r"(?s)4  Yours.*going on.*approve\? \[y/n\] ")
    assert "2  Killed" not in again.seen
    os.write(again.fd, b"y\n")
    again.read_until("All is done. The inbox stays open")
    again.stop()
    assert left_behind(environment) == []


# ---- `ownloop demo`, which is in the wheel ---------------------------------------------------------------------------------------

PACKAGED = [sys.executable, "-m", "ownloop", "demo", "--no-open", "-p", "0"]


def test_ownloop_demo_opens_with_something_that_waits_and_goes_on_after_kill_9(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment |= {"PYTHONPATH": str(ROOT / "src")}
    monkeypatch.chdir(tmp_path)
    first = Terminal(environment, PACKAGED)
    waiting = first.read_until(r"another terminal: ownloop decide (int_\w+) approve")[1]
    visitor = browser(first.read_until(r"Inbox +(http://\S+)\s")[1])
    open_ones = visitor.get("/v1/interrupts").json()["items"]
    assert {one["kind"] for one in open_ones} == {"approval", "question"}
    assert waiting in {one["id"] for one in open_ones}
    first.stop(signal.SIGKILL, -9)
    second = Terminal(environment, PACKAGED)
    second.read_until(r"Threads +3 open go on where they were +2 wait for a person")
    assert second.read_until(r"ownloop decide (int_\w+) approve")[1] == waiting
    visitor = browser(second.read_until(r"Inbox +(http://\S+)\s")[1])
    (deployment,) = [one for one in visitor.get("/v1/interrupts").json()["items"] if one["id"] == waiting]
    url = f"/v1/interrupts/{waiting}/decision"
    assert visitor.post(url, json={"decision": "approve", "digest": deployment["digest"]}).status_code == 200
    second.read_until(r"deploy\w* .*starts|run:deploy")
    second.stop()


def test_ownloop_demo_without_a_terminal_serves_until_it_is_told_to_stop(environment: dict[str, str], tmp_path: Path) -> None:
    command = [*PACKAGED, "--ephemeral", "--json", "-q"]
    environment |= {"PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        where = json.loads(demo.stdout.readline())
        assert browser(where["login"]).get("/").status_code == 200
        demo.terminate()
        assert demo.wait(30) == 0
    assert left_behind(environment) == []
    assert not (tmp_path / ".ownloop").exists()
