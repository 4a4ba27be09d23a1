"""Telling listeners a text field while the model still writes it. What they hear is never stored; the answer counts only when it is whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from ..events import Json
from .asking import send
from .failures import ProviderDown


@dataclass
class Told:
    """Sends requests as streams, and says one field of the answer as it grows.

    Attributes:
        name: the field.
        is_text: whether plain text, which no call carries, is that field too.
        label: the model's name, for errors.
        say: gets every new piece.
    """

    name: str
    is_text: bool
    label: str
    say: Callable[[str], None]
    written: dict[int, str] = field(default_factory=dict)
    said: dict[int, str] = field(default_factory=dict)

    async def __call__(self, model: Any, messages: list[Any], settings: Any, parameters: Any) -> Any:
        """One request and its whole answer; a stream that ends early is no answer.

        Raises:
            ProviderDown: it ended early.
        """
        from pydantic_ai import direct
        from pydantic_ai.models import Model

        if not isinstance(model, Model):
            return await send(model, messages, settings, parameters)
        self.written, self.said = {}, {}
        async with direct.model_request_stream(model, messages, model_settings=settings, model_request_parameters=parameters) as stream:
            async for event in stream:
                self._hear(event)
        response = stream.get()
        if not has_ended(response):
            raise ProviderDown(self.label, "the stream broke off in the middle of an answer")
        return response

    def _hear(self, event: Any) -> None:
        if event.event_kind == "part_start":
            self._add(event.index, getattr(event.part, "part_kind", ""), event.part)
        elif event.event_kind == "part_delta":
            self._add(event.index, event.delta.part_delta_kind, event.delta)

    def _add(self, index: int, kind: str, part: Any) -> None:
        is_call = kind in ("tool-call", "tool_call")
        if not is_call and kind != "text":
            return
        new = _first(part, "args", "args_delta") if is_call else _first(part, "content", "content_delta")
        if isinstance(new, dict):  # some providers send arguments parsed
            self._tell(index, new)
        elif new:
            self.written[index] = self.written.get(index, "") + new
            self._tell(index, self._read(self.written[index], is_call))

    def _read(self, text: str, is_call: bool) -> Json:
        """As much of the JSON as is there; plain text is the field itself."""
        if not is_call and text.lstrip()[:1] not in ("{", "[", "`", ""):
            return {self.name: text} if self.is_text else None
        try:
            return from_json(text, allow_partial="trailing-strings")
        except ValueError:
            return None  # in the middle of an escape, or no JSON

    def _tell(self, index: int, value: Json) -> None:
        text, before = found(value, self.name), self.said.get(index, "")
        if isinstance(text, str) and len(text) > len(before) and text.startswith(before):
            self.said[index] = text
            self.say(text[len(before) :])


def found(value: Json, name: str) -> Json:
    """The field, at the top or inside `{"result": {"intent": …, "arguments": {…}}}`."""
    while isinstance(value, dict):
        if name in value:
            return value[name]
        value = next((value[inner] for inner in ("result", "arguments", "data", "parameters") if inner in value), None)
    return None


def has_ended(response: Any) -> bool:
    """Whether the provider said that the answer is over. OpenAI's chat streams that just stop are given a finish reason by pydantic-ai, but no
    `finish_reason` in their details."""
    told = response.provider_details or {}
    return response.state == "complete" and response.finish_reason is not None and ("finish_reason" in told or "refusal" in told)


def _first(part: Any, *names: str) -> Any:
    return next((getattr(part, name) for name in names if getattr(part, name, None) is not None), None)
