"""From a URL to a database whose schema is ours and of this version; and what Postgres's errors mean."""

from __future__ import annotations

import re
import select
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
from psycopg import conninfo, errors, sql

from ...clock import Clock, SystemClock, micros
from ...errors import NewerSchema, NotAStore, StoreBusy, StoreError, StoreFull, StoreReadOnly
from ..urls import masked

MIGRATIONS: tuple[tuple[str, ...], ...] = (("schema.sql",), ("version_2.sql",))
"""Scripts n bring a schema from version n to n + 1; append only. A release that changes functions alone appends (), or they would stay."""
FUNCTIONS = ("log.sql", "wake.sql", "outside.sql", "upkeep.sql")
"""Replaced as a whole by every migration, and by nothing else."""
OLDEST = 1
"""The oldest program (by the version it knows) that may still work on the newest schema: two stand beside each other while workers are replaced."""
DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "application_name": "ownloop",
    "client_encoding": "UTF8",
}
"""Settings of libpq, where the URL says nothing else: a server that is cut off is noticed before a lease has run out."""
WAIT = 30.0
"""Seconds to wait for a database that is away, for a connection of the pool, or for a row that somebody else's transaction holds."""
SESSION = f"""SELECT set_config('default_transaction_isolation', 'read committed', false),
    set_config('datestyle', 'ISO', false), set_config('intervalstyle', 'postgres', false),
    set_config('lock_timeout', CASE current_setting('lock_timeout') WHEN '0' THEN '{WAIT:.0f}s' ELSE current_setting('lock_timeout') END, false)"""
"""Sent on each connection that writes, whatever the database or the role has as its default."""
UNKEPT = (errors.UntranslatableCharacter, errors.CharacterNotInRepertoire, errors.InvalidTextRepresentation, UnicodeEncodeError)
"""What text that Postgres cannot hold causes."""
SAFE = (errors.DeadlockDetected, errors.SerializationFailure)
"""Errors after which nothing was written: the same statement can be sent again."""


@dataclass(frozen=True)
class Place:
    """Where a store is. `shown` holds no password; `conninfo` is for libpq."""

    shown: str
    conninfo: str = field(repr=False)
    schema: str
    connections: int

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.shown.partition('?')[0]} (schema {self.schema})"

    def sql(self, text: str) -> str:
        """The statement with this schema's name where it says `ownloop`."""
        return text if self.schema == "ownloop" else _renamed(text, self.schema)


@lru_cache(maxsize=256)
def _renamed(text: str, schema: str) -> str:
    quoted = sql.Identifier(schema).as_string(None)
    text = re.sub(
        r"(?<![\w'])ownloop\.(?=[a-z_])|(?<=SCHEMA )ownloop\b|(?<=NOT EXISTS )ownloop\b", lambda found: quoted + "." * found[0].endswith("."), text
    )
    text = text.replace("'ownloop'", sql.Literal(schema).as_string(None))
    return re.sub(r"(?<!\w)ownloop_app\b", f"{schema}_app", text)


def parse(url: str) -> Place:
    """`postgresql://user:password@host/database?schema=ownloop&connections=10`, and whatever libpq takes.

    Raises:
        ValueError: it is no such URL, or the name of the schema is odd.
    """
    if (odd := re.match(r"\w+://[^@]*?[/?#][^@]*@", url)) and ":" in odd[0].partition("://")[2] and "=" not in odd[0]:
        raise ValueError("the password of the Postgres URL holds one of / ? #; write it with %2F, %3F or %23 instead")
    parts = urlsplit(url)
    settings = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema, connections = settings.pop("schema", "ownloop"), settings.pop("connections", "10")
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(f"{masked(url)!r} names no Postgres database; write postgresql://user@host/database")
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,58}", schema):
        raise ValueError(f"schema={schema!r}: the name of a schema is made of at most 59 of a to z, 0 to 9 and _, and begins with no digit")
    if not connections.isdecimal() or int(connections) < 4:
        raise ValueError(f"connections={connections!r}: a process needs at least 4 connections")
    plain = f"{url.partition('?')[0]}?{urlencode(settings, quote_via=quote)}"  # libpq knows no + for a space
    try:
        known = conninfo.conninfo_to_dict(plain)
    except psycopg.Error as error:
        raise ValueError(f"the URL of the Postgres store is wrong: {str(error).strip()}") from None
    return Place(masked(url), conninfo.make_conninfo("", **{**DEFAULTS, **known}), schema, int(connections))


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


