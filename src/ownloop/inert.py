"""Text from logs where people read it: nothing in it moves a cursor, turns the reading direction, hides, or piles up over what stands beside it.

One set of rules for terminals and pages: nobody sees another call than the one who decides.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

MARKS = 4
"""Combining marks in a row that may stand over one letter; what comes on top of them is escaped."""
_HIDDEN = frozenset("\u115f\u1160\u3164\uffa0\u034f\u2800")  # letters and marks that look like nothing
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_ACTS = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def inert(text: str, *, keep: str = "") -> str:
    """The text with every control, format, surrogate, private and invisible character as a visible escape (`\\x1b`, `\\u202e`).

    `keep` names characters that may stay ("\\n" where lines are split afterwards).
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep else shown for char, shown in spelled(text))


def spelled(text: str) -> Iterator[tuple[str, str]]:
    """Each character with what is shown for it: itself, or its escape."""
    stack = 0
    for char in text:
        stack = stack + 1 if unicodedata.combining(char) else 0
        yield char, seen(char) if stack <= MARKS else _escape(char)


@lru_cache(maxsize=4096)
def seen(char: str) -> str:
    """The character, or its escape where it could not be seen or would act."""
    if char in _SHORT:
        return _SHORT[char]
    category = unicodedata.category(char)
    is_plain = char not in _HIDDEN and category not in _ACTS and not _is_selector(char)
    return char if is_plain and (char == " " or category != "Zs") else _escape(char)


def _is_selector(char: str) -> bool:
    """Variation selectors can carry a message that nobody sees."""
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
