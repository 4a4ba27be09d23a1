"""Each exit code, and what people are told with it: what, why, the next command."""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import DESK, Run, Said, Terminal, environment


def interrupt_of(run: Run, thread: str) -> str:
    waiting = run("show", thread, "--json").json["thread"]["interrupts"]
    return str(waiting[0]["id"])


def test_0_a_thread_that_ends(run: Run) -> None:
    said = run("start", "desk", "nothing", "--app", DESK, "--wait")
    assert (said.code, said.out.splitlines()[1]) == (0, "nothing is over")


def test_1_a_store_that_cannot_be_used(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("no database " * 100)
    said = run("threads", store=f"sqlite:///{tmp_path}/other.db")
    assert said.code == 1
    assert "is not an ownloop store" in said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["threads", "--nonsense"], "No such option"),
        (["nonsense"], "No such command"),
        (["show"], "Missing argument"),
        (["threads", "--status", "odd"], "open, paused, done"),
        (["threads", "--context", "{"], "is no JSON"),
        (["prune", "--older", "soon"], "is not a duration"),
        (["prune", "--older", "30d"], "say --yes"),
        (["export"], "--all"),
        (["start", "desk", "x", "--app", "nowhere.py"], "no file nowhere.py"),
        (["start", "desk", "x", "--app", "no_such_module:app"], "no module"),
        (["start", "desk", "x", "--app", DESK + ":nothing"], "an App is needed"),
        (["worker"], "a worker needs agents"),
        (["decide", "int_1", "maybe"], "is no decision"),
    ],
)
def test_2_a_wrong_command_line(run: Run, words: list[str], told: str) -> None:
    said = run(*words)
    assert said.code == 2
    assert told in said.err
    assert said.out == ""


def test_2_no_store_was_named(run: Run) -> None:
    said = run("threads", store=None)
    assert said.code == 2
    assert "OWNLOOP_STORE" in said.err
    assert "next:  ownloop" in said.err


@pytest.mark.parametrize(
    "words", [["show", "thr_0000000000001"], ["decide", "int_0000000000001_2", "approve"], ["pause", "desk/none"], ["show", "!"]]
)
def test_3_not_found(run: Run, words: list[str]) -> None:
    said = run(*words)
    assert said.code == 3
    assert "next:  ownloop" in said.err


def test_3_an_agent_that_the_app_does_not_have(run: Run) -> None:
    assert run("start", "ghost", "x", "--app", DESK).code == 3


def test_4_the_second_decision_is_told_who_won(run: Run, settled: Callable[..., list[str]]) -> None:
    interrupt = interrupt_of(run, settled("deploy")[0])
    assert run("decide", interrupt, "approve", "--as", "ann", "--group", "release-managers").code == 0
    said = run("decide", interrupt, "reject", "--as", "bob", "--group", "release-managers")
    assert said.code == 4
    assert "was approved by ann at" in said.err


def test_4_a_thread_that_has_ended(run: Run, settled: Callable[..., list[str]]) -> None:
    thread = settled("deploy")[0]
    assert run("cancel", thread, "--reason", "enough").code == 0
    said = run("send", thread, "hello")
    assert said.code == 4
    assert "is cancelled" in said.err
    assert f"ownloop fork {thread}" in said.err


def test_4_a_verb_that_makes_no_sense_names_the_one_that_does(run: Run, settled: Callable[..., list[str]]) -> None:
    said = run("pause", settled("fail")[0])
    assert said.code == 4
    assert "ownloop retry thr_" in said.err


def test_5_somebody_whom_the_policy_does_not_name(run: Run, settled: Callable[..., list[str]]) -> None:
    said = run("decide", interrupt_of(run, settled("deploy")[0]), "approve", "--as", "mallory")
    assert said.code == 5
    assert "--group release-managers" in said.err


def test_6_a_decision_after_the_deadline(run: Run, settled: Callable[..., list[str]]) -> None:
    interrupt = interrupt_of(run, settled("short")[0])
    time.sleep(0.06)
    said = run("decide", interrupt, "approve")
    assert said.code == 6
    assert "expired at" in said.err


def test_6_another_digest_than_what_waits(run: Run, settled: Callable[..., list[str]]) -> None:
    said = run("decide", interrupt_of(run, settled("deploy")[0]), "approve", "--group", "release-managers", "--digest", "0" * 64)
    assert said.code == 6
    assert "read the interrupt again" in said.err


def test_the_beginning_of_the_digest_is_enough(run: Run, settled: Callable[..., list[str]]) -> None:
    thread = settled("deploy")[0]
    digest = run("show", thread, "--json").json["thread"]["interrupts"][0]["digest"]
    assert run("decide", thread, "approve", "--group", "release-managers", "--digest", digest[:12]).code == 0


def test_10_a_thread_that_waits_for_somebody_says_how_to_answer(run: Run) -> None:
    said = run("start", "desk", "deploy", "--app", DESK, "--wait", "--as", "ann", "--group", "release-managers")
    assert said.code == 10
    thread = said.out.splitlines()[0]
    assert f"ownloop decide int_{thread[4:]}_3 approve" in said.out


@pytest.mark.parametrize("what", ["ask", "charge", "event", "child"])
def test_10_whatever_it_waits_for(run: Run, what: str) -> None:
    assert run("start", "desk", what, "--app", DESK, "--wait").code == 10


def test_11_a_thread_that_fails(run: Run) -> None:
    said = run("start", "desk", "fail", "--app", DESK, "--wait")
    assert said.code == 11
    assert "RuntimeError: the model is \\x1b[31mbroken" in said.err


