"""A store for any number of machines: every statement of the protocol is one call of a SQL function, one round trip and one commit."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable

from ... import ids
from ...clock import Clock, SystemClock
from ...errors import StoreBusy, StoreError
from ...events import Event
from ..base import Claim, Pulse
from ..values import dump, number_of
from .connect import MIGRATIONS, SESSION, SET_CLOCK, is_gone, parse, prepare, roles, script, set_clock, span, translate
from .connections import Connections
from .hearing import Ear, Voice
from .joined import Joined
from .lanes import Lanes
from .reads import Reads
from .upkeep import Upkeep
from .verbs import Call, Verbs

STEPS = ("begin", "fact")
"""Calls of a loop at work."""
SILENT = ("claim", "renew")
"""Calls that are no news to anybody."""
PATIENCE = 1.0
"""Seconds that a renewal waits for rows that others hold, all together."""
FRESH = 0.00025
"""Seconds for which the log ends where this store has written its end: nobody could have heard of this write and committed one more."""
LOST: tuple[Any, ...] = ()
PASSING = ("starting up", "shutting down", "recovery mode", "not yet accepting connections", "too many", "remaining connection slots")
"""What a server says that will soon take connections, or may."""


class PostgresStore(Reads, Verbs, Upkeep):
    """See `Store`. Everything stands in one schema, made and migrated at `open` where the role may do that, else by `ownloop migrate`.

    Args:
        url: `postgresql://user@host/database`, with `?schema=ownloop` and `?connections=10` (of this process, besides one that listens and one that
            renews leases), and whatever libpq takes.
        clock: what "now" is, for tests; by default the server's clock.
    """

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.place = parse(url)
        self.url = self.place.shown
        self.clock: Clock = clock or SystemClock()
        self._listeners: list[Callable[[Collection[str] | None], None]] = []
        self._opened: tuple[Connections, Lanes, Ear] | None = None
        self._voice = Voice(self._notify)
        self._writes = self._elsewhere = self._under_way = 0  # begun here, heard of others, not answered yet
        self._end: tuple[int, int, float, tuple[int, int]] | None = None  # where a thread's log ends, until when that is sure, as of which counts
        self._opening = asyncio.Lock()
        self._renewing = threading.Lock()
        self._renewer: psycopg.Connection[tuple[Any, ...]] | None = None
        self._connecting: asyncio.Future[None] | None = None

    async def open(self) -> None:
        async with self._opening:
            if self._opened is not None:
                return
            await prepare(self.place)
            connections = Connections(self.place, self.clock)
            await connections.open()
            lanes = Lanes(connections, self.place, lambda: self._heard(None))
            ear = Ear(self.place, connections.is_own, self._heard_of)
            self._opened = connections, lanes, ear
            if self._listeners:
                ear.start()

    async def why_away(self) -> str | None:
        """Why the server cannot be reached now; None where it answers, also with a refusal that time alone does not mend."""
        try:
            await (await psycopg.AsyncConnection.connect(self.place.conninfo, connect_timeout=2)).close()
        except psycopg.OperationalError as error:
            said = " ".join(str(error).split())
            return said if "FATAL:" not in said or any(words in said for words in PASSING) else None
        return None

    async def close(self) -> None:
        async with self._opening:
            if self._opened is not None:
                connections, lanes, ear = self._opened
                await asyncio.to_thread(ear.stop)
                await self._voice.finish()
                await lanes.drain()
                await connections.close()
                self._opened = None
            await asyncio.to_thread(self._stop_renewing)

    def _stop_renewing(self) -> None:
        with self._renewing:
            if self._renewer is not None:
                self._renewer.close()
                self._renewer = None

    @property
    def connections(self) -> Connections:
        return self._parts()[0]

    @property
    def lanes(self) -> Lanes:
        return self._parts()[1]

    def _parts(self) -> tuple[Connections, Lanes, Ear]:
        if self._opened is None:
            raise StoreError(f"the store {self.place.name} is not open; call open() first")
        return self._opened

    def listen(self, heard: Callable[[Collection[str] | None], None]) -> Callable[[], None]:
        self._listeners.append(heard)
        if self._opened is not None:
            self._opened[2].start()
        return lambda: self._listeners.remove(heard)

    def _heard(self, thread_ids: Collection[str] | None) -> None:
        for heard in list(self._listeners):
            heard(thread_ids)

    def _heard_of(self, thread_ids: Collection[str] | None) -> None:
        """Others have committed; called by the thread that listens."""
        self._elsewhere += 1
        self._heard(thread_ids)

    async def migrate(self) -> tuple[int, int]:
        """Make the schema, or bring it to the newest version; the version before and after."""
        return await prepare(self.place), len(MIGRATIONS)

    def migration(self, since: int = 0) -> str:
        """The SQL that does so, from a version on; to be run in one transaction.

        Raises:
            ValueError: there is no such version.
        """
        if not 0 <= since <= len(MIGRATIONS):
            raise ValueError(f"no schema has version {since}; this ownloop knows 0 (there is none) to {len(MIGRATIONS)}")
        return script(self.place, since)

    def roles(self) -> str:
        """The SQL of a role that can only read and call the functions."""
        return roles(self.place)

    def within(self, tx: Any) -> Joined:
        """The verbs from outside, in the caller's own transaction: a connection of psycopg or asyncpg, a connection or session of SQLAlchemy."""
        return Joined(tx, self.place, self.clock)

    async def _call(self, call: Call, *, alone: bool = False) -> Any:
        if call["do"] in STEPS and self._voice.is_quiet(call["thread"]):
            call["quiet"] = True
        self._writes += 1
        self._under_way += 1
        is_only, counts = self._under_way == 1, (self._writes, self._elsewhere)
        try:
            answer = await self.lanes.call(call, alone=alone)
        except BaseException:  # it may have been written all the same
            self._heard(None)
            raise
        finally:
            self._under_way -= 1
        if is_only and call["do"] in STEPS and "at" in answer:
            end = answer["seq"] if call["do"] == "fact" else answer["head"] + len(call["drafts"]) + len(answer["mails"])
            self._end = call["thread"], end, time.monotonic() + FRESH, counts
        if self._listeners and call["do"] not in SILENT:
            self._tell(call, answer)
        return answer

    async def events(self, thread_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        if self._end is not None:
            thread, end, until, counts = self._end
            if (thread, end, counts) == (number_of(thread_id), after, (self._writes, self._elsewhere)) and time.monotonic() < until:
                return []
        return await super().events(thread_id, after=after, limit=limit)

    async def _notify(self, thread: int) -> None:
        await self.connections.read("SELECT pg_notify('ownloop', %s)", (ids.thread_id(thread),))

    def _tell(self, call: Call, answer: Any) -> None:
        """What this store has committed itself. Which threads an event or the end of a child has touched besides, only the server knows."""
        if isinstance(answer, dict) and not {"refused", "fenced"}.isdisjoint(answer):
            return
        if call["do"] in ("emit", "control") or "tell" in call:
            self._heard(None)
        touched = [answer["thread"]] if call["do"] == "create" else [call["thread"]] if "thread" in call else []
        touched += [draft["newborn"]["thread"] for draft in call.get("drafts", ()) if "newborn" in draft]
        if touched:
            self._heard([ids.thread_id(number) for number in touched])

    async def _rows(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        try:
            return await self.connections.read(query, values)
        except (psycopg.Error, UnicodeEncodeError) as error:
            raise translate(error, self.place) from error

    # ---- leases, from an OS thread -----------------------------------------------------------------------------------------------

    async def claim(self, thread_id: str, agents: Collection[str] | None, ttl: timedelta) -> Claim | None:
        """No lease is taken that could not be renewed: the connection for that comes before the first one."""
        if self._renewer is None:
            if self._connecting is None or self._connecting.done():
                self._connecting = asyncio.ensure_future(asyncio.to_thread(self._connect_renewer))
            await asyncio.shield(self._connecting)
        return await super().claim(thread_id, agents, ttl)

    def _connect_renewer(self) -> None:
        with self._renewing:
            try:
                self._renewal_connection()
            except psycopg.Error as error:
                what = f"no connection to renew leases with, so that no wake begins ({' '.join(str(error).split())})"
                need = f"A process needs {self.place.connections + 3}: raise the limit, or lower ?connections="
                raise StoreError(f"{self.place.name}: {what}. {need}") from error

    def renew(self, leases: Mapping[str, int], ttl: timedelta) -> dict[str, Pulse | None]:
        """A row that somebody else's transaction holds is waited for a little; then it is left out of the answer."""
        asked = {str(number_of(thread_id)): epoch for thread_id, epoch in leases.items()}
        with self._renewing:
            found = self._renew(asked, ttl)
            give_up = time.monotonic() + PATIENCE
            for busy in [number for number, row in found.items() if row is None]:
                wait = max(1, int((give_up - time.monotonic()) * 1000))
                with suppress(StoreBusy):
                    found[busy] = self._renew({busy: asked[busy]}, ttl, wait=str(wait)).get(busy, LOST)
        rows = {thread_id: found.get(str(number_of(thread_id)), LOST) for thread_id in leases}
        return {thread_id: None if row is LOST else Pulse(*row) for thread_id, row in rows.items() if row is not None}

    def _renew(self, asked: dict[str, int], ttl: timedelta, **more: str) -> dict[str, Any]:
        """Send it, once more on a new connection: a lease that is renewed twice is renewed."""
        call = dump({"do": "renew", "leases": asked, "ttl": span(ttl), **more})
        for is_last in (False, True):
            try:
                connection = self._renewal_connection()
                if (now := set_clock(self.clock)) is not None:
                    connection.execute(SET_CLOCK, (now,))
                row = connection.execute(self.place.sql("SELECT ownloop.append(%s::text::jsonb)::text").encode(), (call,)).fetchone()
                assert row is not None
                return dict(json.loads(row[0]))
            except psycopg.Error as error:
                if is_last or isinstance(error, LockNotAvailable) or not isinstance(error, psycopg.OperationalError):
                    raise translate(error, self.place) from error
        raise AssertionError("the last time raises")

    def _renewal_connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._renewer is None or is_gone(self._renewer):
            self._renewer = psycopg.connect(self.place.conninfo, autocommit=True)
            self._renewer.execute(SESSION)
        return self._renewer


__all__ = ["PostgresStore"]
