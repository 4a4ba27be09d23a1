"""PgQueuer over our own connections. Its shipped driver keeps every query waiting up to a second for LISTEN, and its run ends with the database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import psycopg
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.qm import QueueManager
from pgqueuer.core.tm import TaskManager
from pgqueuer.domain.errors import RetryRequested
from pgqueuer.domain.models import Job
from pgqueuer.domain.settings import DBSettings
from pgqueuer.ports.driver import NotifyCallback
from psycopg import AsyncRawCursor, sql
from psycopg.rows import dict_row

from ..errors import StoreError
from .base import RunOne, is_cancelled

if TYPE_CHECKING:
    from ..stores.postgres import PostgresStore

log = logging.getLogger("ownloop")

AWAY = (StoreError, psycopg.OperationalError, psycopg.InterfaceError, OSError)
"""The database is away, or the connection was lost: it is tried again, and no job is lost over it."""
PAUSE = 0.5
"""Seconds until it is tried again."""
QUIET = 0.02
"""Seconds between two looks at the jobs, however many notices come: each look asks the database four times."""
BATCH = 25
NAMES = {"function": "fn_pgqueuer_changed", "trigger": "tg_pgqueuer_changed", "queue_status_type": "pgqueuer_status", "queue_table": "pgqueuer"}
TABLES = {"queue_table_log": "pgqueuer_log", "statistics_table": "pgqueuer_statistics", "schedules_table": "pgqueuer_schedules"}
Rows = list[dict[str, object]]


def settings(schema: str) -> DBSettings:
    """Every name is given: PgQueuer would take those that are not from the environment, which may be another program's."""
    own = {"prefix": "", "db_schema": schema, "channel": schema, "durability": "balanced"}
    return DBSettings.model_validate({**own, **NAMES, **TABLES})


def tables(schema: str) -> str:
    """The body of a block that makes PgQueuer's tables. IF NOT EXISTS asks for the right to make schemas even where there is one."""
    made = f"IF to_regnamespace('{schema}') IS NULL THEN CREATE SCHEMA {schema}; END IF;"
    return QueryBuilderEnvironment(settings(schema)).build_install_query().replace(f"CREATE SCHEMA IF NOT EXISTS {schema};", made)


