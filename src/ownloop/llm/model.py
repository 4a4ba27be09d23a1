"""`Model`: a language model as a `determine_next_step`. It owns no loop and no history: it reads the thread and chooses among intents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from ..intents import Intent, members
from ..prompt import thread_to_prompt
from ..thread import Thread
from ..wake import is_async, result_of
from .answers import TEXT, Form
from .asking import RETRIES, Asking, Limit, send
from .opening import Connection
from .streaming import Told

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage

I = TypeVar("I", bound=Intent)  # noqa: E741  # the intent
Prompt = Callable[[Thread[Any]], "str | list[Any] | Awaitable[str | list[Any]]"]
Instructions = str | Callable[[Thread[Any]], "str | Awaitable[str]"]


class Model(Generic[I]):
    """Chooses the next step: `await model(thread)` is one of the intents, or a list of them if one answer holds several calls.

        determine_next_step = Model[ListGitTags | DeployBackend | Done]("openai:gpt-5-mini")

    The choice is made by tool calls (an intent's name, docstring and fields are the tool's), by a native JSON Schema or by a prompt, whatever the
    model can. An answer that is none of the choices is asked for again, with what is wrong with it. Text is such an answer too, unless exactly one
    intent has `text: str` as its only required field: then that is what was said. What was spent, and by which model, is in the `selected` event.

    Args:
        model: "provider:model" ("openai:", "openai-responses:", "anthropic:", "google:" and pydantic-ai's other providers; "ollama:", "vllm:" and
            "llamacpp:" are servers of your own), with "@http://host:port/v1" behind it for another address; or a model object of pydantic-ai's.
            Keys come from the provider's environment variable at the first call.
        instructions: the system prompt, or a function of the thread that gives it.
        prompt: a function of the thread that gives the prompt, or a list of pydantic-ai messages.
        stream: the name of a text field that `app.stream` tells while it is written. An answer that is refused was told, too.
        limits: `RateLimit`s that every request passes.
        retries: how often an answer that does not fit is asked for again.
        settings: pydantic-ai's `ModelSettings` (max_tokens, temperature, timeout, …). The SDK's own retries are always off.

    Raises (when called):
        ModelError: a subclass for each thing that can be done about it; `transient` ones become the thread's timer.

    Source: 12-factor agents 2 (own your prompts), 4 (tools are structured outputs) and 8 (own your control flow).
    """

    intents: tuple[type[Intent], ...]
    _choice: ClassVar[Any] = None

    if not TYPE_CHECKING:

        def __class_getitem__(cls, choice: Any) -> Any:
            """A Model of these intents. A class of its own, because a generic alias does not know its argument while the instance is made."""
            if isinstance(choice, TypeVar):
                return cls
            found = members(choice)
            name = f"{cls.__name__}[{' | '.join(one.__name__ for one in found)}]"
            return type(name, (cls,), {"_choice": found, "__module__": cls.__module__, "__doc__": cls.__doc__})

    def __init__(
        self,
        model: Any,
        *,
        instructions: Instructions | None = None,
        prompt: Prompt = thread_to_prompt,
        stream: str | None = None,
        limits: Sequence[Limit] = (),
        retries: int = RETRIES,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if self._choice is None:
            raise TypeError('Model does not know what it may choose; write Model[A | B]("provider:model"), where A and B are intents')
        self.intents = self._choice
        self.connection = Connection(model)
        self.name, self.provider = self.connection.name, self.connection.provider
        self._form = Form({intent.intent_name: intent for intent in self.intents})
        self._instructions, self._prompt, self._stream = instructions, prompt, stream
        self._limits, self._retries, self._settings = limits, retries, settings
        if stream is not None and not any(stream in intent.model_fields for intent in self.intents):
            raise ValueError(f"stream={stream!r}: no intent of {type(self).__name__} has a field of this name")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.connection.label!r})"

    async def __call__(self, thread: Thread[Any]) -> I:
        """Ask for the next step; several calls in one answer come as a list, which `next_step` takes as well as one."""
        self.connection.open()  # what is missing is said before a prompt is made
        asking = Asking(
            self.connection,
            self._form,
            await self._said(self._instructions, thread),
            thread,
            self._limits,
            self._settings,
            send if self._stream is None else self._told(thread, self._stream),
            asked_by=self,
        )
        chosen = await asking.until_valid(await self._messages(thread), self._retries)
        return cast(I, chosen[0] if len(chosen) == 1 else chosen)

    async def _said(self, source: Any, thread: Thread[Any]) -> Any:
        """A text, or what a function of the thread gives; one that may block runs in a thread."""
        if not callable(source):
            return source or ""
        return await result_of(partial(source, thread), is_async(source) or source is thread_to_prompt)

    async def _messages(self, thread: Thread[Any]) -> list[ModelMessage]:
        from pydantic_ai.messages import ModelRequest, UserPromptPart

        prompt = await self._said(self._prompt, thread)
        if isinstance(prompt, str):
            return [ModelRequest(parts=[UserPromptPart(content=prompt)])]
        return list(prompt)

    def _told(self, thread: Thread[Any], name: str) -> Told:
        say = partial(thread._wake.setting.board.say, thread.id)
        return Told(name, name == TEXT and self._form.spoken is not None, self.connection.label, say)
