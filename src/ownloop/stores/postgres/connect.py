"""From a URL to a database whose schema is ours and of this version; and what Postgres's errors mean."""

from __future__ import annotations

import re
import select
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import conninfo, errors, sql

from ...clock import Clock, SystemClock, micros
from ...errors import NewerSchema, NotAStore, StoreBusy, StoreError, StoreFull, StoreReadOnly

MIGRATIONS: tuple[tuple[str, ...], ...] = (("schema.sql",),)
"""Scripts n bring a schema from version n to n + 1; append only."""
FUNCTIONS = ("log.sql", "wake.sql", "outside.sql", "upkeep.sql")
"""Replaced as a whole by every migration."""
OLDEST = 1
"""The oldest program (by the version it knows) that may still work on the newest schema: two stand beside each other while workers are replaced."""
DEFAULTS = {"connect_timeout": "10", "keepalives_idle": "30", "tcp_user_timeout": "15000", "application_name": "ownloop"}
"""Settings of libpq, where the URL says nothing else: a server that is cut off is noticed before a lease has run out."""
WAIT = 30.0
"""Seconds to wait for a database that is away, or for a connection of the pool."""
SAFE = (errors.DeadlockDetected, errors.SerializationFailure)
"""Errors after which nothing was written: the same statement can be sent again."""


@dataclass(frozen=True)
class Place:
    """Where a store is. `shown` holds no password; `conninfo` is for libpq."""

    shown: str
    conninfo: str
    schema: str
    connections: int

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.shown.partition('?')[0]} (schema {self.schema})"

    def sql(self, text: str) -> str:
        """The statement with this schema's name where it says `ownloop`."""
        if self.schema == "ownloop":
            return text
        quoted = sql.Identifier(self.schema).as_string(None)
        text = re.sub(
            r"(?<![\w'])ownloop\.(?=[a-z_])|(?<=SCHEMA )ownloop\b|(?<=NOT EXISTS )ownloop\b",
            lambda found: quoted + "." * found[0].endswith("."),
            text,
        )
        return text.replace("'ownloop'", sql.Literal(self.schema).as_string(None))


def parse(url: str) -> Place:
    """`postgresql://user:password@host/database?schema=ownloop&connections=10`, and whatever libpq takes.

    Raises:
        ValueError: it is no such URL, or the name of the schema is odd.
    """
    parts = urlsplit(url)
    settings = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema, connections = settings.pop("schema", "ownloop"), settings.pop("connections", "10")
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(f"{url!r} names no Postgres database; write postgresql://user@host/database")
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
        raise ValueError(f"schema={schema!r}: the name of a schema is made of a to z, 0 to 9 and _")
    if not connections.isdecimal() or int(connections) < 4:
        raise ValueError(f"connections={connections!r}: a process needs at least 4 connections")
    plain = urlunsplit(parts._replace(query=urlencode(settings)))
    try:
        known = conninfo.conninfo_to_dict(plain)
    except psycopg.Error as error:
        raise ValueError(f"the URL of the Postgres store is wrong: {str(error).strip()}") from None
    return Place(_masked(url), conninfo.make_conninfo("", **{**DEFAULTS, **known}), schema, int(connections))


