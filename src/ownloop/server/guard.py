"""What holds for every request, whoever it is from: the host it names, the page it comes from, its size; and the headers of answers."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import Refusal, response_of

LOCAL = ("localhost", "127.0.0.1", "::1")
BODY_LIMIT = 16 * 1024 * 1024
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer a browser sends our own forms with `Origin: null`
    "Cache-Control": "no-store",
}


def hostname(netloc: str) -> str:
    """The host of `host:port`, small, without brackets; "" if it is none."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def check_origin(method: str, headers: Headers) -> None:
    """Refuse what a page of another origin made a browser send: there is no such page of ours, whatever credentials come with it.

    Raises:
        Refusal: "foreign-origin".

    Source: OWASP, cross-site request forgery prevention: Fetch Metadata, and verifying origin with standard headers.
    """
    if method in SAFE:
        return
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "")
    if origin in (None, "null"):
        is_foreign = site != "same-origin" if origin else site in ("cross-site", "same-site")
    else:
        is_foreign = site == "cross-site" or str(origin).partition("://")[2].lower() != headers.get("host", "").lower()
    if is_foreign:
        raise Refusal(
            "foreign-origin",
            f"a page of {origin or 'another site'} sent this; nothing was done. Send it from a page of this server, or without Origin",
        )


class Guard:
    """Around the whole application.

    Args:
        hosts: the names that this server is known by, besides those of this machine (DNS rebinding: a name of somebody else's may lead here).
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset({*LOCAL, *(hostname(host) or host.lower() for host in hosts)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
            await self._app(scope, _limited(receive), _with_headers(send))
        except Refusal as refusal:
            await response_of(refusal)(scope, receive, _with_headers(send))

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if hostname(headers.get("host", "")) not in self._hosts:
            text = f"this server is not known by {headers.get('host', '')!r}; name the hosts that it may be reached by"
            raise Refusal("foreign-host", text)
        check_origin(scope["method"], headers)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > BODY_LIMIT:
            raise _too_large()


def _limited(receive: Receive) -> Receive:
    """Counts a body that does not say its length beforehand."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > BODY_LIMIT:
            raise _too_large()
        return message

    return counted


def _too_large() -> Refusal:
    return Refusal("too-large", f"the body has more than {BODY_LIMIT:,} bytes; nothing was done")


def _with_headers(send: Send) -> Send:
    """The headers that every answer has, unless it says otherwise."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sent
