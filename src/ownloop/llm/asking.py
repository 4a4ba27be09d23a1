"""Asking a model until its answer fits: every request counted, every failure a class of its own, every try on record.

It uses the model layer of pydantic-ai (`direct.model_request`) and never its agent: the loop stays the user's.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from pydantic import BaseModel

from .. import watch
from ..events import Json, clip, sparse
from ..tools import annotate
from .answers import Form, Unusable, text_of, texts_of
from .failures import ContextTooLong, CutOff, ErrorInside, InvalidAnswer, ModelError, ProviderDown, Refused, failure_of
from .limits import all_fresh
from .opening import Connection, connect
from .overhearing import Overheard, overhear
from .prices import price_of

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import ModelRequestParameters

B = TypeVar("B", bound=BaseModel)
RETRIES = 2
LONG = 16_384
"""Tokens of an answer of Claude's, where the settings say nothing of its length or of thinking."""
Send = Callable[[Any, list[Any], Any, Any], Awaitable[Any]]
"""How a request goes out: `(model, messages, settings, parameters) -> ModelResponse`; streamed ones are another one."""


class Limit(Protocol):
    """What a `RateLimit` is to a request: a place is reserved before it, and corrected after it (None: nobody knows what it took)."""

    async def admit(self, thread: Any, *, requests: int, tokens: int) -> Any: ...
    async def correct(self, ticket: Any, *, tokens: int | None, headers: Mapping[str, str] | None) -> None: ...


async def send(model: Any, messages: list[Any], settings: Any, parameters: Any) -> Any:
    """One request and its whole answer."""
    from pydantic_ai import direct
    from pydantic_ai.models import Model

    if isinstance(model, Model):
        return await direct.model_request(model, messages, model_settings=settings, model_request_parameters=parameters)
    return await model.request(messages, settings, parameters)


@dataclass
class Asking:
    """One question, and everything that happens until it is answered.

    Attributes:
        asked_by: has `name` and `provider`, for those who watch.
        limits: each is asked for its leave before every request.
        tries: what was wrong with the answers so far, and what they cost.
    """

    connection: Connection
    form: Form
    instructions: str
    thread: Any = None
    limits: Sequence[Limit] = ()
    settings: Mapping[str, Any] | None = None
    send: Send = send
    asked_by: Any = None
    tries: list[Json] = field(default_factory=list)
    milliseconds: float = 0

    async def until_valid(self, messages: list[ModelMessage], retries: int) -> list[Any]:
        """What the model answers, as instances of the form's classes (or one text).

        Raises:
            ModelError: it gave no answer, or after so many more tries none that fits.
        """
        model = self.connection.open()
        parameters = self.form.parameters(profile_of(model), self.instructions)
        while True:
            try:
                response = await self._request(model, messages, parameters)
            except InvalidAnswer as error:  # the SDK cannot read it, so there is nothing to send back: the same once more
                self._tried(error.detail, {"requests": 1}, retries)
                continue
            usage = self._record(response)
            self._check_end(response)
            try:
                return self.form.read(response)
            except Unusable as error:
                self._tried(error.why, usage, retries, "" if response.tool_calls else text_of(response))
                messages = [*messages, *corrected(response, error)]

    def _tried(self, why: str, usage: Mapping[str, float], retries: int, wrote: str = "") -> None:
        """Put on record what was wrong with an answer, and what it cost.

        Raises:
            InvalidAnswer: it was the last that is asked for.
        """
        self.tries.append({"error": clip(why, 1_000), "usage": dict(usage)})
        annotate(tries=list(self.tries))
        if len(self.tries) > retries:
            said = f' It wrote: "{clip(wrote, 200)}"' if wrote else ""
            raise InvalidAnswer(self.connection.label, f"{len(self.tries)} tries, the last: {why}{said}") from None

    async def _request(self, model: Any, messages: list[ModelMessage], parameters: ModelRequestParameters) -> ModelResponse:
        """One request: admitted by the limits before, corrected by them after."""
        estimate = len("".join(texts_of(messages)) + self.instructions) // 4 + int((self.settings or {}).get("max_tokens") or 0)
        given = await all_fresh([await limit.admit(self.thread, requests=1, tokens=estimate) for limit in self.limits])
        tickets = list(zip(self.limits, given, strict=True))
        heard = overhear(model)
        try:
            response = await self._sent(model, messages, parameters, heard)
        except ModelError as error:
            for limit, ticket in tickets:
                await limit.correct(ticket, tokens=0 if error.status_code else None, headers=error.headers or heard.headers)
            raise
        for limit, ticket in tickets:
            await limit.correct(ticket, tokens=response.usage.input_tokens + response.usage.output_tokens or None, headers=heard.headers)
        return response

    async def _sent(self, model: Any, messages: list[ModelMessage], parameters: ModelRequestParameters, heard: Overheard) -> ModelResponse:
        began = time.perf_counter()
        with watch.current.asking(self.asked_by or self.connection, self.thread, messages) as span, heard:
            try:
                response: ModelResponse = await self.send(model, messages, once_only(model, self.settings), parameters)
                if heard.error is not None:
                    raise ErrorInside(heard.error)
            except Exception as error:
                failure = self._failure(error, heard)
                if failure is None:
                    raise
                annotate(usage={"requests": 1}, model=self.connection.name, provider=self.connection.provider)
                raise failure from error
            finally:
                self.milliseconds += (time.perf_counter() - began) * 1e3
            span.answered(response)
        return response

    def _failure(self, error: Exception, heard: Overheard) -> ModelError | None:
        """What an exception means: before the answer it may be a mistake in the program, after it it is one in the answer."""
        label = self.connection.label
        is_unread = heard.error is None and heard.is_whole and type(error).__name__ == "UnexpectedModelBehavior"
        failure = None if is_unread else failure_of(error if heard.error is None else ErrorInside(heard.error), label)
        if failure is None and heard.has_answered:
            return InvalidAnswer(label, f"its answer cannot be read ({type(error).__name__}: {error})")
        return failure

    def _record(self, response: ModelResponse) -> dict[str, float]:
        """Put what the answer cost, and who gave it, on record; also for an answer that will not do."""
        name, provider = response.model_name or self.connection.name, response.provider_name or self.connection.provider
        usage = usage_of(response, name, provider)
        annotate(
            usage=usage,
            latency_ms=round(self.milliseconds),
            model=name,
            provider=provider,
            **sparse(prompt_tokens=usage.get("input_tokens"), finish_reason=response.finish_reason, response_id=response.provider_response_id),
        )
        return usage

    def _check_end(self, response: ModelResponse) -> None:
        """How the answer ended.

        Raises:
            Refused, ContextTooLong, CutOff, ProviderDown: it has no good end.
        """
        label, told = self.connection.label, response.provider_details or {}
        if response.finish_reason == "content_filter":
            why = told.get("refusal") or told.get("finish_reason") or text_of(response) or "its content filter stopped the answer"
            raise Refused(label, str(why))
        if told.get("finish_reason") == "model_context_window_exceeded":
            raise ContextTooLong(label, "prompt and answer together are longer than its context window")
        if response.finish_reason == "length":
            raise CutOff(label, f"{response.usage.output_tokens} tokens were written and the answer was not over")
        if response.state != "complete":
            raise ProviderDown(label, "it stopped in the middle of an answer")


