"""What goes wrong with a provider: each is a class of its own, says what to do, and knows whether it passes. All answers here are made up."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from asked import ADDRESSES, ask, ask_at
from replay.server import Answer, Replay, chat, failing, recorded

from ownloop import Intent
from ownloop.llm import AuthenticationFailed, ContextTooLong, InvalidAnswer, Model, ModelError, ModelTimeout, ProviderDown, RateLimited, Refused
from ownloop.llm.failures import UnknownModel, failure_of
from ownloop.llm.prices import price_of
from ownloop.llm.waiting import length, seconds_to_wait
from ownloop.selection import is_transient

PROVIDERS = ["openai_chat", "openai_responses", "anthropic", "gemini"]


class Look(Intent):
    """Look something up."""

    query: str


async def failure(replay: Replay, answer: Answer, provider: str = "openai_chat", **options: Any) -> Any:
    tape = replay.play([answer])
    asked = await ask_at(provider, tape, Look, **options)
    assert len(tape) == 1, "the SDK did not try again behind our back"
    assert asked.noted["usage"] == {"requests": 1}
    assert is_transient(asked.answer) == asked.answer.transient
    return asked.answer


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
async def test_a_provider_in_trouble_is_asked_once_and_passes(replay: Replay, provider: str, status: int) -> None:
    error = await failure(replay, failing(status, "overloaded", {"retry-after": "7"}), provider)
    assert (type(error), error.transient, error.status_code, error.retry_after) == (ProviderDown, True, status, 7.0)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_too_many_requests_say_when_to_come_back(replay: Replay, provider: str) -> None:
    error = await failure(replay, failing(429, "slow down", {"retry-after": "12"}), provider)
    assert (type(error), error.transient, error.retry_after) == (RateLimited, True, 12.0)
    assert "asks again by itself in 12 s" in str(error)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("setting", ["timeout", "request_timeout"])
async def test_an_answer_that_does_not_come_in_time_passes(replay: Replay, provider: str, setting: str) -> None:
    error = await failure(replay, Answer({}, after=0.6), provider, settings={setting: 0.15})
    assert (type(error), error.transient) == (ModelTimeout, True)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_connection_that_dies_in_an_answer_passes(replay: Replay, provider: str) -> None:
    error = await failure(replay, Answer({"padding": "x" * 500}, headers={"content-type": "application/json"}, cut=80), provider)
    assert (type(error), error.transient) == (ProviderDown, True)
    assert "reset" in str(error)


async def test_nobody_at_the_address_passes() -> None:
    asked = await ask(Model[Look]("openai:m@http://127.0.0.1:9/v1", prompt=lambda thread: "…"))
    assert isinstance(asked.answer, ProviderDown)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_not_accepted_names_its_variable(replay: Replay, provider: str, status: int) -> None:
    error = await failure(replay, failing(status, "no access"), provider)
    variable = {"anthropic": "ANTHROPIC_API_KEY", "gemini": "GOOGLE_API_KEY"}.get(provider, "OPENAI_API_KEY")
    assert (type(error), error.transient) == (AuthenticationFailed, False)
    assert f"Set {variable}" in str(error)


@pytest.mark.parametrize(
    ("name", "variable"), [("openai", "OPENAI"), ("anthropic", "ANTHROPIC"), ("google", "GOOGLE"), ("openai-responses", "OPENAI")]
)
async def test_a_missing_key_is_said_at_the_first_call_and_not_when_a_module_is_imported(
    monkeypatch: pytest.MonkeyPatch, name: str, variable: str
) -> None:
    monkeypatch.delenv(f"{variable}_API_KEY")
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    model = Model[Look](f"{name}:some-model")
    asked = await ask(model)
    assert isinstance(asked.answer, AuthenticationFailed)
    assert f"Set {variable}_API_KEY" in str(asked.answer)
    assert asked.noted == {}, "nothing was requested"


async def test_a_provider_that_does_not_exist_is_named() -> None:
    asked = await ask(Model[Look]("opnai:gpt-5-mini"))
    assert isinstance(asked.answer, UnknownModel)
    assert "opnai" in str(asked.answer)


TOO_LONG = [
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "The input token count (1250074) exceeds the maximum number of tokens allowed (1048576).",
    "the request exceeds the available context size (4096 tokens), try increasing it",
    "input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000, decrease input length or `max_tokens` and try again",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "Please reduce the length of the messages or completion.",
    "Input is too long for requested model.",
    "This endpoint's maximum context length is 32768 tokens. However, you requested about 40000 tokens",
    "The prompt (length 9000) exceeds the max_model_len of 8192",
    "Prompt contains 9001 tokens and 0 draft tokens, too large for model with 8192 maximum context length",
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292",
]


@pytest.mark.parametrize("text", TOO_LONG)
async def test_a_prompt_that_is_too_long_is_seen_in_the_words_of_every_provider(replay: Replay, text: str) -> None:
    error = await failure(replay, failing(400, text))
    assert (type(error), error.transient) == (ContextTooLong, False)
    assert "thread.compact" in str(error)


async def test_a_body_that_is_too_large_is_a_prompt_that_is_too_long(replay: Replay) -> None:
    assert isinstance(await failure(replay, failing(413, "Request Entity Too Large")), ContextTooLong)


async def test_any_other_refusal_of_the_request_is_the_plain_class_with_the_providers_words(replay: Replay) -> None:
    error = await failure(replay, failing(400, "Unsupported parameter: 'temperature'"))
    assert (type(error), error.transient) == (ModelError, False)
    assert "Unsupported parameter: 'temperature'" in str(error)


async def test_a_filter_before_the_model_is_a_refusal(replay: Replay) -> None:
    body = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
    assert isinstance(await failure(replay, failing(400, body)), Refused)


@pytest.mark.parametrize(
    ("provider", "answer"),
    [
        ("openai_chat", failing(402, "Insufficient credits")),
        ("anthropic", Answer({"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}}, 400)),
    ],
)
async def test_an_empty_account_does_not_pass_by_waiting(replay: Replay, provider: str, answer: Answer) -> None:
    error = await failure(replay, answer, provider)
    assert (type(error), error.transient) == (RateLimited, False)
    assert "Top up the account" in str(error)


async def test_a_429_is_waited_for_even_if_it_speaks_of_a_quota(replay: Replay) -> None:
    error = await failure(replay, failing(429, "You exceeded your current quota, please check your plan", code="insufficient_quota"))
    assert (type(error), error.transient) == (RateLimited, True)


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "slow down", "code": 429}, RateLimited),
        ({"message": "upstream failed", "code": 502}, ProviderDown),
        ({"message": "maximum context length is 8192 tokens", "code": "context_length_exceeded"}, ContextTooLong),
        ({"message": "no such key", "type": "authentication_error"}, AuthenticationFailed),
        ("something broke", ProviderDown),
    ],
)
async def test_an_error_with_status_200_is_the_error_that_it_names(replay: Replay, provider: str, error: Any, kind: type) -> None:
    assert type(await failure(replay, Answer({"error": error}, headers=JSON), provider)) is kind


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("body", ["<html>bad gateway</html>", '{"half": '], ids=["html", "half JSON"])
async def test_an_answer_that_is_none_passes(replay: Replay, provider: str, body: str) -> None:
    kind = "text/html" if "html" in body else "application/json"
    assert type(await failure(replay, Answer(body, headers={"content-type": kind}), provider)) is ProviderDown


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_answer_of_another_shape_is_a_failure_of_the_model_and_no_crash(replay: Replay, provider: str) -> None:
    asked = await ask_at(provider, replay.play([Answer({}, headers=JSON)]), Look, retries=0)
    assert isinstance(asked.answer, InvalidAnswer | ProviderDown)


async def test_a_mistake_in_the_program_is_not_taken_for_a_failure_of_the_model(replay: Replay) -> None:
    def prompt(thread: Any) -> str:
        return thread.no_such_thing  # type: ignore[no-any-return]

    asked = await ask(Model[Look](ADDRESSES["openai_chat"].format(replay.play([chat()]).url), prompt=prompt))
    assert type(asked.answer) is AttributeError


async def test_when_every_model_of_a_fallback_failed_one_that_passes_counts(replay: Replay) -> None:
    from pydantic_ai.models.fallback import FallbackModel
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    tapes = [replay.play([failing(401, "no")]), replay.play([failing(503, "busy")])]
    models = [OpenAIChatModel("m", provider=OpenAIProvider(base_url=f"{tape.url}/v1")) for tape in tapes]
    asked = await ask(Model[Look](FallbackModel(*models), prompt=lambda thread: "…"))
    assert isinstance(asked.answer, ProviderDown)
    assert [len(tape) for tape in tapes] == [1, 1]


async def test_a_refused_key_is_never_in_the_message(replay: Replay) -> None:
    error = await failure(replay, recorded("openai_chat/error_401")[0])
    assert "key-of-the-tests" not in str(error)


# ---- streams that die ------------------------------------------------------------------------------------------------------------

STREAMS = {
    "openai_chat": ("openai_chat/stream_two_tools", "location", {"GetCurrentWeather": {"location": str}}),
    "openai_responses": ("openai_responses/stream_function_call", "location", {"GetCurrentWeather": {"location": str, "unit": str}}),
    "anthropic": ("anthropic/multi_tool_stream", "location", {"GetWeather": {"location": str}, "GetTime": {"timezone": str}}),
    "gemini": ("gemini/function_call_stream", "text", {"GetCountry": {}, "Reply": {"text": str}}),
}


@pytest.mark.parametrize("how", ["cut", "ends"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_stream_that_dies_leaves_no_half_selection(replay: Replay, provider: str, part: float, how: str) -> None:
    name, field, classes = STREAMS[provider]
    whole = recorded(name)[0]
    broken = Answer(whole.body, whole.status, whole.headers, **{how: int(len(whole.raw) * part)})
    choice = [type(intent, (Intent,), {"__annotations__": fields}) for intent, fields in classes.items()]
    asked = await ask_at(provider, replay.play([broken]), choice, stream=field)
    assert (type(asked.answer), asked.answer.transient) == (ProviderDown, True)


async def test_an_error_in_the_middle_of_a_stream_is_that_error(replay: Replay) -> None:
    whole = recorded("anthropic/tool_use_stream")[0]
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    body = whole.body[: whole.body.index("event: content_block_stop")] + f"event: error\ndata: {json.dumps(overloaded)}\n\n"
    located = type("GetWeather", (Intent,), {"__annotations__": {"location": str, "unit": str}})
    asked = await ask_at("anthropic", replay.play([Answer(body, 200, whole.headers)]), located, stream="location")
    assert isinstance(asked.answer, ProviderDown)
    assert "Overloaded" in str(asked.answer)


# ---- when to come back -----------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 8, 19, 14, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "3"}, None, 3.0),
        ({"retry-after": "0.5"}, None, 0.5),
        ({"retry-after-ms": "1500"}, None, 1.5),
        ({"retry-after": "1", "retry-after-ms": "0"}, None, 1.0),
        ({"retry-after": "Wed, 19 Aug 2026 14:01:30 GMT"}, None, 90.0),
        ({"retry-after": "Wed, 19 Aug 2026 13:00:00 GMT"}, None, 0.0),
        ({"retry-after": "soon"}, None, None),
        ({"retry-after": "-5"}, None, None),
        ({"retry-after": "99999999999"}, None, None),
        ({}, {"error": {"details": [{"@type": "…RetryInfo", "retryDelay": "48s"}]}}, 48.0),
        ({}, [{"error": {"details": [{"retryDelay": "0.25s"}]}}], 0.25),
        ({}, {"error": {"details": [{"retryDelay": {"seconds": 2, "nanos": 500000000}}]}}, 2.5),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, None, 360.0),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "6m0s"}, None, None),
        ({"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2026-08-19T14:00:20Z"}, None, 20.0),
        ({}, {"error": {"message": "Rate limit reached. Please try again in 6.5s. Visit …"}}, 6.5),
        ({}, {"error": {"message": "Please try again in 1m2.5s."}}, 62.5),
        ({}, "no idea", None),
        ({}, None, None),
    ],
)
def test_every_way_to_say_when_to_come_back_is_understood(headers: dict[str, str], body: Any, seconds: float | None) -> None:
    assert seconds_to_wait(headers, body, NOW) == seconds


def test_a_date_is_counted_from_the_providers_own_clock() -> None:
    """A machine whose clock is an hour wrong must not wait an hour."""
    headers = {"date": "Wed, 19 Aug 2026 14:34:22 GMT", "retry-after": "Wed, 19 Aug 2026 14:34:52 GMT"}
    assert seconds_to_wait(headers) == 30.0


def test_without_a_date_of_its_own_it_is_counted_from_ours() -> None:
    at = datetime.now(UTC) + timedelta(seconds=50)
    assert 45 < (seconds_to_wait({"retry-after": at.strftime("%a, %d %b %Y %H:%M:%S GMT")}) or 0) <= 50


@pytest.mark.parametrize(
    ("text", "seconds"), [("12ms", 0.012), ("1h2m3s", 3723.0), ("6m0s", 360.0), ("2d", 172800.0), ("3", None), ("", None), ("3 s", None)]
)
def test_lengths(text: str, seconds: float | None) -> None:
    assert length(text) == seconds


# ---- exceptions of SDKs that are used by hand --------------------------------------------------------------------------------------


def test_the_sdks_own_exceptions_are_understood_too() -> None:
    import anthropic
    import httpx
    import openai

    request = httpx.Request("POST", "http://provider")
    refused = httpx.Response(429, headers={"Retry-After": "4"}, request=request)
    limited = openai.RateLimitError("slow", response=refused, body={"message": "slow"})  # type: ignore[arg-type]
    assert (type(failure_of(limited, "m")), failure_of(limited, "m").retry_after) == (RateLimited, 4.0)  # type: ignore[union-attr]
    assert type(failure_of(openai.APITimeoutError(request=request), "m")) is ModelTimeout  # type: ignore[arg-type]
    assert type(failure_of(anthropic.APIConnectionError(request=request), "m")) is ProviderDown  # type: ignore[arg-type]
    assert type(failure_of(httpx.ConnectError("refused"), "m")) is ProviderDown
    assert type(failure_of(ConnectionResetError(), "m")) is ProviderDown
    assert type(failure_of(TimeoutError(), "m")) is ModelTimeout
    assert failure_of(KeyError("mine"), "m") is None
    assert failure_of(SimpleError("mine"), "m") is None


class SimpleError(Exception):
    response = SimpleNamespace(status_code="not a number")


# ---- prices ----------------------------------------------------------------------------------------------------------------------


def test_a_known_model_has_a_price_and_an_unknown_one_has_none() -> None:
    usage = {"input_tokens": 1_000_000, "output_tokens": 0}
    assert price_of("gpt-4o-mini", "openai", usage) == Decimal("0.15")
    assert price_of("gpt-4o-mini", "openai", {**usage, "cache_read_tokens": 1_000_000}) < price_of("gpt-4o-mini", "openai", usage)  # type: ignore[operator]
    assert price_of("my-own-model", "openai", usage) is None
    assert price_of("gpt-4o-mini", "my-gateway", usage) is None, "a gateway has prices of its own"


async def test_an_answer_of_a_model_without_a_price_has_no_cost_and_does_not_fail(replay: Replay) -> None:
    tape = replay.play([Answer({**chat(("look", '{"query": "x"}')).body, "model": "my-own-model"}, headers=JSON)])
    asked = await ask_at("openai_chat", tape, Look)
    assert asked.answer == Look(query="x")
    assert "cost_usd" not in asked.noted["usage"]
