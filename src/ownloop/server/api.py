"""The JSON API under `/v1`: each route reads a request, asks the desk, and shows what came of it."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from ..interrupts import InterruptKind, InterruptStatus
from ..stores.base import Status
from . import schemas
from .auth import Principal, entrance, require
from .desk import Desk
from .problems import Refusal, documented, invalid_values
from .schemas import Decide, EmitEvent, Fork, Hold, SendMessage, Snooze, StartThread, Steer
from .shown import encoded, plain
from .streams import IDLE, sse

LARGEST = (1 << 53) - 1
"""The largest whole number that every JSON reader holds."""
ALWAYS = ("unauthenticated", "missing-scope", "invalid-request", "foreign-host", "store-unavailable")
WRITES = (*ALWAYS, "foreign-origin", "malformed", "too-large", "idempotency-key-invalid", "idempotency-in-flight", "idempotency-key-reused")

Limit = Annotated[int, Query(ge=1, le=500, description="At most so many.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before.")]
Search = Annotated[str | None, Query(max_length=200, description="A piece of text (A to Z in either case), or an id.")]
Word = Annotated[str | None, Query(max_length=500)]
Id = Annotated[str, Path(max_length=200)]
After = Annotated[int, Query(ge=0, le=LARGEST, description="A position in the log: only what comes after it.")]
LastEventId = Annotated[str | None, Header(description="Sent by a browser that comes back; wins over `after`.")]
EVENT_STREAM: dict[str, Any] = {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Server-Sent Events."}
KEY: dict[str, Any] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "minLength": 1, "maxLength": 257},
            "description": "The same key and request within 24 hours: the first answer again (draft-ietf-httpapi-idempotency-key-header-07).",
        }
    ]
}


def shown(value: Any, status: int = 200, **headers: str) -> Response:
    """A value as JSON."""
    return Response(encoded(value), status, headers, "application/json")


def tagged(request: Request, value: Any) -> Response:
    """The same with an ETag, or 304 for who has it already."""
    body = encoded(value)
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if tag in request.headers.get("If-None-Match", ""):
        return Response(None, 304, headers)
    return Response(body, 200, headers, "application/json")


def add_interrupts(router: APIRouter, desk: Desk) -> None:
    """What waits for people."""
    reads: Any = require("interrupts:read")

    @router.get(
        "/interrupts", operation_id="interrupts_list", response_model=schemas.InterruptPage, responses=documented(*ALWAYS), tags=["interrupts"]
    )
    async def interrupts_list(
        status: Annotated[InterruptStatus | None, Query()] = "open",
        agent: Word = None,
        kind: Annotated[InterruptKind | None, Query(description="Without it: the kinds that a person can decide.")] = None,
        name: Annotated[str | None, Query(max_length=500, description="The intent's name.")] = None,
        thread: Annotated[str | None, Query(max_length=200)] = None,
        q: Search = None,
        snoozed: Annotated[bool, Query(description="Open ones that are put off, instead of those that are not.")] = False,
        limit: Limit = 50,
        after: Cursor = None,
        who: Principal = reads,
    ) -> Response:
        """What waits: the soonest deadline first, then the oldest."""
        with invalid_values():
            asked = {"agent": agent, "kind": kind, "name": name, "thread": thread, "q": q, "snoozed": snoozed, "limit": limit, "after": after}
            return shown(await desk.interrupts(who, status=status, **asked))  # type: ignore[arg-type]  # each by its name

    @router.get(
        "/interrupts/{id}",
        operation_id="interrupts_show",
        response_model=schemas.Interrupt,
        responses=documented("not-found", *ALWAYS),
        tags=["interrupts"],
    )
    async def interrupts_show(request: Request, id: Id, who: Principal = reads) -> Response:
        """One interrupt, whatever its status."""
        return tagged(request, await desk.interrupt(who, id))

    @router.get(
        "/stream",
        operation_id="inbox_stream",
        response_class=StreamingResponse,
        responses={200: EVENT_STREAM, **documented(*ALWAYS)},
        tags=["interrupts"],
    )
    async def inbox_stream(request: Request, who: Principal = reads) -> Response:
        """`interrupt.opened`, `interrupt.resolved` (an Interrupt) and `counts`, the latter at once and whenever they change."""
        return sse(await desk.inbox(who, IDLE), lambda: _still_may(request, who))


def add_deciding(router: APIRouter, desk: Desk) -> None:
    """People's answers. The desk asks for the scope itself: a refused attempt is kept too."""
    asks: Any = require()

    @router.post(
        "/interrupts/{id}/decision",
        operation_id="interrupts_decide",
        response_model=schemas.Interrupt,
        responses=documented("not-allowed", "not-found", "already-decided", "expired", "arguments-changed", "invalid-edit", *WRITES),
        openapi_extra=KEY,
        tags=["interrupts"],
    )
    async def interrupts_decide(id: Id, body: Decide, who: Principal = asks) -> Response:
        """Approve, edit, reject, respond or answer: the first valid one wins."""
        said = body.model_dump(exclude={"decision", "digest", "note"})
        with invalid_values():
            return shown(await desk.decide(who, id, body.decision, digest=body.digest, note=body.note, **said))

    @router.post(
        "/interrupts/{id}/snooze",
        operation_id="interrupts_snooze",
        response_model=schemas.Snoozed,
        responses=documented("not-found", "already-decided", *WRITES),
        openapi_extra=KEY,
        tags=["interrupts"],
    )
    async def interrupts_snooze(id: Id, body: Snooze, who: Principal = asks) -> Response:
        """Leave it open, and out of the list until then, for everybody."""
        with invalid_values():
            await desk.snooze(who, id, body.until)
            return shown({"id": id, "until": await desk.snoozed_until(id)})


