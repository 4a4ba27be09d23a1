"""What things cost: of one line of the story, and of a whole thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..events import Json
from ..history import History, Request, Usage
from ..interrupts import DECIDABLE
from ..views import ThreadView
from .brief import span

EXPECTED = ("stop", "tool_call", "tool_calls", "end_turn")
"""Finish reasons that say nothing."""


@dataclass(frozen=True)
class Totals:
    """A thread in numbers. Waits that overlap count once; `waited_for_people` and `waited` are in seconds, what is open counts until now."""

    steps: int
    calls: int
    cached: int
    failed: int
    waited_for_people: float
    waited: float
    took: float
    model_answers: int
    input_tokens: int
    output_tokens: int
    cost_usd: float


def totals(view: ThreadView, now: datetime) -> Totals:
    """All that a thread did, waited and cost."""
    history = History(view.id, view.events)
    outcomes = [op.outcome.data for step in history.steps.values() for op in step.runs() if op.outcome is not None]
    people, others = (
        _together(_interval(one, view, now) for one in history.requests.values() if (one.kind in DECIDABLE) is for_people)
        for for_people in (True, False)
    )
    end = now if view.status in ("open", "paused") else view.updated_at
    calls, cached, failed = len(outcomes), sum(bool(one.get("cached")) for one in outcomes), sum("error" in one for one in outcomes)
    used = view.usage
    spent = (used.requests, used.input_tokens, used.output_tokens, used.cost_usd)
    return Totals(len(view.steps), calls, cached, failed, people, others, (end - view.created_at).total_seconds(), *spent)


def _interval(request: Request, view: ThreadView, now: datetime) -> tuple[datetime, datetime]:
    begin = request.event.at
    if request.closing is not None:
        return begin, request.closing.at
    return begin, max(begin, now if request.is_open else view.updated_at)


def _together(intervals: Iterable[tuple[datetime, datetime]]) -> float:
    """Seconds that at least one of them covers."""
    covered, reached = timedelta(), None
    for begin, end in sorted(intervals):
        start = begin if reached is None else max(begin, reached)
        if end > start:
            covered += end - start
        reached = end if reached is None else max(reached, end)
    return covered.total_seconds()


def in_words(sums: Totals) -> str:
    """`3 steps · 2 calls, 1 from the cache · 4 model answers, 1,200 tokens in, 80 out, $0.0042 · waited 5 min for people · 6 min in all`."""
    calls = _listed(
        _count(sums.calls, "call"), f"{sums.cached} from the cache" if sums.cached else "", f"{sums.failed} failed" if sums.failed else ""
    )
    spent = tokens(Usage(sums.input_tokens, sums.output_tokens, sums.cost_usd, sums.model_answers))
    model = _listed(_count(sums.model_answers, "model answer"), spent)
    waits = [(sums.waited_for_people, "for people"), (sums.waited, "for clocks, events and children")]
    waited = _listed(*(f"{_span(seconds)} {what}" for seconds, what in waits if seconds))
    parts = (_count(sums.steps, "step"), calls if sums.calls else "", model if sums.model_answers else "", waited and f"waited {waited}")
    return " · ".join(part for part in (*parts, f"{_span(sums.took)} in all") if part)


def spent(data: Mapping[str, Json]) -> str:
    """What one event cost, from its notes: `gpt-5-mini, 1,200 tokens in, 80 out, $0.0042, 0.8 s, 2 tries`."""
    tries = data.get("tries")
    times = len(tries) + 1 if isinstance(tries, list) else tries if isinstance(tries, int) else 1  # a list tells what was wrong with those before
    latency, reason = data.get("latency_ms"), data.get("finish_reason")
    return _listed(
        str(data.get("model") or ""),
        tokens(Usage().plus(data["usage"])) if isinstance(data.get("usage"), dict) else "",
        _span(latency / 1000) if isinstance(latency, int | float) else "",
        f"{times} tries" if times > 1 else "",
        f"ended by {reason}" if reason and reason not in EXPECTED else "",
    )


def tokens(usage: Usage) -> str:
    """`1,200 tokens in, 80 out, $0.0042`."""
    counts = f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out" if usage.input_tokens or usage.output_tokens else ""
    return _listed(counts, dollars(usage.cost_usd))


def dollars(amount: float) -> str:
    """Two digits that count, at least cents; nothing for nothing."""
    if not amount:
        return ""
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}" if amount >= 0.0001 else "< $0.0001"


def _span(seconds: float) -> str:
    return span(timedelta(seconds=seconds))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _listed(*parts: str) -> str:
    return ", ".join(part for part in parts if part)
