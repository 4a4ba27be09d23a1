"""From a schema and a value to a form and back: the same value, of the same types."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import FormData

from ownloop.server.inbox.forms import BLANK, Builder, Field
from ownloop.server.inbox.reading import moved, read
from ownloop.server.inbox.rendering import House
from ownloop.server.inbox.schemas import inferred, problems

Pairs = list[tuple[str, str]]
TEXT = st.text(max_size=40)


class Browser(HTMLParser):
    """What a browser would send of a form, without scripts: by the HTML, not by our own idea of it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pairs: Pairs = []
        self._area: str | None = None
        self._select: str | None = None
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        if tag == "input" and about.get("name"):
            self.pairs.append((str(about["name"]), (about.get("value") or "").replace("\n", "").replace("\r", "")))
        elif tag == "textarea":
            self._area, self._text = about["name"], ""
        elif tag == "select":
            self._select = about["name"]
        elif tag == "option" and "selected" in about and self._select is not None:
            self.pairs.append((self._select, about["value"] or ""))

    def handle_data(self, data: str) -> None:
        self._text += data if self._area is not None else ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._area is not None:
            text = self._text.removeprefix("\n")
            self.pairs.append((self._area, text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")))
            self._area = None


TEMPLATES = House(None, None)._templates  # type: ignore[arg-type]  # only the templates are used
PAGE = TEMPLATES.from_string('{% from "fields.html" import field with context %}{{ field(one, True) }}')


def sent(field: Field) -> Pairs:
    browser = Browser()
    browser.feed(PAGE.render(one=field))
    return browser.pairs


def round_trip(schema: Any, value: Any) -> Any:
    reading = read(schema, FormData(sent(Builder(schema).form(value))))
    assert (reading.problems, reading.is_settled) == ([], True)
    return reading.value


def same(left: Any, right: Any) -> bool:
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


# ---- any schema, any value -----------------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    TEXT.map(lambda value: ({"type": "string"}, value)),
    st.integers().map(lambda value: ({"type": "integer"}, value)),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: ({"type": "number"}, value)),
    st.integers(-(2**70), 2**70).map(lambda value: ({"type": "number"}, value)),
    st.booleans().map(lambda value: ({"type": "boolean"}, value)),
    st.dates().map(lambda value: ({"type": "string", "format": "date"}, value.isoformat())),
    st.lists(TEXT, min_size=1, max_size=4).map(lambda values: ({"enum": values}, values[-1])),
    st.sampled_from([({"enum": [1, "1", True, None, 1.5]}, value) for value in (1, "1", True, None, 1.5)]),
    st.sampled_from([({"const": "x"}, "x"), ({}, None), ({}, "text"), ({}, 3), ({}, True), ({}, [1, "2"]), ({}, {"a": None})]),
)


def grown(inner: Any) -> Any:
    lists = st.lists(inner, max_size=3).map(
        lambda pairs: ({"type": "array", "prefixItems": [one for one, _ in pairs]}, [value for _, value in pairs])
    )
    objects = st.dictionaries(TEXT, inner, max_size=4).map(
        lambda found: (
            {"type": "object", "properties": {name: one for name, (one, _) in found.items()}, "required": list(found)},
            {name: value for name, (_, value) in found.items()},
        )
    )
    optional = inner.map(lambda pair: ({"type": "object", "properties": {"a": pair[0], "left out": pair[0]}}, {"a": pair[1]}))
    nullable = st.tuples(inner, st.booleans()).map(lambda pair: ({"anyOf": [pair[0][0], {"type": "null"}]}, pair[0][1] if pair[1] else None))
    either = st.tuples(inner, inner).map(lambda pair: ({"anyOf": [pair[0][0], pair[1][0]]}, pair[1][1]))
    typed = st.dictionaries(TEXT, st.integers(), max_size=3).map(
        lambda value: ({"type": "object", "additionalProperties": {"type": "integer"}}, value)
    )
    return st.one_of(lists, objects, optional, nullable, either, typed)


