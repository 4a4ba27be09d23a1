"""What a JSON Schema offers at one place: fixed values, typed texts, structures. Both the form and its reader ask here, so they agree."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from urllib.parse import quote, unquote

from jsonschema import Draft202012Validator

from ...events import Json, canonical
from . import inert

OptionKind = Literal["unchosen", "absent", "literal", "text", "integer", "number", "object", "array", "json"]
TYPED = ("text", "integer", "number")
_LABELS = {"text": "text", "integer": "whole number", "number": "number", "object": "fields", "array": "list", "json": "JSON"}
_DEEPEST = 24


@dataclass(frozen=True)
class Option:
    """One way to fill a place. `value`: of a literal; `schema`: of the rest, without references."""

    kind: OptionKind
    label: str
    value: Json = None
    schema: Mapping[str, Json] | None = None

    @property
    def rules(self) -> Mapping[str, Json]:
        return self.schema or {}


class Place:
    """A place in a document: its schema, and what may stand there.

    Args:
        root: the whole schema, for references.
        schema: that of this place.
        required: False: the place may also stay empty.
    """

    def __init__(self, root: Json, schema: Json, pointer: str = "", *, required: bool = True) -> None:
        self._root, self.pointer, self.required = root, pointer, required
        self.key = "/".join(part_of(part) for part in pointer.split("/"))
        self.schema = self._resolved(schema)

    def _resolved(self, schema: Json) -> Mapping[str, Json]:
        """Without `$ref` and one-membered `allOf` on top, what stands beside them kept."""
        for _ in range(_DEEPEST):
            if not isinstance(schema, Mapping):
                return {}
            reference = schema.get("$ref")
            parts = schema.get("allOf")
            if isinstance(reference, str):
                schema = {**self._looked_up(reference), **{key: value for key, value in schema.items() if key != "$ref"}}
            elif isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], Mapping):
                schema = {**parts[0], **{key: value for key, value in schema.items() if key != "allOf"}}
            else:
                return schema
        return {}

    def _looked_up(self, reference: str) -> Mapping[str, Json]:
        found = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def options(self) -> list[Option]:
        """In the schema's order, "not set" first where the place may stay empty, raw JSON last."""
        found = [Option("absent", "not set")] if not self.required else []
        return [*found, *self._options(self.schema, 0), Option("json", _LABELS["json"], schema={})]

    def _options(self, schema: Mapping[str, Json], depth: int) -> list[Option]:
        if depth > _DEEPEST:
            return []
        if "const" in schema:
            return [_literal(schema["const"])]
        if isinstance(schema.get("enum"), list):
            return [_literal(value) for value in schema["enum"]]
        branches = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(branches, list):
            resolved = [self._resolved(branch) for branch in branches]
            return [option for branch in resolved for option in self._options(branch, depth + 1)]
        types = schema.get("type")
        anything = ["object"] if "properties" in schema else ["null", "string", "number", "boolean"]
        names = types if isinstance(types, list) else [types] if isinstance(types, str) else anything
        return [option for name in names for option in _of_type(name, schema)]

    # ---- values ------------------------------------------------------------------------------------------------------------------

    def option_of(self, value: Json) -> int:
        """Which option this value came from: the first that it fits, else the first of its type, else raw JSON."""
        options = self.options
        for number, option in enumerate(options):
            if option.kind == "literal" and canonical(option.value) == canonical(value):
                return number
        typed = [number for number, option in enumerate(options) if _has_type(option.kind, value)]
        fitting = (number for number in typed if self.fits(options[number].rules, value))
        return next(fitting, typed[0] if typed else len(options) - 1)

    def fits(self, schema: Json, value: Json) -> bool:
        definitions = {key: self._root[key] for key in ("$defs", "definitions") if isinstance(self._root, Mapping) and key in self._root}
        try:
            return bool(Draft202012Validator({**schema, **definitions}).is_valid(value))
        except Exception:  # a schema that no validator understands fits nothing
            return False

    def child(self, option: Option, name: str) -> Place:
        """A property of an object."""
        rules = option.rules
        properties, required = rules.get("properties") or {}, rules.get("required") or ()
        schema = properties[name] if name in properties else rules.get("additionalProperties")
        pointer = f"{self.pointer}/{token(name)}"
        return Place(self._root, schema if isinstance(schema, Mapping) else {}, pointer, required=name in required or name not in properties)

    def item(self, option: Option, number: int) -> Place:
        """An item of a list."""
        prefix = option.rules.get("prefixItems")
        schema = prefix[number] if isinstance(prefix, list) and number < len(prefix) else option.rules.get("items")
        return Place(self._root, schema if isinstance(schema, Mapping) else {}, f"{self.pointer}/{number}")


def part_of(name: str) -> str:
    """A part of a pointer as ASCII, as the names of a form's controls carry it: a control's name must survive any browser."""
    return quote(name.encode("utf-8", "surrogatepass"), safe="~")


def name_of(part: str) -> str:
    """The property's name that `part_of(token(name))` made."""
    return unquote(part, errors="surrogatepass").replace("~1", "/").replace("~0", "~")


def token(name: str) -> str:
    """A name as a part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _literal(value: Json) -> Option:
    label = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return Option("literal", inert.plain(label), value)


def _of_type(name: Json, schema: Mapping[str, Json]) -> list[Option]:
    match name:
        case "null":
            return [Option("literal", "null", None)]
        case "boolean":
            return [Option("literal", "true", True), Option("literal", "false", False)]
        case "string":
            return [Option("text", str(schema.get("format") or _LABELS["text"]), schema=schema)]
        case "integer" | "number" | "object" | "array":
            return [Option(name, _LABELS[name], schema=schema)]
    return []


def _has_type(kind: str, value: Json) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
    return False


def inferred(value: Json) -> Mapping[str, Json]:
    """A schema for a value that came without one: the types it has now."""
    if isinstance(value, dict):
        return {"type": "object", "properties": {name: inferred(item) for name, item in value.items()}, "required": list(value)}
    if isinstance(value, list):
        kinds = [inferred(item) for item in value]
        return {"type": "array", "items": kinds[0] if kinds and all(kind == kinds[0] for kind in kinds) else {}}
    if isinstance(value, float) and not isinstance(value, bool):
        return {"type": "number"}
    kind = {bool: "boolean", int: "number", str: "string"}.get(type(value))
    return {"type": kind} if kind else {}


def problems(schema: Json, value: Json) -> list[tuple[str, str]]:
    """Pairs of JSON pointer and what is wrong there, as deciding will find them."""
    if not isinstance(schema, Mapping):
        return []
    checked = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    errors = sorted(checked.iter_errors(value), key=lambda error: list(map(str, error.path)))
    return [("".join(f"/{token(str(part))}" for part in error.path), error.message) for error in errors]


DATE = re.compile(r"\d{4}-\d\d-\d\d")


def hints(rules: Mapping[str, Any]) -> str:
    """The limits of a place in a few words."""
    words = {
        "minimum": "at least {}",
        "exclusiveMinimum": "more than {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "less than {}",
        "multipleOf": "a multiple of {}",
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "minItems": "at least {} items",
        "maxItems": "at most {} items",
        "pattern": "matches {}",
    }
    found = [text.format(rules[key]) for key, text in words.items() if key in rules]
    return inert.plain(", ".join(found))
