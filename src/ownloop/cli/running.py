"""One process that serves: pages, API and, if wanted, wakes, on a socket that is bound already, until it is told to stop."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..app import App
from ..telemetry import from_environment
from .opening import companion
from .trouble import Code, Trouble, usage

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from ..server import Auth

NEEDS = ("fastapi", "uvicorn", "jinja2", "multipart", "httpx")
PORT = 8470
DRAIN_SECONDS = 3
"""How long open requests may take once it is told to stop. Calls of tools are not counted: they end first, however long that takes."""
Ready = Callable[[], Awaitable[None]]


def needs_server() -> None:
    """Raises Trouble: the extra `[server]` is not installed."""
    for name in NEEDS:
        try:
            found = find_spec(name)
        except ImportError:
            found = None
        if found is None:
            raise usage(f"the server is not installed (no module named {name!r})", 'pip install "ownloop[server]"', kind="not-installed")


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        Trouble: the port is taken, or there is no such address here.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
    except (OSError, OverflowError) as error:
        why = "another program listens there" if getattr(error, "errno", 0) == 98 else str(error)
        raise Trouble(Code.FAILURE, f"{host}:{port} cannot be had: {why}; -p 0 takes a free port", kind="no-port") from None


def bind_near(host: str, port: int) -> socket.socket:
    """The port that is asked for; a free one where only the usual one is taken.

    Raises:
        Trouble: see `bind`.
    """
    try:
        return bind(host, port)
    except Trouble:
        if port != PORT:
            raise
        return bind(host, 0)


def url_of(sock: socket.socket, host: str) -> str:
    """Where the socket can be reached."""
    return f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"


async def serve_until(
    app: App, sock: socket.socket, told: asyncio.Event, ready: Ready, *, wakes: bool, auth: Auth, hosts: tuple[str, ...] = (), **options: Any
) -> None:
    """Serve until told, then stop in order: answers are finished, streams end, what runs ends first.

    Raises:
        StoreError: the store cannot be used.
    """
    from ..server import create
    from ..server.webhooks import Hooks, Webhooks

    async with from_environment(app) as metrics:
        beside = {"hooks": companion(app, Hooks), "webhooks": companion(app, Webhooks), "metrics": metrics}
        site = create(app, wakes=wakes, auth=auth, hosts=hosts, **{**beside, **options})
        await app.threads(limit=1)  # opens the store: what is wrong with it is told as it is
        server = _server(site, ready)
        serving, waits = asyncio.ensure_future(server.serve([sock])), asyncio.ensure_future(told.wait())
        try:
            await asyncio.wait({serving, waits}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server.should_exit = True
            waits.cancel()
            await serving


def _server(site: FastAPI, ready: Ready) -> uvicorn.Server:
    import uvicorn

    config = uvicorn.Config(
        site,
        proxy_headers=False,
        server_header=False,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )

    class Server(uvicorn.Server):
        """Signals are the command's; streams end when it stops, or it would wait for who listens."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started and not self.should_exit:
                await ready()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await site.state.desk.hub.close()
            await super().shutdown(sockets)

    return Server(config)


def has_terminal() -> bool:
    """Whether a person sits there."""
    return sys.stdin.isatty() and sys.stderr.isatty()
