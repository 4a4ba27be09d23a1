"""Values and durations as they stand on a terminal, in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta

from ..events import Json, clip


def brief(value: Json, limit: int = 300) -> str:
    """A value in one line: a string as it is, everything else as JSON."""
    return clip(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str), limit)


def fields(arguments: Json, limit: int = 200) -> str:
    """Arguments in one line: `tag: v1.1 · environment: production`."""
    if not isinstance(arguments, Mapping):
        return brief(arguments, limit)
    return " · ".join(f"{name}: {brief(value, limit)}" for name, value in arguments.items())


def span(length: timedelta) -> str:
    """A duration as people say it: `0.2 s`, `2 min 3 s`, `3 h 5 min`, `2 d 4 h`."""
    seconds = max(0.0, length.total_seconds())
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, size, lower, divisor in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // divisor
            return f"{whole // size} {unit}" + (f" {rest} {lower}" if rest else "")
    return f"{whole} s"
