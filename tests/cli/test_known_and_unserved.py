"""What people are told where nothing happens: the key was known, nobody serves the thread, it waits for an event."""

from collections.abc import Callable

import pytest

from ownloop.cli import standing

from .conftest import DESK, Run, Terminal

Settled = Callable[..., list[str]]


def test_another_input_for_a_known_key_is_not_swallowed_in_silence(run: Run) -> None:
    first = run("start", "desk", "nothing", "--key", "monday", "--json").json
    said = run("start", "desk", "something else", "--key", "monday")
    assert (said.code, said.out.strip()) == (0, first["thread"])
    assert "desk/monday was there already: its input stays 'nothing', and this one was not used" in said.err
    assert "ownloop send desk/monday TEXT" in said.err
    assert "it was there already, and is open: ownloop show thr_" in said.err


@pytest.mark.parametrize("words", [["nothing"], []])
def test_the_same_input_or_none_goes_on_with_the_thread(run: Run, words: list[str]) -> None:
    assert run("start", "desk", "nothing", "--key", "monday", "--app", DESK, "--wait").code == 0
    said = run("start", "desk", *words, "--key", "monday", "--app", DESK, "--wait")
    assert (said.code, said.out.splitlines()[1]) == (0, "nothing is over")
    assert "was there already" not in said.err


def test_a_key_that_is_known_is_told_also_where_the_thread_runs_here_and_its_status_is_its_own(run: Run) -> None:
    run("start", "desk", "nothing", "--key", "monday", "--app", DESK, "--wait")
    said = run("start", "desk", "deploy", "--key", "monday", "--app", DESK, "--wait")
    assert "its input stays 'nothing'" in said.err
    assert run("start", "desk", "--key", "monday", "--json").json["status"] == "done"


def test_a_new_key_is_new(run: Run) -> None:
    said = run("start", "desk", "nothing", "--key", "monday")
    assert "recorded; it runs as soon as a worker serves this store" in said.err
    assert "already" not in said.err


@pytest.mark.parametrize("how", ["--wait", "--watch"])
def test_who_waits_for_a_worker_that_is_not_there_is_told(run: Run, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(standing, "PATIENCE", 0.2)
    said = run("start", "desk", "nothing", how, "--timeout", "1s")
    assert said.code == 124
    assert said.err.count("no worker has taken it up for 0.2 s; is one for desk running? ownloop worker FILE.py") == 1


def test_who_follows_a_thread_that_waits_for_somebody_is_told_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "PATIENCE", 0.1)
    assert run("start", "desk", "deploy", "--key", "monday", "--app", DESK, "--wait").code == 10
    said = run("start", "desk", "--key", "monday", "--wait", "--stay", "--timeout", "1s")
    assert said.code == 124
    assert "no worker" not in said.err


def test_a_list_names_the_event_that_is_waited_for(run: Run, settled: Settled) -> None:
    settled("event", "deploy")
    shown = run("threads").out
    assert "waits: event built job-1" in shown
    assert "waits: approval deploy" in shown


def test_the_raw_log_is_followed_to_the_end_of_the_turn_and_no_further(terminal: Callable[..., Terminal], run: Run) -> None:
    thread = run("start", "desk", "nothing", "--app", DESK, "--wait", "--json").json["thread"]
    over, open_one = terminal("show", thread, "-f", "--events"), run("start", "desk", "nothing", "--json").json["thread"]
    grows = terminal("show", open_one, "-f", "--events")
    grows.until("input")
    terminal("worker", DESK)
    for one in (over, grows):
        assert one.process.wait(15) == 0
        assert [line.split()[3] for _, line in one.lines] == ["input", "selected", "ended", "turn_ended"]
