"""Structured logs through the standard library: lines for people or JSON, each with thread, step and agent, secrets hidden.

The program's own lines get the fields too, wherever they are written inside a handler or a function that it runs. Levels: DEBUG for wakes and starts,
INFO for what happened, WARNING for what somebody may want to look at (failed calls, doubts, refusals, expiries), ERROR for what needs somebody.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from .. import ids
from ..events import Draft, Event, Json, clip, sparse
from ..interrupts import DECIDABLE
from ..tools import running
from ..watch import Heard, Watch
from .redaction import redacted, redacted_json
from .together import drop, put, this_wake

FORMATS = ("console", "json")
LEVELS = ("debug", "info", "warning", "error", "critical")
FIELDS = ("thread_id", "step_id", "agent", "trace_id", "span_id")
_STANDARD = frozenset({*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", *FIELDS})
_STEP = re.compile(r"stp_[0-9A-Z]{13}(_[0-9]+|@\S{1,200})")
log = logging.getLogger("ownloop")


def configure(format: Literal["console", "json"] | None = None, level: str | None = None, stream: TextIO | None = None) -> None:
    """Write the process's log to `stream` (default stderr), and tell there what threads do. Calling it again replaces what it did.

    Args:
        format: default OWNLOOP_LOG_FORMAT, else "console".
        level: of everything; default OWNLOOP_LOG_LEVEL, else "info".

    Raises:
        ValueError: a format or level that there is not.
    """
    form = _one_of(FORMATS, format, "OWNLOOP_LOG_FORMAT", "console")
    name = _one_of(LEVELS, level, "OWNLOOP_LOG_LEVEL", "info")
    unconfigure()
    handler = _Handler(stream or sys.stderr, logging.root.level)
    handler.setFormatter(JsonFormatter() if form == "json" else ConsoleFormatter())
    logging.root.addHandler(handler)
    logging.root.setLevel(name.upper())
    put(Telling())


def unconfigure() -> None:
    """Undo `configure`."""
    for handler in [one for one in logging.root.handlers if isinstance(one, _Handler)]:
        logging.root.removeHandler(handler)
        logging.root.setLevel(handler.before)
    drop(Telling)


def from_environment() -> bool:
    """`configure`, if OWNLOOP_LOG_FORMAT or OWNLOOP_LOG_LEVEL is set; whether one was. Raises ValueError as `configure` does."""
    is_wanted = bool(os.environ.get("OWNLOOP_LOG_FORMAT") or os.environ.get("OWNLOOP_LOG_LEVEL"))
    if is_wanted:
        configure()
    return is_wanted


def _one_of(offered: Sequence[str], said: str | None, variable: str, default: str) -> str:
    chosen = (said or os.environ.get(variable) or default).lower()
    if chosen not in offered:
        raise ValueError(f"{said or f'{variable}={chosen}'} is none of {', '.join(offered)}")
    return chosen


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that it can be found again; `before` is the level that the root had."""

    def __init__(self, stream: TextIO, before: int) -> None:
        super().__init__(stream)
        self.before = before


# ---- what a line is about ------------------------------------------------------------------------------------------------------


class Fields(logging.Filter):
    """Puts `thread_id`, `step_id`, `agent`, `trace_id` and `span_id` (or None) on every record, for handlers and formats of your own."""

    def filter(self, record: logging.LogRecord) -> bool:
        found = about(record)
        for name in FIELDS:
            setattr(record, name, found.get(name))
        return True


def about(record: logging.LogRecord) -> dict[str, str]:
    """Thread, step and agent: of the call or the handler that writes, else the ids that the line itself names."""
    call, wake = running.get(None), this_wake.get()
    named = [one for one in record.args if isinstance(one, str)] if isinstance(record.args, tuple) else []
    thread = call.thread_id if call is not None else wake.thread_id if wake is not None else next(filter(ids.is_thread, named), None)
    step = call.step_id if call is not None else next(filter(_STEP.fullmatch, named), None) or _open_step(wake)
    agent = None if wake is None else wake.row.agent or None
    return {**sparse(thread_id=thread, step_id=step, agent=agent), **_trace()}


def _open_step(wake: Any) -> str | None:
    """The step that is open, if it is the only one."""
    with suppress(RuntimeError):  # the log grows in another OS thread
        steps = [] if wake is None else wake.history.open_steps()
        return str(steps[0].id) if len(steps) == 1 else None
    return None


def _trace() -> dict[str, str]:
    """The current span, if OpenTelemetry is there at all."""
    api = sys.modules.get("opentelemetry.trace")
    context = None if api is None else api.get_current_span().get_span_context()
    return {} if context is None or not context.is_valid else {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def _said(record: logging.LogRecord) -> dict[str, str]:
    have = {name: getattr(record, name) for name in FIELDS if getattr(record, name, None)}
    return {name: redacted(value) for name, value in (have or about(record)).items()}


def _hidden(value: Json) -> Json:
    """A value after the App's `redact`, where a wake of it writes, and without secrets."""
    wake = this_wake.get()
    if wake is not None:
        try:
            value = wake.setting.redact(value)
        except Exception as error:
            value = f"(withheld: redact failed with {type(error).__name__})"
    return redacted_json(value)


def _extras(record: logging.LogRecord) -> dict[str, Json]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD and not name.startswith("_")}


