"""Every recording of tests/llm/cassettes, played through the real SDKs: what the provider said is what the thread gets."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from asked import ADDRESSES, ask_at
from replay.server import CASSETTES, Replay, recorded

from ownloop import Intent
from ownloop.llm import AuthenticationFailed, ContextTooLong, CutOff, InvalidAnswer, ModelError, RateLimited, Refused, UnknownModel


class GetWeather(Intent):
    """The weather in a city."""

    city: str


class GetTime(Intent):
    """The time in a city."""

    city: str


class GetCurrentWeather(Intent):
    """The weather now."""

    location: str
    unit: Literal["celsius", "fahrenheit"] | None = None


class RetrieveEntityInfo(Intent):
    """What is known of a person."""

    name: str


class Weather(Intent):
    latitude: str
    longitude: str


class BestLanguageToLearn(Intent): ...


class GetUserCountry(Intent): ...


class GetCountry(Intent): ...


class GetCapital(Intent):
    country: str


class FinalResult(Intent):
    city: str
    country: str


class CityLocation(Intent):
    city: str
    country: str


class CountryLanguage(Intent):
    country: str
    language: str


class Joke(Intent):
    joke: str
    rating: int


class Reply(Intent):
    """Say something to the person."""

    text: str


def named(name: str, **fields: Any) -> type[Intent]:
    """An intent of a name that another one has, with other fields."""
    return type(name, (Intent,), {"__annotations__": fields})


Located = named("GetWeather", location=str)
LocatedWithUnit = type("GetWeather", (Intent,), {"__annotations__": {"location": str, "unit": str}, "unit": "celsius"})
LocatedTime = named("GetTime", timezone=str)

PARIS = GetWeather(city="Paris")
COUNTRY = FinalResult(city="Mexico City", country="Mexico")
BOSTON = [GetCurrentWeather(location="San Francisco"), GetCurrentWeather(location="Boston")]
CITIES = [GetCurrentWeather(location="Seattle, WA"), GetCurrentWeather(location="San Francisco, CA")]
FAMILY = [RetrieveEntityInfo(name=name) for name in ("Alice", "Bob", "Charlie", "Daisy")]
BERLIN = [Weather(latitude="52.5200", longitude="13.4050"), BestLanguageToLearn()]

# recording, interaction, what may be chosen, what comes of it (an intent, intents, the text of a Reply, or a failure)
Case = tuple[str, int, Any, Any]
CASES: list[Case] = [
    ("openai_chat/tool_call_roundtrip", 0, GetWeather | GetTime, PARIS),
    ("openai_chat/tool_call_roundtrip", 1, GetWeather | Reply, "sunny in Paris right now"),
    ("openai_chat/tool_required", 0, GetWeather | Reply, PARIS),
    ("openai_chat/parallel_tool_calls", 0, GetCurrentWeather | Reply, BOSTON),
    ("openai_chat/parallel_tool_calls", 1, GetCurrentWeather | Reply, BOSTON),
    ("openai_chat/tool_call_stream", 0, GetCurrentWeather | Reply, GetCurrentWeather(location="San Francisco, CA")),
    ("openai_chat/tool_call_stream", 1, GetCurrentWeather | Reply, GetCurrentWeather(location="San Francisco")),
    ("openai_chat/tool_call_stream", 2, GetCurrentWeather | Reply, GetCurrentWeather(location="San Francisco")),
    ("openai_chat/stream_two_tools", 0, GetCurrentWeather | Reply, CITIES),
    ("openai_chat/stream_text_usage", 0, GetWeather | Reply, '"This is a test."'),
    ("openai_chat/multiple_choices", 0, GetWeather | Reply, "This is a test."),
    ("openai_chat/json_schema_strict", 0, GetUserCountry | FinalResult, GetUserCountry()),
    ("openai_chat/json_schema_strict", 1, GetUserCountry | FinalResult, COUNTRY),
    ("openai_chat/json_schema_parse", 0, Joke | Reply, Joke),
    ("openai_chat/json_schema_parse", 1, Joke | Reply, Joke),
    ("openai_chat/json_schema_parse", 2, Joke | Reply, Joke),
    ("openai_chat/refusal", 0, Joke | Reply, Refused),
    ("openai_chat/refusal", 1, Joke | Reply, Refused),
    ("openai_chat/refusal", 2, Joke | Reply, Refused),
    ("openai_chat/custom_tool_call", 0, GetWeather, InvalidAnswer),
    ("openai_chat/error_401", 0, GetWeather, AuthenticationFailed),
    ("openai_chat/error_404_model", 0, GetWeather, UnknownModel),
    ("openai_chat/error_400_unsupported_value", 0, GetWeather, ModelError),
    ("openai_responses/tool_call_roundtrip", 0, GetWeather | Reply, PARIS),
    ("openai_responses/tool_call_roundtrip", 1, GetWeather | Reply, "sunny in Paris"),
    ("openai_responses/json_schema", 0, GetUserCountry | FinalResult, GetUserCountry()),
    ("openai_responses/json_schema", 1, GetUserCountry | FinalResult, COUNTRY),
    ("openai_responses/json_schema_union", 0, GetUserCountry | CityLocation | CountryLanguage, GetUserCountry()),
    ("openai_responses/json_schema_union", 1, CityLocation | CountryLanguage, CityLocation(city="Mexico City", country="Mexico")),
    ("openai_responses/tool_output_mode", 0, GetUserCountry | FinalResult, GetUserCountry()),
    ("openai_responses/tool_output_mode", 1, GetUserCountry | FinalResult, COUNTRY),
    ("openai_responses/stream_tools", 0, GetCapital | Reply, GetCapital(country="France")),
    ("openai_responses/stream_tools", 1, GetCapital | Reply, "The capital of France is Paris."),
    ("openai_responses/stream_function_call", 0, GetCurrentWeather, GetCurrentWeather(location="Boston, MA", unit="celsius")),
    ("openai_responses/reasoning", 0, GetWeather | Reply, "3"),
    ("openai_responses/reasoning", 1, GetWeather | Reply, "3"),
    ("openai_responses/mcp_tool_error", 0, GetWeather | Reply, "having trouble accessing your calendar"),
    ("openai_responses/error_400", 0, GetWeather, ModelError),
    ("anthropic/tool_use_roundtrip", 0, GetWeather | Reply, PARIS),
    ("anthropic/tool_use_roundtrip", 1, GetWeather | Reply, "currently sunny"),
    ("anthropic/tool_required", 0, GetWeather | Reply, PARIS),
    ("anthropic/parallel_tool_use", 0, RetrieveEntityInfo | Reply, FAMILY),
    ("anthropic/parallel_tool_use", 1, RetrieveEntityInfo | Reply, "Daisy is the youngest"),
    ("anthropic/structured_by_tool", 0, GetUserCountry | FinalResult, GetUserCountry()),
    ("anthropic/structured_by_tool", 1, GetUserCountry | FinalResult, COUNTRY),
    ("anthropic/json_schema", 0, Joke | GetWeather, Joke),
    ("anthropic/tool_use_ratelimit_headers", 0, LocatedWithUnit, LocatedWithUnit),
    ("anthropic/tool_use_stream", 0, LocatedWithUnit, LocatedWithUnit),
    ("anthropic/multi_tool_stream", 0, [Located, LocatedTime], list),
    ("anthropic/tool_result_stream", 0, GetWeather | Reply, "73°F"),
    ("anthropic/stream_text", 0, GetWeather | Reply, CutOff),
    ("anthropic/tool_with_thinking", 0, GetUserCountry | Reply, GetUserCountry()),
    ("anthropic/tool_with_thinking", 1, GetUserCountry | Reply, "Mexico City"),
    ("anthropic/error_400", 0, GetWeather, ModelError),
    ("anthropic/error_401", 0, GetWeather, AuthenticationFailed),
    ("anthropic/error_404_model", 0, GetWeather, UnknownModel),
    ("gemini/function_call_roundtrip", 0, GetWeather | Reply, PARIS),
    ("gemini/function_call_roundtrip", 1, GetWeather | Reply, "sunny with a temperature of 22C"),
    ("gemini/function_call_required", 0, GetWeather | Reply, PARIS),
    ("gemini/parallel_function_calls", 0, Weather | BestLanguageToLearn | Reply, BERLIN),
    ("gemini/parallel_function_calls", 1, Weather | BestLanguageToLearn | Reply, "The best language to learn is Ruby"),
    ("gemini/function_call_stream", 0, GetCountry | Reply, GetCountry()),
    ("gemini/function_call_stream", 1, GetCountry | Reply, "The capital of Mexico is Mexico City."),
    ("gemini/stream_text", 0, GetWeather | Reply, "The capital of France is Paris."),
    ("gemini/json_schema", 0, FinalResult | Reply, COUNTRY),
    ("gemini/max_tokens", 0, GetWeather | Reply, CutOff),
    ("gemini/error_401", 0, GetWeather, AuthenticationFailed),
    ("gemini/error_429_retryinfo", 0, GetWeather, RateLimited),
    ("other/azure_429_retry_after", 0, GetWeather, RateLimited),
    ("other/vertex_400_context", 0, GetWeather, ContextTooLong),
]


def fits(answer: Any, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return isinstance(answer, Reply) and wanted in answer.text
    return type(answer) is wanted if isinstance(wanted, type) else answer == wanted


@pytest.mark.parametrize(("name", "number", "choice", "wanted"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
async def test_a_recording_becomes_what_the_provider_said(replay: Replay, name: str, number: int, choice: Any, wanted: Any) -> None:
    tape = replay.play(name, number)
    is_stream = isinstance(recorded(name)[number].body, str)
    fields = {field for intent in (choice if isinstance(choice, list) else getattr(choice, "__args__", (choice,))) for field in intent.model_fields}
    stream = next(iter(sorted(fields & {"text", "location", "country"})), None) if is_stream else None
    provider = name.partition("/")[0]
    if is_stream and stream is None:
        choice, stream = choice | Reply, "text"  # GetCountry has no field to be streamed
    asked = await ask_at(provider, tape, choice, stream=stream, retries=0)
    assert fits(asked.answer, wanted), asked.answer
    assert len(tape) == 1
    assert asked.noted["usage"]["requests"] == 1
    assert asked.noted["provider"] == ADDRESSES[provider].partition(":")[0].removesuffix("-responses")


def test_no_recording_is_left_out() -> None:
    there = {
        (name, number) for path in CASSETTES.glob("*/*.json") for name in [f"{path.parent.name}/{path.stem}"] for number in range(len(recorded(name)))
    }
    assert there == {(case[0], case[1]) for case in CASES}


def test_the_recordings_come_with_their_notices() -> None:
    sources = {line.split("|")[1].strip() for line in (CASSETTES / "INDEX.md").read_text(encoding="utf-8").splitlines() if line.count("|") == 4}
    texts = [path.name for path in (CASSETTES / "LICENSES").iterdir()]
    assert all(any(text.startswith(source.replace("/", "+")) for text in texts) for source in sources - {"repository", "---"})


@pytest.mark.parametrize(
    ("name", "seconds"), [("gemini/error_429_retryinfo", 48.0), ("other/azure_429_retry_after", 1.0)], ids=["RetryInfo", "Retry-After"]
)
async def test_a_real_429_says_when_to_come_back(replay: Replay, name: str, seconds: float) -> None:
    asked = await ask_at(name.partition("/")[0], replay.play(name), GetWeather)
    assert (asked.answer.retry_after, asked.answer.transient) == (seconds, True)


async def test_what_an_answer_cost_and_who_gave_it_is_noted(replay: Replay) -> None:
    asked = await ask_at("openai_chat", replay.play("openai_chat/tool_required"), GetWeather | Reply)
    usage = asked.noted.pop("usage")
    assert asked.noted.pop("latency_ms") >= 0
    assert usage == {"input_tokens": 130, "output_tokens": 87, "requests": 1, "reasoning_tokens": 64, "cost_usd": pytest.approx(0.0002065)}
    assert asked.noted == {
        "prompt_tokens": 130,
        "model": "gpt-5-mini-2025-08-07",
        "provider": "openai",
        "finish_reason": "tool_call",
        "response_id": "chatcmpl-D3TgtH4c8lJGywQHXUeoU4NOoaPUh",
    }


async def test_a_stream_without_usage_is_not_recorded_as_free(replay: Replay) -> None:
    asked = await ask_at("openai_chat", replay.play("openai_chat/tool_call_stream"), GetCurrentWeather, stream="location")
    assert asked.noted["usage"] == {"requests": 1}
    assert "prompt_tokens" not in asked.noted


async def test_listeners_hear_a_recorded_field_piece_by_piece(replay: Replay) -> None:
    asked = await ask_at("openai_chat", replay.play("openai_chat/tool_call_stream"), GetCurrentWeather, stream="location")
    assert asked.heard == ["San", " Francisco", ",", " CA"]
