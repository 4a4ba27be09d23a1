"""Routes of the JSON API: whatever goes wrong is a problem, and a POST with a key is done once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from ..app import App
from .auth import Entrance
from .guard import check_origin
from .idempotency import key_of, once
from .problems import refusal_of, response_of

log = logging.getLogger("ownloop.server")
Handle = Callable[[Request], Any]


def api_router(app: App, entrance: Entrance, *, has_keys: bool = True, **options: Any) -> APIRouter:
    """A router whose visitors come in this way; `has_keys`: whether an Idempotency-Key means something."""

    class Route(APIRoute):
        def get_route_handler(self) -> Handle:
            handle = super().get_route_handler()

            async def handled(request: Request) -> Response:
                return await answered(lambda request: _entered(app, entrance, has_keys, request, handle), request)

            return handled

    return APIRouter(route_class=Route, **options)


async def _entered(app: App, entrance: Entrance, has_keys: bool, request: Request, handle: Handle) -> Response:
    request.state.ownloop = entrance
    check_origin(request.method, request.headers)
    key = key_of(request) if has_keys and request.method == "POST" else None
    if key is None:
        return await _response(handle, request)
    await app._open()
    who = await entrance.principal(request)
    return await once(app.store, who, key, request, lambda: answered(handle, request))


async def answered(handle: Handle, request: Request) -> Response:
    """The response, or the problem as one."""
    try:
        return await _response(handle, request)
    except Exception as error:
        if refusal_of(error).status_code >= 500:
            log.exception("%s %s failed", request.method, request.url.path)
        return response_of(error)


async def _response(handle: Handle, request: Request) -> Response:
    response: Response = await handle(request)
    return response
