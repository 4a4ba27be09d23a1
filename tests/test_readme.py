"""README.md: every program in it runs and prints what it says there, and what it points at exists."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```\n(?:\n?```text\n(.*?)```)?", README, re.DOTALL)
COMMANDS = re.findall(r"^(?:ownloop|make) .*$", "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)), re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs as a reader would save them: the first as deploy.py, which the others may import."""
    path = tmp_path_factory.mktemp("readme")
    for number, (program, _) in enumerate(PROGRAMS):
        (path / ("deploy.py" if number == 0 else f"program{number}.py")).write_text(program)
    return path


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_prints_what_stands_under_it(folder: Path, number: int) -> None:
    name = "deploy.py" if number == 0 else f"program{number}.py"
    done = subprocess.run([sys.executable, name], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == PROGRAMS[number][1].strip()


def test_by_line_40_a_program_has_paused_was_approved_and_ended_and_its_log_is_there() -> None:
    assert README.count("```python") == len(PROGRAMS)
    log = PROGRAMS[0][1].strip()
    assert README.splitlines().index(log) + 1 <= 40
    assert re.search(r"request .* decision ops .* turn_ended", log)


def test_the_two_commands_start_and_approve(tmp_path: Path) -> None:
    start, decide = (shlex.split(command)[1:] for command in COMMANDS if command.startswith("ownloop "))
    ours = [sys.executable, "-m", "ownloop"]
    environment = {**os.environ, "DEPLOYBOT_REPOSITORY": str(tagged(tmp_path)), "NO_COLOR": "1"}
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with subprocess.Popen([*ours, *start], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        lines = iter(watching.stdout)
        assert any("asks approval of release-managers" in line for line in lines)
        subprocess.run([*ours, *decide], cwd=tmp_path, env=environment, check=True, capture_output=True)
        assert any("The backend on production stands at v1.0.0" in line for line in lines)
        watching.stdout.read()
    assert watching.returncode == 0
    assert (tmp_path / "environments" / "production" / "VERSION").exists()


def tagged(folder: Path) -> Path:
    repository = folder / "repository"
    repository.mkdir()
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"]
    (repository / "VERSION").write_text("v1.0.0")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"], ["tag", "v1.0.0"]):
        subprocess.run(["git", "-C", repository, *identity, *command], check=True)
    return repository


def test_the_seeds_diff_is_that_of_the_example() -> None:
    spec = importlib.util.spec_from_file_location("seed_diff", ROOT / "tools" / "seed_diff.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    shown = re.search(r"<!-- seed-diff -->\n```diff\n(.*?)\n```\n<!-- /seed-diff -->", README, re.DOTALL)
    assert shown is not None
    assert shown[1] == tool.diff(), "run tools/seed_diff.py and put what it prints between the marks"
    assert tool.changed() <= 8


def test_what_it_points_at_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
    assert [link for link in links if not (ROOT / link).exists()] == []
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command.split()[1] for command in COMMANDS if command.startswith("make ")} <= set(targets)


def test_the_layout_of_the_design_is_that_of_the_code() -> None:
    picture = re.search(r"```\nsrc/ownloop/\n(.*?)\nexamples/", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"), re.DOTALL)
    assert picture is not None
    shown = [line.split()[0] for line in picture[1].splitlines()]
    package = ROOT / "src" / "ownloop"
    files = {path.name for path in package.glob("*.py")} - {"__main__.py"}
    folders = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}
    assert set(shown) == files | folders
