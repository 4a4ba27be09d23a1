"""`start` and `worker`: threads begin, and wakes run in this process."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import typer

from ..app import App
from ..events import Json
from ..stores.answering import Answering
from ..telemetry import from_environment
from .brief import brief
from .command import command
from .following import Follower, stopped
from .paper import plain
from .probes import NOBODY, probes, why_no_work
from .session import Session
from .showing import waiting
from .standing import CODES, Standing, at_rest, made_again, told_if_unserved
from .trouble import Code, Trouble, usage
from .values import parsed, seconds, spoken

REACH = 60.0
"""Seconds that a worker or a server waits at its start for a store that is not there yet."""


def register(program: typer.Typer) -> None:
    command(program)(start)
    command(program)(worker)


async def start(
    session: Session,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name.")],
    input: Annotated[str, typer.Argument(metavar="INPUT", help="What it starts with: text, a JSON object or list, or - for stdin.")] = "",
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Your own id: the same key is the same thread.")] = None,
    context: Annotated[str | None, typer.Option(metavar="JSON", help='An object to list threads by: {"tenant": "acme"}.')] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it ends (0, 11, 12) or waits for somebody (10); runs its wakes here with --app.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="The same, showing what happens.")] = False,
    stay: Annotated[bool, typer.Option("--stay", help="With --wait or --watch: go on while it waits for somebody.")] = False,
    timeout: Annotated[str | None, typer.Option(metavar="DURATION", help="With --wait or --watch: give up after this (exit code 124).")] = None,
) -> int:
    """Start a thread, and print its id."""
    about = None if context is None else parsed(context, "--context")
    if about is not None and not isinstance(about, dict):
        raise usage(f"--context {context} is no JSON object")
    limit, value = seconds(timeout), spoken(input) if input else None
    async with session.opened(begins=True) as app:
        waits = wait or watch or stay
        is_known = key is not None and bool(await app.threads(agent=agent, key=key, limit=1))
        if waits and app.agents:
            return await _serving(session, app, lambda: _begun(session, app, is_known, agent, value, key, about), watch, stay, limit)
        thread_id = await _begun(session, app, is_known, agent, value, key, about)
        if waits:
            session.paper.note(("no --app was given: waiting for a worker elsewhere", "dim"))
            async with told_if_unserved(session, app, thread_id):
                return await _until_rest(session, app, thread_id, watch, stay, limit)
        await _say_started(session, app, thread_id, is_known)
    return Code.OK


async def _begun(session: Session, app: App, is_known: bool, agent: str, value: Json, key: str | None, context: Json) -> str:
    """Start the thread, or find the one with that key and say what became of another input; its id."""
    thread_id = await app.start(agent, value, key=key, context=context)
    if is_known and value is not None:
        first = (await app.store.events(thread_id, limit=1))[0].data.get("input")
        if first != (app._redact(value) if isinstance(app, App) else value):
            kept = f"{agent}/{key} was there already: its input stays {brief(first, 80)!r}, and this one was not used; to say more: "
            session.paper.note((kept, "yellow"), (session.again("send", f"{agent}/{key}", "TEXT"), "cyan"))
    return thread_id


async def _say_started(session: Session, app: App, thread_id: str, is_known: bool) -> None:
    row = await app.store.thread(thread_id)
    status = row.status if row is not None else "open"
    if not session.paper.is_plain:
        session.paper.object({"thread": thread_id, "status": status})
        return
    session.paper.line(thread_id)
    if is_known:
        said = f"it was there already, and is {status}: {session.again('show', thread_id)}"
    else:
        said = f"recorded; it runs as soon as a worker serves this store: {session.again('worker', session.app_place or 'FILE.py')}"
    session.paper.note((said, "dim"))


async def _serving(session: Session, app: App, begin: Any, watch: bool, stay: bool, limit: float | None) -> int:
    async with from_environment(app), app:
        return await _until_rest(session, app, await begin(), watch, stay, limit)


async def _until_rest(session: Session, app: App, thread_id: str, watch: bool, stay: bool, limit: float | None) -> int:
    paper = session.paper
    if paper.is_plain:
        paper.line(thread_id)
    follower = Follower(app, paper, thread_id)
    shown = asyncio.ensure_future(follower.follow(until_it_rests=False)) if watch and paper.form != "json" else None
    try:
        async with told_to_stop() as told:
            ended = await _first(asyncio.ensure_future(at_rest(app, thread_id, stays=stay)), told, limit)
    finally:
        if shown is not None:
            await stopped(shown)
    if shown is not None:
        await follower.catch_up()
    if ended is None:
        paper.note((f"stopping; the thread goes on with the next worker: {session.again('show', thread_id)}", "dim"))
        return Code.INTERRUPTED
    await _conclude(session, app, thread_id, ended, watch)
    return CODES[ended]


async def _first(rest: asyncio.Task[Standing], told: asyncio.Event, limit: float | None) -> Standing | None:
    """How the thread came to rest; None if a person stopped this first."""
    stop = asyncio.ensure_future(told.wait())
    try:
        done, _ = await asyncio.wait({rest, stop}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        rest.cancel()
    if not done:
        raise Trouble(Code.TIMEOUT, f"not at rest after {limit:g} s; the thread goes on with the next worker", kind="timeout")
    return rest.result() if rest in done else None


class Told(asyncio.Event):
    """Set by a signal; `number` says which."""

    number: signal.Signals | None = None

    @property
    def code(self) -> int:
        """What the process exits with."""
        return Code.INTERRUPTED if self.number == signal.SIGINT else Code.OK


@asynccontextmanager
async def told_to_stop() -> AsyncIterator[Told]:
    """An event that Ctrl-C or SIGTERM sets, once; a second Ctrl-C ends the process as usual."""
    loop, told = asyncio.get_running_loop(), Told()

    def stop(number: signal.Signals) -> None:
        told.number = number
        told.set()
        forget()

    def forget() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        yield told
    finally:
        forget()


async def _conclude(session: Session, app: App, thread_id: str, ended: Standing, watch: bool) -> None:
    """What it came to: the result, the error, or what it waits for and how to answer."""
    paper, view = session.paper, await app.show(thread_id)
    if not paper.is_plain:
        end = {"thread": thread_id, "standing": ended, "status": view.status, "result": view.result, "error": plain(view.error)}
        (paper.object if paper.form == "json" else paper.json)({**end, "interrupts": plain(view.interrupts)})
        return
    if ended == "waiting":
        waiting(paper, view, session.again, session.actor, app.store.clock)
        if view.status == "paused":
            paper.note("it is paused: ", (session.again("resume", thread_id), "cyan"))
        return
    if ended == "failed" and view.error is not None:
        failed = made_again(view) if view.error.type == "StepFailed" else None  # which a retry would be given again
        paper.error(f"{view.error.type}: {view.error.message}", (session.again(*(failed[1] if failed else ("retry", thread_id))),))
    elif ended == "done" and not watch and view.result is not None:
        paper.line(brief(view.result, 1_000_000))


async def worker(
    session: Session,
    where: Annotated[str | None, typer.Argument(metavar="APP", help="module:app or file.py[:app]; default: --app.")] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", "-c", envvar="OWNLOOP_CONCURRENCY", min=1, metavar="N", help="Handlers at once; default: the App's."),
    ] = None,
    health: Annotated[
        str | None, typer.Option(envvar="OWNLOOP_HEALTH", metavar="[HOST:]PORT", help="Answer /healthz and /readyz there; default: nowhere.")
    ] = None,
) -> int:
    """Run the wakes of an App's threads, until told to stop; any number of workers may serve one store.

    SIGTERM ends it in order with exit code 0, Ctrl-C with 130: what started is finished, leases are released.
    """
    session.app_place = where or session.app_place
    app = session.app
    if not app.agents:
        raise usage("a worker needs agents: name their App", session.again("worker", "FILE.py"))
    app._concurrency = concurrency or app._concurrency
    answering = Answering(app.store.url, lambda: app.store.thread(NOBODY))
    async with told_to_stop() as told, from_environment(app), probes(health, lambda: why_no_work(app, answering, told.is_set())) as port:
        asked = "" if port is None else f", probes at port {port}"
        if await reached(session, told, asked):
            async with app:
                await _working(session, told, asked)
    return told.code


async def _working(session: Session, told: Told, asked: str) -> None:
    app, paper = session.app, session.paper
    paper.note((f"serving {', '.join(sorted(app.agents))} on {app.store.url}{asked}; Ctrl-C stops in order", "dim"))
    waits = asyncio.ensure_future(told.wait())
    done, _ = await asyncio.wait({waits, *app._serving}, return_when=asyncio.FIRST_COMPLETED)
    for task in done - {waits}:
        task.result()
    paper.note(("stopping: what started ends first", "dim"))


async def reached(session: Session, told: Told, asked: str = "") -> bool:
    """Wait for a server that is not there yet, as when all of a machine starts at once; False if told to stop meanwhile. After REACH seconds what
    opening the store raises is the end."""
    why_away = getattr(session.app.store, "why_away", None)
    give_up, pause, is_said = time.monotonic() + REACH, 0.25, False
    while why_away is not None and time.monotonic() < give_up and not told.is_set() and (why := await why_away()) is not None:
        if not is_said:
            session.paper.note((f"{session.app.store.url} cannot be reached ({why}); trying again for {REACH:g} s{asked}", "yellow"))
        is_said, pause = True, min(2.0, 2 * pause)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await told.wait()
    return not told.is_set()
