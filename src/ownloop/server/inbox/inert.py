"""Text from logs as it may stand on a page: nothing in it turns the reading direction, hides, or pushes what follows out of sight.

The same characters become the same escapes as on a terminal (`ownloop.cli.inert`); on a page each escape is set apart by its own element, so that
`\\u202e` typed as six letters does not look like one.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache

from markupsafe import Markup, escape

from ...events import Json

_HIDDEN = frozenset("\u115f\u1160\u3164\uffa0\u034f\u2800")  # letters and marks that look like nothing
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_CONTROL = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_ODD = re.compile(r"[^\x20-\x7e]+")
_ODD_IN_BLOCK = re.compile(r"[^\x20-\x7e\n]+")
_GAP = re.compile(r" {20,}|\n(?: *\n){3,}")
_MARKS = 4
"""Combining marks in a row that may stand over one letter; what comes on top of them is escaped."""


@lru_cache(maxsize=4096)
def seen(char: str) -> str:
    """The character, or its escape where it could not be seen or would act."""
    if char in _SHORT:
        return _SHORT[char]
    category = unicodedata.category(char)
    is_plain = char not in _HIDDEN and category not in _CONTROL and not _is_selector(char)
    if is_plain and (char == " " or category != "Zs"):
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_selector(char: str) -> bool:
    """Variation selectors can carry a message that nobody sees."""
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"


def is_plain(text: str, keep: str = "\n") -> bool:
    """Whether it holds nothing that needs an escape."""
    return all(char in keep or seen(char) == char for char in set(text)) and not _has_stacks(text)


def _has_stacks(text: str) -> bool:
    row = 0
    for char in text if not text.isascii() else "":
        row = row + 1 if unicodedata.combining(char) else 0
        if row > _MARKS:
            return True
    return False


def plain(text: str) -> str:
    """For places that hold no elements (titles, options, attributes): one line, escapes as text."""
    return "".join(map(seen, text)) if not (text.isascii() and text.isprintable()) else text


def line(text: str, limit: int | None = None) -> Markup:
    """One line; line breaks are escapes. `limit` cuts it with a mark of how much is missing: for lists, never for what is decided on."""
    rest = 0 if limit is None else len(text) - limit
    shown = _marked(text[:limit], _ODD)
    return shown if rest <= 0 else shown + Markup('<span class="cut">… {:,} more</span>').format(rest)


def block(text: str) -> Markup:
    """Text with its line breaks; long runs of spaces and of empty lines are told, not shown."""
    pieces, place = [], 0
    for gap in _GAP.finditer(text):
        run = gap.group()
        word = f"{run.count(chr(10))} line breaks" if "\n" in run else f"{len(run)} spaces"
        brk = Markup("\n") if "\n" in run else Markup("")
        pieces += [_marked(text[place : gap.start()], _ODD_IN_BLOCK), brk, Markup('<span class="esc gap">⟨{}⟩</span>').format(word), brk]
        place = gap.end()
    return Markup("").join([*pieces, _marked(text[place:], _ODD_IN_BLOCK)])


def _marked(text: str, odd: re.Pattern[str]) -> Markup:
    pieces, place = [], 0
    for found in odd.finditer(text):
        pieces += [escape(text[place : found.start()]), _escapes(found.group())]
        place = found.end()
    return Markup("").join([*pieces, escape(text[place:])])


def _escapes(chars: str) -> Markup:
    """Characters that are not plain ASCII: those that can be seen as they are, runs of the others in one element."""
    out, hidden, stack = list[str](), list[str](), 0
    for char in chars:
        stack = stack + 1 if unicodedata.combining(char) else 0
        shown = seen(char) if stack <= _MARKS else f"\\u{ord(char):04x}"
        if shown == char:
            out += [_esc(hidden), str(escape(char))]
            hidden = []
        else:
            hidden.append(shown)
    return Markup("".join([*out, _esc(hidden)]))


def _esc(hidden: list[str]) -> str:
    return f'<span class="esc">{"".join(hidden)}</span>' if hidden else ""


def json_text(value: Json, *, indent: int | None = 2) -> str:
    """JSON that a person can read and edit: what cannot be seen is a JSON escape, so that nothing is lost when it is read again."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return text if text.isascii() and "\x7f" not in text else "".join(map(_json_seen, text))


@lru_cache(maxsize=4096)
def _json_seen(char: str) -> str:
    if char == "\n" or (seen(char) == char and not unicodedata.combining(char)):
        return char
    return json.dumps(char)[1:-1] if char != "\x7f" else "\\u007f"
