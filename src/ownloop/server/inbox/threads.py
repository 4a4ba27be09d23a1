"""A thread's page: its picture, its log 200 lines at a time, one event at a time as JSON, and the operator's buttons."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from ...errors import NotFound
from ...events import Event, Json
from ...history import Usage
from ...interrupts import DECIDABLE, Interrupt
from ...views import ThreadView
from ..auth import Principal
from ..desk import Desk
from ..guard import HEADERS
from ..shown import encoded, plain
from . import inert
from .rendering import House, go
from .routing import PageRouter, form
from .timeline import Picture, picture

PAGE = 200
WHOLE = 2_000
"""Threads up to this length are read whole for their totals."""
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "open": ("pause", "hold", "release_hold", "cancel", "close"),
    "paused": ("resume", "hold", "release_hold", "cancel", "close"),
    "done": ("hold", "release_hold", "close", "cancel"),
    "failed": ("retry", "close", "cancel"),
    "cancelled": (),
    "closed": (),
}
FOR_GOOD = ("cancel", "close")


@dataclass(frozen=True)
class Stretch:
    """Events `after` < position ≤ `last` of a log that is `head` long."""

    events: list[Event]
    after: int
    head: int

    @property
    def last(self) -> int:
        return self.events[-1].seq if self.events else self.after

    @property
    def newer(self) -> int | None:
        return self.last if self.last < self.head else None

    @property
    def older(self) -> int | None:
        return max(0, self.after - PAGE) if self.after > 0 else None


@dataclass(frozen=True)
class Stand:
    """What the page of a thread shows. `usage` is that of the whole thread, or None where it is too long to be added up for a page."""

    view: ThreadView
    stretch: Stretch
    about: Picture
    waiting: list[Interrupt]
    input: Json
    usage: Usage | None
    commands: Sequence[str]


async def stand(desk: Desk, who: Principal, id: str, after: int | None) -> Stand:
    """Raises NotFound, also where this person may not see the thread."""
    first = await desk.events(who, id, limit=1)
    head = (await desk.app.store.heads([id])).get(id, 0)
    start = max(0, head - PAGE) if after is None else max(0, min(after, head - 1))
    events = await desk.events(who, id, after=start, limit=PAGE)
    is_short = head <= WHOLE
    view = await (desk.thread if is_short else desk.summary)(who, id)
    can_see = bool(who.scopes & {"interrupts:read", "admin"})
    open_ones = (await desk.interrupts(who, thread=id, limit=50)).items if can_see else []
    now = desk.app.store.clock.now()
    return Stand(
        view,
        Stretch(events, start, max(head, events[-1].seq if events else 0)),
        picture(events, now if view.status in ("open", "paused") else view.updated_at),
        [one for one in open_ones if one.kind in DECIDABLE],
        first[0].data.get("input") if first and first[0].kind == "input" else None,
        view.usage if is_short else None,
        COMMANDS[view.status],
    )


def thread_pages(house: House) -> PageRouter:
    """GET of a thread, its events and its download; POST of messages and commands."""
    router, desk = PageRouter(house), house.desk
    sees, acts = house.who("threads:read"), house.who("threads:write")

    @router.page("/threads/{id}")
    async def show(request: Request, id: str, who: Principal = sees, after: int | None = None) -> Response:
        seen = await stand(desk, who, id, after)
        return await house.page(
            request, who, "thread.html", stand=seen, view=seen.view, stretch=seen.stretch, for_good=FOR_GOOD, is_latest=after is None, page_size=PAGE
        )

    @router.page("/threads/{id}/events.ndjson")
    async def download(id: str, who: Principal = sees) -> Response:
        await desk.events(who, id, limit=1)
        headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{id}.ndjson"'}
        return StreamingResponse(_lines(desk, who, id), media_type="application/x-ndjson", headers=headers)

    @router.page("/threads/{id}/events/{seq}")
    async def event(request: Request, id: str, seq: int, who: Principal = sees) -> Response:
        found = await desk.events(who, id, after=max(0, seq - 1), limit=2)
        if not found or found[0].seq != seq:
            raise NotFound("event", seq)
        text = inert.json_text(plain(found[0]))
        return await house.page(request, who, "event.html", event=found[0], id=id, text=text, has_next=len(found) > 1, after=_page_of(seq))

    @router.form("/threads/{id}/send")
    async def send(request: Request, id: str, who: Principal = acts) -> Response:
        sent = await form(house, request)
        text = str(sent.get("text") or "").replace("\r\n", "\n")
        if text.strip():
            await desk.send(who, id, text, dedupe=str(sent.get("dedupe") or "") or None, supersede=sent.get("supersede") == "1")
        return go(request, f"/threads/{id}")

    @router.form("/threads/{id}/command")
    async def command(request: Request, id: str, who: Principal = acts) -> Response:
        sent = await form(house, request)
        verb, reason = str(sent.get("command") or ""), str(sent.get("reason") or "")
        if verb == "fork":
            return go(request, f"/threads/{await desk.fork(who, id)}")
        if verb in ("hold", "release_hold"):
            await (desk.hold if verb == "hold" else desk.release_hold)(who, id, on=str(sent.get("on") or "") or None)
        elif (act := _commands(desk).get(verb)) is not None:
            await act(who, id, reason=reason)
        return go(request, f"/threads/{id}")

    return router


def _commands(desk: Desk) -> Mapping[str, Callable[..., Awaitable[None]]]:
    return {"pause": desk.pause, "resume": desk.resume, "cancel": desk.cancel, "retry": desk.retry, "close": desk.close}


async def _lines(desk: Desk, who: Principal, id: str) -> AsyncIterator[bytes]:
    after = 0
    while events := await desk.events(who, id, after=after, limit=1000):
        after = events[-1].seq
        yield b"".join(encoded(event) + b"\n" for event in events)


def _page_of(seq: int) -> int:
    """Where the page that shows this event begins."""
    return max(0, (seq - 1) // PAGE * PAGE)
