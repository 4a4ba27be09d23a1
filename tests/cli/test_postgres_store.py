"""The commands on a server's store: another process works, a person looks and decides, an operator examines, exports and forgets."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Run, Terminal, environment

PROGRAM = """
from ownloop import App, Intent, Thread
from ownloop.tools import annotate

class Deploy(Intent):
    tag: str

class Done(Intent):
    message: str

app = App("memory://")

async def decide(thread: Thread) -> Deploy | Done:
    annotate(usage={"input_tokens": 1200, "output_tokens": 80, "cost_usd": 0.0042, "requests": 1}, model="gpt-5-mini")
    return Done(message="it is out") if thread.count(Deploy) else Deploy(tag="v1.1.0")

@app.agent
async def bot(thread: Thread) -> str:
    while True:
        step = await thread.next_step(decide)
        match step.intent:
            case Deploy():
                if await step.approved(by="ops"):
                    await step.run(lambda tag: f"{tag} deployed")
            case Done(message=message):
                return message
"""


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


def command(url: str, *words: str) -> str:
    """A command in a process of its own, with the store among its words."""
    said = subprocess.run(
        [sys.executable, "-m", "ownloop", *words, "--store", url], env=environment(""), capture_output=True, text=True, timeout=60, check=False
    )
    assert said.returncode == 0, said.stderr
    return said.stdout


def test_a_thread_from_its_start_to_its_removal(terminal: Callable[..., Terminal], run: Run, url: str, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(PROGRAM)
    terminal("worker", str(tmp_path / "bot.py")).until("serving bot")
    thread = command(url, "start", "bot", "deploy it", "--key", "monday").split()[0]
    end = time.monotonic() + 30
    while not (waiting := run("inbox", "--json").json["interrupts"]):
        assert time.monotonic() < end
    assert (waiting[0]["thread_id"], waiting[0]["intent"]) == (thread, {"tag": "v1.1.0"})
    assert waiting[0]["id"] in run("inbox").out
    assert "approved" in command(url, "decide", "bot/monday", "approve", "--as", "ann", "--group", "ops", "--note", "go")
    while "total" not in (shown := run("show", thread)).out:
        assert time.monotonic() < end, shown
    assert "gpt-5-mini, 1,200 tokens in, 80 out, $0.0042" in shown.out
    assert "✓ approved by ann" in shown.out and "v1.1.0 deployed" in shown.out
    assert run("show", thread, "--json").json["thread"]["totals"]["cost_usd"] == pytest.approx(0.0084)
    kinds = "input selected request decision started outcome ended selected ended turn_ended"
    assert [(row["seq"], row["kind"]) for row in run("export", thread).lines] == list(enumerate(kinds.split(), 1))
    assert run("doctor").code == 0
    assert run("migrate").code == 0
    assert run("prune", "--older", "0s", "--yes", "--json").json["forgotten"] == 1
    assert run("show", thread).code == 3
