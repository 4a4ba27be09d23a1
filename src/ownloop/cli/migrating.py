"""`migrate`: the schema of a store, brought to this version or printed for whoever may change it."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ..engines.urls import engine_for
from .command import command
from .session import Session
from .trouble import usage


def register(program: typer.Typer) -> None:
    command(program)(migrate)


async def migrate(
    session: Session,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL instead of running it; nothing is connected to.")] = False,
    since: Annotated[int, typer.Option(metavar="VERSION", min=0, help="With --sql: the version that the schema has; 0: there is none.")] = 0,
    roles: Annotated[
        bool, typer.Option("--roles", help="Print the SQL of a role that can only read and call functions, for workers and servers.")
    ] = False,
) -> None:
    """Bring the store's schema to this version.

    Stores do so by themselves when they are opened, where their role may. Everything is one transaction; waiting threads and running workers stay.
    """
    app = session.app
    store: Any = app.store
    engine: Any = engine_for(app._engine, store, list, 1)
    if sql or roles:
        if not hasattr(store, "migration"):
            raise usage(f"{store.url} is a file and has no roles; it is migrated when it is opened", session.again("migrate"))
        parts = [store, engine] if hasattr(engine, "migration") else [store]
        if roles:
            text = "\n".join(part.roles().strip() for part in parts)
        else:
            text = "\n".join(["BEGIN;", store.migration(since), *(part.migration() for part in parts[1:]), "COMMIT;"])
        sys.stdout.write(text.rstrip() + "\n")
        return
    before, after = await store.migrate() if hasattr(store, "migrate") else await _opened(store)
    if hasattr(engine, "install"):
        await store.open()
        await engine.install()
        await store.close()
    if not session.paper.is_plain:
        session.paper.object({"before": before, "after": after})
    elif before == after:
        session.paper.line(f"{store.url} is of this version")
    else:
        session.paper.line(f"{store.url} migrated" + (f" from version {before} to {after}" if before else f": made, version {after}"))


async def _opened(store: Any) -> tuple[int, int]:
    """Such a store does all there is to do when it is opened."""
    await store.open()
    await store.close()
    return 0, 0
