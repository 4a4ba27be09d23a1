"""`Intent`: what a model may choose. The class's name in snake case is the intent's name; its docstring tells the model what it is for."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from functools import cache, partial
from typing import Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from .events import Json, canonical, digest, sparse, to_json


def snake_case(name: str) -> str:
    """`DeployBackend` → `deploy_backend`, `HTTPGet2` → `http_get2`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class Intent(BaseModel):
    """Base of the classes a model chooses from.

    Frozen; unknown fields are refused, and numbers that JSON does not have. There is no tag field: what is recorded is
    `{"intent": "deploy_backend", "arguments": {…}}`.

        class DeployBackend(Intent):
            \"\"\"Deploy the backend at a tag. High stakes.\"\"\"
            tag: str
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    intent_name: ClassVar[str] = "intent"
    """The class's name in snake case."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.intent_name = snake_case(cls.__name__)
        if not cls.model_config.get("frozen"):
            raise TypeError(f"{_path(cls)} is not frozen: what people approve must be what runs; leave frozen out of its model_config")


class UnknownIntent(Intent):
    """A recorded call whose class is gone, or no longer accepts its arguments. It can be closed or asked about, never run."""

    name: str
    arguments: dict[str, Any]
    why: str


def arguments_of(intent: Intent) -> dict[str, Json]:
    """The intent's fields as JSON, as they are recorded; sets in an order of their own, for Python's differs between processes.

    Raises:
        ValueError: what JSON does not have, in a field of any type.
    """
    told: dict[str, Json] = to_json(intent.model_dump(mode="json"))
    return told | {name: sorted(told[name], key=canonical) for name, one in intent if isinstance(one, Set) and isinstance(told.get(name), list)}


@cache
def argument_schema(intent: type[Intent]) -> dict[str, Json]:
    """The JSON Schema (2020-12) of one intent's arguments."""
    return intent.model_json_schema()


@cache
def schema_digest(intent: type[Intent]) -> str:
    """Names the schema that a selection was made under: 16 hex digits."""
    return digest(argument_schema(intent))[:16]


def members(annotation: Any) -> tuple[type[Intent], ...]:
    """The intent classes in `A`, `A | B`, `list[A | B]`, an awaitable of them, a type alias, or an iterable of classes.

    Raises:
        TypeError: for anything else, or two classes with one name.
    """
    return tuple(by_name(_members(annotation)).values())


def by_name(intents: Iterable[type[Intent]]) -> dict[str, type[Intent]]:
    """The classes by their intent names.

    Raises:
        TypeError: when two classes have the same name.
    """
    named: dict[str, type[Intent]] = {}
    for intent in intents:
        other = named.setdefault(intent.intent_name, intent)
        if other is not intent:
            raise TypeError(
                f"{_path(other)} and {_path(intent)} are both named {intent.intent_name!r}; "
                "a thread tells intents apart by name, so rename one of the classes"
            )
    return named


def schema_of(annotation: Any) -> dict[str, Json]:
    """One JSON Schema for a choice between intents, in the form that is recorded.

    `schema_of(A | B)` accepts `{"intent": "a", "arguments": {…}}` or the same for b; docstrings are the descriptions.
    """
    definitions: dict[str, Json] = {}
    choices = []
    for intent in members(annotation):
        arguments = dict(argument_schema(intent))
        definitions.update(arguments.pop("$defs", {}))
        description = arguments.pop("description", None)
        choices.append(
            {
                "type": "object",
                "title": intent.intent_name,
                **sparse(description=description),
                "properties": {"intent": {"const": intent.intent_name}, "arguments": arguments},
                "required": ["intent", "arguments"],
                "additionalProperties": False,
            }
        )
    return {"oneOf": choices} | ({"$defs": definitions} if definitions else {})


def load_intent(name: str, arguments: Mapping[str, Json], known: Mapping[str, type[Intent]]) -> Intent:
    """A recorded call as its class, or as `UnknownIntent` with the reason."""
    why = f"UnknownIntent: no class is named {name!r}; known: {', '.join(sorted(known)) or 'none'}"
    if (intent := known.get(name)) is not None:
        try:
            return intent.model_validate(to_json(dict(arguments)), strict=False)  # a copy: a program may change it; a date is a text in JSON
        except ValidationError as error:
            why = _explain(error)
    return UnknownIntent(name=name, arguments=dict(arguments), why=why)


def find_intents(function: Callable[..., Any], frame: types.FrameType | None = None) -> tuple[type[Intent], ...]:
    """The intents that a `decide` function declares: its `.intents`, else its return annotation, else none.

    `frame` is where it was called: under `from __future__ import annotations` classes of an enclosing function are found there.
    """
    if (declared := getattr(function, "intents", None)) is not None:
        return members(declared)
    target = function if inspect.isroutine(function) else getattr(type(function), "__call__", function)
    annotation = _return_annotation(inspect.unwrap(target), frame)
    if annotation is None or annotation is inspect.Signature.empty:
        return ()
    try:
        return members(annotation)
    except TypeError:
        if any(_is_intent(part) for part in (annotation, *get_args(annotation))):
            raise
        return ()


def names_in_reach(function: Callable[..., Any]) -> tuple[type[Intent], ...]:
    """The intent classes that a handler's code can name: in its closure and its module."""
    reach = _names_of(inspect.unwrap(function)).values()
    return tuple(dict.fromkeys(value for value in reach if _is_intent(value)))


def _names_of(function: Any, around: Mapping[str, object] = types.MappingProxyType({})) -> dict[str, object]:
    """What the code of a function can name: its module, over it what is `around` it, over that its closure."""
    plain = getattr(function, "__func__", function)
    code = getattr(plain, "__code__", None)
    names = {**getattr(plain, "__globals__", {}), **around}
    for name, cell in zip(code.co_freevars, plain.__closure__ or (), strict=False) if code is not None else ():
        with suppress(ValueError):  # not yet assigned
            names[name] = cell.cell_contents
    return names


def _is_intent(value: object) -> typing.TypeGuard[type[Intent]]:
    return isinstance(value, type) and issubclass(value, Intent) and value is not Intent and value is not UnknownIntent


def _members(annotation: Any) -> list[type[Intent]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) and issubclass(annotation, Intent):
        return [annotation]
    if sys.version_info >= (3, 12) and isinstance(annotation, typing.TypeAliasType):
        return _members(annotation.__value__)
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType, list, tuple) or hasattr(origin, "__await__"):
        parts = [part for part in get_args(annotation) if part not in (type(None), Any, Ellipsis)]
        return [intent for part in parts for intent in _members(part)]
    if isinstance(annotation, (list, tuple, set, frozenset)):
        return [intent for part in annotation for intent in _members(part)]
    raise TypeError(f"{annotation!r} is not a choice of intents: write A, A | B or list[A | B], where A and B are subclasses of Intent")


_compiled = cache(partial(compile, filename="<annotation>", mode="eval"))


def _return_annotation(function: Any, frame: types.FrameType | None) -> Any:
    local = frame.f_locals if frame is not None else {}
    try:
        annotation = getattr(function, "__func__", function).__annotations__.get("return")
        return eval(_compiled(annotation), _names_of(function, local)) if isinstance(annotation, str) else annotation
    except (AttributeError, NameError):  # no annotations, or a name that only a type checker sees
        return None


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _explain(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(str(part) for part in item['loc']) or 'call'}: {item['msg']}" for item in error.errors())
