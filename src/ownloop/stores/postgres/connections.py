"""The connections of a store: borrowed by one caller at a time, taken again while they are warm, replaced when the server has cut them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from ...clock import Clock
from ...errors import StoreError
from .connect import SAFE, SESSION, SET_CLOCK, WAIT, Place, is_answer, is_gone, lost, set_clock

T = TypeVar("T")


LAST_WORDS = 1.0
"""Seconds that whoever is cancelled waits for the answer to a statement that may be sent again."""
PATIENCE = 1.0
"""Seconds after which the pool is not waited for alone."""
KEPT_SECONDS = 30.0
"""How long a connection is taken again without asking the pool, the last one first: what it knows is still warm."""
SPARE = 2
"""Connections beside the pool at most."""
AGAIN = 20
"""How often a statement that lost a deadlock is sent."""
IDLE = psycopg.pq.TransactionStatus.IDLE


class Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """Whoever is cancelled hears of it when the statement has been answered: a commit is never left half-known. A second time it is cut; so is, after
    LAST_WORDS, what may be sent again."""

    kept_until = 0.0
    again = False

    @cached_property
    def hand(self) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        """One cursor for all short answers: whoever has borrowed the connection has it alone."""
        return self.cursor()

    async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        loop, number = asyncio.get_running_loop(), self.pgconn.socket
        cancelled: asyncio.CancelledError | None = None
        give_up = math.inf
        try:
            wanted = next(gen)
            while True:
                try:
                    ready = await _ready(loop, number, wanted, give_up)
                except asyncio.CancelledError as error:
                    if cancelled is not None:
                        self.pgconn.finish()
                        raise
                    cancelled, give_up = error, loop.time() + LAST_WORDS if self.again else math.inf
                    continue
                if not ready and cancelled is not None:
                    self.pgconn.finish()
                    raise cancelled
                wanted = gen.send(ready)
        except StopIteration as end:
            if cancelled is not None:
                raise cancelled from None
            return end.value


async def _ready(loop: asyncio.AbstractEventLoop, number: int, wanted: int, give_up: float) -> int:
    """Wait until a socket can be read (1) or written (2), as asked for; 0 at that time of the loop's clock."""
    future: asyncio.Future[int] = loop.create_future()

    def tell(what: int) -> None:
        if not future.done():
            future.set_result(what)

    timer = loop.call_at(give_up, tell, 0) if give_up < math.inf else None
    if wanted & 1:
        loop.add_reader(number, tell, 1)
    if wanted & 2:
        loop.add_writer(number, tell, 2)
    try:
        return await future
    finally:
        if timer is not None:
            timer.cancel()
        if wanted & 1:
            loop.remove_reader(number)
        if wanted & 2:
            loop.remove_writer(number)


class Connections:
    """At most `place.connections` at once, and a few more while the pool does not know that the server is back."""

    def __init__(self, place: Place, clock: Clock) -> None:
        self._place, self._clock = place, clock
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            place.conninfo,
            connection_class=Connection,
            min_size=1,
            max_size=place.connections,
            kwargs={"autocommit": True},
            configure=_configure,
            timeout=WAIT,
            open=False,
        )
        self._spares: set[Connection] = set()
        self._kept: list[Connection] = []
        self._asking = self._sparing = 0  # who waits for the pool; spares that are being made
        self._is_over = False
        self._own: WeakValueDictionary[int, Connection] = WeakValueDictionary()

    async def open(self) -> None:
        """Wait for the first connection.

        Raises:
            StoreError: none came.
        """
        try:
            await self._pool.open(wait=True, timeout=WAIT)
        except PoolTimeout:
            await self._pool.close(timeout=LAST_WORDS)
            raise StoreError(f"{self._place.name} gave no connection in {WAIT:g} s. See that the server runs and the URL is right") from None

    async def close(self) -> None:
        self._is_over = True
        while self._kept:
            await self._pool.putconn(self._kept.pop())
        await self._pool.close(timeout=LAST_WORDS)

    def is_own(self, pid: int) -> bool:
        """Whether this is the process of a connection of this store: what it commits is not news from outside."""
        connection = self._own.get(pid)
        return connection is not None and not connection.closed

    async def read(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement that may be sent twice.

        Raises:
            StoreError, psycopg.Error
        """
        encoded = self._place.sql(query).encode()

        async def look(connection: Connection) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(encoded, values)
            return await cursor.fetchall() if cursor.rownumber is not None else []

        return await self.use(look)

    async def use(self, work: Callable[[Connection], Coroutine[Any, Any, T]], *, again: bool = True) -> T:
        """Do this on a connection. What lost a deadlock is done again, and what was cut off, if it may be (`again`).

        Raises:
            StoreError: there is no connection, or it was lost while the statement was under way.
            psycopg.Error: Postgres refused it.
        """
        for left in reversed(range(AGAIN)):
            connection = await self._borrow()
            connection.again = again
            try:
                if (now := set_clock(self._clock)) is not None:
                    await connection.execute(SET_CLOCK, (now,))
                return await work(connection)
            except SAFE:
                if not left:
                    raise
            except psycopg.OperationalError as error:
                if is_answer(error):
                    raise
                await connection.close()
                if not again or not left:
                    raise lost(error, self._place) from error
            finally:
                await self._give_back(connection)
        raise AssertionError("the last time raises")

    async def _borrow(self) -> Connection:
        """A connection that is alive, as far as a look at its socket tells; what a restart has cut is thrown away."""
        while self._kept:
            connection = self._kept.pop()
            if is_gone(connection):
                await connection.close()
            elif time.monotonic() < connection.kept_until:
                return connection
            await self._pool.putconn(connection)
        self._asking += 1
        try:
            return await self._borrow_from_pool()
        finally:
            self._asking -= 1

    async def _borrow_from_pool(self) -> Connection:
        give_up, task = time.monotonic() + WAIT, asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        while time.monotonic() < give_up:
            try:
                connection: Connection | None = await self._pool.getconn(timeout=PATIENCE)
            except PoolClosed:
                raise StoreError(f"{self._place.name} is closed; nothing was written. Open it again") from None
            except PoolTimeout:
                connection = await self._spare()
            if task.cancelling() > before:  # before Python 3.12 the pool loses a cancellation that meets the connection
                if connection is not None:
                    await self._give_back(connection)
                raise asyncio.CancelledError
            if connection is None:
                await asyncio.sleep(0.1)
            elif is_gone(connection):
                await connection.close()
                await self._give_back(connection)
            else:
                self._own[connection.pgconn.backend_pid] = connection
                connection.kept_until = time.monotonic() + KEPT_SECONDS
                return connection
        raise StoreError(f"{self._place.name} gave no connection in {WAIT:g} s; nothing was written. See that the server runs, then try again")

    async def _spare(self) -> Connection | None:
        """A connection beside the pool, if the server gives one: after a restart the pool may take seconds to find out that it is back."""
        if len(self._spares) + self._sparing >= SPARE:
            return None
        self._sparing += 1
        try:
            connection = await Connection.connect(self._place.conninfo, autocommit=True)
            await connection.execute(SESSION)
        except psycopg.OperationalError:
            return None
        finally:
            self._sparing -= 1
        self._spares.add(connection)
        return connection

    async def _give_back(self, connection: Connection) -> None:
        if connection in self._spares:
            self._spares.discard(connection)
            await connection.close()
        elif not (self._asking or self._is_over) and time.monotonic() < connection.kept_until and connection.pgconn.transaction_status == IDLE:
            self._kept.append(connection)
        else:
            await self._pool.putconn(connection)


async def _configure(connection: Connection) -> None:
    await connection.execute(SESSION)