# ---- how a line looks ----------------------------------------------------------------------------------------------------------


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, thread, step, agent, trace_id, span_id, error, and the record's extras."""

    def format(self, record: logging.LogRecord) -> str:
        names = {"thread_id": "thread", "step_id": "step"}
        failure = None
        if record.exc_info and (error := record.exc_info[1]) is not None:
            failure = {"type": type(error).__name__, "message": str(error), "trace": self.formatException(record.exc_info)}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _hidden(record.getMessage()),
            **{names.get(name, name): value for name, value in _said(record).items()},
            **sparse(error=_hidden(failure)),
        }
        return json.dumps({**_hidden(_extras(record)), **line}, default=str)


class ConsoleFormatter(logging.Formatter):
    """`12:00:01 INFO    ownloop  message  thread=thr_… step=stp_… agent=…`, and a traceback under it. Nothing in it acts on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        fields = {name.removesuffix("_id"): value for name, value in _said(record).items() if name != "span_id"}
        told = "".join(f" {name}={value}" for name, value in {**fields, **_hidden(_extras(record))}.items())
        line = f"{at:%H:%M:%S} {record.levelname:<8}{record.name}  {_hidden(record.getMessage())}{' ' if told else ''}{told}"
        if record.exc_info:
            line += "\n" + str(_hidden(self.formatException(record.exc_info)))
        return "".join(char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in redacted(line))


# ---- what threads do -----------------------------------------------------------------------------------------------------------


class Telling(Watch):
    """Writes what threads do, by names and ids, without arguments, results and messages."""

    @contextmanager
    def wake(self, wake: Any, claim: Any, agent: str) -> Iterator[Heard]:
        log.debug("%s: a wake begins", wake.thread_id)
        yield Heard()
        log.debug("%s: the wake has ended", wake.thread_id)

    def beginning(self, wake: Any, drafts: Sequence[Draft]) -> Sequence[Draft]:
        for draft in drafts:
            if draft.kind == "turn_ended":
                log.info("%s: turn %d ends", wake.thread_id, wake.history.turn)
                _tell_withdrawn(wake, {one.step_id for one in drafts})
            elif draft.kind == "started":
                log.debug("%s starts in %s", draft.op, draft.step_id)
                if "<lambda>" in (draft.op or ""):
                    log.warning(
                        "%s in %s: calls are known by their function's name, and all lambdas share one; use def, or tool(fn, name=…)",
                        draft.op,
                        draft.step_id,
                    )
        return drafts

    def wrote(self, wake: Any, events: Sequence[Event]) -> None:
        for event in events:
            _tell(wake, event)

    def decided(self, interrupt: Any, verb: str, answer: Event | Exception) -> None:
        if isinstance(answer, Exception):
            log.warning("%s of %s: %s was refused: %s", interrupt.id, interrupt.thread_id, verb, clip(str(answer), 300))
        else:
            word = "has a vote" if answer.kind == "vote" else f"was {answer.data['kind']}"
            waited = (answer.at - interrupt.created_at).total_seconds()
            log.info("%s of %s %s by %s after %.1f s", interrupt.id, interrupt.thread_id, word, answer.by, waited)

    def limited(self, limit: str, seconds: float) -> None:
        log.log(logging.INFO if seconds >= 1 else logging.DEBUG, "waited %.2f s for the rate limit %s", seconds, limit)


def _tell_withdrawn(wake: Any, ended: set[str | None]) -> None:
    """A handler that returns a value ends its turn, whatever still waits in it."""
    waiting = [one for one in wake.history.requests.values() if one.is_open and one.kind in DECIDABLE and one.event.step_id in ended]
    for one in waiting:
        withdrawn = f"{ids.interrupt_id(wake.thread_id, one.event.seq)} ({one.kind} of {one.event.data.get('name')})"
        log.warning("%s: the turn ends while %s waits, so it is withdrawn; return None to go on waiting", wake.thread_id, withdrawn)


def _tell(wake: Any, event: Event) -> None:
    data, level = event.data, logging.INFO
    match event.kind:
        case "selected":
            log.info("%s selected: %s", event.step_id, data["intent"], extra=sparse(model=data.get("model"), usage=data.get("usage")))
        case "request":
            level = logging.WARNING if data["kind"] == "in_doubt" else logging.INFO
            log.log(level, "%s waits: %s of %s", event.step_id, data["kind"].replace("_", " "), data.get("name") or data.get("event") or event.op)
        case "decision":
            level = logging.WARNING if data["kind"] == "expired" else logging.INFO
            log.log(level, "%s: %s is %s", event.step_id, ids.interrupt_id(wake.thread_id, data["request"]), data["kind"])
        case "tried":
            log.warning("%s in %s: try %s failed: %s", event.op, event.step_id, data["try"], _failure(data["error"]))
        case "outcome" | "late" if "error" in data and event.op:
            log.warning("%s in %s failed: %s", event.op, event.step_id, _failure(data["error"]))
        case "outcome" | "late" if "request" not in data:
            cached = " (from the cache)" if data.get("cached") else ""
            log.info("%s in %s is done%s%s", event.op, event.step_id, cached, ", too late" if event.kind == "late" else "")
        case "compacted":
            log.info("%s: the log up to %d is covered by a summary", wake.thread_id, data["upto"])


def _failure(error: Json) -> str:
    return f"{error['type']}: {clip(error['message'], 200)}"
