"""What an edit changes, made by the server: by argument, and inside texts by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from markupsafe import Markup

from ...events import Json, canonical
from . import inert
from .values import Sheet, type_name

WORDS = 1_500
"""Texts with more words than both of these together are compared by line."""
_WORD = re.compile(r"\s+|\w+|[^\w\s]")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_MISSING = object()


@dataclass(frozen=True)
class Change:
    """One argument after an edit. `state`: "same", "changed", "added", "removed"; `was` and `now` are HTML, None where there is none."""

    name: Markup
    state: str
    was: Markup | None
    now: Markup | None
    type: str


def changes(proposed: Mapping[str, Json], edited: Mapping[str, Json]) -> list[Change]:
    """Every argument of both, in the order of the proposed call."""
    names = [*proposed, *(name for name in edited if name not in proposed)]
    return [_change(name, proposed.get(name, _MISSING), edited.get(name, _MISSING)) for name in names]


def change_of(before: Json, after: Json) -> list[Change]:
    """The same for values that may be no objects (results)."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return changes(before, after)
    return [_change("result", before, after)]


def _change(name: str, before: Json, after: Json) -> Change:
    title = inert.line(name)
    if before is _MISSING:
        return Change(title, "added", None, _ins(Sheet(whole=True).value(after)), type_name(after))
    if after is _MISSING:
        return Change(title, "removed", _del(Sheet(whole=True).value(before)), None, type_name(before))
    if canonical(before) == canonical(after):
        return Change(title, "same", None, Sheet(whole=True).value(after), type_name(after))
    was, now = _both(before, after)
    kinds = type_name(after) if type_name(before) == type_name(after) else f"{type_name(before)} → {type_name(after)}"
    return Change(title, "changed", was, now, kinds)


def _both(before: Json, after: Json) -> tuple[Markup, Markup]:
    if isinstance(before, str) and isinstance(after, str) and before and after:
        pieces = list(_pieces(before, after))
        frame = Markup('<div class="text">{}</div>')
        return frame.format(Markup("").join(was for was, _ in pieces)), frame.format(Markup("").join(now for _, now in pieces))
    if isinstance(before, dict | list) and isinstance(after, dict | list):
        pieces = list(_pieces(inert.json_text(before), inert.json_text(after), _LINE))
        frame = Markup('<div class="text">{}</div>')
        return frame.format(Markup("").join(was for was, _ in pieces)), frame.format(Markup("").join(now for _, now in pieces))
    sheet = Sheet(whole=True)
    return _del(sheet.value(before)), _ins(sheet.value(after))


def _pieces(before: str, after: str, unit: re.Pattern[str] = _WORD) -> Iterator[tuple[Markup, Markup]]:
    """Pairs of what stands in the old text and in the new one."""
    old, new = unit.findall(before), unit.findall(after)
    if len(old) + len(new) > WORDS and unit is _WORD:
        old, new = _LINE.findall(before), _LINE.findall(after)
    if len(old) + len(new) > WORDS:
        old, new = [before], [after]
    for tag, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        was, now = inert.block("".join(old[a:b])), inert.block("".join(new[c:d]))
        yield (was, now) if tag == "equal" else (_del(was) if b > a else was, _ins(now) if d > c else now)


def _del(html: Markup) -> Markup:
    return Markup("<del>{}</del>").format(html)


def _ins(html: Markup) -> Markup:
    return Markup("<ins>{}</ins>").format(html)
