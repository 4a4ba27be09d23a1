"""The memory store keeps every promise of a store."""

from __future__ import annotations

from ownloop.stores.memory import MemoryStore
from ownloop.testing import FakeClock, StoreContract


class TestMemoryStore(StoreContract):
    def make_store(self, clock: FakeClock) -> MemoryStore:
        return MemoryStore(clock)
