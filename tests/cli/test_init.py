"""`ownloop init`: what it makes runs, and passes its own test, as it is."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import SOURCE
from .programs import quick, running, said, wait


@pytest.fixture
def project(tmp_path: Path) -> Path:
    done = said(tmp_path, "init", "my refunds")
    assert done.returncode == 0, done.stderr
    return tmp_path / "my refunds"


def test_it_makes_an_agent_a_test_and_what_belongs_to_them(project: Path) -> None:
    assert sorted(file.name for file in project.iterdir()) == [".env.example", ".gitignore", "README.md", "agent.py", "test_agent.py"]
    program = (project / "agent.py").read_text()
    assert '@app.agent(name="my_refunds")' in program
    assert "NAME" not in program
    assert len([line for line in ast.unparse(ast.parse(program)).splitlines() if line.strip()]) <= 45


def test_its_own_test_passes(project: Path) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_it_runs_under_dev_as_the_readme_says(project: Path) -> None:
    with running(project, "dev", "-p", "0", "--json") as dev:
        assert dev.where()["agents"] == ["my_refunds"]
        thread = quick(project, "start", "my_refunds", "order A-1207").stdout.strip()
        wait(lambda: quick(project, "inbox", "--jsonl").stdout)
        assert quick(project, "decide", thread, "approve").returncode == 0
        wait(lambda: "order A-1207: settled" in quick(project, "show", thread).stdout)


def test_a_worker_of_it_and_commands_without_any_word_use_one_store(project: Path) -> None:
    with running(project, "worker", "agent.py") as worker:
        worker.until("serving my_refunds")
        thread = quick(project, "start", "my_refunds", "order 1").stdout.strip()
        wait(lambda: thread.removeprefix("thr_") in quick(project, "inbox", "--jsonl").stdout)


def test_it_overwrites_nothing(project: Path) -> None:
    (project / "agent.py").write_text("mine")
    refused = said(project.parent, "init", "my refunds")
    assert refused.returncode == 2
    assert "there already" in refused.stderr
    for name in (".env.example", ".gitignore", "README.md", "test_agent.py"):
        (project / name).unlink()
    assert said(project.parent, "init", "my refunds").returncode == 2
    assert sorted(file.name for file in project.iterdir()) == ["agent.py"]
    assert (project / "agent.py").read_text() == "mine"


def test_in_this_folder_its_name_is_the_agents(tmp_path: Path) -> None:
    (tmp_path / "Help Desk").mkdir()
    assert said(tmp_path / "Help Desk", "init", ".").returncode == 0
    assert '"help_desk"' in (tmp_path / "Help Desk" / "agent.py").read_text()
    assert said(tmp_path, "init", "123").returncode == 2
