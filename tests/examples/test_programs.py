"""Every example as a program that somebody runs, and what type checkers say of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from outside import ROOT

EXAMPLES = ROOT / "examples"
TYPED = ["refunds", "support_chat", "training", "manager", "plan_act", "story", "webhooks"]


def run(*command: str, path: str = "PYTHONPATH", timeout: float = 60) -> subprocess.CompletedProcess[str]:
    places = os.pathsep.join([str(ROOT / "src"), str(EXAMPLES)])
    environment = {**os.environ, path: places, "PYTHONWARNINGS": "error::RuntimeWarning"}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=timeout, env=environment, cwd=ROOT, check=False)


@pytest.mark.parametrize(
    ("name", "last_words"),
    [
        ("seed", "open issues: #1 login page is slow #2 login fails on Safari"),
        ("training", "until the morning"),
        ("refunds", "'cents': 90000}"),
        ("support_chat", "carla reads: Order A-17 is refunded."),
        ("manager", "- asyncio: The asyncio package, tracking PEP 3156."),
        ("plan_act", "jpg/photo.jpg txt/letter.txt txt/notes.txt"),
    ],
)
def test_the_example_runs_as_a_program_and_tells_its_story(name: str, last_words: str) -> None:
    done = run(str(EXAMPLES / f"{name}.py"))
    assert done.returncode == 0, done.stderr
    assert last_words in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stderr


# What a person may break in refunds.py: the words that go, those that come, and what a checker must name.
BREAKS = {
    "a_missing_case": ("                case Done(message=message):\n                    return message\n", "", "Done"),
    "a_field_that_is_not_there": ("if cents <= UNASKED_UP_TO or", "if step.intent.amount <= UNASKED_UP_TO or", '"amount"'),
    "a_wrong_argument": ("run(thread.deps.pay)", "run(thread.deps.pay, cents, cents)", '"run"'),
}


@pytest.fixture(scope="module", params=["mypy", "pyright"])
def said(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a type checker says of our examples and of broken ones, by file."""
    folder = tmp_path_factory.mktemp("broken")
    places = [str(ROOT / "src"), str(EXAMPLES)]
    files = [EXAMPLES / f"{name}.py" for name in TYPED]
    text = (EXAMPLES / "refunds.py").read_text()
    for name, (cut, put, _) in BREAKS.items():
        assert text.count(cut) == 1
        files.append(folder / f"{name}.py")
        files[-1].write_text(text.replace(cut, put))
    if request.param == "mypy":
        done = run("-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", *map(str, files), path="MYPYPATH", timeout=200)
    else:
        setting = {"extraPaths": places, "include": [str(file) for file in files]}
        (folder / "pyrightconfig.json").write_text(json.dumps(setting))
        done = run("-m", "pyright", "--pythonpath", sys.executable, *map(str, files), timeout=200)
    assert done.returncode == 1, done.stdout + done.stderr
    errors = [line for line in done.stdout.splitlines() if re.search(r":\d+.*error: ", line)]
    return {file.stem: [line for line in errors if file.name in line] for file in files}


@pytest.mark.parametrize("name", TYPED)
def test_a_strict_type_checker_accepts_the_example(name: str, said: dict[str, list[str]]) -> None:
    assert said[name] == []


@pytest.mark.parametrize("name", BREAKS)
def test_a_type_checker_refuses_a_program_with(name: str, said: dict[str, list[str]]) -> None:
    assert said[name]
    assert any(BREAKS[name][2] in line for line in said[name])
