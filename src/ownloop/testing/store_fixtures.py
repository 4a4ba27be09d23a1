"""What every promise of a store stands on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from ..stores.base import Store
from .clock import FakeClock
from .store_scene import Scene

MS = timedelta(milliseconds=1)


class StoreFixtures:
    """What every promise stands on."""

    pytestmark = pytest.mark.asyncio

    def make_store(self, clock: FakeClock) -> Store:
        """An empty store that is not open yet and measures by this clock."""
        raise NotImplementedError(f"{type(self).__name__} must give make_store(clock)")

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest_asyncio.fixture
    async def scene(self, clock: FakeClock) -> AsyncIterator[Scene]:
        store = self.make_store(clock)
        await store.open()
        yield Scene(store, clock)
        await store.close()
