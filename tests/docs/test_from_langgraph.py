"""docs/coming-from-langgraph.md: the graph and its port both run, and print what stands under them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import DOCS, ROOT, Block, blocks_of

PYTHON = ROOT / ".venv" / "apart" / "frameworks" / "bin" / "python"
GRAPH, PORT = [block for block in blocks_of(DOCS / "coming-from-langgraph.md") if block.language == "python"]


def printed(block: Block, python: str, folder: Path) -> str:
    assert block.name is not None
    (folder / block.name).write_text(block.text)
    environment = {**os.environ, "LANGSMITH_TRACING": "false"}
    done = subprocess.run([python, block.name], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(not PYTHON.exists(), reason="no .venv/apart/frameworks; make it with: python tools/venv.py --apart frameworks")
def test_the_graph_runs_code_before_its_interrupt_again(tmp_path: Path) -> None:
    assert GRAPH.output is not None
    assert printed(GRAPH, str(PYTHON), tmp_path) == GRAPH.output
    assert GRAPH.output.count("'mailed the reviewers'") == 2


def test_the_port_does_the_same_and_runs_it_once(tmp_path: Path) -> None:
    assert PORT.output is not None
    assert printed(PORT, sys.executable, tmp_path) == PORT.output
    assert PORT.output.count("'mailed the reviewers'") == 1


def test_both_have_the_form_of_our_own_programs(tmp_path: Path) -> None:
    for block in (GRAPH, PORT):
        (tmp_path / str(block.name)).write_text(block.text)
    for command in (["check"], ["format", "--check"]):
        ours = [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", "--no-cache", tmp_path]
        done = subprocess.run(ours, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
