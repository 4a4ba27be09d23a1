"""JSON values as HTML, whole and inert. What a person decides on is made here, by this code, from the recorded arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ...events import Json
from . import inert

TEXT_LIMIT = 4_000
ITEMS_LIMIT = 50
DEEPEST = 12


class Sheet:
    """Renders values; remembers what it left out.

    Args:
        whole: leave nothing out, however long it is.

    Attributes:
        left_out: characters of JSON that were not delivered. While it is not 0, nobody may be offered to approve.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self.left_out = 0

    def arguments(self, arguments: Mapping[str, Json], *, depth: int = 0) -> Markup:
        """A table of names, types and values."""
        if not arguments:
            return Markup('<p class="none">no arguments</p>')
        rows = [_ROW.format(inert.line(name), type_name(value), self.value(value, depth + 1)) for name, value in self._capped(arguments.items())]
        return Markup('<dl class="args">{}</dl>').format(Markup("").join(rows))

    def value(self, value: Json, depth: int = 0) -> Markup:
        """One value; numbers, true, false and null look unlike the texts of the same letters."""
        if depth > DEEPEST:
            return self._text(inert.json_text(value))
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping) and value:
            return self.arguments(value, depth=depth)
        if isinstance(value, list | tuple) and value:
            items = Markup("").join(Markup("<li>{}</li>").format(self.value(item, depth + 1)) for item in self._capped(value))
            return Markup('<ol class="items" start="0">{}</ol>').format(items)
        return Markup('<code class="literal">{}</code>').format(json.dumps(value))

    def _text(self, text: str) -> Markup:
        if not text:
            return Markup('<span class="none">empty text</span>')
        cut = len(text) if self._whole else TEXT_LIMIT
        rest = max(0, len(text) - cut)
        self.left_out += rest
        more = Markup('<span class="cut">… {:,} more characters</span>').format(rest) if rest else Markup("")
        return Markup('<div class="text">{}{}</div>').format(inert.block(text[:cut]), more)

    def _capped(self, items: Any) -> Sequence[Any]:
        known = list(items)
        if self._whole or len(known) <= ITEMS_LIMIT:
            return known
        self.left_out += len(json.dumps(known[ITEMS_LIMIT:]))
        return known[:ITEMS_LIMIT]


_ROW = Markup('<div class="arg"><dt>{} <span class="type">{}</span></dt><dd>{}</dd></div>')


def type_name(value: Json) -> str:
    """The type of a value in a word or two."""
    if isinstance(value, list | tuple):
        return f"list of {len(value)}"
    if isinstance(value, Mapping):
        return "object"
    return {bool: "boolean", int: "integer", float: "number", str: "text", type(None): "null"}.get(type(value), "value")


def brief(value: Json, limit: int = 120) -> Markup:
    """A value in one line, cut where it is long: for lists."""
    return inert.line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), limit)
