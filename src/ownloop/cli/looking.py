"""`threads`, `show`, `inbox`: looking without changing anything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from ..app import App
from ..events import Event
from ..interrupts import DECIDABLE, Interrupt
from ..views import ThreadView
from . import resolving
from .brief import brief, fields, span
from .command import command
from .following import RESTING, Follower
from .paper import Paper, Span, plain
from .session import Session
from .showing import STYLES, head, story, waiting
from .standing import told_if_unserved
from .totals import totals
from .trouble import Code, usage
from .values import parsed

FAR = datetime.max.replace(tzinfo=UTC)


def register(program: typer.Typer) -> None:
    command(program)(threads)
    command(program)(show)
    command(program)(inbox)


# ---- threads ---------------------------------------------------------------------------------------------------------------------


async def threads(
    session: Session,
    agent: Annotated[str | None, typer.Option(metavar="AGENT", help="Of this agent only.")] = None,
    status: Annotated[str | None, typer.Option(metavar="STATUS", help="open, paused, done, failed, cancelled or closed.")] = None,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="With this key.")] = None,
    context: Annotated[str | None, typer.Option(metavar="JSON", help="Whose context holds these values.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 50,
    after: Annotated[str | None, typer.Option(metavar="THREAD", help="Go on after the last one of the page before.")] = None,
) -> None:
    """List threads, newest first."""
    if status is not None and status not in STYLES:
        raise usage(f"--status {status} is none of {', '.join(STYLES)}")
    async with session.opened() as app:
        about = None if context is None else parsed(context, "--context")
        before = None if after is None else await resolving.thread_id(app, after)
        found = await app.threads(agent=agent, status=status, key=key, context=about, limit=limit, after=before)
        waits = {one.id: await _waits(app, one) for one in found}
        now = app.store.clock.now()
    paper = session.paper
    if paper.form == "json":
        paper.object({"threads": [_row(one, waits[one.id]) for one in found]})
    elif paper.form == "jsonl":
        for one in found:
            paper.json(_row(one, waits[one.id]))
    elif found:
        rows = [_cells(one, waits[one.id], now) for one in found]
        paper.columns(("thread", "agent", "status", "turn", "changed", "key", "what"), rows, shrink=6)
    else:
        known = ", ".join(sorted(app.agents)) if isinstance(app, App) and agent not in (None, *app.agents) else ""
        paper.note((f"no threads; this App has no agent {agent!r}, but {known}" if known else "no threads", "dim"))


async def _waits(app: App, view: ThreadView) -> list[Interrupt]:
    return await app.interrupts(thread=view.id, limit=20) if view.status in ("open", "paused", "failed") else []


def _row(view: ThreadView, waits: list[Interrupt]) -> dict[str, object]:
    shown = {name: value for name, value in plain(view).items() if name not in ("events", "steps", "interrupts", "usage")}
    return {**shown, "waits_for": [{"id": one.id, "kind": one.kind, "name": one.name} for one in waits]}


def _cells(view: ThreadView, waits: list[Interrupt], now: datetime) -> list[Span]:
    if view.status == "failed" and view.error is not None:
        what: Span = (f"{view.error.type}: {brief(view.error.message, 200)}", "red")
    elif waits:
        what = ("waits: " + ", ".join(map(_waited_for, waits)), "yellow")
    else:
        what = "" if view.result is None else brief(view.result, 200)
    age = f"{span(now - view.updated_at)} ago"
    return [view.id, view.agent or "–", (view.status, STYLES[view.status]), str(view.turn), (age, "dim"), view.key or "", what]


def _waited_for(one: Interrupt) -> str:
    """`approval deploy`; of an event its own name and key, as `emit` wants them."""
    if one.kind == "event" and isinstance(one.value, dict):
        return " ".join(["event", *(str(one.value[name]) for name in ("event", "key") if one.value.get(name) is not None)])
    return f"{one.kind} {one.name}".strip()


# ---- show ------------------------------------------------------------------------------------------------------------------------


async def show(
    session: Session,
    thread: Annotated[str, typer.Argument(metavar="THREAD", help="Its id, a part of it, AGENT/KEY, or the id of one of its interrupts.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it goes on, until its turn ends.")] = False,
    stay: Annotated[bool, typer.Option("--stay", help="With -f: go on after the end of a turn too.")] = False,
    events: Annotated[bool, typer.Option("--events", help="The raw log instead.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Long values whole.")] = False,
) -> int | None:
    """Tell a thread's story, and how to answer what is open.

    What was selected, who decided with what words, what ran with what result, how long each wait was. Times are UTC.
    """
    async with session.opened() as app:
        thread_id = await resolving.thread_id(app, thread)
        if follow:
            return await _followed(session, app, thread_id, stay, events, full)
        view, paper = await app.show(thread_id), session.paper
        if paper.form == "json":
            paper.object({"thread": {**plain(view), "totals": plain(totals(view, app.store.clock.now()))}})
        elif paper.form == "jsonl":
            for event in view.events:
                paper.json({"thread": view.id, **plain(event)})
        elif events:
            for event in view.events:
                _raw(paper, event, full)
        else:
            now = app.store.clock.now()
            head(paper, view, now)
            story(paper, view, now, limit=1_000_000 if full else 300)
            waiting(paper, view, session.again, session.actor, app.store.clock)
    return Code.OK


async def _followed(session: Session, app: App, thread_id: str, stay: bool, events: bool, full: bool) -> int:
    paper = session.paper
    if paper.form == "json":
        raise usage("a stream is no one object; use --jsonl", session.again("show", thread_id, "-f", "--jsonl"))
    follower = Follower(app, paper, thread_id, raw=(lambda event: _raw(paper, event, full)) if events and paper.is_plain else None)
    if paper.is_plain and not events:
        head(paper, await app.show(thread_id), app.store.clock.now())
        paper.line()
    row = await app.store.thread(thread_id)
    if row is not None and row.status in RESTING and not stay:
        await follower.catch_up()
        return Code.OK
    async with told_if_unserved(session, app, thread_id):
        await follower.follow(until_it_rests=not stay)
    return Code.OK


def _raw(paper: Paper, event: Event, full: bool) -> None:
    by = ((" by ", "dim"), event.by) if event.by else ()
    place = f"  {event.step_id or ''} {event.op or ''}".rstrip()
    data = brief(dict(plain(event.data)), 1_000_000 if full else 500)
    paper.line((f"{event.seq:5}  {event.at:%Y-%m-%d %H:%M:%S.%f}Z  ", "dim"), (f"{event.kind:<11}", "bold"), (place, "dim"), *by, "  ", data)


# ---- inbox -----------------------------------------------------------------------------------------------------------------------


async def inbox(
    session: Session,
    agent: Annotated[str | None, typer.Option(metavar="AGENT", help="Of this agent only.")] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="approval, question, result, in_doubt, hold or budget.")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only what --as and --group may decide.")] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 50,
) -> None:
    """List what waits for a person, what expires first on top."""
    if kind is not None and kind not in DECIDABLE:
        raise usage(f"--kind {kind} is none of {', '.join(sorted(DECIDABLE))}")
    async with session.opened() as app:
        found = [one async for one in resolving.open_interrupts(app, agent, kind)]
        now = app.store.clock.now()
    chosen = [one for one in found if not mine or one.policy.refuses(session.actor) is None]
    chosen.sort(key=lambda one: (one.expires_at or FAR, one.created_at))
    paper, page = session.paper, chosen[:limit]
    if paper.form == "json":
        paper.object({"interrupts": plain(page), "total": len(chosen)})
    elif paper.form == "jsonl":
        for one in page:
            paper.json(plain(one))
    elif page:
        paper.columns(("interrupt", "kind", "agent", "asks", "waits", "expires in", "what"), [_waiting(one, now) for one in page], shrink=6)
        if len(chosen) > len(page):
            paper.note((f"{len(chosen) - len(page)} more; --limit {len(chosen)} shows them", "dim"))
        paper.note((f"answer: {session.again('decide', page[0].id)}", "dim"))
    else:
        paper.note(("nothing waits for a person", "dim"))


def _waiting(one: Interrupt, now: datetime) -> list[Span]:
    left: Span = ""
    if one.expires_at is not None:
        seconds = (one.expires_at - now).total_seconds()
        left = ("passed", "bold red") if seconds <= 0 else (span(one.expires_at - now), "red" if seconds < 3600 else "yellow")
    what = brief(one.question, 200) if one.question else f"{one.name}  {fields(one.intent)}".rstrip()
    asks = ", ".join(one.policy.by) or "anyone"
    return [one.id, one.kind, one.agent, asks, (span(now - one.created_at), "dim"), left, what]
