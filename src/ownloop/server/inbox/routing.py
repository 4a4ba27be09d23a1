"""Routes whose refusals are pages: who was first, what expired, what changed, in words and with a way on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from ...errors import AlreadyDecided, ArgumentsChanged, Expired, NotAllowed, NotFound, OwnloopError, ThreadEnded
from .rendering import House, go

FIELDS = 20_000
BYTES = 16 * 1024 * 1024
STATUSES: tuple[tuple[type[OwnloopError], int, str], ...] = (
    (AlreadyDecided, 409, "Somebody was first"),
    (Expired, 410, "This has expired"),
    (ArgumentsChanged, 412, "This has changed"),
    (NotAllowed, 403, "You may not decide this"),
    (NotFound, 404, "There is no such thing here"),
    (ThreadEnded, 409, "The thread has ended"),
)


class NotShown(OwnloopError):
    """Somebody would approve a call of which a part was not delivered to them."""

    kind = "not-shown"

    def __init__(self, id: str) -> None:
        super().__init__(f"a part of {id} was not shown to you; open all of it, then decide")
        self.id = id


class PageRouter(APIRouter):
    """A router for pages of one house."""

    def __init__(self, house: House) -> None:
        super().__init__(route_class=_route(house), include_in_schema=False, default_response_class=HTMLResponse)

    def page(self, path: str) -> Callable[[Any], Any]:
        """GET and HEAD: these change nothing."""
        return self.api_route(path, methods=["GET", "HEAD"])

    def form(self, path: str) -> Callable[[Any], Any]:
        return self.post(path)


async def form(house: House, request: Request) -> FormData:
    """What was sent, once it is clear that one of our own pages sent it."""
    sent = await request.form(max_fields=FIELDS, max_part_size=BYTES)
    token = sent.get("csrf")
    house.door.check_form(request, token if isinstance(token, str) else None)
    return sent


def _route(house: House) -> type[APIRoute]:
    class PageRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            handle = super().get_route_handler()

            async def handled(request: Request) -> Response:
                try:
                    return await handle(request)
                except NotShown as error:
                    return go(request, f"/interrupts/{error.id}", all="1")
                except (OwnloopError, ValueError, RequestValidationError, HTTPException) as error:
                    who = getattr(request.state, "ownloop_who", None)
                    found = _status(error)
                    if who is None or found is None:
                        raise
                    about = {"number": found[0], "title": found[1], "error": error, "kind": type(error).__name__, "text": _text(error)}
                    return await house.page(request, who, "problem.html", found[0], **about)

            return handled

    return PageRoute


def _status(error: Exception) -> tuple[int, str] | None:
    for kind, status, title in STATUSES:
        if isinstance(error, kind):
            return status, title
    if isinstance(error, RequestValidationError):
        return 422, "This address makes no sense here"
    if isinstance(error, HTTPException):
        return (error.status_code, "This was refused") if error.status_code in (400, 403, 404, 413) else None
    if isinstance(error, OwnloopError):
        return None
    return 422, "This could not be done"


def _text(error: Exception) -> str:
    if isinstance(error, RequestValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return str(error.detail) if isinstance(error, HTTPException) else str(error)
