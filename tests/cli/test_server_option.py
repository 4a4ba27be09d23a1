"""The same commands through a server: `--server URL --token T`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ownloop.events import Draft
from ownloop.stores.base import NewThread
from ownloop.stores.urls import open_store

from .programs import AGENT, GROUP, Program, quick, running, said, wait

STORE = "sqlite:///t.db"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server")
    (folder / "agent.py").write_text(AGENT)
    return folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Program]:
    with running(place, "serve", "agent.py", "--worker", "-p", "0", "--store", STORE, "--json") as program:
        program.where()
        yield program


class Far:
    """A person on another machine: a token, and nothing else."""

    def __init__(self, place: Path, url: str, *words: str) -> None:
        self.folder = place / "elsewhere"
        self.folder.mkdir(exist_ok=True)
        token = quick(place, "token", "create", "ann", "--store", STORE, *words).stdout.strip()
        self.env = {"OWNLOOP_SERVER": url, "OWNLOOP_TOKEN": token}

    def __call__(self, *words: str, **more: str) -> Any:
        return quick(self.folder, *words, **{**self.env, **more})

    def json(self, *words: str) -> Any:
        done = self(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def waiting(self, key: str) -> str:
        return str(wait(lambda: self.json("show", f"desk/{key}")["thread"]["interrupts"])[0]["id"])

    def ended(self, key: str) -> bool:
        return bool(self.json("show", f"desk/{key}")["thread"]["status"] == "done")


@pytest.fixture(scope="module")
def far(place: Path, server: Program) -> Far:
    return Far(place, server.where()["url"], "--scope", "admin", "--group", GROUP)


def test_start_inbox_show_and_decide(far: Far) -> None:
    thread = far("start", "desk", "deploy", "--key", "one").stdout.strip()
    interrupt = far.waiting("one")
    assert interrupt in far("inbox").stdout
    assert thread in far("threads").stdout
    assert "asks approval of release-managers" in far("show", thread).stdout
    done = far("decide", interrupt, "approve", "--note", "go")
    assert (done.returncode, "approve" in done.stdout) == (0, True), done.stderr
    wait(lambda: far.ended("one"))
    assert "approved by ann" in far("show", "desk/one").stdout
    late = far("decide", interrupt, "reject")
    assert late.returncode == 4
    assert "was approved by ann" in late.stderr


def test_an_edit_and_an_answer_keep_their_types(far: Far) -> None:
    far("start", "desk", "deploy", "--key", "edit")
    far.waiting("edit")
    edited = far("decide", "desk/edit", "edit", '{"tag": "v9", "environment": "staging"}')
    assert edited.returncode == 0, edited.stderr
    far("start", "desk", "ask", "--key", "ask")
    far.waiting("ask")
    assert far("decide", "desk/ask", "answer", "gamma").returncode == 2
    assert far("decide", "desk/ask", "answer", "beta").returncode == 0
    wait(lambda: far.ended("edit") and far.ended("ask"))
    assert "v9" in far("show", "desk/edit").stdout


def test_a_call_in_doubt_is_answered(far: Far) -> None:
    far("start", "desk", "charge", "--key", "doubt")
    far.waiting("doubt")
    assert far("decide", "desk/doubt", "answer", "--happened", "--value", "paid").returncode == 0
    wait(lambda: far.ended("doubt"))


def test_steering(far: Far) -> None:
    thread = far("start", "desk", "deploy", "--key", "steer").stdout.strip()
    far.waiting("steer")
    for verb, status in (("pause", "paused"), ("resume", "open")):
        assert far.json(verb, thread, "--reason", "why")["status"] == status
    assert far("send", thread, "hello").returncode == 0
    assert far("hold", thread, "--on", "done").returncode == 0
    assert far("hold", thread, "--release").returncode == 0
    fork = far("fork", thread).stdout.strip()
    assert fork.startswith("thr_")
    assert far.json("cancel", fork)["status"] == "cancelled"
    assert far.json("close", thread)["status"] == "closed"
    refused = far("pause", thread)
    assert refused.returncode == 4
    assert "is closed" in refused.stderr
    assert far("retry", thread).returncode == 4


def test_an_event_from_elsewhere(far: Far) -> None:
    far("start", "desk", "event", "--key", "event")
    assert far("emit", "built", '{"ok": true}', "--key", "job-1").returncode == 0
    wait(lambda: far.ended("event"))


def test_following_ends_with_the_turn(far: Far) -> None:
    thread = far("start", "desk", "train", "--key", "train").stdout.strip()
    followed = far("show", thread, "-f")
    assert followed.returncode == 0, followed.stderr
    assert "turn 1 ended" in followed.stdout


def test_ids_may_be_shortened_and_what_is_not_there_is_3(far: Far) -> None:
    thread = far("start", "desk", "nothing").stdout.strip()
    assert far("show", thread[-6:]).returncode == 0
    assert far("show", thread[:-1]).returncode in (0, 2)
    assert far("show", "thr_0000000000001").returncode == 3
    assert far("show", "desk/none").returncode == 3


def test_5_a_token_that_is_none_or_may_not(place: Path, far: Far) -> None:
    wrong = far("threads", OWNLOOP_TOKEN="ownloop_wrong")
    assert wrong.returncode == 5
    reader = Far(place, far.env["OWNLOOP_SERVER"])
    far("start", "desk", "deploy", "--key", "reader")
    far.waiting("reader")
    assert reader("show", "desk/reader").returncode == 0
    refused = reader("decide", "desk/reader", "approve")
    assert refused.returncode == 5
    assert "interrupts:decide" in refused.stderr
    outsider = Far(place, far.env["OWNLOOP_SERVER"], "--scope", "admin")
    assert outsider("decide", "desk/reader", "approve").returncode == 5


def test_a_token_with_a_filter_sees_nothing_else(place: Path, far: Far) -> None:
    far("start", "desk", "nothing", "--key", "acme", "--context", '{"tenant": "acme"}')
    acme = Far(place, far.env["OWNLOOP_SERVER"], "--scope", "admin", "--see", '{"tenant": "acme"}')
    assert [one["key"] for one in acme.json("threads")["threads"]] == ["acme"]
    assert acme("show", "desk/one").returncode == 3


def test_7_nobody_answers(far: Far) -> None:
    gone = said(far.folder, "threads", OWNLOOP_SERVER="http://127.0.0.1:9")
    assert gone.returncode == 7
    assert "http://127.0.0.1:9" in gone.stderr
    problem = far("threads", "--json", OWNLOOP_SERVER="http://127.0.0.1:9")
    assert json.loads(problem.stdout)["exit_code"] == 7


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["doctor"], "give --store"),
        (["prune", "--older", "30d", "--yes"], "give --store"),
        (["hold", "desk"], "give --store"),
        (["threads", "--context", '{"tenant": "acme"}'], "give --store"),
        (["inbox", "--as", "mallory"], "by the token"),
        (["inbox", "--server", "http://127.0.0.1:9", "--store", "memory://"], "not both"),
    ],
)
def test_2_what_needs_the_store_itself_says_so(far: Far, words: list[str], told: str) -> None:
    refused = far(*words)
    assert refused.returncode == 2
    assert told in refused.stderr


def test_a_store_that_is_named_wins_over_a_server_of_the_environment(far: Far, place: Path) -> None:
    assert far("doctor", "--store", f"sqlite:///{place}/t.db").returncode in (0, 1)


def test_a_log_that_is_longer_than_a_servers_page_is_shown_whole(far: Far, place: Path) -> None:
    async def written() -> str:
        store = open_store(f"sqlite:///{place}/t.db", None)
        await store.open()
        notes = [Draft("message", {"text": str(number)}) for number in range(600)]
        thread, _ = await store.create(NewThread("nobody", [Draft("input", {"input": None}), *notes]))
        await store.control(thread, "close", Draft("control", {"verb": "close"}))
        await store.close()
        return thread

    shown = far("show", asyncio.run(written()), "-f", "--jsonl").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in shown] == list(range(1, 603))