def add_threads(router: APIRouter, desk: Desk) -> None:
    """Threads and their logs."""
    reads: Any = require("threads:read")

    @router.get("/threads", operation_id="threads_list", response_model=schemas.ThreadPage, responses=documented(*ALWAYS), tags=["threads"])
    async def threads_list(
        agent: Word = None,
        status: Annotated[Status | None, Query()] = None,
        key: Word = None,
        q: Search = None,
        limit: Limit = 50,
        after: Cursor = None,
        who: Principal = reads,
    ) -> Response:
        """Threads, newest first, without their logs."""
        with invalid_values():
            return shown(await desk.threads(who, agent=agent, status=status, key=key, q=q, limit=limit, after=after))

    @router.get(
        "/threads/{id}", operation_id="threads_show", response_model=schemas.ThreadView, responses=documented("not-found", *ALWAYS), tags=["threads"]
    )
    async def threads_show(
        request: Request, id: Id, events: Annotated[bool, Query(description="Whether the log comes with it.")] = True, who: Principal = reads
    ) -> Response:
        """A thread with its steps, what is open, and its log."""
        view = plain(await desk.thread(who, id))
        return tagged(request, view if events else {**view, "events": []})

    @router.get(
        "/threads/{id}/events",
        operation_id="threads_events",
        response_model=schemas.EventPage,
        responses=documented("not-found", *ALWAYS),
        tags=["threads"],
    )
    async def threads_events(id: Id, after: After = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 200, who: Principal = reads) -> Response:
        """A stretch of the log, in order."""
        found = await desk.events(who, id, after=after, limit=limit + 1)
        return shown({"items": found[:limit], "next": found[limit - 1].seq if len(found) > limit else None})

    @router.get(
        "/threads/{id}/stream",
        operation_id="threads_stream",
        response_class=StreamingResponse,
        responses={
            200: EVENT_STREAM,
            204: {"description": "The thread has ended, and nothing comes after that position."},
            **documented("not-found", *ALWAYS),
        },
        tags=["threads"],
    )
    async def threads_stream(request: Request, id: Id, after: After = 0, last_event_id: LastEventId = None, who: Principal = reads) -> Response:
        """The log as it grows (`id` = position, `event` = kind); between its events `delta` and `progress`, which have no id and are not kept."""
        start = _position(last_event_id, after)
        view = await desk.summary(who, id)
        if view.status in ("cancelled", "closed") and not await desk.events(who, id, after=start, limit=1):
            return Response(status_code=204)
        return sse(await desk.follow(who, id, start, IDLE), lambda: _still_may(request, who))


