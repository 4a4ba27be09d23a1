"""Asking the model: one answer, checked against what it may choose; failures become the thread's timer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from . import ids
from .calls import error_json
from .clock import micros
from .events import Draft, Json, sparse
from .intents import Intent, UnknownIntent, arguments_of, schema_digest
from .tools import noting
from .wake import Wake, is_async, result_of

log = logging.getLogger("ownloop")

TRIES = 8
"""How often in a row the model may fail for a moment before the thread fails."""


async def select(wake: Wake, thread: Any, decide: Any, known: Mapping[str, type[Intent]]) -> tuple[list[Intent], Mapping[str, Json]]:
    """What `decide` chooses now, and what it noted about that (`annotate`). A failure is an event; a transient one parks the thread, anything
    else is raised.

    Raises:
        TypeError: the answer is no intent, or none that is declared.
    """
    noted: dict[str, Json] = {}
    try:
        with noting(noted):
            answer = await wake.interruptible(result_of(partial(decide, thread), is_async(decide)))
    except Exception as error:
        await _failed(wake, error, noted)
        raise
    return _checked(answer, decide, known), noted


async def _failed(wake: Wake, error: Exception, noted: Mapping[str, Json]) -> None:
    limited = getattr(error, "limited", None)  # it was not asked at all: the program's own limit said when it may be
    attempt = sum("limited" not in failure.data for failure in wake.history.model_failures) + (limited is None)
    at = wake.now if not is_transient(error) or attempt >= TRIES else wake.store.clock.now() + _pause(error, attempt)
    again = {"retry_at": micros(at)} if at > wake.now else {}
    failure = {**noted, "error": wake.setting.redact(error_json(error)), "attempt": attempt, **again, **sparse(limited=limited)}
    await wake.begin(Draft("model_failed", failure), selecting=True)
    if again:
        log.warning("%s: the model failed (%s), asked again at %s", wake.thread_id, error, at.isoformat(timespec="seconds"))
        raise wake.suspend() from None


def is_transient(error: BaseException) -> bool:
    """A failure that passes: it says so itself, a 408, 425, 429 or 5xx, a connection or a timeout."""
    if (declared := getattr(error, "transient", None)) is not None:
        return bool(declared)
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status in (408, 425, 429) or status >= 500
    words = type(error).__name__  # the SDKs' own classes (APIConnectionError, ReadTimeout) derive from none of Python's
    return isinstance(error, ConnectionError | TimeoutError) or "Connect" in words or "Timeout" in words


def _pause(error: BaseException, attempt: int) -> timedelta:
    """What the failure asks for (`retry_after`, seconds or a timedelta), else 2, 4, 8 … seconds, at most 5 minutes."""
    asked = getattr(error, "retry_after", None)
    if isinstance(asked, timedelta):
        return max(asked, timedelta(milliseconds=1))
    if isinstance(asked, int | float) and asked > 0:
        return timedelta(seconds=asked)
    return min(timedelta(seconds=2**attempt), timedelta(minutes=5))


def _checked(answer: Any, decide: Any, known: Mapping[str, type[Intent]]) -> list[Intent]:
    chosen: Sequence[Any] = answer if isinstance(answer, list | tuple) else [answer]
    name = getattr(decide, "__name__", type(decide).__name__)
    if not chosen:
        raise TypeError(f"{name} returned an empty list; a model that wants nothing more selects an intent of its own, for instance Done")
    for intent in chosen:
        if not isinstance(intent, Intent) or isinstance(intent, UnknownIntent):
            raise TypeError(f"{name} returned {intent!r}; return an instance of one of its intents, or a list of them")
        if known.get(intent.intent_name) is not type(intent):
            offered = ", ".join(sorted(one.__name__ for one in known.values())) or "none"
            raise TypeError(
                f"{name} returned {type(intent).__name__}, which is not among its intents ({offered}); "
                f"declare it: `def {name}(thread) -> A | {type(intent).__name__}`, {name}.intents, or @app.agent(intents=[…])"
            )
    return list(chosen)


def draft(thread_id: str, number: int, first: int, intent: Intent, read: int, size: int, noted: Mapping[str, Json]) -> Draft:
    """One selection as it is recorded; `read` is how much of the log the model had before it, `noted` what the first of an answer tells of it."""
    call = {"intent": intent.intent_name, "arguments": arguments_of(intent), "schema": schema_digest(type(intent)), "read": read}
    told = noted if number == first else {}
    return Draft("selected", {**told, **call} | sparse(batch=first if size > 1 else None), ids.step_id(thread_id, number))
