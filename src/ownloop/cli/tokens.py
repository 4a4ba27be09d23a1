"""`token`: who may use the server's API, as what, and until when."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..interrupts import Actor
from .brief import fields
from .command import command
from .paper import Span, plain
from .running import needs_server
from .session import Session
from .trouble import usage
from .values import length, parsed

READS = ("threads:read", "interrupts:read")


def register(program: typer.Typer) -> None:
    token = typer.Typer(name="token", help="Tokens for the server's API: create, list, revoke.", no_args_is_help=True, rich_markup_mode=None)
    command(token)(create)
    command(token, "list")(listed)
    command(token)(revoke)
    program.add_typer(token)


async def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for, to know it again.")],
    scope: Annotated[
        list[str] | None, typer.Option(metavar="S", help=f"What it may do; may be repeated, or a list with commas. Default: {', '.join(READS)}.")
    ] = None,
    actor: Annotated[str | None, typer.Option(metavar="NAME", help="Who acts by it; default: --as, else the token's name.")] = None,
    see: Annotated[
        str | None, typer.Option("--see", "--context", metavar="JSON", help='Only threads whose context holds this: {"tenant": "acme"}.')
    ] = None,
    expires: Annotated[str, typer.Option(metavar="DURATION", help="How long it counts: 12h, 90d, or never.")] = "90d",
) -> None:
    """Make a token, and print it: this once, and never again.

    Who acts by it is in the groups of --group. Scopes: threads:read threads:write interrupts:read interrupts:decide events:write admin.
    """
    needs_server()
    from ..server.tokens import Tokens

    scopes = [one.strip() for text in scope or READS for one in text.split(",") if one.strip()]
    filter = None if see is None else parsed(see, "--see")
    if filter is not None and not isinstance(filter, dict):
        raise usage(f"--see {see} is no JSON object")
    who = Actor(actor or session.name or name, tuple(session.groups))
    async with session.opened(begins=True) as app:
        until = None if expires == "never" else length(expires)
        secret, token = await Tokens(app.store).issue(name, who, scopes, see=filter, expires=until)
    if not session.paper.is_plain:
        session.paper.object({"token": secret, **_row(token)})
        return
    session.paper.line(secret)
    session.paper.note((f"{token.id} acts as {_who(token.actor)}, {_until(token)}; it is kept as a hash and not shown again", "dim"))


async def listed(session: Session) -> None:
    """List the tokens, oldest first; never what they are."""
    needs_server()
    from ..server.tokens import Tokens

    async with session.opened() as app:
        found, now = await Tokens(app.store).all(), app.store.clock.now()
    paper = session.paper
    if paper.form == "json":
        paper.object({"tokens": [_row(one) for one in found]})
    elif paper.form == "jsonl":
        for one in found:
            paper.json(_row(one))
    elif found:
        paper.columns(("token", "name", "acts as", "may", "sees", "counts"), [_cells(one, one.why_not(now) is None) for one in found])
    else:
        paper.note(("no tokens", "dim"))


async def revoke(session: Session, id: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, tok_…, as `token list` shows it.")]) -> None:
    """End a token, at once."""
    needs_server()
    from ..server.tokens import Tokens

    async with session.opened() as app:
        ended = await Tokens(app.store).revoke(id)
    if session.paper.is_plain:
        session.paper.line(f"{ended.id} {_until(ended)}")
    else:
        session.paper.object(_row(ended))


def _row(token: Any) -> dict[str, Any]:
    return {**plain(token), "scopes": sorted(token.scopes)}


def _cells(token: Any, counts: bool) -> list[Span]:
    sees = "all" if token.see is None else fields(token.see)
    return [token.id, token.name, _who(token.actor), ", ".join(sorted(token.scopes)), sees, (_until(token), "" if counts else "red")]


def _who(actor: Actor) -> str:
    return actor.id + (f" ({', '.join(actor.groups)})" if actor.groups else "")


def _until(token: Any) -> str:
    if token.revoked_at is not None:
        return f"revoked at {token.revoked_at:%Y-%m-%d %H:%M:%S}Z"
    return "for ever" if token.expires_at is None else f"until {token.expires_at:%Y-%m-%d %H:%M}Z"
