"""Many workers on nothing but Postgres: hints are jobs of PgQueuer, written with the events that cause them (pgqueuer.sql).

A job is a hint and may be lost, doubled or early. What guarantees that every thread goes on is the sweep: each worker looks at the rows every two
seconds, and gives jobs to those that are ready without one. So PgQueuer's tables may be emptied at any time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

import psycopg

from ..clock import duration
from ..errors import StoreError
from ..stores.base import Store
from .base import Agents, RunOne

if TYPE_CHECKING:
    from ..stores.postgres import PostgresStore
    from .pgqueuer_queue import Queue

log = logging.getLogger("ownloop")

VERSION = 2
"""Of pgqueuer.sql; the schema's comment says which one is there. A newer one takes the place of an older one."""
SWEEP = 2.0
"""Seconds between two looks at the rows, give or take a fifth, so that workers do not look all at once."""
SWEPT = 100
"""Ready threads of each agent that one look gives jobs to; timers: twenty times as many."""
PRUNE = 3600.0
"""Seconds between two prunings."""
KEPT = timedelta(days=1)
"""How long PgQueuer's log is kept."""
AWAY = (StoreError, psycopg.Error)
_STATE = """SELECT obj_description(to_regnamespace('ownloop_pgq'), 'pg_namespace'), to_regclass('ownloop_pgq.pgqueuer') IS NOT NULL,
    (SELECT count(*) FROM pg_trigger WHERE tgname IN ('pgqueuer_born', 'pgqueuer_hint') AND tgrelid = to_regclass('ownloop' || '.threads')) = 2"""


