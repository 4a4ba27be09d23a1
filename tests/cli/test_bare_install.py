"""Without the extra `[cli]` the command still starts, and says what is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import SOURCE, environment

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
BLOCKED = {names}
sys.meta_path.insert(0, Block())
"""


@pytest.mark.parametrize("names", [{"typer", "rich", "click"}, {"typer"}, {"rich"}])
@pytest.mark.parametrize("words", [[], ["--help"], ["threads"]])
def test_it_names_the_extra_on_stderr_and_exits_2(tmp_path: Path, names: set[str], words: list[str]) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCK.replace("{names}", repr(names)))
    env = {**environment("sqlite:///x.db"), "PYTHONPATH": f"{tmp_path}{os.pathsep}{SOURCE}"}
    done = subprocess.run([sys.executable, "-m", "ownloop", *words], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert 'pip install "ownloop[cli]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_help_loads_neither_a_store_nor_rich() -> None:
    program = "import sys; from ownloop.cli.program import run; run(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], env=environment("memory://"), capture_output=True, text=True, check=True)
    assert "'rich.console'" not in done.stdout
    assert "'sqlite3'" not in done.stdout
    assert "'jsonschema'" not in done.stdout
