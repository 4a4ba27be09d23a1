"""Who wakes threads: `App(url, engine=…)`. Each is imported when it is named: it may need an extra."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .embedded import Embedded
    from .pgqueuer import PgQueuer
    from .restate import Restate
    from .temporal import Temporal

_PLACES = {"Embedded": "embedded", "PgQueuer": "pgqueuer", "Restate": "restate", "Temporal": "temporal"}
_EXTRAS = {"PgQueuer": "postgres", "Restate": "restate", "Temporal": "temporal"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_PLACES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"the engine {name} needs {error.name}; install it with: pip install 'ownloop[{_EXTRAS[name]}]'") from error


__all__ = ["Embedded", "PgQueuer", "Restate", "Temporal"]
