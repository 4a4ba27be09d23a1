"""`dev` and `serve`: the API and the inbox, for one's own machine and for others."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..app import App
from ..telemetry import logs
from .command import command
from .finding import app_here
from .greeting import Greeting
from .opening import find_app, move
from .reloading import Parent, Watcher, Wire
from .running import PORT, bind, needs_server, serve_until, url_of
from .session import DEV_STORE, Session, is_file, make_folder
from .starting import Told, reached, told_to_stop
from .trouble import usage

if TYPE_CHECKING:
    import socket

    from ..server import Auth

Where = Annotated[str | None, typer.Argument(metavar="APP", help="module:app or file.py[:app]; default: --app, or the only App in this folder.")]
Host = Annotated[str, typer.Option(envvar="OWNLOOP_HOST", metavar="NAME", help="Address to listen at.")]
Port = Annotated[int, typer.Option("--port", "-p", envvar="OWNLOOP_PORT", min=0, max=65535, metavar="N", help="Port; 0 takes a free one.")]


def register(program: typer.Typer) -> None:
    command(program)(dev)
    command(program)(serve)


# ---- dev -------------------------------------------------------------------------------------------------------------------------


async def dev(
    session: Session,
    where: Where = None,
    host: Host = "127.0.0.1",
    port: Port = PORT,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Forget the threads at the end.")] = False,
    reload: Annotated[bool, typer.Option(help="Start again when a Python file of the App's folder changes.")] = True,
    open: Annotated[bool, typer.Option("--open", help="Open the inbox in a browser.")] = False,
    wired: Annotated[str | None, typer.Option(hidden=True)] = None,
    again: Annotated[bool, typer.Option("--again", hidden=True)] = False,
) -> int:
    """Run API, inbox and worker on this machine, and start again when the code changes.

    Threads are kept in ./.ownloop/dev.db: after Ctrl-C (or kill -9) they go on where they were.
    """
    needs_server()
    place = where or session.app_place or app_here()
    if wired is not None:
        wire = Wire(wired)
        async with _told_by(wire) as told:
            return await _developed(session, place, wire.sock, told, host, Greeting(place, wire.say_ready, is_first=not again, opens=open))
    only_here(session, host)
    with bind(host, port) as sock, kept(session, ephemeral, "dev") as store:
        session.store = store
        if reload:
            return await Parent(_same_words(session, place, host, open), sock, Watcher(_folder(place)), session.paper).run()
        async with told_to_stop() as told:
            return await _developed(session, place, sock, told, host, Greeting(place, opens=open))


def only_here(session: Session, host: str) -> None:
    """Raises Trouble: other machines could connect."""
    from ..server.site import is_loopback

    if not is_loopback(host):
        what = f"{host} can be reached from other machines, and this is for your own; `serve` is for others"
        raise usage(what, session.again("serve", "FILE.py", "--host", host), kind="not-safe")


@contextmanager
def kept(session: Session, ephemeral: bool, name: str) -> Iterator[str]:
    """The store: what was named, a file of this folder, or one that is deleted at the end."""
    if ephemeral:
        with tempfile.TemporaryDirectory(prefix="ownloop-") as folder:
            yield f"sqlite:///{folder}/{name}.db"
    else:
        store = session.store or DEV_STORE.replace("dev.db", f"{name}.db")
        make_folder(store)
        yield store


def _folder(place: str) -> Path:
    file = Path(place.partition(":")[0])
    return file.resolve().parent if file.suffix == ".py" else Path.cwd()


def _same_words(session: Session, place: str, host: str, opens: bool) -> list[str]:
    """This command again, for the child that serves."""
    common = ["--store", str(session.store), "--as", session.actor.id, *(word for group in session.groups for word in ("--group", group))]
    paper = session.paper
    said = {"--json": not paper.is_plain, "--quiet": paper.quiet, "--no-color": not paper.has_color, "--open": opens}
    flags = [*(flag for flag, is_said in said.items() if is_said), *["-v"] * paper.verbose]
    return [sys.executable, "-m", "ownloop", "dev", place, "--host", host, *common, *flags]


@asynccontextmanager
async def _told_by(wire: Wire) -> AsyncIterator[Told]:
    """Told by the parent or SIGTERM."""
    async with told_to_stop() as told:
        wire.watch(told)
        yield told


async def _developed(session: Session, place: str, sock: socket.socket, told: Told, host: str, greeting: Greeting) -> int:
    app = find_app(place)
    if session.store == DEV_STORE and app.store.url != DEV_STORE and is_file(app.store.url):
        greeting.beside = app.store.url
    move(app, str(session.store))
    if not app.agents:
        raise usage(f"{place} has an App without agents; register one: @app.agent")
    await live(session, app, sock, told, host, greeting)
    if told.number is not None:
        session.paper.note(("stopped; what is open goes on with the next start", "dim"))
    return told.code


async def live(session: Session, app: App, sock: socket.socket, told: Told, host: str, greeting: Greeting) -> None:
    """Serve everything on this machine: pages, API, wakes, and a log of what threads do."""
    from ..server import Auth

    url = url_of(sock, host)
    app.base_url = app.base_url or url
    auth = Auth(app)
    if not session.paper.quiet and not logs.from_environment():
        logging.root.handlers.clear()  # the command's own, for warnings
        logs.configure("console", "debug" if session.paper.verbose else "info")
    await serve_until(app, sock, told, lambda: greeting.greet(session, app, url, auth), wakes=True, auth=auth, hosts=(host,))


# ---- serve -----------------------------------------------------------------------------------------------------------------------


async def serve(
    session: Session,
    where: Where = None,
    host: Host = "127.0.0.1",
    port: Port = PORT,
    worker: Annotated[bool, typer.Option("--worker", help="Run wakes here too.")] = False,
    base_url: Annotated[str | None, typer.Option(envvar="OWNLOOP_BASE_URL", metavar="URL", help="How people reach it.")] = None,
    known_as: Annotated[list[str] | None, typer.Option(envvar="OWNLOOP_HOSTS", metavar="NAME", help="A further name; may be repeated.")] = None,
    proxy: Annotated[
        list[str] | None, typer.Option(envvar="OWNLOOP_PROXIES", metavar="CIDR", help="Network of a proxy that says who asks; may be repeated.")
    ] = None,
    proxy_header: Annotated[str, typer.Option(metavar="NAME", help="Where the proxy says it.")] = "X-Forwarded-User",
    proxy_groups: Annotated[str, typer.Option(metavar="NAME", help="Where it says the groups, with commas.")] = "X-Forwarded-Groups",
    insecure: Annotated[bool, typer.Option("--insecure", help="The login link works from other machines too.")] = False,
) -> int:
    """Serve API and inbox to others; keeps nothing in memory, so that any number of them can run.

    Without APP it serves the --store alone: inbox and decisions need none of the agents' code. SIGTERM ends it in order.
    """
    needs_server()
    session.app_place = where or session.app_place
    app = session.app
    if worker and not app.agents:
        raise usage("--worker runs wakes, and that needs agents: name their App", session.again("serve", "FILE.py", "--worker"))
    app.base_url = base_url or app.base_url
    if session.paper.verbose and not logs.from_environment():
        logging.root.handlers.clear()
        logs.configure("console", "debug")
    try:
        async with told_to_stop() as told:
            if not await reached(session, told):
                return told.code
        auth = await _auth(session, app, host, proxy or [], (proxy_header, proxy_groups), insecure)
        with bind(host, port) as sock:
            return await _served(session, app, sock, host, auth, worker, tuple(known_as or ()))
    finally:
        await app.aclose()


async def _auth(session: Session, app: App, host: str, proxies: list[str], headers: tuple[str, str], insecure: bool) -> Auth:
    """How people are known.

    Raises:
        Trouble: other machines could connect, and nobody on them could be known.
    """
    from ..server import Auth, Proxy, Tokens
    from ..server.site import is_loopback

    proxy = Proxy(proxies, headers[0], headers[1] or None) if proxies else None
    is_local = is_loopback(host)
    if not is_local and proxy is None and not insecure:
        now = app.store.clock.now()
        await app.threads(limit=1)
        if not any(token.why_not(now) is None for token in await Tokens(app.store).all()):
            what = f"{host} can be reached from other machines, and nobody there could be known: this store has no token, and no proxy was named"
            ways = (session.again("token", "create", "NAME"), session.again("serve", "--host", host, "--proxy", "10.0.0.0/8"), session.again("serve"))
            raise usage(what, *ways, kind="not-safe")
    return Auth(app, login=is_local or insecure, anywhere=insecure, proxy=proxy)


async def _served(session: Session, app: App, sock: socket.socket, host: str, auth: Auth, worker: bool, names: tuple[str, ...]) -> int:
    url = url_of(sock, host)
    app.base_url = app.base_url or url

    async def ready() -> None:
        login = f"{url}/login?code={await auth.sessions.code(session.actor)}" if auth.has_login else None
        paper = session.paper
        if not paper.is_plain:
            paper.object({"url": url, "login": login, "store": app.store.url, "worker": worker, "agents": sorted(app.agents), "pid": os.getpid()})
            return
        does = "inbox, API and wakes" if worker else "inbox and API"
        paper.note((f"{does} at {url}, store {app.store.url}", "dim"))
        if login is not None:
            paper.note(("log in: ", "dim"), (login, "cyan"), (f"  (one browser, as {session.actor.id})", "dim"))

    async with told_to_stop() as told:
        await serve_until(app, sock, told, ready, wakes=worker, auth=auth, hosts=(host, *names))
        session.paper.note(("stopped in order", "dim"))
        return told.code
