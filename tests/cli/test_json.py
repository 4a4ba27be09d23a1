"""`--json` of every command is one object; `--jsonl` is one a line."""

import json
from collections.abc import Callable, Sequence

import pytest

from .conftest import DESK, Run

Settled = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (["threads"], {"threads"}),
        (["show", "THREAD"], {"thread"}),
        (["show", "THREAD", "--events"], {"thread"}),
        (["inbox"], {"interrupts", "total"}),
        (["decide", "THREAD", "approve", "--as", "ann", "--group", "release-managers"], {"interrupt"}),
        (["start", "desk", "deploy"], {"thread", "status"}),
        (["start", "desk", "nothing", "--wait", "--app", DESK], {"thread", "standing", "status", "result", "error", "interrupts"}),
        (["start", "desk", "nothing", "--watch", "--app", DESK], {"thread", "standing", "status", "result", "error", "interrupts"}),
        (["send", "THREAD", "hello"], {"thread", "event"}),
        (["emit", "built", '{"n": 1}', "--key", "job-1"], {"event", "key", "new"}),
        (["hold", "THREAD", "--on", "Deploy"], {"target", "on", "released"}),
        (["hold", "desk", "--release"], {"target", "on", "released"}),
        (["hold"], {"holds"}),
        (["pause", "THREAD"], {"thread", "verb", "status"}),
        (["cancel", "THREAD", "--reason", "why"], {"thread", "verb", "status"}),
        (["close", "THREAD"], {"thread", "verb", "status"}),
        (["retry", "THREAD"], {"thread", "verb", "status"}),
        (["fork", "THREAD"], {"thread", "forked_from"}),
        (["export", "THREAD"], {"events"}),
        (["export", "--all"], {"events"}),
        (["prune", "--older", "1d", "--yes"], {"forgotten", "before"}),
        (["doctor"], {"findings", "healthy"}),
    ],
)
def test_every_command_prints_one_object(run: Run, settled: Settled, words: Sequence[str], fields: set[str]) -> None:
    thread = settled("deploy")[0]
    said = run(*[thread if word == "THREAD" else word for word in words], "--json")
    assert set(said.json) == {"version", *fields}
    assert said.json["version"] == 1
    assert said.code == 0


def test_resume_after_pause(run: Run, settled: Settled) -> None:
    thread = settled("deploy")[0]
    assert run("pause", thread, "--json").json["status"] == "paused"
    assert run("resume", thread, "--json").json["status"] == "open"


def test_lists_and_streams_are_one_object_a_line(run: Run, settled: Settled) -> None:
    threads = settled("deploy", "ask")
    assert {one["id"] for one in run("threads", "--jsonl").lines} == set(threads)
    assert [one["kind"] for one in run("inbox", "--jsonl").lines] == ["approval", "question"]
    assert [one["kind"] for one in run("show", threads[0], "--jsonl").lines] == ["input", "selected", "request"]
    watched = run("start", "desk", "nothing", "--watch", "--app", DESK, "--jsonl").lines
    assert [one.get("kind") for one in watched[:2]] == ["input", "selected"]
    assert watched[-1]["standing"] == "done"


def test_an_export_is_the_whole_log(run: Run, settled: Settled) -> None:
    one, two = settled("deploy", "ask")
    rows = run("export", "--all").lines
    assert [(row["thread"], row["seq"]) for row in rows] == [(thread, seq) for thread in (one, two) for seq in (1, 2, 3)]
    assert run("export", two).lines == rows[3:]


def test_options_may_stand_before_the_command(run: Run, settled: Settled, url: str) -> None:
    thread = settled("deploy")[0]
    assert run("--json", "--store", url, "threads", store="sqlite:///elsewhere.db").json["threads"][0]["id"] == thread


def test_the_operators_store_wins_over_the_programs(run: Run, url: str) -> None:
    thread = run("start", "desk", "nothing", "--app", DESK, "--wait", "--store", url, "--json", store=None).json["thread"]
    assert run("show", thread, "--json").json["thread"]["status"] == "done"


