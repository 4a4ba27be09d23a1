"""What the tests of the Postgres store share."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from postgres_server import stores

from ownloop.stores.postgres import PostgresStore


@pytest.fixture
def url(postgres_url: str) -> str:
    """An empty store."""
    return postgres_url


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    """It, open."""
    async with stores(url) as (store,):
        yield store