MAKE = """DO $$ BEGIN
    IF to_regnamespace('ownloop') IS NULL THEN
        CREATE SCHEMA ownloop;
    END IF;
END $$;"""
"""IF NOT EXISTS asks for the right to make schemas even where there is one."""
ONCE = "DO $once$ BEGIN IF to_regclass(quote_ident('ownloop') || '.meta') IS NULL THEN EXECUTE $tables$ {tables} $tables$; END IF; END $once$;"
"""The same script may be run again."""
GUARD = """DO $$ BEGIN
    IF (SELECT version FROM ownloop.meta) <> {since} THEN
        RAISE EXCEPTION 'the schema has version %, and this script begins at {since}; nothing was changed', (SELECT version FROM ownloop.meta)
            USING HINT = 'the script that fits: ownloop migrate --sql --since ' || (SELECT version FROM ownloop.meta);
    END IF;
END $$;"""


def script(place: Place, since: int = 0, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> str:
    """The SQL that brings a schema from version `since` (0: there is none) to the newest; to be run in one transaction."""
    newest = len(migrations)
    tables = "\n".join(text_of(name) for names in migrations[since:] for name in names)
    known = f"INSERT INTO ownloop.meta (version, oldest) SELECT {newest}, {OLDEST} WHERE NOT EXISTS (SELECT FROM ownloop.meta);"
    head = [GUARD.format(since=since), tables] if since else [MAKE, ONCE.replace("{tables}", tables), known, GUARD.format(since=newest)]
    update = f"UPDATE ownloop.meta SET version = {newest}, oldest = {OLDEST};"
    return place.sql("\n".join([*head, *(text_of(name) for name in FUNCTIONS), update]))


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
            await connection.execute(SESSION)
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
        NotAStore, NewerSchema, StoreError
    """
    if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
        raise StoreError(
            f"{place.name}: the database keeps text as {encoding}, and ownloop needs UTF8; nothing was made. Name a database made with "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
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
    if isinstance(error, errors.DiskFull):
        return StoreFull(place.name)
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return StoreReadOnly(place.name, f"Postgres says {_said(error)!r}: name the primary (?target_session_attrs=read-write), not a replica")
    if isinstance(error, errors.InsufficientPrivilege):
        return StoreError(
            f"{place.name}: this role may not do that ({_said(error)}); nothing was changed. Run `ownloop migrate` as the owner of the schema, and "
            "`ownloop migrate --roles` for what a worker's role needs"
        )
    if isinstance(error, errors.LockNotAvailable):
        return StoreBusy(place.name, WAIT)
    if isinstance(error, errors.QueryCanceled):
        return StoreError(
            f"{place.name}: the statement was stopped ({_said(error)}); nothing was written. Raise the role's limit, or see what is slow"
        )
    if isinstance(error, UNKEPT) or (isinstance(error, psycopg.DataError) and error.sqlstate is None):
        return StoreError(
            f"{place.name}: a name, key or id holds a NUL or half a surrogate pair, which Postgres cannot keep ({_said(error)}); nothing was "
            "written. Take it out, or keep it in the data, which may hold anything"
        )
    if isinstance(error, errors.ProgramLimitExceeded):
        return StoreError(f"{place.name}: too long ({_said(error)}); nothing was written. A name, key or id has at most 2,600 bytes, a value 256 MB")
    if isinstance(error, errors.UndefinedTable | errors.UndefinedFunction | errors.InvalidSchemaName):
        return NotAStore(place.name, f"{_said(error)}; run `ownloop migrate`")
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return StoreError(f"{place.name}: no connection ({_said(error)}). See that the server runs and the URL is right, then try again")
    if isinstance(error, psycopg.Error):
        return StoreError(f"{place.name}: Postgres says {_said(error)!r} ({error.sqlstate or type(error).__name__}); nothing was half-written")
    return error


def is_answer(error: psycopg.Error) -> bool:
    """Whether the server refused the statement, so that nothing was written. A FATAL that ends the session may come after the commit."""
    return error.diag.severity_nonlocalized == "ERROR"


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
