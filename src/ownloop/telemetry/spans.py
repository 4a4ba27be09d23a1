"""Traces: a span a wake, a request to a model, a try of a call. None of them is open while a thread waits.

A wake that goes on after a wait begins a trace of its own, linked to the wake before: the first thing that a wake records carries its `traceparent`,
so the link holds in any process. All spans of a thread share `gen_ai.conversation.id`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Self

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from .. import calls, ids
from ..events import Draft, Event, sparse
from ..watch import Heard, Watch
from . import content, names
from .together import this_wake

STAMPED = frozenset({"selected", "started", "request", "model_failed", "compacted"})
"""Kinds of events that may carry the trace of their wake."""
_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
Attributes = dict[str, AttributeValue]


class Tracing(Watch):
    """Makes the spans. `captures`: whether arguments, results and messages are written into them."""

    def __init__(self, tracer: Tracer, *, captures: bool) -> None:
        self._tracer, self._captures = tracer, captures
        self._open: dict[Any, _Waking] = {}

    # ---- a wake ------------------------------------------------------------------------------------------------------------

    def wake(self, wake: Any, claim: Any, agent: str) -> AbstractContextManager[Heard]:
        row, before = claim.row, _last_trace(wake.history.events)
        about: Attributes = {names.CONVERSATION: row.id, names.AGENT_NAME: agent, names.AGENT_ID: agent, names.OPERATION: names.INVOKE_AGENT}
        about[names.TURN] = wake.history.turn
        if row.parent is not None:
            about[names.PARENT] = row.parent[0]
        links = [] if before is None else [Link(before[1], {names.CONVERSATION: row.id})]
        span = self._tracer.start_span(f"{names.INVOKE_AGENT} {agent}", context=Context(), kind=SpanKind.INTERNAL, attributes=about, links=links)
        told = self._open[wake] = _Waking(span, self._captures, wake, self._open.pop)
        self._came_in(wake, span, after=row.seen or (before[0] if before is not None else 0))
        return told

    def beginning(self, wake: Any, drafts: Sequence[Draft]) -> Sequence[Draft]:
        told = self._open.get(wake)
        if told is None:
            return drafts
        for draft in drafts:
            if draft.kind == "turn_ended":
                told.end = "turn"
            elif draft.kind == "failed":
                told.end = "failed"
                told.fail(draft.data["error"]["type"], draft.data["error"]["message"])
        return self._stamped(told, drafts)

    def _stamped(self, told: _Waking, drafts: Sequence[Draft]) -> Sequence[Draft]:
        """The drafts, the first that may with the wake's trace; a summary always, for it may cover the one that had it."""
        place = next((place for place, draft in enumerate(drafts) if draft.kind in STAMPED), None)
        context = told.span.get_span_context()
        if place is None or not context.is_valid or (told.is_stamped and drafts[place].kind != "compacted"):
            return drafts
        told.is_stamped = True
        trace = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        stamped = replace(drafts[place], data={**drafts[place].data, "trace": trace})
        return [*drafts[:place], stamped, *drafts[place + 1 :]]

    # ---- what happened in it -------------------------------------------------------------------------------------------------

    def wrote(self, wake: Any, events: Sequence[Event]) -> None:
        told = self._open.get(wake)
        if told is None:
            return  # a call that was let go ended after its wake
        for event in events:
            self._tell(told.span, wake, event)

    def _came_in(self, wake: Any, span: Span, after: int) -> None:
        """What others wrote since the wake before."""
        news = []
        for event in reversed(wake.history.events):
            if event.seq <= after:
                break
            if event.kind in ("decision", "vote", "delivered", "message") or (event.kind == "outcome" and "request" in event.data):
                news.append(event)
        for event in reversed(news):
            self._tell(span, wake, event)

    def _tell(self, span: Span, wake: Any, event: Event) -> None:
        if event.kind == "request":
            span.add_event(names.OPENED_EVENT, self._interrupt(wake.thread_id, event))
        elif "request" in event.data:
            self._tell_closed(span, wake, event)
        elif event.kind == "message":
            span.add_event(names.MESSAGE_EVENT)
        elif event.kind == "compacted":
            span.add_event(names.COMPACTED_EVENT)

    def _tell_closed(self, span: Span, wake: Any, event: Event) -> None:
        request = wake.history.requests.get(event.data["request"])
        about = {} if request is None else self._interrupt(wake.thread_id, request.event)
        if request is not None:
            about[names.INTERRUPT_WAIT] = (event.at - request.event.at).total_seconds()
        if event.kind in ("decision", "vote"):
            about[names.INTERRUPT_DECISION] = event.data["kind"]
        if self._captures and event.by:
            about[names.INTERRUPT_BY] = event.by
        name = names.DECISION_EVENT if event.kind in ("decision", "vote") else names.CLOSED_EVENT
        span.add_event(name, about)

    @staticmethod
    def _interrupt(thread_id: str, request: Event) -> Attributes:
        about = {names.INTERRUPT_ID: ids.interrupt_id(thread_id, request.seq), names.INTERRUPT_REASON: request.data["kind"]}
        return about | sparse(**{names.INTERRUPT_NAME: request.data.get("name") or request.data.get("event"), names.STEP_ID: request.step_id})

    # ---- calls and requests --------------------------------------------------------------------------------------------------

    def calling(self, run: Any) -> AbstractContextManager[Heard]:
        wake, promise, op = run.branch.wake, run.promise, run.branch.log.ops.get(run.key)
        about: Attributes = {
            names.CONVERSATION: wake.thread_id,
            names.AGENT_NAME: wake.row.agent,
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL_NAME: promise.name,
            names.TOOL_TYPE: "function",
            names.TOOL_CALL_ID: run.idempotency_key,
            names.STEP_ID: run.step_id,
            names.STEP_NAME: run.branch.log.name,
        }
        if op is not None and op.tries:
            about[names.TRY] = len(op.tries) + 1
        if self._captures:
            about[names.TOOL_ARGUMENTS] = content.arguments(run, wake.setting.redact)
        span = self._tracer.start_span(f"{names.EXECUTE_TOOL} {promise.name}", kind=SpanKind.INTERNAL, attributes=about)
        return _Calling(span, self._captures, run)

    def asking(self, model: Any, thread: Any, messages: Sequence[Any] = ()) -> AbstractContextManager[Heard]:
        name = names.model_of(model)
        about: Attributes = {names.OPERATION: names.CHAT, names.PROVIDER: names.provider_of(model), names.REQUEST_MODEL: name}
        if (wake := this_wake.get()) is not None:  # a judge has no thread, and belongs to one
            about[names.CONVERSATION], about[names.AGENT_NAME] = wake.thread_id, wake.row.agent
        else:
            about |= sparse(**{names.CONVERSATION: getattr(thread, "id", None), names.AGENT_NAME: getattr(thread, "agent", None)})
        if self._captures and messages:
            about |= content.sent(messages)
        return _Asking(self._tracer.start_span(f"{names.CHAT} {name}", kind=SpanKind.CLIENT, attributes=about), self._captures)


