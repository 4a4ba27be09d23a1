"""The Postgres store keeps every promise of a store."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import postgres_server

from ownloop.stores.postgres import PostgresStore
from ownloop.testing import FakeClock, StoreContract


class TestPostgresStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _schema(self) -> Iterator[None]:
        self.url = postgres_server.empty_url()
        yield
        postgres_server.done_with(self.url)

    def make_store(self, clock: FakeClock) -> PostgresStore:
        return PostgresStore(self.url, clock)
