"""Completion, by the protocol that the shells speak."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ownloop.cli import completing

from .conftest import environment


def complete(url: str, *words: str, shell: str = "bash", **more: str) -> list[str]:
    """What a shell would propose for the last word."""
    line = {"COMP_WORDS": " ".join(["ownloop", *words]), "COMP_CWORD": str(len(words)), "_OWNLOOP_COMPLETE": f"complete_{shell}"}
    if shell != "bash":
        line = {
            "_TYPER_COMPLETE_ARGS": " ".join(["ownloop", *words]),
            "_OWNLOOP_COMPLETE": f"complete_{shell}",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
    env = {**environment(url), **line, **more}
    done = subprocess.run([sys.executable, "-m", "ownloop"], env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete -o"), ("zsh", "#compdef ownloop"), ("fish", "complete --command ownloop")])
def test_the_script_of_every_shell_is_shown(shell: str, word: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ownloop", "--show-completion", shell]
    done = subprocess.run(command, env=environment(""), capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert word in done.stdout
    assert "_OWNLOOP_COMPLETE=complete_" in done.stdout


def test_commands_and_options_are_completed(url: str) -> None:
    assert complete(url, "to") == ["token"]
    assert {"create", "list", "revoke"} <= set(complete(url, "token", ""))
    assert "--agent" in complete(url, "inbox", "--a")


def test_ids_come_from_the_store_with_a_few_words_about_each(url: str, settled: Callable[..., list[str]]) -> None:
    deploying, asking = settled("deploy", "ask")
    assert set(complete(url, "show", "")) == {deploying, asking}
    assert complete(url, "show", deploying[:-1]) == [one for one in (deploying, asking) if one.startswith(deploying[:-1])]
    interrupts = complete(url, "decide", "")
    assert len(interrupts) == 2
    assert all(one.startswith("int_") for one in interrupts)
    assert any("approval deploy of desk" in line for line in complete(url, "decide", "", shell="fish"))


def test_a_thread_by_its_key_is_completed_where_it_is_decided_and_where_it_is_shown(url: str, settled: Callable[..., list[str]]) -> None:
    settled("deploy", key="monday")
    assert complete(url, "decide", "desk/m") == complete(url, "show", "desk/m") == ["desk/monday"]


def test_decisions_are_those_that_the_interrupt_allows(url: str, settled: Callable[..., list[str]]) -> None:
    settled("ask")
    (asking,) = complete(url, "decide", "int_")
    assert complete(url, "decide", asking, "") == ["answer"]


def test_keys_agents_and_statuses_are_completed(url: str, settled: Callable[..., list[str]]) -> None:
    settled("deploy", key="monday")
    assert complete(url, "show", "desk/") == ["desk/monday"]
    assert complete(url, "threads", "--agent", "d") == ["desk"]
    assert complete(url, "threads", "--status", "c") == ["cancelled", "closed"]
    assert "desk" in complete(url, "hold", "")


def test_the_store_of_the_line_wins_over_that_of_the_environment(url: str, settled: Callable[..., list[str]]) -> None:
    (thread,) = settled("deploy")
    assert complete("memory://", "show", "--store", url, "thr") == [thread]
    assert complete("memory://", "--store", url, "show", "thr") == [thread]


@pytest.mark.parametrize("store", ["sqlite:////nowhere/x.db", "mysql://x", "memory://", ""])
def test_where_there_is_nothing_it_proposes_nothing_and_says_nothing(store: str) -> None:
    assert complete(store, "show", "") == []


@pytest.mark.alone
def test_a_store_that_is_slow_costs_no_more_than_its_limit(url: str, settled: Callable[..., list[str]]) -> None:
    settled("deploy")

    async def slow(*_: Any) -> list[tuple[str, str]]:
        await asyncio.sleep(60)
        return []

    context: Any = SimpleNamespace(params={"store": url}, parent=None)
    before = time.monotonic()
    assert completing._within(context, "", slow) == []
    assert time.monotonic() - before < completing.LIMIT + 0.5


def test_hostile_words_of_a_log_are_inert_in_a_shell(url: str, settled: Callable[..., list[str]]) -> None:
    settled("hostile")
    for line in complete(url, "decide", "", shell="fish"):
        assert "\x1b" not in line
        assert "\u202e" not in line
