"""How an answer is asked for, and what it says: calls of tools, JSON by a schema, or text. Nothing here knows a provider."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from ..events import Json, clip
from ..intents import Intent, schema_of, snake_case

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse, ToolCallPart
    from pydantic_ai.models import ModelRequestParameters

TEXT = "text"
"""An intent whose only required field is `text: str` is what a model may say instead of a call."""
NOTHING = ("", "null")
"""How models write that a call has no arguments, beside `{}`."""
NOT_TAKEN = "Not taken, because another call of the same answer was wrong. Make all calls again."


class Unusable(Exception):
    """The answer is nothing that was asked for; the model is told why, call by call."""

    def __init__(self, why: str, by_call: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.by_call = by_call or {}


@dataclass(frozen=True)
class Form:
    """What may be answered: classes by name, or with none of them any text that is not empty."""

    classes: Mapping[str, type[BaseModel]] = field(default_factory=dict)

    @classmethod
    def of(cls, schema: type[BaseModel] | None) -> Form:
        return cls() if schema is None else cls({re.sub(r"\W+", "_", snake_case(schema.__name__)).strip("_"): schema})

    # ---- asking --------------------------------------------------------------------------------------------------------------

    def parameters(self, profile: Mapping[str, Any], instructions: str) -> ModelRequestParameters:
        """By tool calls where the model has them, else by a native JSON Schema, else by instructions."""
        from pydantic_ai.messages import InstructionPart
        from pydantic_ai.models import ModelRequestParameters
        from pydantic_ai.output import OutputObjectDefinition

        parts = [InstructionPart(content=instructions)] if instructions else []
        if not self.classes:
            return ModelRequestParameters(instruction_parts=parts)
        if profile.get("supports_tools", True):
            return ModelRequestParameters(output_mode="tool", output_tools=self._tools, allow_text_output=False, instruction_parts=parts)
        wanted = OutputObjectDefinition(json_schema=self.schema, name="answer")
        mode: Any = "native" if profile.get("supports_json_schema_output") else "prompted"
        return ModelRequestParameters(output_mode=mode, output_object=wanted, allow_text_output=True, instruction_parts=parts)

    @cached_property
    def _tools(self) -> list[Any]:
        from pydantic_ai.tools import ToolDefinition

        tools = []
        for name, one in self.classes.items():
            schema = one.model_json_schema()
            description = schema.pop("description", None)
            tools.append(ToolDefinition(name=name, description=description, parameters_json_schema=schema, kind="output"))
        return tools

    @cached_property
    def schema(self) -> dict[str, Json]:
        """One class: its own schema; several: `{"result": {"intent": …, "arguments": {…}}}`, because providers want an object at the top."""
        classes = list(self.classes.values())
        if len(classes) == 1:
            return classes[0].model_json_schema()
        choice = schema_of([one for one in classes if issubclass(one, Intent)])
        definitions = choice.pop("$defs", None)
        wrapped = {"type": "object", "properties": {"result": {"anyOf": choice["oneOf"]}}, "required": ["result"], "additionalProperties": False}
        return wrapped | ({"$defs": definitions} if definitions else {})

    # ---- reading -------------------------------------------------------------------------------------------------------------

    def read(self, response: ModelResponse) -> list[Any]:
        """What was answered, in order.

        Raises:
            Unusable: nothing, or something else; one wrong call spoils the whole answer.
        """
        text = text_of(response).strip()
        if not self.classes:
            if not text:
                raise Unusable("The answer was empty. Answer with text.")
            return [text]
        if response.tool_calls:
            return self._read_calls(response.tool_calls)
        return self._read_text(text)

    def _read_calls(self, calls: list[ToolCallPart]) -> list[Any]:
        found, wrong = [], {}
        for call in calls:
            try:
                found.append(self._instance(call.tool_name, call.args))
            except Unusable as error:
                wrong[call.tool_call_id] = error.why
        if wrong:
            raise Unusable(" ".join(wrong.values()), {call.tool_call_id: wrong.get(call.tool_call_id, NOT_TAKEN) for call in calls})
        return found

    def _instance(self, name: str, arguments: Json) -> BaseModel:
        one = self.classes.get(name) or self.classes.get(snake_case(name.replace("-", "_")))
        if one is None:
            raise Unusable(f"There is no {clip(name, 60)}. Call one of: {', '.join(self.classes)}.")
        text = arguments.strip() if isinstance(arguments, str) else json.dumps(arguments or {})
        try:
            return one.model_validate_json("{}" if text in NOTHING else text)
        except ValidationError as error:
            raise Unusable(f"{name}: {_problems(error)}. Call it again with arguments that fit its schema.") from None

    def _read_text(self, text: str) -> list[Any]:
        if not text:
            raise Unusable(f"The answer was empty. {self._wanted}")
        value = json_in(text)
        if value is not None:
            return [self._chosen(one) for one in (value if isinstance(value, list) else [value])]
        if self.spoken is None:
            raise Unusable(f"The answer was text. {self._wanted}")
        return [self._instance(self.spoken, {TEXT: text})]

    @property
    def _wanted(self) -> str:
        return f"Call one of: {', '.join(self.classes)}; write nothing else."

    @cached_property
    def spoken(self) -> str | None:
        """The one class that plain text becomes: its only required field is `text: str`."""
        fitting = [name for name, one in self.classes.items() if _takes_text(one)]
        return fitting[0] if len(fitting) == 1 else None

    def _chosen(self, value: Json) -> BaseModel:
        """One choice in JSON: named with its arguments, or bare arguments that fit exactly one class."""
        named = _named(value, self.classes)
        if named is not None:
            return self._instance(*named)
        bare = _unwrapped(value)
        if not isinstance(bare, dict):
            raise Unusable(f"{clip(json.dumps(value), 200)} is no object. {self._wanted}")
        if len(self.classes) == 1:
            return self._instance(next(iter(self.classes)), bare)
        fitting = [name for name in self.classes if _fits(self.classes[name], bare)]
        if len(fitting) != 1:
            why = f"fits {' and '.join(fitting)}" if fitting else "fits none of them"
            raise Unusable(f'{clip(json.dumps(bare), 200)} {why}. Answer {{"intent": …, "arguments": {{…}}}} with one of: {", ".join(self.classes)}.')
        return self._instance(fitting[0], bare)


def json_in(text: str) -> Json:
    """The JSON object or list that a text is, or that its only fenced block holds; None if there is none."""
    fenced = re.findall(r"```(?:json)?\s*\n(.*?)```", text, re.DOTALL)
    inner = (fenced[0] if len(fenced) == 1 else text).strip()
    if not inner.startswith(("{", "[")):
        return None
    try:
        return json.loads(inner)
    except ValueError:
        if fenced or inner.endswith(("}", "]")) or re.match(r"[\[{]\s*[\"{}\]]", inner):
            raise Unusable("The answer is broken JSON. Answer again, with whole JSON.") from None
        return None  # prose that begins with a bracket


TAGGED = (("intent", "arguments"), ("kind", "data"), ("name", "arguments"), ("name", "parameters"), ("tool", "arguments"))
"""How a choice is written in JSON: ours, pydantic-ai's, and what models that were trained on tool calls write by themselves."""


