"""Values as JSON: the fields of API.md's values by their names, times in RFC 3339 with a Z, durations in seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from functools import singledispatch
from typing import Any

from ..events import Json
from ..interrupts import Decision


@singledispatch
def plain(value: Any) -> Json:
    """What `json.dumps` takes."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value) if one.repr}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


@plain.register
def _(value: datetime) -> Json:
    return value.isoformat(timespec="microseconds").replace("+00:00", "Z")


@plain.register
def _(value: timedelta) -> Json:
    return value.total_seconds()


@plain.register
def _(value: Decision) -> Json:
    return {**{one.name: plain(getattr(value, one.name)) for one in fields(value)}, "granted": value.granted}


def encoded(value: Any) -> bytes:
    """JSON in ASCII: also half a surrogate pair, which a log may hold, has a form."""
    return json.dumps(plain(value), separators=(",", ":")).encode()