def _masked(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")
    user, has_password, _ = host[0].partition(":")
    netloc = f"{user}:***@{host[2]}" if has_password else parts.netloc
    query = urlencode([(name, "***" if name == "password" else value) for name, value in parse_qsl(parts.query)], safe="*/")
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def set_clock(clock: Clock) -> str | None:
    """The value of the session's setting that replaces its clock; None for the server's own."""
    return None if isinstance(clock, SystemClock) else str(micros(clock.now()))


SET_CLOCK = "SELECT set_config('ownloop_test.clock', %s, false)"


def span(length: timedelta | None) -> int | None:
    """Microseconds."""
    return None if length is None else length // timedelta.resolution


def is_gone(connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> bool:
    """Whether an idle connection was closed by the other side; no round trip."""
    if connection.closed:
        return True
    pgconn = connection.pgconn
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    if not poll.poll(0):
        return False
    try:
        pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return bool(pgconn.status != psycopg.pq.ConnStatus.OK or poll.poll(0))


# ---- the schema ------------------------------------------------------------------------------------------------------------------


def script(place: Place, since: int = 0, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> str:
    """The SQL that brings a schema from version `since` (0: there is none) to the newest; to be run in one transaction."""
    head = ["CREATE SCHEMA IF NOT EXISTS ownloop;"] if not since else []
    files = [name for names in migrations[since:] for name in names] + list(FUNCTIONS)
    known = f"INSERT INTO ownloop.meta (version, oldest) SELECT {len(migrations)}, {OLDEST} WHERE NOT EXISTS (SELECT FROM ownloop.meta);"
    update = f"UPDATE ownloop.meta SET version = {len(migrations)}, oldest = {OLDEST};"
    return place.sql("\n".join([*head, *(text_of(name) for name in files), known, update]))


def roles(place: Place) -> str:
    """The SQL that makes a role which can only read and call the functions."""
    return place.sql(text_of("roles.sql"))


def text_of(name: str) -> str:
    """A script that ships beside this file, or the text itself."""
    return resources.files(__package__).joinpath(name).read_text("utf-8") if name.endswith(".sql") else name


async def prepare(place: Place, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> int:
    """Bring the schema to the newest version, unless it is there already; the version before.

    Raises:
        NotAStore, NewerSchema, StoreReadOnly, StoreError
    """
    try:
        async with await psycopg.AsyncConnection.connect(place.conninfo, autocommit=True) as connection:
            before = await version(connection, place, len(migrations))
            if before < len(migrations):
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{place.schema} migrates",))
                    before = await version(connection, place, len(migrations))
                    if before < len(migrations):
                        await connection.execute(script(place, before, migrations).encode())
            return before
    except psycopg.Error as error:
        raise translate(error, place) from error


async def version(connection: psycopg.AsyncConnection[Any], place: Place, known: int) -> int:
    """The version of the schema; 0 if there is none.

    Raises:
        NotAStore, NewerSchema
    """
    tables = "SELECT array_agg(relname::text) FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = to_regnamespace(%s)"
    (there,) = (await (await connection.execute(tables, (sql.Identifier(place.schema).as_string(None),))).fetchone()) or (None,)
    if there is None:
        return 0
    if not {"meta", "threads", "events"} <= set(there):
        raise NotAStore(place.name, f"the schema holds other tables: {', '.join(sorted(there)[:3])}")
    row = await (await connection.execute(place.sql("SELECT version, oldest FROM ownloop.meta").encode())).fetchone()
    if row is None:
        raise NotAStore(place.name, "its table meta is empty")
    if row[1] > known:
        raise NewerSchema(place.name, row[0], known)
    return int(row[0])


# ---- errors ----------------------------------------------------------------------------------------------------------------------


def translate(error: Exception, place: Place) -> Exception:
    """Postgres's error as ours."""
    if isinstance(error, errors.DiskFull | errors.OutOfMemory):
        return StoreFull(place.name)
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return StoreReadOnly(place.name)
    if isinstance(error, errors.InsufficientPrivilege):
        return StoreError(
            f"{place.name}: this role may not do that ({_said(error)}); nothing was changed. Run `ownloop migrate` as the owner of the schema, and "
            "`ownloop migrate --roles` for what a worker's role needs"
        )
    if isinstance(error, errors.LockNotAvailable | errors.QueryCanceled):
        return StoreBusy(place.name, WAIT)
    if isinstance(error, errors.UndefinedTable | errors.UndefinedFunction | errors.InvalidSchemaName):
        return NotAStore(place.name, f"{_said(error)}; run `ownloop migrate`")
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return StoreError(f"{place.name}: no connection ({_said(error)}). See that the server runs and the URL is right, then try again")
    if isinstance(error, psycopg.Error):
        return StoreError(f"{place.name}: Postgres says {_said(error)!r} ({error.sqlstate or type(error).__name__}); nothing was half-written")
    return error


def lost(error: psycopg.Error, place: Place) -> StoreError:
    """A connection that broke while a statement was under way: it may have been committed."""
    return StoreError(
        f"{place.name}: the connection was lost before the answer came ({_said(error)}); whether it was written is not known. "
        "Look at the thread before you do it again"
    )


def _said(error: Exception) -> str:
    diagnosis = getattr(error, "diag", None)
    hint = f"; {diagnosis.message_hint}" if diagnosis is not None and diagnosis.message_hint else ""
    return f"{(diagnosis.message_primary if diagnosis is not None else None) or ' '.join(str(error).split())}{hint}"
