"""A JSON Schema and a value as a form that plain HTML can send; `reading` makes a value of it again, and numbers stay numbers.

Each place sends `k<key>` (which option was chosen: its number in `Place.options`) and, by the option, `f<key>` (its text), `n<key>` (how many
items), `x<key>` (names outside the schema) and `e<key>` (the text is a JSON string, because it holds what a control could not). `w<key>` is the
option that was shown: a new choice shows its fields first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ...events import Json
from . import inert
from .schemas import DATE, TYPED, Option, Place, hints, name_of

ABSENT: Any = object()
"""No value: the place stays empty."""
BLANK: Any = object()
"""No value yet: the place waits to be filled."""
MOST_FIELDS = 300
MOST_ITEMS = 1_000
DEEPEST_SENT = 40
DEEPEST = 6
LONG = 70


class Sent(Protocol):
    """What came by a form."""

    def get(self, name: str, /) -> Any: ...
    def getlist(self, name: str, /) -> Sequence[Any]: ...


UNCHOSEN = Option("unchosen", "choose…")


@dataclass(frozen=True)
class Field:
    """One place of a form, as it is shown."""

    pointer: str
    key: str
    label: str
    options: tuple[Option, ...]
    chosen: int
    text: str = ""
    is_escaped: bool = False
    children: tuple[Field, ...] = ()
    extras: tuple[str, ...] = ()
    help: str = ""
    hint: str = ""
    problem: str = ""
    is_new: bool = False
    is_extra: bool = False

    @property
    def option(self) -> Option:
        return self.options[self.chosen] if self.chosen < len(self.options) else UNCHOSEN

    @property
    def choices(self) -> list[tuple[int, Option]]:
        """What can be chosen; raw JSON only where it is chosen already, or nothing else is there."""
        last = len(self.options) - 1
        known = [(number, one) for number, one in enumerate(self.options) if number != last or self.chosen == last or last == 0 or self.is_loose]
        return [(self.chosen, UNCHOSEN), *known] if self.chosen > last else known

    @property
    def is_loose(self) -> bool:
        """Whether any JSON may stand here, so that raw JSON is offered beside the types."""
        return is_anything(self.options)

    @property
    def control(self) -> str:
        """Which control holds the text: "line", "area", "date", "" for none."""
        if self.option.kind == "json" or self.is_escaped:
            return "area"
        if self.option.kind == "text" and self.option.rules.get("format") == "date" and (not self.text or DATE.fullmatch(self.text)):
            return "date"
        if self.option.kind == "text" and ("\n" in self.text or len(self.text) > LONG):
            return "area"
        has_typed = any(one.kind in TYPED for _, one in self.choices)
        return "line" if self.option.kind in TYPED or (has_typed and self.option.kind in ("literal", "absent", "unchosen")) else ""

    @property
    def rows(self) -> int:
        return min(16, max(2, self.text.count("\n") + 1, len(self.text) // 60 + 1))

    @property
    def id(self) -> str:
        return "f" + "".join(char if char.isascii() and char.isalnum() else f"-{ord(char):x}-" for char in self.pointer)

    @property
    def part(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def can_grow(self) -> bool:
        return self.option.kind == "array" or (self.option.kind == "object" and self.option.rules.get("additionalProperties", True) is not False)


class Builder:
    """Makes the fields of a form. `problems` are shown where their pointers point; `rest` are those that found no place."""

    def __init__(self, schema: Json, problems: Sequence[tuple[str, str]] = (), label: str = "arguments") -> None:
        self._label = label
        self._schema = schema if isinstance(schema, Mapping) else {}
        self._problems = dict(problems)
        self._made = 0

    def form(self, value: Json) -> Field:
        return self.field(Place(self._schema, self._schema), self._label, value, 0)

    def again(self, sent: Sent) -> Field:
        """The form as it was sent, whatever was wrong in it."""
        return self._sent(Place(self._schema, self._schema), self._label, sent, 0)

    @property
    def rest(self) -> list[tuple[str, str]]:
        return list(self._problems.items())

    def field(self, place: Place, label: str, value: Json, depth: int) -> Field:
        """The field of one place."""
        made = self._made_field(place, label, self._chosen(place, value, depth))
        option = made.option
        if option.kind == "object":
            return self._object(made, place, option, value if isinstance(value, Mapping) else {}, depth)
        if option.kind == "array":
            items = value if isinstance(value, list) else []
            children = [self.field(place.item(option, number), str(number), item, depth + 1) for number, item in enumerate(items)]
            return replace(made, children=tuple(children))
        return _with_text(made, option, value)

    def _made_field(self, place: Place, label: str, chosen: int) -> Field:
        self._made += 1
        return Field(
            place.pointer,
            place.key,
            inert.plain(label),
            tuple(place.options),
            chosen,
            help=inert.plain(str(place.schema.get("description") or "")),
            hint=hints(place.options[chosen].rules) if chosen < len(place.options) else "",
            problem=self._problems.pop(place.pointer, ""),
        )

    def _sent(self, place: Place, label: str, sent: Sent, depth: int) -> Field:
        chosen = number_of(sent.get("k" + place.key))
        if chosen is None or chosen > len(place.options) or depth > DEEPEST_SENT:
            return replace(self.field(place, label, BLANK, depth), is_new=True)
        made = self._made_field(place, label, chosen)
        if made.option.kind == "object":
            extras = names_sent(sent, place)
            names = [*(made.option.rules.get("properties") or {}), *extras]
            return replace(made, children=tuple(self._sent(place.child(made.option, name), name, sent, depth + 1) for name in names), extras=extras)
        if made.option.kind == "array":
            count = min(number_of(sent.get("n" + place.key)) or 0, MOST_ITEMS)
            return replace(made, children=tuple(self._sent(place.item(made.option, at), str(at), sent, depth + 1) for at in range(count)))
        text = str(sent.get("f" + place.key) or "").replace("\r\n", "\n")
        return replace(made, text=text, is_escaped=bool(sent.get("e" + place.key)) and made.option.kind == "text")

    def _chosen(self, place: Place, value: Json, depth: int) -> int:
        last = len(place.options) - 1
        if value is ABSENT:
            return 0
        if value is BLANK:
            return _blank(place)
        is_deep = isinstance(value, dict | list) and (depth >= DEEPEST or self._made + len(value) > MOST_FIELDS)
        return last if is_deep else place.option_of(value)

    def _object(self, made: Field, place: Place, option: Option, value: Mapping[str, Json], depth: int) -> Field:
        properties = option.rules.get("properties") or {}
        required = option.rules.get("required") or ()
        missing = {name: BLANK if name in required else ABSENT for name in properties if name not in value}
        extras = tuple(name for name in value if name not in properties)
        names = [*properties, *extras]
        children = [self.field(place.child(option, name), name, missing.get(name, value.get(name)), depth + 1) for name in names]
        return replace(made, children=tuple(children), extras=extras)


def _blank(place: Place) -> int:
    """What a place that waits to be filled shows first; a choice between fixed values is the person's."""
    options = place.options
    if not place.required or is_anything(options):
        return 0
    first = next((number for number, one in enumerate(options) if one.kind not in ("json", "literal")), None)
    if first is None:
        return len(options) if len(options) > 1 else 0
    is_open = options[first].kind == "object" and not options[first].rules.get("properties")
    return len(options) - 1 if is_open and not isinstance(options[first].rules.get("additionalProperties"), Mapping) else first


def is_anything(options: Sequence[Option]) -> bool:
    """Whether the schema says nothing about a place."""
    return [one.kind for one in options if one.kind != "absent"] == ["literal", "text", "number", "literal", "literal", "json"]


def _with_text(made: Field, option: Option, value: Json) -> Field:
    if value is BLANK and option.kind == "json":
        return replace(made, text="{}" if any(one.kind == "object" for one in made.options) else "")
    if value is BLANK or value is ABSENT or option.kind in ("literal", "absent", "unchosen"):
        return made
    if option.kind == "json":
        return replace(made, text=inert.json_text(value))
    if isinstance(value, str):
        if inert.is_plain(value):
            return replace(made, text=value)
        return replace(made, text=inert.json_text(value), is_escaped=True)
    return replace(made, text=json.dumps(value))


def names_sent(sent: Sent, place: Place) -> tuple[str, ...]:
    """Names outside the schema that a form sent for an object."""
    return tuple(dict.fromkeys(name_of(str(part)) for part in sent.getlist("x" + place.key)))


def number_of(text: Any) -> int | None:
    """A small number that a form sent, or None."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) < 7 else None