def _named(value: Json, classes: Mapping[str, type[BaseModel]]) -> tuple[str, Json] | None:
    value = _unwrapped(value)
    for tag, rest in TAGGED:
        if isinstance(value, dict) and isinstance(value.get(tag), str) and isinstance(value.get(rest, {}), dict) and set(value) <= {tag, rest}:
            name = snake_case(value[tag])
            if name in classes or rest in value:
                return name, value.get(rest, {})
    return None


def _unwrapped(value: Json) -> Json:
    """What stands in `{"result": …}`, which is there only because the top must be an object."""
    return value["result"] if isinstance(value, dict) and list(value) == ["result"] and isinstance(value["result"], dict) else value


def _fits(one: type[BaseModel], arguments: Json) -> bool:
    try:
        one.model_validate_json(json.dumps(arguments))
    except ValidationError:
        return False
    return True


def _takes_text(one: type[BaseModel]) -> bool:
    required = [name for name, about in one.model_fields.items() if about.is_required()]
    return required == [TEXT] and one.model_fields[TEXT].annotation is str


def _problems(error: ValidationError) -> str:
    return "; ".join(_problem(item) for item in error.errors(include_url=False, include_context=False)[:8])


def _problem(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    given = "" if item["type"] in ("missing", "json_invalid") else f" (it was {clip(json.dumps(item['input'], default=str), 80)})"
    return f"{place + ': ' if place else ''}{item['msg']}{given}"


def text_of(response: ModelResponse) -> str:
    """What was said beside calls; an unknown kind of content can come as a text that is None."""
    groups = groupby(response.parts, key=lambda part: part.part_kind == "text")
    return "\n\n".join("".join(getattr(part, "content", None) or "" for part in parts) for is_text, parts in groups if is_text)


def texts_of(messages: list[Any]) -> Iterator[str]:
    """What will be sent, as far as it is text: for an estimate of its length."""
    for message in messages:
        for part in message.parts:
            content = getattr(part, "content", None) or getattr(part, "args", None) or ""
            yield content if isinstance(content, str) else str(content)