def test_12_a_thread_that_was_cancelled(run: Run, settled: Callable[..., list[str]]) -> None:
    thread = settled("deploy", key="k")[0]
    assert run("cancel", thread).code == 0
    assert run("start", "desk", "deploy", "--key", "k", "--wait", "--app", DESK).code == 12


def test_124_when_the_time_is_up(run: Run) -> None:
    said = run("start", "desk", "sleep", "--app", DESK, "--wait", "--timeout", "200ms")
    assert said.code == 124
    assert "not at rest" in said.err


def test_130_ctrl_c_stops_in_order(terminal: Callable[..., Terminal], run: Run) -> None:
    started = terminal("start", "desk", "sleep", "--app", DESK, "--watch")
    started.until("waits for sleep")
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(10) == 130
    rows = run("doctor", "--json")
    assert (rows.code, rows.json["findings"]) == (0, [])  # the lease was released


def test_a_worker_ends_with_0_when_it_is_told_to_and_130_by_ctrl_c(terminal: Callable[..., Terminal]) -> None:
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        worker = terminal("worker", DESK)
        worker.until("serving desk")
        worker.process.send_signal(number)
        assert worker.process.wait(10) == code


def test_a_reader_that_goes_away_is_no_failure(url: str, settled: Callable[..., list[str]]) -> None:
    settled(*["nothing"] * 40)
    script = f"{shlex.quote(sys.executable)} -m ownloop export --all | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], env=environment(url), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "0"
    assert done.stderr == ""


def test_errors_are_one_problem_object_under_json(run: Run, settled: Callable[..., list[str]]) -> None:
    interrupt = interrupt_of(run, settled("deploy")[0])
    run("decide", interrupt, "approve", "--as", "ann", "--group", "release-managers")
    cases: list[tuple[Said, int, str]] = [
        (run("decide", interrupt, "approve", "--json"), 409, "already-decided"),
        (run("show", "thr_0000000000001", "--json"), 404, "not-found"),
        (run("threads", "--nonsense", "--json"), 422, "usage"),
    ]
    for said, status, kind in cases:
        problem = said.json
        assert (problem["status"], problem["type"]) == (status, f"urn:ownloop:error:{kind}")
        assert problem["exit_code"] == said.code
        assert problem["detail"]
    assert cases[0][0].json["decision"]["by"] == "ann"


# ---- what a stranger gets wrong ------------------------------------------------------------------------------------------------------------

GROUP = ("--group", "release-managers")


def test_4_a_decision_on_a_thread_that_was_just_decided_is_told_who_won(run: Run, settled: Callable[..., list[str]]) -> None:
    thread = settled("deploy")[0]
    assert run("decide", thread, "approve", "--as", "ann", *GROUP).code == 0
    said = run("decide", thread, "reject", "--as", "bob", *GROUP)
    assert said.code == 4
    assert "was approved by ann at" in said.err
    assert f"next:  ownloop show {thread}" in said.err


def test_6_a_decision_on_a_thread_whose_question_expired(run: Run, settled: Callable[..., list[str]]) -> None:
    thread = settled("short")[0]
    time.sleep(0.1)  # it waited for 50 ms
    said = run("decide", thread, "approve")
    assert (said.code, "expired at" in said.err) == (6, True)


def test_3_a_decision_on_a_thread_that_asked_nobody(run: Run, settled: Callable[..., list[str]]) -> None:
    said = run("decide", settled("sleep")[0], "approve")
    assert said.code == 3
    assert "next:  ownloop inbox" in said.err


@pytest.mark.parametrize(
    ("verb", "words", "meant"),
    [
        ("approve", ['{"tag": "v9"}'], 'edit --args \'{"tag": "v9"}\''),
        ("approve", ["--args", '{"tag": "v9"}'], 'edit --args \'{"tag": "v9"}\''),
        ("approve", ["--happened"], "approve"),
        ("reject", ["not on a Friday"], "reject --note 'not on a Friday'"),
        ("respond", ["--args", "{}"], "respond"),
    ],
)
def test_2_a_decision_with_words_that_it_does_not_take_decides_nothing(
    run: Run, settled: Callable[..., list[str]], verb: str, words: list[str], meant: str
) -> None:
    interrupt = interrupt_of(run, settled("deploy")[0])
    said = run("decide", interrupt, verb, *words, *GROUP)
    assert said.code == 2
    assert "nothing was decided" in said.err
    assert f"next:  ownloop decide {interrupt} {meant} {' '.join(GROUP)}" in said.err
    assert run("decide", interrupt, "approve", *GROUP).code == 0


def test_5_a_decision_that_is_not_offered_names_those_that_are(run: Run, settled: Callable[..., list[str]]) -> None:
    thread = settled("deploy")[0]
    said = run("decide", thread, "answer", "yes", *GROUP)
    assert said.code == 5
    assert "it offers approve, edit, reject, respond" in said.err
    assert said.err.splitlines()[-1] == f"next:  ownloop show {thread}"


def test_a_store_that_is_not_there_is_made_and_mentioned_once(run: Run, tmp_path: Path) -> None:
    mistyped = f"sqlite:///{tmp_path}/agnets.db"
    said = run("inbox", store=mistyped)
    assert said.code == 0
    assert f"{mistyped} was not there" in said.err
    assert "was not there" not in run("inbox", store=mistyped).err
    assert "was not there" not in run("start", "desk", "nothing", "--app", DESK, store=f"sqlite:///{tmp_path}/begun.db").err
