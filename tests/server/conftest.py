"""One place for each test: a bureau on a store, behind its server."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bureau import Place, opened


@pytest.fixture(params=["memory", "sqlite"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with opened("memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/t.db?synchronous=normal") as made:
        yield made


@pytest.fixture
async def desk_place(tmp_path: Path) -> AsyncIterator[Place]:
    """On SQLite only."""
    async with opened(f"sqlite:///{tmp_path}/t.db?synchronous=normal") as made:
        yield made
