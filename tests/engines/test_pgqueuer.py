"""The PgQueuer engine keeps every promise of an engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "stores"))
import postgres_server

from ownloop import App
from ownloop.testing import EngineContract


class TestPgQueuer(EngineContract):
    @pytest.fixture(autouse=True)
    def _schema(self) -> Iterator[None]:
        self.url = postgres_server.empty_url()
        yield
        postgres_server.done_with(self.url)

    def make_app(self, **options: Any) -> App:
        return App(self.url, **options)

    async def lose_hints(self, app: App) -> None:
        postgres_server.look(
            self.url,
            "DO $$ BEGIN IF to_regclass('ownloop_pgq.pgqueuer') IS NOT NULL THEN TRUNCATE ownloop_pgq.pgqueuer; END IF; END $$".replace(
                "ownloop_pgq", jobs(self.url)
            ),
        )


def jobs(url: str) -> str:
    """The schema of the jobs of a store."""
    return f"{postgres_server.connect.parse(url).schema}_pgq"
