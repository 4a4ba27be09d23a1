"""The embedded engine keeps every promise of an engine, on each store that it may serve."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "stores"))
import postgres_server

from ownloop import App
from ownloop.engines import Embedded
from ownloop.stores.memory import MemoryStore
from ownloop.testing import EngineContract


@pytest.mark.soak  # it hears commits as the one on SQLite does, and most other tests run on it
class TestEmbeddedInMemory(EngineContract):
    @pytest.fixture(autouse=True)
    def _store(self) -> None:
        self.store = MemoryStore()

    def make_app(self, **options: Any) -> App:
        return App(self.store, **options)


class TestEmbeddedOnSqlite(EngineContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/a.db"

    def make_app(self, **options: Any) -> App:
        return App(self.url, **options)


class TestEmbeddedOnPostgres(EngineContract):
    @pytest.fixture(autouse=True)
    def _schema(self) -> Iterator[None]:
        self.url = postgres_server.empty_url()
        yield
        postgres_server.done_with(self.url)

    def make_app(self, **options: Any) -> App:
        return App(self.url, engine=Embedded(), **options)
