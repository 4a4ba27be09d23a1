"""The verbs from outside in the caller's own transaction: a business row and an event are committed together, or neither is."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import psycopg

from ... import ids
from ...clock import Clock
from ...events import Event
from ..values import dump, number_of
from .codec import EVENT
from .connect import Place, set_clock
from .verbs import Call, Verbs

Send = Callable[[str, str], Awaitable[Any]]
"""Runs a statement with one parameter, written `{}` in it; the first value of its first row."""


class Joined(Verbs):
    """A store's view on a connection that is the caller's. What its driver raises comes through as it is; a refusal leaves the transaction whole.

    Raises:
        TypeError: the object is no connection or session that is known.
        ValueError: it is not in a transaction, so that the append would be committed at once.
    """

    def __init__(self, tx: Any, place: Place, clock: Clock) -> None:
        self._send, self._place, self._clock = sender(tx), place, clock

    async def _call(self, call: Call, *, alone: bool = False) -> Any:
        if (now := set_clock(self._clock)) is not None:
            await self._send("SELECT set_config('ownloop_test.clock', {}, true)", now)
        text = await self._send(self._place.sql("SELECT ownloop.append({}::text::jsonb)::text"), dump(call))
        return None if text is None else json.loads(text)

    async def find(self, agent: str, key: str) -> str | None:
        """See `Store.find`; also what this transaction has started."""
        query = "SELECT number::text FROM ownloop.threads, (SELECT {}::text::jsonb AS asked) AS one WHERE agent = asked ->> 0 AND key = asked ->> 1"
        number = await self._send(self._place.sql(query), dump([agent, key]))
        return None if number is None else ids.thread_id(int(number))

    async def events(self, thread_id: str) -> list[Event]:
        """The log as this transaction sees it."""
        query = f"SELECT json_agg(json_build_array({EVENT}) ORDER BY seq)::text FROM ownloop.events WHERE thread = {{}}::text::bigint"
        rows = json.loads(await self._send(self._place.sql(query), str(number_of(thread_id))) or "[]")
        return [await self._event(thread_id, row) for row in rows]

    async def _blobs(self, hashes: Collection[str]) -> Mapping[str, str]:
        query = self._place.sql("SELECT json_object_agg(hash, json)::text FROM ownloop.blobs WHERE hash = ANY ({}::text::text[])")
        return dict(json.loads(await self._send(query, "{" + ",".join(hashes) + "}")))


def sender(tx: Any) -> Send:
    """How to send a statement over this connection or session, by the driver it comes from; a transaction stands for its connection."""
    if type(tx).__name__.endswith("Transaction"):
        tx = next((found for name in ("session", "connection", "_connection") if (found := getattr(tx, name, None)) is not None), tx)
    if isinstance(tx, psycopg.AsyncConnection):
        return _psycopg(tx)
    if isinstance(tx, psycopg.Connection):
        return _psycopg_sync(tx)
    drivers = {kind.__module__.partition(".")[0] for kind in type(tx).__mro__}
    if "asyncpg" in drivers and hasattr(tx, "is_in_transaction"):
        return _asyncpg(tx)
    if "sqlalchemy" in drivers and (hasattr(tx, "exec_driver_sql") or hasattr(tx, "get_bind")):
        return _sqlalchemy(tx)
    raise TypeError(
        f"tx={tx!r} is no connection that ownloop knows; pass a connection of psycopg or asyncpg, or a connection or session of SQLAlchemy"
    )


def _check(is_in_transaction: bool) -> None:
    if not is_in_transaction:
        raise ValueError(
            "tx= is in no transaction: what is appended would be committed at once. Begin one first: async with connection.transaction()"
        )


def _psycopg(tx: psycopg.AsyncConnection[Any]) -> Send:
    async def send(query: str, value: str) -> Any:
        _check(not tx.autocommit or tx.info.transaction_status != psycopg.pq.TransactionStatus.IDLE)
        async with psycopg.AsyncCursor(tx, row_factory=psycopg.rows.tuple_row) as cursor:
            row = await (await cursor.execute(query.format("%s").encode(), (value,))).fetchone()
        return None if row is None else row[0]

    return send


def _psycopg_sync(tx: psycopg.Connection[Any]) -> Send:
    def run(query: str, value: str) -> Any:
        with psycopg.Cursor(tx, row_factory=psycopg.rows.tuple_row) as cursor:
            row = cursor.execute(query.format("%s").encode(), (value,)).fetchone()
        return None if row is None else row[0]

    async def send(query: str, value: str) -> Any:
        _check(not tx.autocommit or tx.info.transaction_status != psycopg.pq.TransactionStatus.IDLE)
        return await asyncio.to_thread(run, query, value)

    return send


def _asyncpg(tx: Any) -> Send:
    async def send(query: str, value: str) -> Any:
        _check(tx.is_in_transaction())
        return await tx.fetchval(query.format("$1"), value)

    return send


def _sqlalchemy(tx: Any) -> Send:
    """A session gives its connection; the mark of a parameter is that of the driver below."""

    async def send(query: str, value: str) -> Any:
        connection = tx
        if not hasattr(tx, "exec_driver_sql"):
            connection = tx.connection()
            connection = await connection if inspect.iscoroutine(connection) else connection
        is_async = inspect.iscoroutinefunction(type(connection).exec_driver_sql)
        raw = await connection.get_raw_connection() if is_async else connection.connection
        if connection.dialect.name != "postgresql":
            raise TypeError(f"tx= is on {connection.dialect.name}; pass a connection or session on the Postgres database that holds the threads")
        _check(not getattr(raw.dbapi_connection, "autocommit", False))
        written = query.format("$1" if connection.dialect.paramstyle == "numeric_dollar" else "%s")
        if not is_async:
            return await asyncio.to_thread(lambda: connection.exec_driver_sql(written, (value,)).scalar())
        return (await connection.exec_driver_sql(written, (value,))).scalar()

    return send