class _Current(Heard):
    """A span that is the current one inside `with`. What passes is never swallowed; a Suspend is no error."""

    def __init__(self, span: Span, captures: bool) -> None:
        self.span, self._captures = span, captures

    def __enter__(self) -> Self:
        self._token = attach(set_span_in_context(self.span))
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        detach(self._token)
        try:
            self.ends(error)
        finally:
            self.span.end()

    def ends(self, error: BaseException | None) -> None:
        if isinstance(error, Exception):
            self.fail(names.error_type(error), str(error))

    def fail(self, kind: str, message: str) -> None:
        """The message may hold what the model or the user said."""
        self.span.set_attribute(names.ERROR_TYPE, kind)
        self.span.set_status(StatusCode.ERROR, message if self._captures else None)


class _Waking(_Current):
    """The span of a wake. `end` is how it ended, once that is known."""

    is_stamped = False
    end: str | None = None

    def __init__(self, span: Span, captures: bool, wake: Any, left: Callable[[Any], object]) -> None:
        super().__init__(span, captures)
        self._wake, self._left = wake, left

    def ends(self, error: BaseException | None) -> None:
        self._left(self._wake)
        super().ends(error)
        is_over = self.end is not None and self._wake.stopping in (None, "shutdown")
        other = "cut" if isinstance(error, asyncio.CancelledError) else "waiting"
        self.span.set_attribute(names.WAKE_END, str(self.end) if is_over else self._wake.stopping or other)


class _Calling(_Current):
    """The span of a try of a call."""

    def __init__(self, span: Span, captures: bool, run: Any) -> None:
        super().__init__(span, captures)
        self._run = run

    def answered(self, answer: Any) -> Any:
        if self._captures:
            self.span.set_attribute(names.TOOL_RESULT, content.result(answer, self._run.branch.wake.setting.redact))
        return answer

    def ends(self, error: BaseException | None) -> None:
        stopping = self._run.branch.wake.stopping
        if isinstance(error, calls._NotStarted):
            self.span.set_attribute(names.STOPPED, "not started: the lease had run out")
        elif isinstance(error, asyncio.CancelledError) and (stopping is not None or self._run.promise.timeout is None):
            self.span.set_attribute(names.STOPPED, stopping or "cut")
        elif isinstance(error, asyncio.CancelledError):
            self.fail("TimeoutError", "no answer in time")
        else:
            super().ends(error)
        if self._run.notes.get("cached"):
            self.span.set_attribute(names.CACHED, True)


class _Asking(_Current):
    """The span of a request to a model."""

    def answered(self, answer: Any) -> Any:
        self.span.set_attributes(response(answer))
        if self._captures:
            self.span.set_attribute(names.OUTPUT_MESSAGES, content.received(answer))
        return answer

    def ends(self, error: BaseException | None) -> None:
        super().ends(error)
        if isinstance(error, asyncio.CancelledError):
            self.span.set_attribute(names.STOPPED, "cut")


def response(answer: Any) -> Attributes:
    """What a pydantic-ai `ModelResponse` says of itself."""
    usage = getattr(answer, "usage", None)
    is_counted = not getattr(usage, "unmeasured_requests", 0)
    about = {
        names.RESPONSE_MODEL: getattr(answer, "model_name", None),
        names.RESPONSE_ID: getattr(answer, "provider_response_id", None),
        names.INPUT_TOKENS: getattr(usage, "input_tokens", None) if is_counted else None,
        names.OUTPUT_TOKENS: getattr(usage, "output_tokens", None) if is_counted else None,
        names.CACHE_READ_TOKENS: getattr(usage, "cache_read_tokens", None) or None,
        names.CACHE_WRITE_TOKENS: getattr(usage, "cache_write_tokens", None) or None,
        names.REASONING_TOKENS: getattr(usage, "output_reasoning_tokens", None) or None,
    }
    reason = getattr(answer, "finish_reason", None)
    return sparse(**about) | ({names.FINISH_REASONS: [str(reason)]} if reason is not None else {})


def _last_trace(events: Sequence[Event]) -> tuple[int, SpanContext] | None:
    """Position and trace of the wake before, from the last event that carries one."""
    for event in reversed(events):
        if "trace" in event.data and event.kind in STAMPED:
            found = _PARENT.fullmatch(str(event.data["trace"]))
            if found is not None:
                trace, span, flags = (int(part, 16) for part in found.groups())
                return event.seq, SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags))
    return None