def add_feeding(router: APIRouter, desk: Desk) -> None:
    """What begins threads, and what comes to them from outside."""
    writes: Any = require("threads:write")
    emits: Any = require("events:write")

    @router.post(
        "/threads",
        operation_id="threads_start",
        status_code=201,
        response_model=schemas.ThreadView,
        responses={
            200: {"model": schemas.ThreadView, "description": "The thread that has this key already."},
            **documented("not-allowed", "not-found", "key-taken", *WRITES),
        },
        openapi_extra=KEY,
        tags=["threads"],
    )
    async def threads_start(request: Request, body: StartThread, who: Principal = writes) -> Response:
        """Start a thread, or find the one that has this key."""
        await desk.app._open()
        known = await desk.app.store.find(body.agent, body.key) if body.key is not None else None
        with invalid_values():
            id = await desk.start(who, body.agent, body.input, key=body.key, context=body.context)
        return await _thread(desk, who, id, 200 if known == id else 201, Location=_beside(request, id))

    @router.post(
        "/threads/{id}/messages",
        operation_id="threads_send",
        status_code=201,
        response_model=schemas.Event,
        responses=documented("not-found", "thread-ended", *WRITES),
        openapi_extra=KEY,
        tags=["threads"],
    )
    async def threads_send(id: Id, body: SendMessage, who: Principal = writes) -> Response:
        """A message; the model reads it at the next step."""
        with invalid_values():
            return shown(await desk.send(who, id, body.text, dedupe=body.dedupe, supersede=body.supersede), 201)

    @router.post(
        "/events",
        operation_id="events_emit",
        response_model=schemas.Emitted,
        responses=documented("not-allowed", *WRITES),
        openapi_extra=KEY,
        tags=["events"],
    )
    async def events_emit(body: EmitEvent, who: Principal = emits) -> Response:
        """An event for whoever waits for it, now or within 7 days."""
        with invalid_values():
            return shown({"is_new": await desk.emit(who, body.name, body.payload, key=body.key, id=body.id)})


def add_steering(router: APIRouter, desk: Desk) -> None:
    """The operator's verbs."""
    writes: Any = require("threads:write")
    refused = documented("not-found", "thread-ended", *WRITES)

    def steer(verb: str, act: Any, told: str) -> None:
        async def steered(id: Id, body: Steer | None = None, who: Principal = writes) -> Response:
            with invalid_values():
                await act(who, id, reason=body.reason if body is not None else "")
            return await _thread(desk, who, id)

        steered.__doc__ = told
        _post(router, f"/threads/{{id}}/{verb}", f"threads_{verb}", refused)(steered)

    def hold(verb: str, act: Any, told: str) -> None:
        async def held(id: Id, body: Hold | None = None, who: Principal = writes) -> Response:
            with invalid_values():
                await act(who, id, on=body.on if body is not None else None)
            return await _thread(desk, who, id)

        held.__doc__ = told
        _post(router, f"/threads/{{id}}/{verb}", f"threads_{verb}", refused)(held)

    steer("pause", desk.pause, "Start nothing more in it until `resume`.")
    steer("resume", desk.resume, "Go on after `pause`.")
    steer("cancel", desk.cancel, "End it and its open children for good.")
    steer("retry", desk.retry, "Wake a failed thread again, after the fix.")
    steer("close", desk.close, "End it for good, in order.")
    hold("hold", desk.hold, "Park it at its next selection, even where the program asks nobody.")
    hold("release_hold", desk.release_hold, "Take that breakpoint away; what is parked still waits for its decision.")

    @router.post(
        "/threads/{id}/fork",
        operation_id="threads_fork",
        status_code=201,
        response_model=schemas.ThreadView,
        responses=documented("not-found", "key-taken", *WRITES),
        openapi_extra=KEY,
        tags=["threads"],
    )
    async def threads_fork(request: Request, id: Id, body: Fork | None = None, who: Principal = writes) -> Response:
        """A new thread with a copy of the whole ended steps before a selection."""
        body = body or Fork()
        with invalid_values():
            forked = await desk.fork(who, id, before=body.before, key=body.key)
        return await _thread(desk, who, forked, 201, Location=_beside(request, forked))


def _post(router: APIRouter, path: str, operation: str, refused: Any) -> Any:
    return router.post(
        path, operation_id=operation, name=operation, response_model=schemas.ThreadView, responses=refused, openapi_extra=KEY, tags=["threads"]
    )


async def _thread(desk: Desk, who: Principal, id: str, status: int = 200, **headers: str) -> Response:
    """The thread as it stands now, also for who may write and not read."""
    return shown(await desk.summary(who, id), status, **headers)


async def _still_may(request: Request, who: Principal) -> bool:
    """Whether who listens is still who they were: tokens are revoked and sessions end while a stream goes on."""
    if who.via == "host":
        return True
    try:
        return await entrance(request).door.principal(request) == who
    except Refusal:
        return False


def _position(last_event_id: str | None, after: int) -> int:
    if not last_event_id:
        return after
    if not last_event_id.isdecimal() or int(last_event_id) > LARGEST:
        raise Refusal("invalid-request", f"Last-Event-ID {last_event_id!r} is no position of a log", errors=[])
    return int(last_event_id)


def _beside(request: Request, id: str) -> str:
    base = request.url.path.partition("/threads")[0]
    return f"{base}/threads/{id}"
