"""The engine that fits a store, where the user names none; only that one is imported."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from ..clock import SystemClock
from ..stores.base import Store
from ..wake import is_async
from .base import Agents, Attached, Engine

EMBEDDED = ("ownloop.engines.embedded", "Embedded")
ENGINES: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("memory", "sqlite"), EMBEDDED),
    **dict.fromkeys(("postgresql", "postgres"), ("ownloop.engines.pgqueuer", "PgQueuer")),
}


def engine_for(given: Engine | None, store: Store, agents: Agents, concurrency: int) -> Engine:
    """What wakes the threads of this store: what was given, else what fits; it knows the store then.

    Raises:
        TypeError, ValueError: what was given is no engine, or that of another store.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency={concurrency}; an App runs at least one handler at once. To run none, do not serve: use the verbs alone")
    engine = default_engine(store) if given is None else given
    if isinstance(engine, type) or not all(callable(getattr(engine, name, None)) for name in ("wake", "serve")):
        raise TypeError(f"engine={engine!r} is no engine, which has `wake` and `serve`; give one that is made: engine=Embedded(), engine=Temporal(…)")
    if plain := [name for name in ("wake", "serve") if not is_async(getattr(engine, name))]:
        raise TypeError(f"engine={engine!r}: its `{plain[0]}` is a plain function, and is awaited; write `async def {plain[0]}`")
    had: Any = getattr(engine, "_store", None)
    if hasattr(had, "runnable") and had is not store:
        raise ValueError(f"engine={engine!r} wakes the threads of {had.url}, and would forget them over {store.url}; make one for each App")
    if isinstance(engine, Attached):
        engine.attach(store, agents, concurrency)
    return engine


def default_engine(store: Store) -> Engine:
    """By the store's URL. A clock that a test moves is nothing to a queue on a server: there the wakes run inside the process."""
    by_url = ENGINES.get(store.url.partition(":")[0], EMBEDDED)
    module, name = by_url if isinstance(store.clock, SystemClock) else EMBEDDED
    return cast(Engine, getattr(import_module(module), name)())
