"""Every promise is tried on every store."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from worlds import World, make_world, postgres_server


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made = make_world(request.param, tmp_path)
    yield made
    for number, drive in enumerate(made.drives):
        if number not in made.dead:
            await drive.app.aclose()
    if request.param == "postgres":
        postgres_server.done_with(str(made.place))