def test_values_come_from_stdin(run: Run, settled: Settled, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    thread = settled("deploy")[0]
    full = {"tag": "v1.0.0", "environment": "staging"}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(full) + "\n"))
    said = run("decide", thread, "edit", "--args", "-", "--group", "release-managers", "--json")
    assert said.json["interrupt"]["decision"]["value"] == full


def test_an_edit_that_does_not_fit_names_the_place(run: Run, settled: Settled) -> None:
    said = run("decide", settled("deploy")[0], "edit", "--args", '{"tag": 1, "environment": "x"}', "--group", "release-managers", "--json")
    assert said.code == 2
    assert said.json["errors"][0]["pointer"] == "/tag"


def test_answers(run: Run, settled: Settled) -> None:
    question, doubt, other = settled("ask", "charge", "charge")
    assert run("decide", question, "answer", "gamma").code == 2
    assert run("decide", question, "answer", "--value", '"beta"', "--json").json["interrupt"]["decision"]["value"] == "beta"
    happened = run("decide", doubt, "answer", "--happened", "--value", "7", "--json").json
    assert happened["interrupt"]["decision"]["value"] == {"happened": True, "value": "7"}  # charge() -> str
    assert run("decide", other, "answer", "--not-happened", "--json").json["interrupt"]["decision"]["value"]["happened"] is False


def test_a_result_is_shown_and_edited_whole(run: Run, settled: Settled) -> None:
    thread = settled("review")[0]
    assert 'result  {"deployed": "v1.1.0", "to": "production"}' in run("show", thread).out
    assert run("decide", thread, "edit", "--args", '{"deployed": "[redacted]"}', "--json").json["interrupt"]["decision"]["value"] == {
        "deployed": "[redacted]"
    }


def test_what_is_not_for_people_says_what_helps(run: Run, settled: Settled) -> None:
    event, child = settled("event", "child")
    assert "ownloop emit built '{}' --key job-1" in run("show", event).out
    assert "ownloop show thr_" in run("show", child).out
    assert run("decide", event, "approve").code == 3


def test_several_must_agree(run: Run, settled: Settled) -> None:
    thread = settled("two")[0]
    assert "1 of 2 agreed" in run("decide", thread, "approve", "--as", "ann").out
    assert "ann" in run("show", thread).out
    assert run("decide", thread, "approve", "--as", "ann").code == 5
    assert "approved by bob" in run("decide", thread, "approve", "--as", "bob").out


def test_a_hold_parks_a_program_that_asks_nobody(run: Run) -> None:
    run("hold", "desk", "--on", "Train")
    assert "train" in run("hold").out
    started = run("start", "desk", "train", "--app", DESK, "--wait", "--json")
    assert (started.code, started.json["interrupts"][0]["kind"]) == (10, "hold")
    run("hold", "desk", "--release")
    assert run("hold", "--json").json["holds"] == []


def test_the_story_tells_who_decided_with_what_words_and_how_long_it_took(run: Run, settled: Settled) -> None:
    thread = settled("deploy")[0]
    run("decide", thread, "approve", "--as", "ann", "--group", "release-managers", "--note", "go ahead")
    settled("nothing")  # runs every wake there is
    story = run("show", thread).out
    assert "1 deploy  tag: v1.1.0 · environment: production" in story
    assert "approved by ann after" in story
    assert "“go ahead”" in story
    assert '✓ deploy → {"deployed": "v1.1.0", "to": "production"}' in story
    assert "turn 1 ended  deploy is over" in story


def test_what_expires_first_stands_on_top(run: Run, settled: Settled) -> None:
    ask, soon = settled("ask", "soon")
    assert [one["thread_id"] for one in run("inbox", "--json").json["interrupts"]] == [soon, ask]
    assert run("inbox", "--mine", "--as", "ann", "--json").json["total"] == 2


def test_prune_forgets_what_ended(run: Run, settled: Settled) -> None:
    kept, gone = settled("deploy", "nothing")
    refused = run("prune", "--older", "0s")
    assert (refused.code, "1 thread ended" in refused.err) == (2, True)
    assert run("prune", "--older", "0s", "--yes", "--json").json["forgotten"] == 1
    assert run("show", gone).code == 3
    assert run("show", kept).code == 0
