"""Every promise of `ownloop.stores.base`, as tests for any store."""

from __future__ import annotations

from .store_lists import ListPromises
from .store_notes import NotePromises
from .store_outside import OutsidePromises
from .store_reads import ReadPromises, UpkeepPromises
from .store_turns import TurnPromises
from .store_wakes import WakePromises


class StoreContract(WakePromises, TurnPromises, OutsidePromises, ReadPromises, ListPromises, NotePromises, UpkeepPromises):
    """Subclass it in a test module and give `make_store`; pytest collects the promises (with pytest-asyncio).

    Example:
        class TestMyStore(StoreContract):
            def make_store(self, clock):
                return MyStore(url_of_an_empty_database, clock)
    """
