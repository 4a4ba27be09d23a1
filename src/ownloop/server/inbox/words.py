"""Times, durations and kinds as people say them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from markupsafe import Markup

from ...history import Usage
from ...interrupts import Interrupt

KINDS: Mapping[str, str] = {
    "approval": "Approval",
    "result": "Result",
    "hold": "Breakpoint",
    "question": "Question",
    "in_doubt": "In doubt",
    "budget": "Budget",
    "event": "Waits for an event",
    "timer": "Sleeps",
    "child": "Waits for a child",
}
ASKS: Mapping[str, str] = {
    "approval": "May this run?",
    "result": "May the model see this result?",
    "hold": "Held by a breakpoint: may this run?",
    "question": "A question",
    "in_doubt": "Did this happen?",
    "budget": "The budget is used up",
    "event": "Waits for an event",
    "timer": "Waits for a time",
    "child": "Waits for a child thread",
}
PAST: Mapping[str, str] = {
    "approved": "Approved",
    "edited": "Edited and approved",
    "rejected": "Rejected",
    "responded": "Answered in its place",
    "answered": "Answered",
    "expired": "Expired",
}
SOON = timedelta(hours=1)


def span(length: timedelta) -> str:
    """A duration: `0.2 s`, `2 min 3 s`, `3 h 5 min`, `2 d 4 h`."""
    seconds = max(0.0, length.total_seconds())
    if seconds < 10:
        return f"{seconds * 1000:.0f} ms" if seconds < 0.1 else f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, size, lower, divisor in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // divisor
            return f"{whole // size} {unit}" + (f" {rest} {lower}" if rest else "")
    return f"{whole} s"


def rough(length: timedelta) -> str:
    """A duration with one unit."""
    seconds = int(max(0.0, length.total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def when(at: datetime, now: datetime | None = None) -> Markup:
    """The absolute time as an element; short where it is today."""
    utc = at.astimezone(UTC)
    is_today = now is not None and utc.date() == now.astimezone(UTC).date()
    shown = f"{utc:%H:%M:%S}" if is_today else stamp(at)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(utc.isoformat(timespec="seconds"), stamp(at), shown)


def ago(at: datetime, now: datetime) -> Markup:
    """How long ago, or how long until; the page's script keeps it true."""
    utc = at.astimezone(UTC)
    text = "just now" if abs(now - at) < timedelta(seconds=2) else f"{rough(now - at)} ago" if at <= now else f"in {rough(at - now)}"
    frame = Markup('<time class="rel" datetime="{}" title="{}" data-rel>{}</time>')
    return frame.format(utc.isoformat(timespec="seconds"), stamp(at), text)


def urgency(one: Interrupt, now: datetime) -> str:
    """ "late", "soon", "later" or "" for none: by the deadline."""
    if one.expires_at is None or one.status != "open":
        return ""
    left = one.expires_at - now
    return "late" if left <= timedelta() else "soon" if left < SOON else "later"


def usage(used: Usage) -> list[str]:
    """Tokens and cost in words, nothing where there was none."""
    words = []
    if used.requests:
        words.append(f"{used.requests} model answer{'s' if used.requests != 1 else ''}")
    if used.input_tokens or used.output_tokens:
        words.append(f"{used.input_tokens:,} tokens in, {used.output_tokens:,} out")
    if used.cost_usd:
        words.append(money(used.cost_usd))
    return words


def money(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"
