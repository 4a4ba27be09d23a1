"""The engine that fits a store, where the user names none; only that one is imported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import cast

from ..stores.base import Store
from .base import Engine

ENGINES: Mapping[str, tuple[str, str]] = dict.fromkeys(("memory", "sqlite"), ("ownloop.engines.embedded", "Embedded"))


def default_engine(store: Store, agents: Callable[[], Collection[str]], concurrency: int) -> Engine:
    """What wakes the threads of this store."""
    module, name = ENGINES.get(store.url.partition(":")[0], ENGINES["memory"])
    return cast(Engine, getattr(import_module(module), name)(store, agents, concurrency))
