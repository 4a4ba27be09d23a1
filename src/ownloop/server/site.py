"""Everything together: a router for a host's application, an application of its own, a process that serves it."""

from __future__ import annotations

import asyncio
import getpass
import ipaddress
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import Response

from .. import __version__
from ..app import App
from ..errors import OwnloopError, StoreError
from ..interrupts import Actor
from ..stores.answering import Answering
from . import auth as doors
from . import schemas
from .api import add_deciding, add_feeding, add_interrupts, add_steering, add_threads, shown
from .auth import Auth, Entrance, Host, Proxy, require
from .desk import Desk
from .guard import Guard, check_origin, hostname
from .hooks import add_hooks
from .login import add_login, told
from .problems import KINDS, Refusal, documented
from .routing import api_router
from .sessions import Sessions
from .webhooks import Hooks, Webhooks

PORT = 8470
DRAIN_SECONDS = 3
FREE = ("/healthz", "/readyz", "/v1/hooks/{source}")
"""What needs no token; a webhook is signed."""


class NotSafe(ValueError):
    """The server would be reachable from other machines without a way to know who asks from there."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"{host} can be reached from other machines, and only the login link of this one would let anybody in: "
            "say tokens=True or proxy=Proxy([…]), or insecure=True if the network itself is closed"
        )
        self.host = host


# ---- in a host's application -----------------------------------------------------------------------------------------------------


def router(
    app: App, *, actor: Callable[[Request], Any], see: Callable[[Any], Any] | None = None, pages: bool = True, hooks: Hooks | None = None
) -> APIRouter:
    """The API under `/v1`, and the pages beside it, for a FastAPI application with its own authentication.

    Args:
        actor: `(request) -> Actor | str`, sync or async: who asks, as the host knows it. It raises for who is nobody.
        see: what they see: the pairs that a thread's context must hold, or None for all. Called with the actor, or with the request if its parameter
            is named so.
        pages: whether the inbox comes with it.
        hooks: the sources of incoming webhooks.

    Example:
        host.include_router(router(app, actor=lambda request: request.state.user.email), prefix="/agents")
    """
    desk = Desk(app)
    sessions = Sessions(app.store)
    entrance = Entrance(Host(actor, see), lambda: sessions)
    both = APIRouter(dependencies=[Depends(_enter(app, entrance))])
    both.include_router(api(desk, entrance, hooks))
    if pages:
        both.include_router(_pages(desk))
    return both


def api(desk: Desk, entrance: Entrance, hooks: Hooks | None) -> APIRouter:
    """The routes of `/v1`."""
    asked, signed = api_router(desk.app, entrance), api_router(desk.app, entrance, has_keys=False)
    for add in (add_threads, add_feeding, add_steering, add_interrupts, add_deciding):
        add(asked, desk)
    add_hooks(signed, desk.app, hooks or Hooks())
    both = APIRouter()
    both.include_router(asked, prefix="/v1")
    both.include_router(signed, prefix="/v1")
    return both


def _enter(app: App, entrance: Entrance) -> Callable[[Request], Any]:
    async def enter(request: Request) -> None:
        request.state.ownloop = entrance
        check_origin(request.method, request.headers)
        await app._open()

    return enter


def _pages(desk: Desk) -> APIRouter:
    from . import inbox

    files = StaticFiles(directory=inbox.STATIC)
    router = APIRouter()

    @router.api_route("/static/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def static(request: Request, path: str) -> Response:
        answer = await files.get_response(path, request.scope)
        answer.headers["Cache-Control"] = "no-cache"
        return answer

    router.include_router(inbox.pages(desk, doors))
    return router


# ---- an application of its own ---------------------------------------------------------------------------------------------------


def create(
    app: App,
    *,
    wakes: bool = True,
    auth: Auth | None = None,
    hosts: Sequence[str] = (),
    metrics: Callable[[], str] | None = None,
    pages: bool = True,
    hooks: Hooks | None = None,
    webhooks: Webhooks | None = None,
) -> FastAPI:
    """An ASGI application with the API, the pages, the login and the probes.

    Args:
        wakes: whether its process also runs the agents' wakes.
        auth: whose credentials count; default: the login link and API tokens.
        hosts: the names by which it is reached, besides those of this machine; that of `app.base_url` is known.
        metrics: the text that `/metrics` answers with, as Prometheus reads it.
        hooks: the sources of incoming webhooks.
        webhooks: whom to tell what happens; without it only escalations are carried out, into the log.
    """
    desk, door, outgoing = Desk(app), auth or Auth(app), webhooks or Webhooks(app)
    entrance = Entrance(door, lambda: door.sessions)

    @asynccontextmanager
    async def lifespan(site: FastAPI) -> AsyncIterator[None]:
        await (app.__aenter__() if wakes else app._open())
        serving = [outgoing.serve()] if wakes else [outgoing.serve(), app._outbox.serve()]
        tasks = [asyncio.ensure_future(one) for one in serving]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await desk.hub.close()
            await app.aclose()

    site = FastAPI(
        title="ownloop", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, dependencies=[Depends(_enter(app, entrance))]
    )
    site.state.desk, site.state.auth = desk, door
    _add_probes(site, app, metrics)
    site.include_router(api(desk, entrance, hooks))
    add_login(site, door)
    if pages:
        site.include_router(_pages(desk))
    site.openapi = lambda: described(site)  # type: ignore[method-assign]  # as FastAPI's documentation has it
    for kind in (HTTPException, RequestValidationError, OwnloopError, Exception):
        site.add_exception_handler(kind, told)
    base = hostname(app.base_url.partition("://")[2].partition("/")[0]) if app.base_url else ""
    site.add_middleware(Guard, hosts=[*hosts, *([base] if base else [])])
    return site


def _add_probes(site: FastAPI, app: App, metrics: Callable[[], str] | None) -> None:
    administers: Any = require("admin")
    answering = Answering(app.store.url, lambda: app.threads(limit=1))

    @site.get("/healthz", operation_id="health", response_model=schemas.Health, tags=["probes"])
    async def healthz() -> Response:
        """The process answers."""
        return shown({"status": "ok"})

    @site.get("/readyz", operation_id="ready", response_model=schemas.Health, responses=documented("store-unavailable"), tags=["probes"])
    async def readyz() -> Response:
        """The store answers too, within two seconds, and wakes run if they are to run here."""
        for task in app._serving:
            if task.done():
                raise StoreError(f"its engine has ended: {'it was told to stop' if task.cancelled() else task.exception()}")
        await answering.check()
        return shown({"status": "ok"})

    @site.get(
        "/metrics",
        operation_id="metrics",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "As Prometheus reads it."},
            **documented("unauthenticated", "missing-scope", "not-instrumented"),
        },
        tags=["probes"],
    )
    async def prometheus(who: doors.Principal = administers) -> Response:
        """Counts and durations, without ids. Needs a token with the scope `admin`."""
        if metrics is None:
            raise Refusal("not-instrumented", "this process measures nothing; give create(…, metrics=) the text of ownloop.telemetry")
        return Response(metrics(), media_type="text/plain; version=0.0.4")


def described(site: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; `docs/openapi.json` is this, and a test compares them."""
    if site.openapi_schema is None:
        kinds = "\n".join(f"- `{name}` ({status}): {text}" for name, (status, text) in KINDS.items())
        text = f"Durable agents that wait for people.\n\nProblems are RFC 9457; the last word of `type` is one of:\n{kinds}"
        site.openapi_schema = get_openapi(title=site.title, version=__version__, description=text, routes=site.routes)
        parts = site.openapi_schema["components"]
        parts["schemas"] |= _defined(schemas.Problem)
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "description": "A token, `ownloop_…`."}}
        for name in ("HTTPValidationError", "ValidationError"):
            parts["schemas"].pop(name, None)
        for path, methods in site.openapi_schema["paths"].items():
            for method in methods.values():
                method["security"] = [] if path in FREE else [{"token": []}]
    return site.openapi_schema


