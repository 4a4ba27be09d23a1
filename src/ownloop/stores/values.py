"""Values as the stores on disk keep them: JSON that UTF-8 can hold, and large fields apart, each content once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from pydantic_core import PydanticSerializationError, to_json

from .. import ids
from ..events import Json
from .rules import VALUE_LIMIT

_encode_ascii = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def number_of(thread_id: str) -> int:
    """The number of a thread's id; -1, which no thread has, if it is none."""
    number = ids.thread_number(thread_id)
    return -1 if number is None else number


def dump(value: Json) -> str:
    """Compact JSON that UTF-8 can hold: half a surrogate pair is written as an escape."""
    try:
        return to_json(value).decode()
    except PydanticSerializationError:
        return _encode_ascii(value)


def apart(data: Mapping[str, Json]) -> tuple[str | None, dict[str, str], dict[str, str]]:
    """The data as text (None: there is none); fields over the limit apart: their hashes by name, and what the hashes stand for."""
    if not data:
        return None, {}, {}
    text = dump(data)
    if len(text) <= VALUE_LIMIT:
        return text, {}, {}
    small, big, blobs = {}, {}, {}
    for name, value in data.items():
        if len(field := dump(value)) > VALUE_LIMIT:
            big[name] = hash_of(field)
            blobs[big[name]] = field
        else:
            small[name] = value
    return dump(small), big, blobs


def hash_of(text: str) -> str:
    """By what a value is known that is stored once."""
    return hashlib.sha256(text.encode()).hexdigest()
