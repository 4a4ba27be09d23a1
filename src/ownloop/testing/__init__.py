"""What proves an agent, a store or an engine; nothing in ownloop imports it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clock import FakeClock
    from .crashes import CrashReport, crash_everywhere
    from .driving import Drive, drive
    from .engine_contract import EngineContract
    from .model import ScriptedModel
    from .store_contract import StoreContract

_PLACES = {
    "CrashReport": "crashes",
    "Drive": "driving",
    "EngineContract": "engine_contract",
    "FakeClock": "clock",
    "ScriptedModel": "model",
    "StoreContract": "store_contract",
    "crash_everywhere": "crashes",
    "drive": "driving",
}
_STORES = ("store_contract", "store_wakes", "store_turns", "store_outside", "store_reads", "store_lists", "store_notes")
_REWRITTEN = ("engine_contract", *_STORES)
"""Modules with assertions that pytest explains when they fail."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _PLACES[name] in _REWRITTEN:
        import pytest

        pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _REWRITTEN))
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)


__all__ = ["CrashReport", "Drive", "EngineContract", "FakeClock", "ScriptedModel", "StoreContract", "crash_everywhere", "drive"]