def _defined(model: Any) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), schema["title"]: schema}


# ---- a process -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """Where a server can be reached; `login`: the link that lets a browser in, once."""

    url: str
    login: str | None


class _Server(uvicorn.Server):
    """Streams end when the server is told to stop: otherwise it would wait for who listens."""

    def __init__(self, config: uvicorn.Config, desk: Desk, ready: Callable[[int], Awaitable[None]]) -> None:
        super().__init__(config)
        self._desk, self._ready = desk, ready

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            await self._ready(self.servers[0].sockets[0].getsockname()[1])

    async def shutdown(self, sockets: Any = None) -> None:
        await self._desk.hub.close()
        await super().shutdown(sockets)


def serve(
    app: App,
    host: str = "127.0.0.1",
    port: int = PORT,
    *,
    wakes: bool = True,
    login: Actor | str | None = None,
    tokens: bool | None = None,
    proxy: Proxy | None = None,
    hosts: Sequence[str] = (),
    insecure: bool = False,
    ready: Callable[[Served], None] | None = None,
    **options: Any,
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        port: 0 takes a free one.
        login: who logs in by the link; default the user of the operating system.
        tokens: whether API tokens count; default where only this machine can connect.
        proxy: a reverse proxy that says who asks.
        insecure: serve other machines although only the login link lets anybody in; the link then works from there, too.
        ready: told when it can be reached.
        options: more of `create`.

    Raises:
        NotSafe: `host` can be reached from other machines, and nothing was said of how people are known.
    """
    is_local = is_loopback(host)
    if not is_local and not tokens and proxy is None and not insecure:
        raise NotSafe(host)
    door = Auth(app, login=is_local or insecure, anywhere=insecure, tokens=is_local if tokens is None else tokens, proxy=proxy)
    site = create(app, wakes=wakes, auth=door, hosts=[host, *hosts], **options)

    async def tell(bound: int) -> None:
        url = f"http://{f'[{host}]' if ':' in host else host}:{bound}"
        app.base_url = app.base_url or url
        code = await door.sessions.code(login or _user()) if door.has_login else None
        if ready is not None:
            ready(Served(url, None if code is None else f"{url}/login?code={code}"))

    config = uvicorn.Config(
        site, host, port, proxy_headers=False, server_header=False, log_level="warning", timeout_graceful_shutdown=DRAIN_SECONDS, lifespan="on"
    )
    with suppress(KeyboardInterrupt):
        asyncio.run(_Server(config, site.state.desk, tell).serve())


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in containers
        return f"uid-{os.getuid()}"