@settings(max_examples=250, deadline=None)
@given(st.recursive(SCALARS, grown, max_leaves=8))
def test_a_value_comes_back_as_it_was_shown(pair: tuple[Any, Any]) -> None:
    schema, value = pair
    assert same(round_trip(schema, value), value)


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=10,
    )
)
def test_a_value_without_a_schema_comes_back_too(value: Any) -> None:
    assert same(round_trip(inferred(value), value), value)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), max_size=30))
def test_any_text_survives_also_what_no_control_can_hold(text: str) -> None:
    assert round_trip({"type": "string"}, text) == text


# ---- what people type ------------------------------------------------------------------------------------------------------------------


def typed(schema: Any, *pairs: tuple[str, str]) -> Any:
    return read(schema, FormData(list(pairs)))


@pytest.mark.parametrize("text", ["", "ten", "1e", "0x10", "1_000", "NaN", "Infinity", "true", '"1"', "1.5", "[1]"])
def test_what_is_no_whole_number_is_said_at_its_place(text: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    reading = typed(schema, ("k", "0"), ("k/n", "0"), ("f/n", text))
    assert [pointer for pointer, _ in reading.problems] == ["/n"]


def test_letters_that_look_like_another_type_stay_text() -> None:
    for text in ("1", "true", "null", "{}", "1.0"):
        assert typed({"type": "string"}, ("k", "0"), ("f", text)).value == text


def test_text_beside_null_is_not_thrown_away_in_silence() -> None:
    schema = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert typed(schema, ("k", "1"), ("w", "1"), ("f", "something")).problems
    assert typed(schema, ("k", "1"), ("w", "0"), ("f", "what stood there before")).value is None


def test_another_kind_of_structure_is_shown_before_it_counts() -> None:
    one = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    other = {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]}
    schema = {"anyOf": [one, other]}
    pairs = [(name, "1" if name == "k" else value) for name, value in sent(Builder(schema).form({"a": 1}))]
    assert not read(schema, FormData(pairs)).is_settled
    again = Builder(schema).again(FormData(pairs))
    assert [child.label for child in again.children] == ["b"]


def test_items_and_fields_come_and_go() -> None:
    schema = {"type": "array", "items": {"type": "string"}}
    pairs = sent(Builder(schema).form(["a", "b", "c"]))
    shorter = sent(Builder(schema).again(FormData(moved(pairs, "remove:/1"))))
    assert read(schema, FormData(shorter)).value == ["a", "c"]
    longer = sent(Builder(schema).again(FormData(moved(shorter, "add:"))))
    assert read(schema, FormData(longer)).value == ["a", "c", ""]
    table = {"type": "object", "additionalProperties": {"type": "integer"}}
    pairs = [*sent(Builder(table).form({"a/b": 1, "c~": 2})), ("new", "d e")]
    more = sent(Builder(table).again(FormData(moved(pairs, "add:"))))
    filled = [(name, "3" if name == "f/d%20e" else value) for name, value in more]
    assert read(table, FormData(filled)).value == {"a/b": 1, "c~": 2, "d e": 3}
    fewer = moved(filled, "remove:/a~1b")
    assert read(table, FormData(fewer)).value == {"c~": 2, "d e": 3}


def test_references_and_depth() -> None:
    tree = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"of": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}}}
    value: Any = {}
    for _ in range(12):
        value = {"of": [value]}
    assert round_trip(tree, value) == value


def test_a_blank_form_chooses_nothing_for_the_person() -> None:
    schema = {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"]}
    reading = read(schema, FormData(sent(Builder(schema).form(BLANK))))
    assert reading.problems == [("/sure", "choose one")]


@pytest.mark.parametrize("schema", [True, None, {"$ref": "#/nowhere"}, {"type": "object", "$ref": "#"}, {"anyOf": []}, {"enum": []}, {"type": []}])
def test_odd_schemas_still_have_a_form(schema: Any) -> None:
    assert same(round_trip(schema, {"a": [1, None]}), {"a": [1, None]})


def test_a_preview_finds_what_deciding_will_refuse() -> None:
    schema = {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}}
    assert [pointer for pointer, _ in problems(schema, {"day": "tomorrow"})] == ["/day"]
    assert not problems(schema, {"day": "2026-11-23"})
