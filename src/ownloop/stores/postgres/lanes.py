"""The connections that write. While all lanes are busy, calls gather, and the next free lane sends them as one statement: one commit for many.

A refusal is an answer, so that calls may share a transaction; a call that would wait for a row answers "busy" and is sent again alone. An error of
one is an error of all: nothing was written then, and each is sent alone. Nobody hears "ok" before the commit. What waits for somebody else's
transaction takes half of the connections at most, and one a thread, so that a row that is held for long stops nothing else.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from ...clock import Clock
from ...errors import StoreError
from ..values import dump
from .connect import SAFE, SESSION, SET_CLOCK, WAIT, Place, is_answer, is_gone, lost, set_clock, translate

T = TypeVar("T")


class Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """Whoever is cancelled hears of it when the statement has been answered: a commit is never left half-known. A second time it is cut."""

    kept_until = 0.0

    @cached_property
    def hand(self) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        """One cursor for all short answers: whoever has borrowed the connection has it alone."""
        return self.cursor()

    async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        loop, number = asyncio.get_running_loop(), self.pgconn.socket
        cancelled: asyncio.CancelledError | None = None
        try:
            wanted = next(gen)
            while True:
                try:
                    ready = await _ready(loop, number, wanted)
                except asyncio.CancelledError as error:
                    if cancelled is not None:
                        self.pgconn.finish()
                        raise
                    cancelled = error
                    continue
                wanted = gen.send(ready)
        except StopIteration as end:
            if cancelled is not None:
                raise cancelled from None
            return end.value


async def _ready(loop: asyncio.AbstractEventLoop, number: int, wanted: int) -> int:
    """Wait until a socket can be read (1) or written (2), as asked for."""
    future: asyncio.Future[int] = loop.create_future()

    def tell(what: int) -> None:
        if not future.done():
            future.set_result(what)

    if wanted & 1:
        loop.add_reader(number, tell, 1)
    if wanted & 2:
        loop.add_writer(number, tell, 2)
    try:
        return await future
    finally:
        if wanted & 1:
            loop.remove_reader(number)
        if wanted & 2:
            loop.remove_writer(number)


Pool = AsyncConnectionPool[Connection]
IDLE = psycopg.pq.TransactionStatus.IDLE

LANES = 2
"""Groups under way at once: while one waits for the disk, the next one is computed."""
GROUP = 100
"""At most so many calls in one statement."""
SMALL = 8
"""So many calls are not divided among the lanes."""
PATIENCE = 1.0
"""Seconds after which the pool is not waited for alone."""
KEPT_SECONDS = 30.0
"""How long a connection is taken again without asking the pool, the last one first: what it knows is still warm."""
SPARE = 2
"""Connections beside the pool at most."""
BUSY = {"busy": True}
AGAIN = 20
"""How often a statement that lost a deadlock is sent."""
REPEATABLE = ("claim", "release", "renew")
"""Calls that may be sent twice: the epoch refuses the second."""
BUNDLED = {"kind", "by", "data"}
"""What a bundle holds of a message."""


@dataclass(slots=True)
class _Waiting:
    """A call that waits for a lane. `again`: it may be sent twice; `thread`: 0 where it is about none; `message`: the draft a bundle can hold."""

    call: dict[str, Any]
    again: bool
    thread: int
    message: dict[str, Any] | None
    future: asyncio.Future[Any]

    def refuse(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def _keeps_values(call: dict[str, Any]) -> bool:
    """Whether it stores large values, which others may be storing, too: a row that they hold would keep a group waiting."""
    return any("blobs" in draft for draft in call.get("drafts") or [call.get("draft", ())])


def _message_of(call: dict[str, Any]) -> dict[str, Any] | None:
    """The draft of a message without a token, that says nothing but its text."""
    if "plain" not in call or call["do"] != "message" or call["dedupe"] is not None or call["at_head"] is not None:
        return None
    draft: dict[str, Any] = call["drafts"][0]
    return draft if len(call["drafts"]) == 1 and draft["kind"] == "message" and draft.keys() <= BUNDLED else None


def _bundled(group: list[_Waiting]) -> tuple[list[_Waiting], list[_Waiting], str]:
    """The calls that are sent as they are, those that are sent as one, messages to different threads, and what is sent."""
    counts = Counter(one.thread for one in group)
    alike = [one for one in group if one.message is not None and counts[one.thread] == 1]
    if len(alike) < 2:
        return group, [], dump([one.call for one in group])
    rest = [one for one in group if one.message is None or counts[one.thread] > 1]
    drafts = [one.message for one in alike if one.message is not None]
    bundle = {
        "do": "messages",
        "threads": [one.thread for one in alike],
        "ids": [one.call["id"] for one in alike],
        "by": [draft.get("by") for draft in drafts],
        "data": [draft.get("data") for draft in drafts],
    }
    return rest, alike, dump([*(one.call for one in rest), bundle])


class Lanes:
    """`unheard` is called when a call has been committed whose caller has stopped waiting."""

    def __init__(self, pool: Pool, place: Place, clock: Clock, unheard: Callable[[], None] = lambda: None) -> None:
        self._pool, self._place, self._clock, self._unheard = pool, place, clock, unheard
        self._one = place.sql("SELECT ownloop.append(%s::text::jsonb)::text").encode()
        self._brisk = place.sql("SELECT ownloop.append(%s::text::jsonb, false)::text").encode()
        self._many = place.sql("SELECT ownloop.append(value, false)::text FROM jsonb_array_elements(%s::text::jsonb)").encode()
        self._waiting: deque[_Waiting] = deque()
        self._flying: set[int] = set()  # threads with a call under way in a group
        self._spares: set[Connection] = set()
        self._kept: list[Connection] = []
        self._asking = 0  # who waits for the pool
        self._is_over = False
        self._running: set[asyncio.Task[Any]] = set()
        self._busy = 0
        self._patient = asyncio.Semaphore(place.connections // 2)
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._own: WeakValueDictionary[int, Connection] = WeakValueDictionary()

    def is_own(self, pid: int) -> bool:
        """Whether this is the process of a connection of this store: what it commits is not news from outside."""
        connection = self._own.get(pid)
        return connection is not None and not connection.closed

    async def call(self, call: dict[str, Any], *, alone: bool) -> Any:
        """Send a call; its answer after the commit. Whoever stops waiting does not stop the call."""
        again, thread = call["do"] in REPEATABLE, call.get("thread", 0)
        if alone or ("plain" not in call and _keeps_values(call)):
            return await self._send_patiently(call, again, thread)
        if not self._busy and not self._waiting:
            answer = await self._send_here(call, again, thread)
            return answer if answer != BUSY else await self._send_patiently(call, again, thread)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(call, again, thread, _message_of(call), future))
        self._wake()
        return await future

    async def _send_here(self, call: dict[str, Any], again: bool, thread: int) -> Any:
        """Nobody else waits: no task is needed."""
        self._busy += 1
        self._flying.add(thread)
        try:
            return await self._send(self._brisk, call, again)
        finally:
            self._flying.discard(thread)
            self._busy -= 1
            self._wake()

    async def _send_patiently(self, call: dict[str, Any], again: bool, thread: int) -> Any:
        """Wait for rows that others hold, behind the calls of this store that wait for the same thread."""
        async with self._turns.setdefault(thread, asyncio.Lock()) if thread else asyncio.Lock(), self._patient:
            return await self._send(self._one, call, again)

    def _wake(self) -> None:
        """A lane for what waits."""
        if self._waiting and self._busy < LANES:
            self._busy += 1
            self._start(self._lane())

    async def drain(self) -> None:
        """Wait for what is under way, and give all back to the pool."""
        while self._running:
            await asyncio.wait(list(self._running))
        self._is_over = True
        while self._kept:
            await self._pool.putconn(self._kept.pop())

    async def read(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement that may be sent twice."""
        encoded = self._place.sql(query).encode()

        async def look(connection: Connection) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(encoded, values)
            return await cursor.fetchall() if cursor.rownumber is not None else []

        return await self._with_connection(look, again=True)

    # ---- inside ----------------------------------------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _lane(self) -> None:
        try:
            while group := self._take():
                self._wake()  # for what is left
                threads = {one.thread for one in group}
                self._flying |= threads
                try:
                    await self._send_group(group)
                finally:
                    self._flying -= threads
                await asyncio.sleep(0)  # who has got an answer calls again
        finally:
            self._busy -= 1

    def _take(self) -> list[_Waiting]:
        """A lane's share of what waits, but for threads that another lane works on: it would be in its way."""
        group: list[_Waiting] = []
        left = deque[_Waiting]()
        share = max(SMALL, -(-(len(self._waiting) + len(self._flying)) // LANES))
        while self._waiting and len(group) < min(GROUP, share):
            one = self._waiting.popleft()
            (left if one.thread in self._flying else group).append(one)  # in order for each thread
        self._waiting.extendleft(reversed(left))
        return group

    async def _send_group(self, group: list[_Waiting]) -> None:
        async def send(connection: Connection) -> list[tuple[Any, ...]]:
            return await (await connection.hand.execute(self._many, (text,))).fetchall()

        try:
            rest, alike, text = _bundled(group)
            rows = await self._with_connection(send, again=all(one.again for one in group))
        except psycopg.Error:  # one of them is wrong: nothing was written
            for one in group:
                self._start(self._send_one(one))
        except BaseException as error:
            for one in group:
                one.refuse(error)
            if not isinstance(error, Exception):
                raise
        else:
            answers: list[Any] = [None if answer is None else json.loads(answer) for (answer,) in rows]
            if alike:
                at, heads = (bundle := answers.pop())["at"], bundle["heads"] or {}
                answers += [{"at": at, "seq": heads[number]} if (number := str(one.thread)) in heads else BUSY for one in alike]
            for one, found in zip([*rest, *alike], answers, strict=True):
                if found == BUSY:
                    self._start(self._send_one(one))
                else:
                    self._tell(one, found)

    async def _send_one(self, one: _Waiting) -> None:
        try:
            answer = await self._send_patiently(one.call, one.again, one.thread)
        except BaseException as error:
            one.refuse(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._tell(one, answer)

    def _tell(self, one: _Waiting, answer: Any) -> None:
        if one.future.done():
            self._unheard()
        else:
            one.future.set_result(answer)

    async def _send(self, statement: bytes, call: dict[str, Any], again: bool) -> Any:
        text = dump(call)

        async def send(connection: Connection) -> Any:
            row = await (await connection.hand.execute(statement, (text,))).fetchone()
            return None if row is None or row[0] is None else json.loads(row[0])

        try:
            return await self._with_connection(send, again=again)
        except psycopg.Error as error:
            raise translate(error, self._place) from error

    async def borrowed(self, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        """Do something of your own on a connection; it may be done twice.

        Raises:
            StoreError, psycopg.Error
        """
        return await self._with_connection(work, again=True)

    # ---- connections -----------------------------------------------------------------------------------------------------------

    async def _with_connection(self, work: Callable[[Connection], Coroutine[Any, Any, T]], *, again: bool) -> T:
        """Do this on a connection. What lost a deadlock is done again, and what was cut off, if it may be.

        Raises:
            StoreError: there is no connection, or it was lost while the statement was under way.
            psycopg.Error: Postgres refused it.
        """
        for left in reversed(range(AGAIN)):
            connection = await self._borrow()
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
        if len(self._spares) >= SPARE:
            return None
        try:
            connection = await Connection.connect(self._place.conninfo, autocommit=True)
            await connection.execute(SESSION)
        except psycopg.OperationalError:
            return None
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
