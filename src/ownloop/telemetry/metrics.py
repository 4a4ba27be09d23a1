"""Metrics: the conventions' client metrics, and what operators of waiting threads look at. No label holds an id."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from time import perf_counter
from typing import Any, Self

from opentelemetry.metrics import Histogram, Meter
from opentelemetry.util.types import AttributeValue

from .. import calls
from ..events import Draft, Event
from ..watch import Heard, Watch
from . import names
from .later import Later

DISTINCT = 100
"""How many values a label takes that the program names; further ones are "other"."""
Labels = dict[str, AttributeValue]


class Metering(Watch):
    """Counts and measures."""

    def __init__(self, meter: Meter) -> None:
        self._tools, self._limits, self._models = _Bounded(), _Bounded(), _Bounded()
        self._failed: dict[Any, str] = {}
        self._later = Later()
        token = "{token}"
        self._usage = _histogram(meter, names.TOKEN_USAGE, token, names.TOKEN_BUCKETS, "Number of input and output tokens used.")
        self._chat = _histogram(meter, names.CLIENT_DURATION, "s", names.DURATION_BUCKETS, "GenAI operation duration.")
        self._agent = _histogram(meter, names.AGENT_DURATION, "s", names.AGENT_BUCKETS, "How long a wake of an agent took.")
        self._tool = _histogram(meter, names.TOOL_DURATION, "s", names.DURATION_BUCKETS, "How long a try of a call took.")
        self._wait = _histogram(meter, names.WAIT, "s", names.WAIT_BUCKETS, "From an interrupt's opening to its decision.")
        self._wake_lag = _histogram(meter, names.WAKE_LAG, "s", names.LAG_BUCKETS, "From an event to the wake that reads it.")
        self._timer_lag = _histogram(meter, names.TIMERS_LAG, "s", names.LAG_BUCKETS, "How late a wake began that a clock asked for.")
        self._limited = _histogram(meter, names.LIMITER_WAIT, "s", names.LAG_BUCKETS, "How long a rate limit made callers wait.")
        self._opened = meter.create_counter(names.OPENED, "{interrupt}", "Interrupts opened.")
        self._decisions = meter.create_counter(names.DECISIONS, "{decision}", "Interrupts closed, and votes.")
        self._refused = meter.create_counter(names.REFUSED, "{decision}", "Answers that were refused: second, late, stale, not allowed.")
        self._in_doubt = meter.create_counter(names.IN_DOUBT, "{call}", "Calls whose outcome is unknown.")
        self._tokens = meter.create_counter(names.LLM_TOKENS, "{token}", "Tokens, as the logs of threads record them.")
        self._cost = meter.create_counter(names.LLM_COST, "", "US dollars, as the logs of threads record them.")
        self._pending = meter.create_gauge(names.PENDING, "{interrupt}", "What waits for a person, by age.")
        self._oldest = meter.create_gauge(names.OLDEST, "s", "Age of what has waited for a person longest.")
        self._shown: dict[tuple[str, ...], Labels] = {}

    def flush(self) -> None:
        """Hand over what was measured and is still kept back."""
        self._later.flush()

    # ---- wakes -----------------------------------------------------------------------------------------------------------------

    def wake(self, wake: Any, claim: Any, agent: str) -> AbstractContextManager[Heard]:
        self._measure_lag(wake, claim, agent)
        return _Waking(self._later, self._agent, {names.AGENT_NAME: agent}, partial(self._failed.pop, wake, None))

    def _measure_lag(self, wake: Any, claim: Any, agent: str) -> None:
        row, now = claim.row, claim.now
        if row.due is not None and row.due <= now:
            self._later.record(self._timer_lag, (now - row.due).total_seconds(), {names.AGENT: agent})
        if row.woken > row.seen:
            cause = next((event for event in reversed(wake.history.events) if event.seq <= row.woken), None)
            if cause is not None and cause.seq == row.woken:
                self._later.record(self._wake_lag, max(0.0, (now - cause.at).total_seconds()), {names.AGENT: agent})

    def beginning(self, wake: Any, drafts: Sequence[Draft]) -> Sequence[Draft]:
        for draft in drafts:
            if draft.kind == "failed":
                self._failed[wake] = str(draft.data["error"]["type"])
        return drafts

    def wrote(self, wake: Any, events: Sequence[Event]) -> None:
        agent = wake.row.agent
        for event in events:
            data = event.data
            if "usage" in data:
                self._spend(data)
            if event.kind == "request":
                self._later.add(self._opened, 1, {names.AGENT: agent, names.KIND: data["kind"]})
            elif event.kind == "decision":
                request = wake.history.requests.get(data["request"])
                waited = None if request is None else (event.at - request.event.at).total_seconds()
                self._close(agent, "unknown" if request is None else request.kind, data["kind"], waited)
            doubtful = data["call"] if event.kind == "request" and data["kind"] == "in_doubt" else event.op if data.get("unknown") else None
            if doubtful is not None:
                self._later.add(self._in_doubt, 1, {names.AGENT: agent, names.TOOL: self._tools(names.tool_of(doubtful))})

    def _spend(self, data: Mapping[str, Any]) -> None:
        usage, model = data["usage"], self._models(str(data.get("model") or "unknown"))
        for kind in ("input", "output"):
            if amount := usage.get(f"{kind}_tokens"):
                self._later.add(self._tokens, amount, {names.MODEL: model, names.TYPE: kind})
        if cost := usage.get("cost_usd"):
            self._later.add(self._cost, cost, {names.MODEL: model})

    # ---- decisions -------------------------------------------------------------------------------------------------------------

    def decided(self, interrupt: Any, verb: str, answer: Event | Exception) -> None:
        if isinstance(answer, Exception):
            why = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(answer).__name__).lower()
            self._later.add(self._refused, 1, {names.AGENT: interrupt.agent, names.KIND: interrupt.kind, names.REASON: why})
        elif answer.kind == "vote":
            self._close(interrupt.agent, interrupt.kind, "vote", None)
        else:
            self._close(interrupt.agent, interrupt.kind, answer.data["kind"], (answer.at - interrupt.created_at).total_seconds())

    def _close(self, agent: str, kind: str, decision: str, waited: float | None) -> None:
        labels: Labels = {names.AGENT: agent, names.KIND: kind, names.DECISION: decision}
        self._later.add(self._decisions, 1, labels)
        if waited is not None:
            self._later.record(self._wait, waited, labels)

    def limited(self, limit: str, seconds: float) -> None:
        self._later.record(self._limited, seconds, {names.LIMIT: self._limits(names.limit_of(limit))})

    def pending(self, waiting: Mapping[tuple[str, str, str, str], int], oldest: Mapping[tuple[str, str], float]) -> None:
        """Show what waits: counts by agent, kind, tool and age; seconds by agent and kind. What is not there any more is shown as 0."""
        now: dict[tuple[str, ...], float] = {(agent, kind): age for (agent, kind), age in oldest.items()}
        for (agent, kind, tool, age), count in waiting.items():
            place = (agent, kind, self._tools(tool), age)
            now[place] = now.get(place, 0) + count
        for key in {**self._shown, **now}:
            labels = self._shown.setdefault(key, dict(zip((names.AGENT, names.KIND, names.TOOL, names.AGE), key, strict=False)))
            (self._pending if len(key) == 4 else self._oldest).set(now.get(key, 0), labels)

    # ---- calls and requests ----------------------------------------------------------------------------------------------------

    def calling(self, run: Any) -> AbstractContextManager[Heard]:
        agent = run.branch.wake.row.agent
        return _Timed(self._later, self._tool, {names.TOOL_NAME: self._tools(run.promise.name), names.TOOL_TYPE: "function", names.AGENT_NAME: agent})

    def asking(self, model: Any, thread: Any, messages: Sequence[Any] = ()) -> AbstractContextManager[Heard]:
        name = self._models(names.model_of(model))
        about: Labels = {names.OPERATION: names.CHAT, names.PROVIDER: names.provider_of(model), names.REQUEST_MODEL: name}
        return _Request(self._later, self._chat, about, self._usage)


class _Timed(Heard):
    """Measures how long a block takes, and whether it fails."""

    def __init__(self, later: Later, duration: Histogram, about: Labels) -> None:
        self._later, self._duration, self.about = later, duration, about

    def __enter__(self) -> Self:
        self._began = perf_counter()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, calls._NotStarted):
            self.about[names.ERROR_TYPE] = names.error_type(error)
        self._later.record(self._duration, perf_counter() - self._began, self.about)


class _Waking(_Timed):
    """And whether the thread failed in it, which no exception tells."""

    def __init__(self, later: Later, duration: Histogram, about: Labels, failed: Callable[[], str | None]) -> None:
        super().__init__(later, duration, about)
        self._failed = failed

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if (why := self._failed()) is not None:
            self.about[names.ERROR_TYPE] = why
        super().__exit__(kind, error, trace)


class _Request(_Timed):
    """And the tokens of the response."""

    def __init__(self, later: Later, duration: Histogram, about: Labels, usage: Histogram) -> None:
        super().__init__(later, duration, about)
        self._usage = usage

    def answered(self, answer: Any) -> Any:
        used = getattr(answer, "usage", None)
        if model := getattr(answer, "model_name", None):
            self.about[names.RESPONSE_MODEL] = model
        if used is not None and not getattr(used, "unmeasured_requests", 0):
            self._later.record(self._usage, used.input_tokens, {**self.about, names.TOKEN_TYPE: "input"})
            self._later.record(self._usage, used.output_tokens, {**self.about, names.TOKEN_TYPE: "output"})
        return answer


class _Bounded:
    """Keeps a label to so many values, whatever the program puts there."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._known or len(self._known) < DISTINCT:
            self._known.add(value)
            return value
        return "other"


def _histogram(meter: Meter, name: str, unit: str, buckets: Sequence[float], what: str) -> Histogram:
    return meter.create_histogram(name, unit, what, explicit_bucket_boundaries_advisory=buckets)