class PgQueuer:
    """The engine of `postgresql://` stores. Its tables stand in a schema beside the store's ("ownloop_pgq"), made when a worker first serves, or by
    `ownloop migrate`; `DROP SCHEMA ownloop_pgq CASCADE` takes all of it away and loses nothing.

    Args:
        limits: for an agent how many of its wakes may run at once, in all workers together; every worker must be told the same.
        drain: how long the end waits for what runs; after that it is left to its lease, and a call with effects to the question whether it happened.
        heartbeat: after how long PgQueuer gives the jobs of a silent worker to others, and their places under `limits`. What brings a thread back is
            its lease, not this.
    """

    _queue: Queue

    def __init__(self, *, limits: Mapping[str, int] | None = None, drain: timedelta | str = "30s", heartbeat: timedelta | str = "60s") -> None:
        self._limits, self._drain, self._heartbeat = dict(limits or {}), duration(drain), duration(heartbeat)
        self._upto = 0

    def attach(self, store: Store, agents: Agents, concurrency: int) -> None:
        if not hasattr(store, "place"):
            raise ValueError(f"PgQueuer keeps its jobs in Postgres, and the store is {store.url}; leave engine= out, or name postgresql://…")
        self._store, self._agents, self._concurrency = cast("PostgresStore", store), agents, concurrency
        self._schema = f"{self._store.place.schema}_pgq"

    async def wake(self, thread_id: str, *, at: datetime | None = None, tx: Any = None) -> None:
        """Nothing is left to do: the commit that made the thread runnable, with `tx` the caller's own, made the job too."""

    # ---- serving ---------------------------------------------------------------------------------------------------------------

    async def serve(self, run_one: RunOne) -> None:
        from .pgqueuer_queue import Queue

        slots, runs = asyncio.Semaphore(self._concurrency), set[asyncio.Task[None]]()
        await self.install()
        upkeep = asyncio.ensure_future(self._upkeep())
        try:
            while True:
                self._queue = Queue(self._store, self._schema, run_one, slots, self._concurrency, self._heartbeat)
                self._queue.register(self._agents(), self._limits)
                runs.add(asyncio.ensure_future(self._queue.run()))
                await self._queue.stopped.wait()  # by itself only in trouble; its wakes go on, and others take the jobs meanwhile
                await asyncio.sleep(1)
                with suppress(*AWAY):
                    await self.install()
        finally:
            upkeep.cancel()
            if runs:
                self._queue.stop()
                is_busy = sum(not one.done() for one in runs) > 1 or self._queue.held()[1]
                late = (await asyncio.wait(runs, timeout=self._drain.total_seconds() if is_busy else 1))[1]
                if is_busy and late:
                    log.warning("wakes still run after %s; they are left to their leases", self._drain)
                for one in () if is_busy else late:  # nothing runs, and the database is away
                    one.cancel()

    async def _upkeep(self) -> None:
        lost, pruned = 0, time.monotonic() - random.uniform(0, PRUNE)  # a worker may live for less than an hour
        while True:  # at once: what was written before the triggers were there has no job
            try:
                self._queue.register(self._agents(), self._limits)
                lost = await self.sweep(self._queue)
                if time.monotonic() > pruned + PRUNE and not await self.prune():
                    pruned = time.monotonic()
            except AWAY as error:
                log.warning("the sweep over the threads did not take place, looking again: %s", error)
            await asyncio.sleep((SWEEP / 10 if lost else SWEEP) * random.uniform(0.8, 1.2))

    async def sweep(self, queue: Queue | None = None) -> int:
        """Give jobs to what is ready and has none, and to timers that are near; how many had surely been lost. What was given to `queue` and never
        arrived there is taken back."""
        asked = (sorted(self._agents()), SWEPT, self._upto, *(queue.held() if queue else (None, [])))
        lost, self._upto = (await self._rows("SELECT lost, upto FROM ownloop_pgq.sweep(%s::text[], %s, %s, %s, %s::bigint[])", asked))[0]
        return int(lost)

    async def prune(self, older: timedelta = KEPT) -> int:
        """Forget some of what PgQueuer's log says of jobs that ended before; how much. Again until it is 0."""
        return int((await self._rows("SELECT ownloop_pgq.prune(%s)", (older,)))[0][0])

    # ---- the schema ------------------------------------------------------------------------------------------------------------

    def _sql(self, text: str) -> str:
        return self._store.place.sql(text.replace("ownloop_pgq", "\0")).replace("\0", self._schema)

    async def _rows(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        return await self._store.connections.read(self._sql(query), values)

    async def install(self) -> None:
        """Make PgQueuer's schema and the triggers, unless they are there.

        Raises:
            StoreError: this role may not do that; the owner of the schema does it by `ownloop migrate`.
        """

        async def make(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{self._schema} migrates",))
                if not await self._is_installed():
                    await connection.execute(f"SET LOCAL lock_timeout = '500ms'; {self.migration()}".encode())

        while not await self._is_installed():
            try:
                await self._store.connections.use(make)
            except psycopg.errors.LockNotAvailable:  # not waited for: whoever writes to a thread would wait behind this
                log.warning("a transaction holds rows of %s; the triggers of %s are made when it has ended", self._store.place.name, self._schema)
                await asyncio.sleep(SWEEP)
            except psycopg.errors.InsufficientPrivilege as error:
                what = f"{self._store.place.name}: this role may not make the schema {self._schema}. Run `ownloop migrate` as the owner of the store"
                raise StoreError(f"{what}; if it may make none, an administrator does CREATE SCHEMA {self._schema} AUTHORIZATION owner") from error

    async def _is_installed(self) -> bool:
        said, has_table, has_triggers = (await self._rows(_STATE))[0]
        known = str(said or "").rpartition(" ")[2]
        return bool(has_table and has_triggers and known.isdecimal() and int(known) >= VERSION)

    def migration(self) -> str:
        """The SQL that makes all of it; may be run again."""
        from .pgqueuer_queue import tables

        once = f"DO $once$ BEGIN IF to_regclass('ownloop_pgq.pgqueuer') IS NULL THEN\n{tables('ownloop_pgq')}\nEND IF; END $once$;"
        return self._sql(f"{once}\n{_text()}\nCOMMENT ON SCHEMA ownloop_pgq IS 'wake-ups of ownloop, version {VERSION}';\n")

    def roles(self) -> str:
        """The SQL that lets the role of `ownloop migrate --roles` work with it."""
        return self._sql(_text()[_text().index("-- For the role") :])


def _text() -> str:
    return resources.files(__package__).joinpath("pgqueuer.sql").read_text("utf-8")
