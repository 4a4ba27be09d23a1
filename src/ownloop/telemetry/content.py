"""What people and models said, as spans carry it: only when `capture_content` asks for it. JSON after the conventions' message schemas."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..events import Json, clip, to_json
from . import names

LIMIT = 64_000
"""Characters of one attribute."""


def arguments(run: Any, redact: Callable[[Json], Json]) -> str:
    """The arguments of a call: an object of those with names, `args` for the others."""
    named = {str(name): _plain(value) for name, value in run.kwargs.items()}
    given = {"args": [_plain(value) for value in run.args]} if run.args else {}
    return _text(redact({**given, **named}))


def result(value: Any, redact: Callable[[Json], Json]) -> str:
    """The result of a call."""
    return _text(redact(_plain(value)))


def sent(messages: Sequence[Any]) -> dict[str, str]:
    """pydantic-ai messages as the model's instructions and its input."""
    system = [str(one.instructions) for one in messages if getattr(one, "instructions", None)]
    system += [str(part.content) for one in messages for part in one.parts if part.part_kind == "system-prompt"]
    told = {names.SYSTEM_INSTRUCTIONS: _text([_said(text) for text in dict.fromkeys(system)])} if system else {}
    return told | {names.INPUT_MESSAGES: _text([one for message in messages for one in _messages(message)])}


def received(answer: Any) -> str:
    """A pydantic-ai `ModelResponse` as the model's output."""
    (message,) = [*_messages(answer)][:1] or [{"role": "assistant", "parts": []}]
    return _text([{**message, "finish_reason": str(getattr(answer, "finish_reason", None) or "stop")}])


def _messages(message: Any) -> Iterator[Json]:
    parts = [(_role(part), _part(part)) for part in message.parts if part.part_kind != "system-prompt"]
    for role in dict.fromkeys(role for role, _ in parts):
        yield {"role": role, "parts": [part for own, part in parts if own == role]}


def _role(part: Any) -> str:
    return {"user-prompt": "user", "tool-return": "tool", "retry-prompt": "tool" if getattr(part, "tool_name", None) else "user"}.get(
        part.part_kind, "assistant"
    )


def _part(part: Any) -> Json:
    match part.part_kind:
        case "tool-call":
            return {"type": "tool_call", "id": part.tool_call_id, "name": part.tool_name, "arguments": _plain(part.args)}
        case "tool-return":
            return {"type": "tool_call_response", "id": part.tool_call_id, "response": _plain(part.content)}
        case "retry-prompt" if getattr(part, "tool_name", None):
            return {"type": "tool_call_response", "id": part.tool_call_id, "response": _plain(part.content)}
        case "thinking":
            return {"type": "reasoning", "content": str(part.content)}
    return _said(getattr(part, "content", ""))


def _said(value: Any) -> Json:
    return {"type": "text", "content": value if isinstance(value, str) else _text(_plain(value))}


def _plain(value: Any) -> Json:
    try:
        return to_json(value)
    except (ValueError, TypeError, RecursionError):
        return f"<{type(value).__qualname__}>"


def _text(value: Json) -> str:
    return clip(json.dumps(value, ensure_ascii=False, default=str), LIMIT)