def profile_of(model: Any) -> Mapping[str, Any]:
    """What pydantic-ai knows of the model; a FallbackModel has no profile of its own."""
    try:
        return getattr(model, "profile", None) or {}
    except NotImplementedError:
        return {}


def once_only(model: Any, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings, with the SDK's own retries off: every request is seen, counted and paid here, and the thread's timer repeats it."""
    alone = {} if "max_retries" in getattr(model, "unsupported_settings", ()) else {"max_retries": 0}
    return {**_bounded(model, settings), **(settings or {}), **alone}


def _bounded(model: Any, settings: Mapping[str, Any] | None) -> dict[str, int]:
    """Claude is allowed its longest answer by default, which the SDK then streams behind our back; a step needs less."""
    profile, said = profile_of(model), {**(getattr(model, "settings", None) or {}), **(settings or {})}
    is_long = (profile.get("anthropic_max_output_tokens") or 0) > LONG and not profile.get("anthropic_rejects_max_tokens_beyond_context_window")
    return {"max_tokens": LONG} if is_long and not said.keys() & {"max_tokens", "thinking", "anthropic_thinking"} else {}


def usage_of(response: ModelResponse, name: str, provider: str) -> dict[str, float]:
    """Tokens and dollars of one answer, as events record them; what is unknown is not there."""
    counted = response.usage
    if counted.unmeasured_requests:
        return {"requests": 1}
    usage: dict[str, float] = {"input_tokens": counted.input_tokens, "output_tokens": counted.output_tokens, "requests": 1}
    more = {
        "cache_read_tokens": counted.cache_read_tokens,
        "cache_write_tokens": counted.cache_write_tokens,
        "reasoning_tokens": counted.output_reasoning_tokens,
    }
    usage |= {key: amount for key, amount in more.items() if amount}
    cost = counted.cost if counted.cost is not None else price_of(name, provider, usage)
    return usage if cost is None else {**usage, "cost_usd": float(cost)}


def corrected(response: ModelResponse, error: Unusable) -> list[ModelMessage]:
    """The answer as it came, thinking and all (providers want it back whole), and why it will not do."""
    from pydantic_ai.messages import ModelRequest, ModelRequestPart, ToolReturnPart, UserPromptPart

    returns: list[ModelRequestPart] = [
        ToolReturnPart(tool_name=call.tool_name, tool_call_id=call.tool_call_id, content=error.by_call[call.tool_call_id], outcome="retried")
        for call in response.tool_calls
        if call.tool_call_id in error.by_call
    ]
    told = ModelRequest(parts=returns or [UserPromptPart(content=error.why)])
    return [response, told] if response.parts else [told]


@overload
async def ask(
    model: Any, *, instructions: str = "", prompt: str, schema: type[B], thread: Any = None, limits: Sequence[Limit] = (), retries: int = RETRIES
) -> B: ...
@overload
async def ask(
    model: Any, *, instructions: str = "", prompt: str, schema: None = None, thread: Any = None, limits: Sequence[Limit] = (), retries: int = RETRIES
) -> str: ...
async def ask(
    model: Any,
    *,
    instructions: str = "",
    prompt: str,
    schema: type[BaseModel] | None = None,
    thread: Any = None,
    limits: Sequence[Limit] = (),
    retries: int = RETRIES,
) -> BaseModel | str:
    """One question outside the choice of a step: an instance of `schema`, or text.

    `model` is a name, a model object, a `Model`, or a `Connection` (`connect(model)`: what asks often keeps one, so that the client is kept too).

    Raises:
        ModelError: as for a selection; what was spent is on record in the event of whatever runs now.
    """
    connection = connect(model)
    connection.open()
    from pydantic_ai.messages import ModelRequest, UserPromptPart

    asking = Asking(connection, Form.of(schema), instructions, thread, limits)
    found: list[Any] = await asking.until_valid([ModelRequest(parts=[UserPromptPart(content=prompt)])], retries)
    answer: BaseModel | str = found[0]
    return answer
