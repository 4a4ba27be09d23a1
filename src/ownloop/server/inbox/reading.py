"""What a form sent, as a value again: by the types of the schema, nothing guessed from the letters. Beside it the moves that only change the form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...events import Json
from . import inert
from .forms import ABSENT, BLANK, DEEPEST_SENT, MOST_ITEMS, Sent, names_sent, number_of
from .schemas import Option, Place, part_of, token


@dataclass
class Reading:
    """A value read from a form. `value` holds BLANK where nothing could be read; `problems` say why. `is_settled` is False where a choice was
    changed whose fields have not been shown yet."""

    value: Json = None
    problems: list[tuple[str, str]] = field(default_factory=list)
    is_settled: bool = True


def read(schema: Json, sent: Sent) -> Reading:
    """What the form holds, by the types of the schema; nothing is guessed from the letters."""
    reading = Reading()
    plain = schema if isinstance(schema, Mapping) else {}
    reading.value = _read(Place(plain, plain), sent, reading, 0)
    return reading


def read_json(text: str) -> Reading:
    """What stands in a field for raw JSON."""
    try:
        return Reading(_typed("json", text.replace("\r\n", "\n"), is_escaped=True))
    except ValueError as error:
        return Reading(BLANK, [("", str(error))])


def _read(place: Place, sent: Sent, reading: Reading, depth: int) -> Json:
    number = number_of(sent.get("k" + place.key))
    if number is None or number >= len(place.options) or depth > DEEPEST_SENT:
        text = "nothing was sent for this place" if number is None else "choose one"
        reading.problems.append((place.pointer, text))
        return BLANK
    option = place.options[number]
    shown = number_of(sent.get("w" + place.key))
    text = str(sent.get("f" + place.key) or "").replace("\r\n", "\n")
    if option.kind in ("absent", "literal"):
        if text and shown == number:
            reading.problems.append((place.pointer, f"there is text beside “{option.label}”: choose its type, or empty it"))
        return ABSENT if option.kind == "absent" else option.value
    if option.kind in ("object", "array", "json") and shown is not None and shown != number:
        reading.is_settled = False
        return BLANK if option.kind == "json" else {} if option.kind == "object" else []
    if option.kind == "object":
        return _object(place, option, sent, reading, depth)
    if option.kind == "array":
        count = min(number_of(sent.get("n" + place.key)) or 0, MOST_ITEMS)
        return [_read(place.item(option, at), sent, reading, depth + 1) for at in range(count)]
    try:
        return _typed(option.kind, text, is_escaped=bool(sent.get("e" + place.key)))
    except ValueError as error:
        reading.problems.append((place.pointer, str(error)))
        return BLANK


def _object(place: Place, option: Option, sent: Sent, reading: Reading, depth: int) -> Json:
    found = {}
    for name in dict.fromkeys([*(option.rules.get("properties") or {}), *names_sent(sent, place)]):
        value = _read(place.child(option, name), sent, reading, depth + 1)
        if value is not ABSENT:
            found[name] = value
    return found


def _typed(kind: str, text: str, *, is_escaped: bool) -> Json:
    if kind == "text" and not is_escaped:
        return text
    try:
        value = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        value = BLANK
    if kind == "json":
        if value is BLANK:
            raise ValueError(_why_no_json(text))
        return value
    if kind == "text":
        if not isinstance(value, str):
            raise ValueError("write it as a JSON string, in quotation marks: it holds characters that cannot be seen")
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (kind == "integer" and isinstance(value, float) and not value.is_integer()):
        wanted = "a whole number" if kind == "integer" else "a number"
        raise ValueError(f"{inert.plain(text[:60])!r} is not {wanted}" if text else f"{wanted} is needed")
    return value


def _why_no_json(text: str) -> str:
    try:
        json.loads(text, parse_constant=_refused)
    except json.JSONDecodeError as error:
        return f"no JSON: {error.msg} in line {error.lineno}, column {error.colno}"
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    return "no JSON"


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def unfilled(value: Json, pointer: str = "") -> Iterator[str]:
    """Pointers of the places that hold nothing yet."""
    if value is BLANK:
        yield pointer
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from unfilled(item, f"{pointer}/{token(name)}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from unfilled(item, f"{pointer}/{number}")


# ---- moves -------------------------------------------------------------------------------------------------------------------------

Pairs = list[tuple[str, str]]


def moved(pairs: Pairs, move: str) -> Pairs:
    """What was sent, after "add:<key>" or "remove:<key>"."""
    verb, _, key = move.partition(":")
    if verb == "add":
        return _added(pairs, key)
    if verb == "remove":
        return _removed(pairs, key)
    return pairs


def _added(pairs: Pairs, key: str) -> Pairs:
    count = next((value for name, value in pairs if name == "n" + key), None)
    if count is not None:
        return [(name, str((number_of(value) or 0) + 1) if name == "n" + key else value) for name, value in pairs]
    wanted = next((value for name, value in pairs if name == "new" + key and value), None)
    return [*pairs, ("x" + key, part_of(token(wanted)))] if wanted is not None else pairs


def _removed(pairs: Pairs, key: str) -> Pairs:
    parent, _, last = key.rpartition("/")
    stays = [(name, value) for name, value in pairs if not _is_under(name, key)]
    if not any(name == "n" + parent for name, _ in pairs):
        return [(name, value) for name, value in stays if (name, value) != ("x" + parent, last)]
    gone = number_of(last)
    found = []
    for name, value in stays:
        if name == "n" + parent:
            value = str(max(0, (number_of(value) or 0) - 1))
        found.append((_shifted(name, parent, gone or 0), value))
    return found


def _is_under(name: str, key: str) -> bool:
    rest = name[1:]
    return bool(key) and (rest == key or rest.startswith(key + "/"))


def _shifted(name: str, parent: str, gone: int) -> str:
    """The name of a control in a later item of a list, once one before it is gone."""
    rest = name[1:].removeprefix(parent + "/")
    if not name[1:].startswith(parent + "/"):
        return name
    head, slash, tail = rest.partition("/")
    number = number_of(head)
    return f"{name[0]}{parent}/{number - 1}{slash}{tail}" if number is not None and number > gone else name