class Driver:
    """What PgQueuer asks of a database: queries on the store's pool, which wait for a database that is away; LISTEN on a connection of its own."""

    def __init__(self, store: PostgresStore, channel: str) -> None:
        self._store, self._channel, self._callbacks = store, channel, list[NotifyCallback]()
        self._listens, self.shutdown, self.tm, self.is_told = asyncio.Event(), asyncio.Event(), TaskManager(), False

    async def fetch(self, query: str, *args: object) -> Rows:
        return (await self._sent(query, args))[0]

    async def execute(self, query: str, *args: object) -> str:
        return (await self._sent(query, args))[1]

    async def _sent(self, query: str, args: tuple[object, ...]) -> tuple[Rows, str]:
        async def work(connection: psycopg.AsyncConnection[Any]) -> tuple[Rows, str]:
            async with AsyncRawCursor(connection, row_factory=dict_row) as cursor:
                try:
                    await cursor.execute(query.encode(), args or None)
                except (psycopg.errors.FeatureNotSupported, psycopg.errors.InternalError_) as error:  # prepared for tables that were made anew since
                    raise psycopg.OperationalError(str(error)) from error  # so that it is sent again, on another connection
                return (await cursor.fetchall() if cursor.description else []), cursor.statusmessage or ""

        while True:
            try:
                return await self._store.connections.use(work)
            except AWAY as error:
                if self.shutdown.is_set():
                    raise
                log.warning("the job queue cannot be reached, trying again: %s", error)
            await asyncio.sleep(PAUSE)

    # ---- notices ---------------------------------------------------------------------------------------------------------------

    async def notify(self, channel: str, payload: str) -> None:
        """So PgQueuer looks whether it still hears. While it does not listen that waits: an answer that nobody hears would end its run."""
        await self._listens.wait()
        await self.execute("SELECT pg_notify($1, $2)", channel, payload)

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        self._callbacks.append(callback)

    async def listen(self) -> None:
        """Until cancelled; a connection that is lost comes back, and whatever was missed meanwhile is asked for."""
        sent = '"operation": "insert", "sent_at": "2026-01-01T00:00:00Z", "table": "pgqueuer", "type": "table_changed_event"'
        while not is_cancelled():
            try:
                async with await psycopg.AsyncConnection.connect(self._store.place.conninfo, autocommit=True) as connection:
                    await connection.execute(sql.SQL("LISTEN {}; SET idle_session_timeout = 0").format(sql.Identifier(self._channel)))
                    self._listens.set()
                    self._hear(f'{{"channel": "{self._channel}", {sent}}}')
                    while not is_cancelled():
                        async for notice in connection.notifies(timeout=5):
                            self._hear(notice.payload)
            except (psycopg.Error, OSError) as error:
                log.warning("nothing is heard of new jobs, listening again: %s", error)
            self._listens.clear()
            await asyncio.sleep(PAUSE)

    def _hear(self, payload: str) -> None:
        """Tell PgQueuer, but not of new jobs again before it has asked for them: it keeps each notice until it gets round to it."""
        if "table_changed_event" in payload:
            if self.is_told:
                return
            self.is_told = True
        for callback in self._callbacks:
            callback(payload)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Nothing was opened."""


class _Manager(QueueManager):
    """As many jobs as handlers may run, which may be one: `run` itself takes no less than two. It looks at once, and not again within QUIET."""

    most, looked = 1, 0.0
    driver: Driver

    async def fetch_jobs(self, batch_size: int, global_concurrency_limit: int | None, heartbeat_timeout: timedelta) -> AsyncGenerator[Job, None]:
        try:
            await asyncio.sleep(self.looked + QUIET - time.monotonic())
            self.driver.is_told, self.looked = False, time.monotonic()
            async for job in super().fetch_jobs(batch_size, self.most, heartbeat_timeout):
                self.driver.is_told = False  # `run` drops a notice with each job
                yield job
        except Exception:
            self.shutdown.set()  # `run` ends now, and waits for its jobs
            raise


class Queue:
    """Runs jobs until it is told to stop, or is in trouble. A job lives as long as its wake."""

    def __init__(self, store: PostgresStore, schema: str, run_one: RunOne, slots: asyncio.Semaphore, most: int, heartbeat: timedelta) -> None:
        self._run_one, self._slots, self._beat = run_one, slots, heartbeat
        self._driver, names = Driver(store, schema), settings(schema)
        queries = Queries(self._driver, QueryBuilderEnvironment(names), QueryQueueBuilder(names), QuerySchedulerBuilder(names))
        self._manager = _Manager(queries, channel=names.channel)
        self._manager.most, self._manager.driver = most, self._driver
        self.stopped = self._manager.shutdown
        """It takes no more jobs; `run` returns once those that run have ended."""

    def register(self, agents: Collection[str], limits: Mapping[str, int]) -> None:
        """Take jobs of these agents, too; `limits`: of some at most so many at once in all workers."""
        for agent in [one for one in agents if one not in self._manager.entrypoint_registry]:
            self._manager.entrypoint(agent, concurrency_limit=limits.get(agent, 0), accepts_context=False)(self._job)

    def held(self) -> tuple[object, list[int]]:
        """What PgQueuer calls this worker, and the jobs that have arrived here."""
        return self._manager.queue_manager_id, [*self._manager.job_context]

    def stop(self) -> None:
        self.stopped.set()
        self._driver.shutdown.set()

    async def run(self) -> None:
        listening, most, look, off = asyncio.ensure_future(self._driver.listen()), self._manager.most, timedelta(seconds=5), timedelta(0)
        batch, most = max(1, min(BATCH, most // 2)), max(2, most)
        try:
            await self._manager.run(
                look, batch, max_concurrent_tasks=most, heartbeat_timeout=self._beat, log_aggregation_interval=off, shutdown_on_listener_failure=True
            )
        except Exception:
            log.exception("the job queue ended and begins anew")
        finally:
            self.stop()
            listening.cancel()

    async def _job(self, job: Job) -> None:
        """One wake. Whatever goes wrong around it, the job is tried again; what goes wrong inside it stands in the thread's log."""
        async with self._slots:  # waited for only where wakes go on of a queue that was in trouble
            if self.stopped.is_set():
                raise RetryRequested(reason="this worker stops")
            try:
                await self._run_one((job.payload or b"").decode())
            except Exception as error:
                log.warning("a wake of %r could not be run, trying again in a second: %r", job.payload, error)
                raise RetryRequested(timedelta(seconds=1), repr(error)) from None  # its words may be such as no log of Postgres can hold
