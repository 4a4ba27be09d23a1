"""One place for each test: a bureau on a store, behind its server."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bureau import Place, opened

ON_POSTGRES = {"test_api_decisions", "test_client", "test_idempotency", "test_routes"}
"""Tests of what a store answers, on SQLite and Postgres, and in memory only as `soak`; the others ask little of a store."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        asks = metafunc.module.__name__ in ON_POSTGRES
        kinds = [pytest.param("memory", marks=pytest.mark.soak), "sqlite", "postgres"] if asks else ["memory", "sqlite"]
        metafunc.parametrize("place", kinds, indirect=True)


def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of the kind that the fixture is asked for."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/t.db?synchronous=normal"


@pytest.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with opened(url_of(request, tmp_path)) as made:
        yield made


@pytest.fixture
async def desk_place(tmp_path: Path) -> AsyncIterator[Place]:
    """On SQLite only."""
    async with opened(f"sqlite:///{tmp_path}/t.db?synchronous=normal") as made:
        yield made


@pytest.fixture
async def kept_place(kept_url: str) -> AsyncIterator[Place]:
    async with opened(kept_url) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgres"])
def kept_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store that several processes can share."""
    return url_of(request, tmp_path)


@pytest.fixture(params=["memory", "postgres"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store, in memory or on a server."""
    return url_of(request, tmp_path)
