"""Text from logs as it may stand on a page: the escapes of `ownloop.inert`, and nothing pushes what follows out of sight.

Each escape is set apart by its own element, so that `\\u202e` typed as six letters does not look like one.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache

from markupsafe import Markup, escape

from ...events import Json
from ...inert import inert, spelled
from ...inert import seen as seen

_ODD = re.compile(r"[^\x20-\x7e]+")
_ODD_IN_BLOCK = re.compile(r"[^\x20-\x7e\n]+")
_GAP = re.compile(r" {20,}|\n(?: *\n){3,}")


def is_plain(text: str, keep: str = "\n") -> bool:
    """Whether it holds nothing that needs an escape."""
    return inert(text, keep=keep) == text


def plain(text: str) -> str:
    """For places that hold no elements (titles, options, attributes): one line, escapes as text."""
    return inert(text)


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
    out, hidden = list[str](), list[str]()
    for char, shown in spelled(chars):
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
