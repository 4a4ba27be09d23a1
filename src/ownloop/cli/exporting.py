"""`export`: logs as NDJSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer

from ..app import App
from ..events import Event
from . import resolving
from .command import command
from .paper import plain
from .session import Session
from .trouble import usage

PAGE = 500


def register(program: typer.Typer) -> None:
    command(program)(export)


async def export(
    session: Session,
    thread: Annotated[str | None, typer.Argument(metavar="THREAD", help="Its id, a part of it, or AGENT/KEY.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All threads, oldest first.")] = False,
    agent: Annotated[str | None, typer.Option(metavar="AGENT", help="With --all: of this agent only.")] = None,
) -> None:
    """Print the events of a thread, or all, as NDJSON."""
    if every == (thread is not None):
        raise usage("name one thread, or say --all", session.again("export", "--all"))
    async with session.opened() as app:
        chosen = await _all(app, agent) if thread is None else [await resolving.thread_id(app, thread)]
        if session.paper.form == "json":
            session.paper.object({"events": [_row(one, event) for one in chosen async for event in _events(app, one)]})
            return
        for one in chosen:
            async for event in _events(app, one):
                session.paper.json(_row(one, event))


def _row(thread_id: str, event: Event) -> dict[str, Any]:
    return {"thread": thread_id, **plain(event)}


async def _all(app: App, agent: str | None) -> list[str]:
    found: list[str] = []
    while page := await app.threads(agent=agent, limit=1000, after=found[-1] if found else None):
        found += [one.id for one in page]
    return found[::-1]


async def _events(app: App, thread_id: str) -> AsyncIterator[Event]:
    after = 0
    while page := await app.store.events(thread_id, after=after, limit=PAGE):
        for event in page:
            yield event
        after = page[-1].seq
