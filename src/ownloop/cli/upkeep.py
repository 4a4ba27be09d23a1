"""`prune` and `doctor`: keeping a store in order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from ..app import App
from ..doctor import Finding, examine
from .brief import span
from .command import command
from .paper import Paper, plain
from .session import Session
from .trouble import Code, usage
from .values import ask, length

ENDS = ("done", "cancelled", "closed")


def register(program: typer.Typer) -> None:
    command(program)(prune)
    command(program)(doctor)


async def prune(
    session: Session,
    older: Annotated[str, typer.Option(metavar="DURATION", help="Untouched for so long: 30d, 12h.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget threads that ended a while ago.

    Those that are done, cancelled or closed, and were not touched since. Open, paused and failed ones stay, and those that
    still wait for something.
    """
    async with session.opened() as app:
        age = length(older)
        before = app.store.clock.now() - age
        if not yes:
            await _confirm(session, app, before, older)
        forgotten = await app.store.prune(before)
    if session.paper.is_plain:
        session.paper.line(f"{forgotten} thread{'s' if forgotten != 1 else ''} forgotten")
    else:
        session.paper.object({"forgotten": forgotten, "before": plain(before)})


async def _confirm(session: Session, app: App, before: datetime, older: str) -> None:
    count = await _count(app, before)
    question = f"{count} thread{'s' if count != 1 else ''} ended and untouched since {before:%Y-%m-%d %H:%M}Z would be forgotten for good"
    if not session.is_interactive:
        raise usage(f"{question}; nothing was done, say --yes", session.again("prune", "--older", older, "--yes"), kind="not-confirmed")
    if not ask(f"{question}. Go on? [y/N] ").lower().startswith("y"):
        raise usage("nothing was forgotten", kind="not-confirmed")


async def _count(app: App, before: datetime) -> int:
    count = 0
    for status in ENDS:
        after: str | None = None
        while page := await app.threads(status=status, limit=1000, after=after):
            count += sum(one.updated_at < before for one in page)
            after = page[-1].id
    return count


async def doctor(
    session: Session, long: Annotated[str, typer.Option(metavar="DURATION", help="How long a call may run before it is named.")] = "10m"
) -> int:
    """Name what is wrong or stuck, and what to do about it.

    Exit code 1 if there is something.
    """
    async with session.opened() as app:
        found = await examine(app, long=length(long))
        now = app.store.clock.now()
    paper = session.paper
    if paper.form == "json":
        paper.object({"findings": plain(found), "healthy": not found})
    elif paper.form == "jsonl":
        for one in found:
            paper.json(plain(one))
    else:
        _report(paper, found, now)
    return Code.FAILURE if found else Code.OK


def _report(paper: Paper, found: Sequence[Finding], now: datetime) -> None:
    if not found:
        paper.line(("✓ ", "green"), "nothing is wrong, and nothing is stuck")
    for one in found:
        since = (f"  since {one.since:%Y-%m-%d %H:%M:%S}Z, {span(now - one.since)}", "dim") if one.since is not None else ""
        paper.line(("✗ ", "red"), (one.thread_id or "the store", "bold"), "  ", (one.kind, "yellow"), since)
        paper.line("  ", one.what, indent=2)
        paper.line("  ", ("next  ", "dim"), (one.next_step, "cyan"), indent=8)
    if found:
        paper.note((f"{len(found)} finding{'s' if len(found) != 1 else ''}", "dim"))
