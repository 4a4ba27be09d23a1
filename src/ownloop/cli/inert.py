"""Text from logs as it may stand on a terminal: nothing in it moves the cursor, turns the reading direction or hides."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from datetime import timedelta

from ..events import Json, clip

_HIDDEN = frozenset("\u115f\u1160\u3164\uffa0\u034f\u2800")  # letters and marks that look like nothing
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def inert(text: str, *, keep: str = "") -> str:
    """The text with every control, format, surrogate, private and invisible character as a visible escape (`\\x1b`, `\\u202e`).

    `keep` names characters that may stay ("\\n" where lines are split afterwards).
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep else _seen(char) for char in text)


def _seen(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    is_plain = char not in _HIDDEN and unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    if is_plain and (char == " " or unicodedata.category(char) != "Zs"):
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


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
