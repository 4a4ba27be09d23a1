"""How long a provider wants to be left alone: every way that providers say it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ..events import Json

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
EPOCH = 1e9
"""A number of this size or more is no length but a moment, in seconds since 1970, or milliseconds."""
LONGEST = 7 * 86400.0
"""Seconds; what asks for more is no wait but a mistake."""


def seconds_to_wait(headers: Mapping[str, str], body: Json = None, now: datetime | None = None) -> float | None:
    """Seconds until the provider may be asked again, or None if it does not say.

    Args:
        headers: of the answer, names in lower case.
        body: of the answer, parsed.
        now: what dates are counted from; default the answer's own `Date`, else this machine's clock.

    Source: RFC 9110, 10.2.3 (Retry-After); the openai and anthropic SDKs (Retry-After-Ms); google.rpc.RetryInfo; the providers' rate limit headers.
    """
    said = [*_retry_after(headers, now), *_retry_info(body)] or [*_resets(headers, now), *_in_words(body)]
    waits = [seconds for seconds in said if 0 <= seconds <= LONGEST]
    return max(waits, default=None)


def lowered(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in (headers or {}).items()}


def _retry_after(headers: Mapping[str, str], now: datetime | None) -> Iterator[float]:
    """Azure sends `Retry-After: 1` with `Retry-After-Ms: 0`: the longer counts."""
    milliseconds, value = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    if is_number(milliseconds):
        yield float(milliseconds) / 1000
    if is_number(value):
        yield float(value)
    elif value and (at := _date(value)) is not None:
        yield max(0.0, (at - _now(headers, now)).total_seconds())


def _retry_info(body: Json) -> Iterator[float]:
    """`{"@type": ".../google.rpc.RetryInfo", "retryDelay": "48s"}`, wherever it stands."""
    if isinstance(body, list):
        for one in body:
            yield from _retry_info(one)
    elif isinstance(body, Mapping):
        delay = body.get("retryDelay")
        if isinstance(delay, str) and (seconds := length(delay)) is not None:
            yield seconds
        elif isinstance(delay, Mapping):
            with suppress(TypeError, ValueError):
                yield float(delay.get("seconds") or 0) + float(delay.get("nanos") or 0) / 1e9
        for name in ("error", "details"):
            yield from _retry_info(body.get(name))


def _resets(headers: Mapping[str, str], now: datetime | None) -> Iterator[float]:
    """When the limits that are used up are filled again: a length or a date, or a bare number: seconds, or a moment since 1970 (OpenRouter)."""
    for name, value in headers.items():
        if "ratelimit" not in name or "reset" not in name:
            continue
        remaining = headers.get(name.replace("reset", "remaining"), "")
        if not is_number(remaining) or float(remaining) > 0:
            continue
        if (seconds := length(value)) is not None:
            yield seconds
        elif is_number(value):
            yield _from_number(float(value), _now(headers, now))
        elif (at := _date(value)) is not None:
            yield max(0.0, (at - _now(headers, now)).total_seconds())


def _from_number(number: float, now: datetime) -> float:
    if number < EPOCH:
        return number
    return max(0.0, number / (1 if number < EPOCH * 1000 else 1000) - now.timestamp())


def _in_words(body: Json) -> Iterator[float]:
    """ "Please try again in 6.5s", "retry after 20 seconds": OpenAI's own advice, Google's and Azure's."""
    found = re.search(r"(?:try again|retry) (?:in|after) ((?:[\d.]+ ?(?:ms|s|m|h|d) ?)+)", str(body or ""), re.IGNORECASE)
    if found and (seconds := length(found[1].replace(" ", ""))) is not None:
        yield seconds


def length(text: str) -> float | None:
    """Seconds in "48s", "0.5s", "6m0s", "12ms", "1h2m3s"; None for anything else."""
    if not re.fullmatch(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+", text):
        return None
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text))


def is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text.strip()) is not None


def _now(headers: Mapping[str, str], now: datetime | None) -> datetime:
    return now or _date(headers.get("date", "")) or datetime.now(UTC)


def _date(text: str) -> datetime | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            at = parse(text)
        except (ValueError, OverflowError):
            continue
        return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return None
