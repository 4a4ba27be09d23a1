"""What a browser remembers for its person: light or dark, and whether single keys do something (WCAG 2.1.4: off unless switched on)."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from ..auth import Principal
from .rendering import THEMES, House, go
from .routing import PageRouter, form

YEAR = 365 * 86400


def settings(house: House) -> PageRouter:
    """GET and POST /settings."""
    router, sees = PageRouter(house), house.who()

    @router.page("/settings")
    async def show(request: Request, who: Principal = sees) -> Response:
        return await house.page(request, who, "settings.html")

    @router.form("/settings")
    async def change(request: Request, who: Principal = sees) -> Response:
        sent = await form(house, request)
        answer = go(request, _local(str(sent.get("back") or "/settings")))
        for name, known in (("theme", THEMES), ("keys", ("off", "on"))):
            if sent.get(name) in known:
                answer.set_cookie(f"ownloop_{name}", str(sent[name]), max_age=YEAR, httponly=True, samesite="lax")
        return answer

    return router


def _local(path: str) -> str:
    """A path of ours, whatever was sent."""
    is_local = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable() and path.isascii()
    return path if is_local else "/settings"
