"""The calls that write. While all lanes are busy, calls gather, and the next free lane sends them as one statement: one commit for many.

A refusal is an answer, so that calls may share a transaction; a call that would wait for a row answers "busy" and is sent again alone. An error of
one is an error of all: nothing was written then, and each is sent alone. Nobody hears "ok" before the commit. What waits for somebody else's
transaction takes half of the connections at most, and one for each thing that is held, so that a row that is held for long stops nothing else.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import psycopg

from ...errors import StoreBusy
from ..values import dump
from .connect import WAIT, Place, translate
from .connections import Connection, Connections

LANES = 2
"""Groups under way at once: while one waits for the disk, the next one is computed."""
GROUP = 100
"""At most so many calls in one statement."""
SMALL = 8
"""So many calls are not divided among the lanes."""
BUSY = {"busy": True}
PAUSES = (0.002, 0.01, 0.05)
"""Seconds before a call whose row somebody holds is tried again, before it waits for the row."""
LOOK = 0.05
"""Seconds that a call waits for what is held, where all connections that may wait longer do so."""
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


def _waits_for(call: dict[str, Any]) -> Any:
    """What somebody else's transaction may hold: an event's name and key, a thread's key, or a thread."""
    if call["do"] == "emit":
        return call["name"], call["box"]
    if "boxes" in call:
        return tuple(call["boxes"][0])
    if call["do"] == "create" and call["key"] is not None:
        return call["agent"], call["key"], "key"
    return call["thread"]


class Lanes:
    """`unheard` is called when a call has been committed whose caller has stopped waiting."""

    def __init__(self, connections: Connections, place: Place, unheard: Callable[[], None] = lambda: None) -> None:
        self._connections, self._place, self._unheard = connections, place, unheard
        self._one = place.sql("SELECT ownloop.append(%s::text::jsonb)::text").encode()
        self._brisk = place.sql("SELECT ownloop.append(%s::text::jsonb, false)::text").encode()
        briefly = f"set_config('lock_timeout', '{LOOK * 1000:.0f}ms', true)"
        self._glance = place.sql(f"SELECT ownloop.append(%s::text::jsonb)::text FROM {briefly}").encode()
        self._many = place.sql("SELECT ownloop.append(value, false)::text FROM jsonb_array_elements(%s::text::jsonb)").encode()
        self._waiting: deque[_Waiting] = deque()
        self._flying: set[int] = set()  # threads with a call under way in a group
        self._running: set[asyncio.Task[Any]] = set()
        self._busy = 0
        half = place.connections // 2
        self._alone, self._patient = asyncio.Semaphore(half // 2), asyncio.Semaphore(half - half // 2)
        self._looking = asyncio.Semaphore(1)
        self._turns: WeakValueDictionary[Any, asyncio.Lock] = WeakValueDictionary()

    async def call(self, call: dict[str, Any], *, alone: bool) -> Any:
        """Send a call; its answer after the commit. Whoever stops waiting does not stop the call."""
        again, thread = call["do"] in REPEATABLE, call.get("thread", 0)
        if alone or ("plain" not in call and _keeps_values(call)):
            return await self._send_patiently(call, again, self._alone)
        if not self._busy and not self._waiting:
            answer = await self._send_here(call, again, thread)
            return answer if answer != BUSY else await self._send_again(call, again)
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

    async def _send_again(self, call: dict[str, Any], again: bool) -> Any:
        """Somebody holds the row: mostly for a moment, which takes none of the connections that wait."""
        for pause in PAUSES:
            await asyncio.sleep(pause)
            if (answer := await self._send(self._brisk, call, again)) != BUSY:
                return answer
        return await self._send_patiently(call, again, self._patient)

    async def _send_patiently(self, call: dict[str, Any], again: bool, among: asyncio.Semaphore) -> Any:
        """Wait for what others hold, behind the calls of this store that wait for the same. While all who may wait do, look now and then whether
        this one need not."""
        async with self._turns.setdefault(_waits_for(call), asyncio.Lock()):
            give_up, pause = time.monotonic() + WAIT, LOOK
            while among.locked() and time.monotonic() < give_up:
                try:
                    async with self._looking:
                        return await self._send(self._glance, call, again)
                except StoreBusy:
                    await asyncio.sleep(pause := min(1.0, 2 * pause))
            async with among:
                return await self._send(self._one, call, again)

    def _wake(self) -> None:
        """A lane for what waits."""
        if self._waiting and self._busy < LANES:
            self._busy += 1
            self._start(self._lane())

    async def drain(self) -> None:
        """Wait for what is under way."""
        while self._running:
            await asyncio.wait(list(self._running))

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
            rows = await self._connections.use(send, again=all(one.again for one in group))
            answers: list[Any] = [None if answer is None else json.loads(answer) for (answer,) in rows]
            if alike:
                at, heads = (bundle := answers.pop())["at"], bundle["heads"] or {}
                answers += [{"at": at, "seq": heads[number]} if (number := str(one.thread)) in heads else BUSY for one in alike]
            for one, found in zip([*rest, *alike], answers, strict=True):
                if found == BUSY:
                    self._start(self._send_one(one))
                else:
                    self._tell(one, found)
        except psycopg.Error:  # one of them is wrong: nothing was written
            for one in group:
                self._start(self._send_one(one))
        except BaseException as error:
            for one in group:
                one.refuse(error)
            if not isinstance(error, Exception):
                raise

    async def _send_one(self, one: _Waiting) -> None:
        try:
            answer = await self._send_again(one.call, one.again)
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
            return await self._connections.use(send, again=again)
        except psycopg.Error as error:
            raise translate(error, self._place) from error
