"""`POST /v1/hooks/{source}`: webhooks that come in. Who sends one is known by its signature, not by a token."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from ..app import App
from ..errors import NotFound
from ..events import Json
from . import schemas
from .problems import Refusal, documented
from .shown import encoded
from .webhooks import Hooks, NotVerified

REFUSED = documented(
    "unauthenticated", "not-found", "malformed", "invalid-request", "too-large", "foreign-host", "foreign-origin", "store-unavailable"
)


def add_hooks(router: APIRouter, app: App, hooks: Hooks) -> None:
    """The sources of an App, by their names."""

    @router.post("/hooks/{source}", operation_id="hooks_take", response_model=schemas.Taken, responses=REFUSED, tags=["hooks"])
    async def hooks_take(request: Request, source: Annotated[str, Path(max_length=200)]) -> Response:
        """A webhook: verified, and done once. The same one again is answered alike, and changes nothing."""
        if source not in hooks.sources:
            raise NotFound("hook", source)
        await app._open()
        try:
            is_new = await hooks.take(app, source, await request.body(), _parsed, request.headers)
        except NotVerified as error:
            raise Refusal("unauthenticated", f"{error}; nothing was done") from None
        return Response(encoded({"is_new": is_new}), media_type="application/json")


def _parsed(body: bytes) -> Json:
    try:
        return json.loads(body)
    except ValueError as error:
        raise Refusal("malformed", f"the body is no JSON: {error}") from None
