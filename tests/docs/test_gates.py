"""docs/gate: each program, in the environment that `make test` makes for the frameworks, with the framework's own fake in the model's place."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from page_blocks import DOCS, ROOT, blocks_of

PYTHON = ROOT / ".venv" / "apart" / "frameworks" / "bin" / "python"
PAGES = {path.stem: path for path in sorted((DOCS / "gate").glob("*.md"))}
FRAMEWORKS = ["langgraph", "openai-agents", "pydantic-ai"]

apart = pytest.mark.skipif(not PYTHON.exists(), reason="no .venv/apart/frameworks; make it with: python tools/venv.py --apart frameworks")


def program_of(framework: str) -> str:
    (program,) = [block.text for block in blocks_of(PAGES[framework]) if block.language == "python"]
    return program


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gates")


@cache
def outcome(framework: str, folder: Path) -> dict[str, dict[str, Any]]:
    """What happened in every scenario; all run in one process."""
    place = folder / framework
    place.mkdir()
    (place / "deploy_gate.py").write_text(program_of(framework))
    command = [PYTHON, ROOT / "tests" / "docs" / "frameworks_apart.py", framework, "deploy_gate.py"]
    environment = {**os.environ, "OPENAI_API_KEY": "key-of-the-tests", "LANGSMITH_TRACING": "false"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_there_is_a_page_for_each_framework() -> None:
    assert sorted(PAGES) == FRAMEWORKS


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_gate_takes_at_most_thirty_lines(framework: str) -> None:
    lines = [line for line in program_of(framework).splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) <= 30


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_the_programs_have_the_form_of_our_own(command: list[str], tmp_path: Path) -> None:
    for framework in FRAMEWORKS:
        (tmp_path / f"{framework}.py").write_text(program_of(framework))
    ours = [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", "--no-cache", tmp_path]
    done = subprocess.run(ours, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


SCENARIOS = {
    "approved": (["v1"], "v1 deployed"),
    "rejected": ([], "rejected: not on a Friday"),
    "edited": (["v9"], "v9 deployed"),
    "answered": ([], "responded: it is live already"),
    "raised": (["broken"], "failed: the registry is down"),
    "two_at_once": (["v1", "v2"], "v1 deployed; v2 deployed"),
    "one_after_another": (["v1", "v2"], "v1 deployed; v2 deployed"),
    "decided_by_two": (["v1"], "v1 deployed"),
}


@apart
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_people_decide_and_the_agent_goes_on_with_what_became_of_it(framework: str, scenario: str, folder: Path) -> None:
    found = outcome(framework, folder)[scenario]
    assert (found["deployed"], found["said"]) == SCENARIOS[scenario]
    assert all("deploy" in name for name, _ in found["asked"]), "people see what is asked for by its name"


@apart
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_model_that_is_down_fails_the_gates_thread_and_a_retry_deploys_nothing_again(framework: str, folder: Path) -> None:
    found = outcome(framework, folder)["model_down"]
    assert (found["failed"], found["deployed"], found["said"]) == (1, ["v1"], "v1 deployed")


@apart
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_whatever_write_the_process_dies_at_nothing_is_lost_or_run_again_in_silence(framework: str, folder: Path) -> None:
    found = outcome(framework, folder)["crashed"]
    assert (found["lost"], found["silent"]) == ([], [])
    assert found["runs"] > 20 and found["asked"] == 4, "before and after the outcome of each of the two deployments"
    assert set(found["said"]) == {"v1 deployed; v2 deployed"}


@pytest.mark.parametrize("page", [*PAGES.values(), DOCS / "coming-from-langgraph.md"], ids=lambda page: page.stem)
def test_what_a_page_points_at_exists(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
