"""`webhook`: what was not delivered yet, dead letters, and another try."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import NotFound
from .command import command
from .paper import plain
from .running import needs_server
from .session import Session


def register(program: typer.Typer) -> None:
    webhook = typer.Typer(name="webhook", help="Webhooks that go out: what waits, what died.", no_args_is_help=True, rich_markup_mode=None)
    command(webhook, "list")(listed)
    command(webhook)(again)
    program.add_typer(webhook)


async def listed(session: Session) -> None:
    """List what was not delivered yet, and the dead letters of the last 30 days."""
    needs_server()
    from ..server.webhooks import Webhooks

    async with session.opened() as app:
        found = await Webhooks(app).deliveries()
    paper = session.paper
    if paper.form == "json":
        paper.object({"deliveries": [plain(one) for one in found]})
    elif paper.form == "jsonl":
        for one in found:
            paper.json(plain(one))
    elif found:
        rows = [(one.id, one.type, one.url, (one.status, "red" if one.status == "dead" else ""), str(one.tries), one.problem) for one in found]
        paper.columns(("message", "event", "to", "is", "tries", "problem"), rows)
    else:
        paper.note(("everything was delivered", "dim"))


async def again(session: Session, id: Annotated[str, typer.Argument(metavar="MESSAGE", help="Its id, msg_…, as `webhook list` shows it.")]) -> None:
    """Send a dead letter again, or one that waits now; a process that serves does it."""
    needs_server()
    from ..server.webhooks import Webhooks

    async with session.opened() as app:
        webhooks = Webhooks(app)
        keys = {one.id: one.key for one in await webhooks.deliveries()}
        if id not in keys or not await webhooks.send_again(keys[id]):
            raise NotFound("message", id, keys)
    if session.paper.is_plain:
        session.paper.line(f"{id} is sent again")
    else:
        session.paper.object({"message": id, "status": "pending"})
