"""docs/recipes as pages: complete, linked, formatted and typed; the two commands of the index run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx2
import openai
import pytest
from recipe_provider import RECIPES, ROOT, Provider, openai_calls, saved

from ownloop.selection import is_transient

INDEX = (ROOT / "docs" / "recipes" / "README.md").read_text(encoding="utf-8")
INSTRUCTOR = ROOT / ".venv" / "apart" / "instructor" / "bin" / "python"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes")
    for page in RECIPES:
        saved(page.stem, path)
    return path


def test_the_index_names_every_recipe() -> None:
    assert set(re.findall(r"^\| \[(\w+)\.md\]\(\1\.md\)", INDEX, re.MULTILINE)) == {page.stem for page in RECIPES}


@pytest.mark.parametrize("page", [*RECIPES, ROOT / "docs" / "recipes" / "README.md"], ids=lambda page: page.stem)
def test_what_a_page_points_at_exists(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_the_programs_have_the_form_of_our_own(folder: Path, command: list[str]) -> None:
    ours = [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", "--no-cache", folder]
    done = subprocess.run(ours, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_programs_fit_the_types_of_the_sdks(folder: Path) -> None:
    assert typed([path for path in sorted(folder.glob("*.py")) if "instructor" not in path.name]) == ""


@pytest.mark.skipif(not INSTRUCTOR.exists(), reason="no .venv/apart/instructor; make it with: python tools/venv.py --apart instructor")
def test_the_program_with_instructor_fits_its_types(folder: Path) -> None:
    assert typed([folder / "recipe_instructor.py"], "--python-executable", str(INSTRUCTOR)) == ""


def typed(programs: list[Path], *options: str) -> str:
    """What mypy says of programs; xllamacpp says nothing of its types."""
    configuration = programs[0].with_name("mypy.ini")
    configuration.write_text("[mypy]\nstrict = True\n[mypy-xllamacpp]\nignore_missing_imports = True\n")
    cache = ROOT / ".mypy_cache" / f"recipes{len(options)}"
    ours = [sys.executable, "-m", "mypy", "--config-file", configuration, "--cache-dir", cache, "--no-error-summary", *options, *programs]
    return subprocess.run(ours, capture_output=True, text=True, check=False, cwd=programs[0].parent).stdout


def test_the_two_commands_start_and_approve(tmp_path: Path) -> None:
    start, decide = (shlex.split(line)[1:] for line in re.findall(r"^ownloop .*$", INDEX, re.MULTILINE))
    saved("openai", tmp_path).rename(tmp_path / "deploybot.py")
    calls = [("deploy", {"tag": "v1.4.0", "environment": "production"}), ("done", {"message": "It is live"})]
    with Provider([openai_calls(call) for call in calls]).serving() as provider:
        environment = {**os.environ, "OPENAI_BASE_URL": f"{provider.url}/v1", "NO_COLOR": "1"}
        ours = [sys.executable, "-m", "ownloop"]
        with subprocess.Popen([*ours, *start], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout is not None
            lines = iter(watching.stdout)
            assert any("asks approval of ops" in line for line in lines)
            subprocess.run([*ours, *decide], cwd=tmp_path, env=environment, check=True, capture_output=True)
            assert any("It is live" in line for line in lines)
            watching.stdout.read()
    assert watching.returncode == 0


def test_an_exception_of_ones_own_is_a_timer() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", INDEX, re.DOTALL)
    names: dict[str, type[Exception]] = {}
    exec(code, names)
    request = httpx2.Request("POST", "http://127.0.0.1/v1")
    response = httpx2.Response(429, headers={"retry-after": "20"}, request=request)
    limited = names["Later"](openai.RateLimitError("slow down", response=response, body=None))
    assert (is_transient(limited), getattr(limited, "retry_after", None)) == (True, 20)
    assert is_transient(openai.APIConnectionError(request=request)), "as the page says"
    assert is_transient(openai.APITimeoutError(request=request))
