"""Mistakes on a command line that would otherwise pass in silence, or end in the words of somebody else's module."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from .conftest import DESK, Run

HEAD = "import os\nfrom ownloop import App\n"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ('app = App(os.environ["NOBODY_SET_THIS"])\n', "(program.py:3): the environment has no NOBODY_SET_THIS; set it, or write it into .env here"),
        ('app = App(os.environ.get("NOBODY_SET_THIS"))\n', "(program.py:3): TypeError: App(None) names no store: write a URL"),
        ("def make():\n    return {}['x']\napp = make()\n", "(program.py:4): KeyError: 'x'"),
        ("def (\n", ": SyntaxError: invalid syntax (program.py, line 3)"),
        ("import nosuchmodule\n", "(program.py:3): ModuleNotFoundError: No module named 'nosuchmodule'"),
    ],
)
def test_a_program_that_cannot_be_imported_is_told_where_and_why(run: Run, tmp_path: Path, program: str, said: str) -> None:
    (tmp_path / "program.py").write_text(HEAD + program)
    answer = run("threads", "--app", "program.py")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith(f"error: program.py cannot be imported{' ' if said[0] == '(' else ''}{said}")
    assert "Traceback" not in answer.err
    assert run("threads", "--app", "program.py", "--json").json["type"] == "urn:ownloop:error:not-importable"
    with pytest.raises((KeyError, TypeError, SyntaxError, ImportError)):  # twice verbose: all of it
        run("threads", "--app", "program.py", "-vv")


def test_an_agent_and_an_intent_that_are_mistyped_are_told_what_there_is(run: Run) -> None:
    run("start", "nobody")
    assert run("threads", "--agent", "dsk", "--app", DESK).err == "no threads; this App has no agent 'dsk', but desk\n"
    assert run("threads", "--agent", "desk", "--app", DESK).err == "no threads\n"
    held = run("hold", "desk", "--on", "deploi", "--app", DESK)
    assert (held.code, held.out) == (0, "desk held on deploi\n")
    assert held.err == "desk is known to choose ask, charge, deploy, done, train, wait, and no deploi; see that it is the one you mean\n"
    assert run("hold", "desk", "--on", "Deploy", "--app", DESK).err == ""
    assert run("hold", "desk", "--on", "deploi", "--release", "--app", DESK).err == ""


def test_an_event_that_begins_like_json_and_is_none_is_not_sent(run: Run) -> None:
    refused = run("emit", "built", '{"ok": true', "--key", "job-1")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("error: PAYLOAD is no JSON: Expecting ',' delimiter")
    assert run("emit", "built", "all of it", "--key", "job-1").code == 0


def test_a_store_in_memory_is_told_to_end_with_the_command(run: Run, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(HEAD + 'app = App("memory://")\n')
    assert "memory:// and all that is in it end with this command" in run("threads", "--app", "program.py", store=None).err


def test_a_hint_names_the_program_once(run: Run) -> None:
    assert run("start", "desk", "nothing", "--app", DESK, store=None).err.endswith(f"ownloop worker {shlex.quote(DESK)}\n")


def test_a_token_that_is_not_there_leads_to_the_list_of_those_that_are(run: Run) -> None:
    said = run("token", "revoke", "tok_0").err.partition("error: ")[2]
    assert said == "no token 'tok_0' here; check the store's URL, and the id\nnext:  ownloop token list\n"


FAILS = """
from pathlib import Path
from ownloop import App, Intent, Thread

class Mail(Intent):
    to: str

async def decide(thread: Thread) -> Mail:
    return Mail(to="ann")

def mail(to: str) -> str:
    if not Path("up").exists():
        raise ConnectionError("down")
    return f"mailed {to}"

app = App("sqlite:///mails.db")

@app.agent
async def chosen(thread: Thread) -> str:
    step = await thread.next_step(decide)
    return (await step.run(mail)).value

@app.agent
async def named(thread: Thread) -> str:
    return (await thread.step("mail").run(mail, "ann")).value
"""


def test_retry_says_that_a_call_that_failed_is_not_made_again_and_what_makes_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(FAILS)
    where = ("--app", "program.py")
    for agent, cure in (("chosen", "fork thr_"), ("named", "start named INPUT")):
        failed = run("start", agent, "--key", "a", "--wait", *where, store=None)
        assert (failed.code, f"next:  ownloop {cure}" in failed.err) == (11, True), failed.err
    (tmp_path / "up").touch()
    said = run("retry", "named/a", *where, store=None).err
    assert said.startswith("mail failed, which stays in the log: the program is given it again, and the call is not made again.")
    assert said.endswith("To make it: ownloop start named INPUT --key KEY --app program.py\n")
    *_, hint = run("retry", "chosen/a", *where, store=None).err.split("To make it: ")
    assert run("start", "chosen", "--key", "a", "--wait", *where, store=None).code == 11, "the failure stays"
    fork = run(*hint.split()[1:], store=None).out.strip()
    assert run("start", "chosen", "--key", "b", "--wait", *where, store=None).code == 0
    views = [json.loads(line) for line in run("threads", "--jsonl", *where, store=None).out.splitlines()]
    assert next(one for one in views if one["id"] == fork)["result"] == "mailed ann"
