"""The examples as modules, on every store."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = str(Path(__file__).resolve().parent.parent.parent / "examples")
if EXAMPLES not in sys.path:
    sys.path.insert(0, EXAMPLES)


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'example.db'}"


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """A new folder at every call: for each of the runs of crash_everywhere."""
    made: list[Path] = []

    def folder() -> Path:
        made.append(tmp_path / f"run{len(made)}")
        made[-1].mkdir()
        return made[-1]

    return folder
