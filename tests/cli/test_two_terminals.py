"""Two real processes on one file: what one of them does, the other one sees at once."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from statistics import median

import pytest

from .conftest import DESK, Run, Terminal, environment

SOON = 0.1


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def gap(run: Run, thread: str) -> float:
    """Seconds from the commit of the decision to the next event, which the other process wrote."""
    events = run("show", thread, "--json").json["thread"]["events"]
    place = next(place for place, event in enumerate(events) if event["kind"] == "decision")
    return moment(events[place + 1]["at"]) - moment(events[place]["at"])


def wait_until_done(run: Run, thread: str) -> None:
    end = time.monotonic() + 10
    while run("show", thread, "--json").json["thread"]["status"] != "done":
        assert time.monotonic() < end


@pytest.mark.alone
def test_a_decision_in_a_second_terminal_wakes_the_first_within_100_ms(terminal: Callable[..., Terminal], run: Run, url: str) -> None:
    terminal("worker", DESK).until("serving desk")
    gaps = []
    for _ in range(3):
        thread = run("start", "desk", "deploy", "--wait", "--json").json["thread"]
        command = [sys.executable, "-m", "ownloop", "decide", thread, "approve", "--group", "release-managers", "-q"]
        subprocess.run(command, env=environment(url), check=True, capture_output=True)
        wait_until_done(run, thread)
        gaps.append(gap(run, thread))
    print("decision to the next event:", [f"{one * 1000:.0f} ms" for one in gaps])
    assert min(gaps) < SOON
    assert median(gaps) < 2.5 * SOON  # the machine may be busy


def test_start_stays_while_it_waits_and_goes_on_when_it_is_answered_elsewhere(terminal: Callable[..., Terminal], run: Run) -> None:
    first = terminal("start", "desk", "deploy", "--app", DESK, "--watch", "--stay")
    first.until("asks approval of release-managers")
    thread = first.lines[0][1]
    assert run("decide", thread, "approve", "--as", "ann", "--group", "release-managers", "--note", "go").code == 0
    first.until("approved by ann")
    first.until("turn 1 ended")
    assert first.process.wait(10) == 0


@pytest.mark.alone
def test_show_f_follows_a_thread_of_another_process_with_its_progress(terminal: Callable[..., Terminal], run: Run) -> None:
    thread = run("start", "desk", "train", "--json").json["thread"]
    rows, shown = terminal("show", thread, "-f", "--jsonl"), terminal("show", thread, "-f")
    rows.until("input")
    shown.until("input")
    terminal("worker", DESK)
    assert rows.process.wait(20) == 0
    assert shown.process.wait(20) == 0
    text = "\n".join(line for _, line in shown.lines)
    assert "1 train  epochs: 4" in text
    assert "━" in text
    assert "/4  epoch\\x1b[2J" in text
    assert " left" in text
    assert "✓ train → trained" in text
    items = [(at, json.loads(line)) for at, line in rows.lines if not line.startswith("no worker")]  # said on stderr where the worker comes late
    assert any("progress" in item for _, item in items)
    late = [at - moment(item["at"]) for at, item in items if item.get("kind") in ("outcome", "turn_ended")]
    print("from the commit to the line:", [f"{one * 1000:.0f} ms" for one in late])
    assert min(late) < SOON


# ---- a person at a terminal ---------------------------------------------------------------------------------------------------------


class Screen:
    """A command on a pseudo-terminal."""

    def __init__(self, url: str, *words: str, **more: str) -> None:
        self.shown = ""
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, "-m", "ownloop", *words], {**environment(url), "TERM": "xterm", **more})

    def until(self, text: str, seconds: float = 15) -> str:
        end = time.monotonic() + seconds
        while text not in self.shown and time.monotonic() < end and self._read():
            pass
        assert text in self.shown, self.shown
        return self.shown

    def _read(self) -> bool:
        try:
            if select.select([self._end], [], [], 0.2)[0]:
                self.shown += os.read(self._end, 65536).decode("utf-8", "replace")
        except OSError:  # the other side is closed
            return False
        return True

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._end)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_decide_asks_on_a_terminal(url: str, run: Run, settled: Callable[..., list[str]]) -> None:
    thread = settled("deploy")[0]
    screen = Screen(url, "decide", thread, "--as", "ann", "--group", "release-managers")
    screen.until("approve / edit / reject / respond / later")
    assert "v1.1.0" in screen.shown
    screen.type("r\n")  # reject or respond: asked again
    screen.type("reject\n")
    screen.until("why?")
    screen.type("not today\n")
    screen.until("rejected by ann")
    assert screen.end() == 0
    assert "“not today”" in run("show", thread).out


def test_decide_edits_in_the_editor_of_a_terminal(url: str, run: Run, settled: Callable[..., list[str]], tmp_path: object) -> None:
    thread = settled("deploy")[0]
    screen = Screen(url, "decide", thread, "edit", "--as", "ann", "--group", "release-managers", EDITOR="sed -i s/v1.1.0/v1.0.0/")
    screen.until("edited by ann")
    assert screen.end() == 0
    assert "tag: v1.1.0 → v1.0.0" in run("show", thread).out


def test_ctrl_c_at_the_question_ends_at_once_with_130(url: str, run: Run, settled: Callable[..., list[str]]) -> None:
    thread = settled("ask")[0]
    screen = Screen(url, "decide", thread)
    screen.until("answer")
    screen.type("\x03")
    assert screen.end() == 130
    assert run("inbox", "--json").json["total"] == 1


def test_without_a_terminal_or_with_no_input_nothing_is_asked(url: str, run: Run, settled: Callable[..., list[str]]) -> None:
    thread = settled("deploy")[0]
    for said in (run("decide", thread), run("decide", thread, "edit"), run("decide", thread, "respond")):
        assert said.code == 2
        assert "ownloop decide int_" in said.err
    screen = Screen(url, "decide", thread, "--no-input")
    assert screen.end() == 2


def test_hostile_text_is_inert_on_a_terminal_too(url: str, settled: Callable[..., list[str]]) -> None:
    screen = Screen(url, "show", settled("hostile")[0])
    assert screen.end() == 0
    assert "\\u202eevil" in screen.shown
    assert "\x1b[2J" not in screen.shown
    assert "\x07" not in screen.shown
    assert "\u202e" not in screen.shown
