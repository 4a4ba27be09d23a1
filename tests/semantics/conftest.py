"""Every promise is tried on every store."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from worlds import World, make_world, postgres_server

ON_POSTGRES = {"test_decisions", "test_threads", "test_turns", "test_visibility"}
"""Tests in which a store has its say, a few of each verb. The others are about what a wake does with a log; on Postgres they are `soak`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "world" in metafunc.fixturenames and not any("world" in names for names in chosen):
        marks = [] if metafunc.module.__name__ in ON_POSTGRES else [pytest.mark.soak]
        metafunc.parametrize("world", ["memory", "sqlite", pytest.param("postgres", marks=marks)], indirect=True)


@pytest.fixture
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made = make_world(request.param, tmp_path)
    yield made
    for number, drive in enumerate(made.drives):
        if number not in made.dead:
            await drive.app.aclose()
    if request.param == "postgres":
        postgres_server.done_with(str(made.place))
