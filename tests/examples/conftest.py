"""The examples as modules, on every store."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = str(Path(__file__).resolve().parent.parent.parent / "examples")
if EXAMPLES not in sys.path:
    sys.path.insert(0, EXAMPLES)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return _url(request, tmp_path)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.soak)])
def kept_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that several processes can share."""
    return _url(request, tmp_path)


def _url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'example.db'}"


DIE_ON_POSTGRES = {"test_refunds", "test_support_chat"}
"""Whose deaths everywhere are also tried on Postgres; those of the longer stories there are `soak`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        marks = [] if metafunc.module.__name__ in DIE_ON_POSTGRES else [pytest.mark.soak]
        metafunc.parametrize("place", ["sqlite", "memory", pytest.param("postgres", marks=marks)], indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Any:
    """What crash_everywhere takes as its `url`; each run has a text of its own there."""
    if request.param != "postgres":
        return {"sqlite": None, "memory": "memory://"}[request.param]
    import postgres_server

    empty, number = postgres_server.one_by_one(), itertools.count(1)
    return lambda: f"{empty()}&application_name=run{next(number)}"


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """A new folder at every call: for each of the runs of crash_everywhere."""
    made: list[Path] = []

    def folder() -> Path:
        made.append(tmp_path / f"run{len(made)}")
        made[-1].mkdir()
        return made[-1]

    return folder
