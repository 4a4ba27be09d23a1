"""One line about an event, for lists: its kind in a word, and what it says."""

from __future__ import annotations

import json

from markupsafe import Markup

from ...events import Event, Json
from . import inert

LIMIT = 160
WORDS = {
    "model_failed": "model failed",
    "turn_ended": "turn ended",
    "not_started": "not started",
    "appended": "note",
    "compacted": "summary",
    "request": "asked",
}


def word(event: Event) -> str:
    """What happened, in a word."""
    if event.kind == "control":
        return str(event.data["verb"]).replace("_", " ")
    if event.kind == "request":
        return {"event": "waits", "timer": "sleeps", "child": "spawned"}.get(event.data["kind"], f"asks {event.data['kind'].replace('_', ' ')}")
    if event.kind in ("decision", "vote"):
        return str(event.data["kind"]) + (" (vote)" if event.kind == "vote" else "")
    return WORDS.get(event.kind, event.kind)


def tone(event: Event) -> str:
    """ "bad", "ask", "good" or ""."""
    data = event.data
    if event.kind in ("failed", "model_failed") or "error" in data or (event.kind == "decision" and data["kind"] in ("rejected", "expired")):
        return "bad"
    if event.kind == "request":
        return "ask"
    return "good" if event.kind in ("decision", "outcome", "turn_ended", "delivered") else ""


def gist(event: Event) -> Markup:
    """What it says, cut to a line."""
    data = event.data
    name = (event.op or "").removeprefix("run:")
    if "error" in data and isinstance(data["error"], dict):
        return _line(f"{name + ': ' if name else ''}{data['error'].get('type')}: {data['error'].get('message')}")
    match event.kind:
        case "input":
            return _line(data.get("input"))
        case "message":
            return _line(data.get("text"))
        case "selected":
            return _call(data["intent"], data["arguments"])
        case "started" | "not_started" | "tried":
            return _line(name)
        case "outcome" | "late" if "request" not in data:
            return _line(f"{name} → {_said(data.get('value'))}")
        case "outcome" if data.get("value") is None:
            return _line("the wait is over")
        case "request":
            about = data.get("question") or data.get("event") or data.get("agent")
            return _line(about) if about else _call(str(data.get("name", "")), data.get("arguments", {}))
        case "appended":
            return _line(f"{data['name']}: {_said(data['data'])}")
        case "decision" | "vote" if data.get("note"):
            return _line(f"“{data['note']}”")
    rest = data.get("payload", data.get("value", data.get("reason", data.get("summary"))))
    return _line(rest) if rest is not None else Markup("")


def _call(name: str, arguments: Json) -> Markup:
    return Markup('<span class="tool">{}</span> {}').format(inert.line(name, LIMIT), _line(arguments))


def _said(value: Json) -> str:
    if isinstance(value, dict):
        return " · ".join(f"{name}: {_said(item)[:LIMIT]}" for name, item in list(value.items())[:12])
    return value[: 2 * LIMIT] if isinstance(value, str) else json.dumps(value, ensure_ascii=False)[: 2 * LIMIT]


def _line(value: Json) -> Markup:
    text = value if isinstance(value, str) else _said(value)
    return inert.line(text, LIMIT)
