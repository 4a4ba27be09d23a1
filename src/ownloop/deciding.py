"""From a person's answer to the event that records it: checks against what was recorded and shown, and quorums."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from .errors import InvalidEdit
from .events import Draft, Json, sparse, to_json
from .ids import is_named
from .intents import Intent
from .interrupts import DECIDES, Actor, Interrupt, Verb, Vote
from .tools import Happened, NotHappened, Unknown

NOTE_LIMIT = 4000


def answer(interrupt: Interrupt, verb: Verb, actor: Actor, value: Any, note: str, known: Mapping[str, type[Intent]], redact: Any) -> Draft:
    """The `decision`, or the `vote` where more people must agree.

    Raises:
        NotAllowed: the policy, or the kind of interrupt, forbids it.
        InvalidEdit: the value does not fit.
        ValueError: the note is too long.
    """
    interrupt.may(verb, actor)
    if len(note) > NOTE_LIMIT:
        raise ValueError(f"the note has {len(note)} characters; at most {NOTE_LIMIT:,} are kept, nothing was decided: shorten it")
    data: dict[str, Json] = {"request": interrupt.seq, **sparse(note=redact(note) or None, groups=list(actor.groups) or None)}
    data["kind"] = DECIDES[verb]
    if verb == "edit":
        data["value"] = _edited(interrupt, value, known, redact)
    elif verb in ("respond", "answer"):
        data["value"] = redact(_json(interrupt, value) if verb == "respond" else _answered(interrupt, value))
    is_enough = verb != "approve" or interrupt.policy.satisfied_by([*interrupt.votes, Vote(actor, "approved", interrupt.created_at)])
    return Draft("decision" if is_enough else "vote", data, interrupt.step_id, by=actor.id)


def _json(interrupt: Interrupt, value: Any) -> Json:
    try:
        return to_json(value)
    except ValueError as error:
        raise InvalidEdit(interrupt, [("", f"{type(value).__name__} has no JSON form: {error}")]) from None


def _edited(interrupt: Interrupt, value: Any, known: Mapping[str, type[Intent]], redact: Any) -> Json:
    """Full new arguments, checked by the recorded JSON Schema, else by the class of this process; what is recorded is what runs. Or the full new
    result."""
    plain = _json(interrupt, value.model_dump(mode="json") if isinstance(value, Intent) else value)
    if interrupt.kind == "result":
        return redact(plain)
    if not isinstance(plain, dict):
        raise InvalidEdit(interrupt, [("", f"{plain!r} is no object; send the full arguments")])
    intent = None if is_named(interrupt.step_id or "") else known.get(interrupt.name)
    if not _by_schema(interrupt, plain) and intent is not None:
        _by_class(interrupt, plain, intent)
    return plain


def _by_class(interrupt: Interrupt, arguments: Json, intent: type[Intent]) -> None:
    try:
        intent.model_validate_json(json.dumps(arguments), strict=True)
    except ValidationError as error:
        problems = [(_pointer(item["loc"]), item["msg"]) for item in error.errors()]
        raise InvalidEdit(interrupt, problems) from None


def _by_schema(interrupt: Interrupt, value: Json) -> bool:
    """Whether the value was checked; False where no schema is recorded, or the package jsonschema is not installed.

    Raises:
        InvalidEdit: with a JSON pointer for each problem.
    """
    if interrupt.schema is None:
        return False
    try:
        validator = importlib.import_module("jsonschema").Draft202012Validator
    except ImportError:
        return False
    checked = validator(interrupt.schema, format_checker=validator.FORMAT_CHECKER)  # a date must be one: the answer counts for ever
    errors = sorted(checked.iter_errors(value), key=lambda error: list(map(str, error.path)))
    if errors:
        raise InvalidEdit(interrupt, [(_pointer(error.path), error.message) for error in errors])
    return True


def _answered(interrupt: Interrupt, value: Any) -> Json:
    if interrupt.kind == "in_doubt":
        return _happened(interrupt, value)
    plain = _json(interrupt, value)
    if interrupt.choices is not None and plain not in interrupt.choices:
        raise InvalidEdit(interrupt, [("", f"{plain!r} is none of {', '.join(map(repr, interrupt.choices))}")])
    if not _by_schema(interrupt, plain) and interrupt.schema == {"type": "string"} and not isinstance(plain, str):
        raise InvalidEdit(interrupt, [("", f"{plain!r} is not a string")])
    return plain


def _happened(interrupt: Interrupt, value: Any) -> Json:
    """`Happened(v)`, `NotHappened()`, or their JSON {"happened": true, "value": v}."""
    if isinstance(value, Unknown):
        raise InvalidEdit(interrupt, [("", "Unknown() answers nothing; leave the question open until somebody knows")])
    if isinstance(value, dict) and isinstance(value.get("happened"), bool) and set(value) <= {"happened", "value"}:
        value = Happened(value.get("value")) if value["happened"] else NotHappened()
    if isinstance(value, NotHappened):
        return {"happened": False}
    if not isinstance(value, Happened):
        raise InvalidEdit(interrupt, [("", f"{value!r} does not say whether it happened; answer Happened(value) or NotHappened()")])
    plain = _json(interrupt, value.value)
    _by_schema(interrupt, plain)
    return {"happened": True, "value": plain}


def _pointer(path: Iterable[Any]) -> str:
    """A JSON pointer; the root is the empty text. Source: RFC 6901."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
