"""The login link. Following it changes nothing – programs that look at links follow them too –: the button on its page does."""

from __future__ import annotations

from html import escape
from typing import Annotated

from fastapi import FastAPI, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from ..errors import OwnloopError
from .auth import Auth, check_form, require
from .problems import Refusal, refusal_of, response_of
from .sessions import SESSION_FOR

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · ownloop</title><link rel="icon" href="{base}static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{base}static/inbox.css"></head>
<body><main class="login"><h1>{title}</h1><p>{text}</p>{form}</main></body></html>"""
USED_UP = "Each link lets one browser in, within an hour. The server prints another one when it starts."
NOBODY = "Open the link that the server printed when it started: it lets one browser in. Started again, it prints another one."
NOTHING = """Nothing has this address. <a href="{base}">The inbox</a> is there."""
FORM = """<form method="post" action="login"><input type="hidden" name="code" value="{code}"><button autofocus>Log in</button></form>"""


def add_login(site: FastAPI, door: Auth) -> None:
    """`/login` and `/logout`."""

    @site.api_route("/login", methods=["GET", "HEAD"], include_in_schema=False)
    async def look(request: Request, code: Annotated[str, Query(max_length=200)] = "") -> Response:
        _check_place(door, request)
        if not await door.sessions.is_good(code):
            return _page("This link is used up", USED_UP, status=403)
        return _page("Log in to ownloop", "This link lets this browser in, once.", FORM.format(code=escape(code, quote=True)))

    @site.post("/login", include_in_schema=False)
    async def enter(request: Request, code: Annotated[str, Form(max_length=200)]) -> Response:
        _check_place(door, request)
        session = await door.sessions.login(code)
        if session is None:
            return _page("This link is used up", USED_UP, status=403)
        answer = RedirectResponse(f"{request.scope.get('root_path', '')}/", 303)
        answer.set_cookie(
            await door.sessions.name(),
            await door.sessions.cookie(session),
            max_age=int(SESSION_FOR.total_seconds()),
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer

    @site.post("/logout", include_in_schema=False, dependencies=[require()])
    async def leave(request: Request, csrf: Annotated[str, Form(max_length=200)]) -> Response:
        check_form(request, csrf)
        answer = _page("Logged out", "This browser is not let in any more.")
        answer.delete_cookie(await door.sessions.name())
        return answer


def _check_place(door: Auth, request: Request) -> None:
    if not door.has_login:
        raise Refusal("not-found", "this server has no login link; use a token, or the proxy before it")
    if not door.is_near(request):
        raise Refusal("not-allowed", "the login link works on the machine that the server runs on; use a token from elsewhere")


async def told(request: Request, error: Exception) -> Response:
    """What went wrong: a page for a browser that looks at pages, else a problem."""
    refusal = refusal_of(error)
    if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
        base = f"{request.scope.get('root_path', '')}/"
        if refusal.status_code == 401:
            return _page("Nobody has logged in here", NOBODY, status=401, base=base)
        if refusal.status_code == 404 and not isinstance(error, Refusal | OwnloopError) and not request.url.path.startswith(f"{base}v1/"):
            return _page("There is no such page", NOTHING.format(base=escape(base, quote=True)), status=404, base=base)
    return response_of(refusal)


def _page(title: str, text: str, form: str = "", *, status: int = 200, base: str = "") -> HTMLResponse:
    return HTMLResponse(PAGE.format(title=title, text=text, form=form, base=escape(base, quote=True)), status)
