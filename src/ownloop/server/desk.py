"""What people do, for the JSON API and the pages alike: who may see what, every verb with the actor that was proved, an audit of every attempt.

What somebody may not see is not there: `NotFound`. A wrong value is a `ValueError`, as the library has it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

from .. import ids
from ..app import App
from ..errors import AlreadyDecided, NotFound, OwnloopError
from ..events import Event, Json
from ..interrupts import DECIDABLE, Actor, Interrupt, Verb
from ..stores.base import ThreadRow
from ..stores.rules import agrees
from ..views import ThreadView, thread_view
from . import attempts as audit
from .attempts import Attempt
from .auth import Principal
from .counts import Counts, counted
from .hub import Hub
from .problems import Refusal, kind_of
from .streams import News, Said, Stream

__all__ = ["Attempt", "Counts", "Desk", "News", "Page"]

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list; `next` is the opaque cursor of the page after, or None."""

    items: list[T]
    next: str | None = None


class Desk:
    """Every method takes first who asks, raises Refusal for a scope that is missing, and NotFound for what they may not see."""

    def __init__(self, app: App) -> None:
        self.app = app

    @cached_property
    def hub(self) -> Hub:
        return Hub(self.app)

    # ---- interrupts ----------------------------------------------------------------------------------------------------------------

    async def interrupts(
        self,
        who: Principal,
        *,
        status: str | None = "open",
        agent: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        thread: str | None = None,
        q: str | None = None,
        snoozed: bool = False,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[Interrupt]:
        """What a person can decide, or what is of this `kind`; by urgency: the soonest deadline first, then the oldest. Open ones are either those
        that are snoozed or the others. `q`: a piece of text, or the id of a thread or an interrupt."""
        who.must("interrupts:read")
        if q is not None and ids.interrupt_of(q) is not None:
            found = [one for one in await self._found(who, q) if status in (None, one.status)]
            return Page(found)
        if q is not None and ids.is_thread(q):
            thread, q = q, None
        if thread is not None and not ids.is_thread(thread):
            return Page([])
        rows = await self.app.interrupts(
            thread=thread,
            after=None if after is None else read_cursor(after, "int_"),
            status=status,
            agent=agent,
            kind=kind,
            kinds=DECIDABLE if kind is None else None,
            name=name,
            context=who.see,
            q=q,
            snoozed=snoozed if status == "open" else None,
            order="urgency",
            limit=limit + 1,
        )
        return _page(rows, limit)

    async def _found(self, who: Principal, id: str) -> list[Interrupt]:
        try:
            return [await self.interrupt(who, id)]
        except NotFound:
            return []

    async def counts(self, who: Principal) -> Counts:
        """What waits for people, as far as it is seen."""
        who.must("interrupts:read")
        await self._opened()
        return await counted(self.app.store, who.see)

    async def interrupt(self, who: Principal, id: str) -> Interrupt:
        """One of them, whatever its status."""
        who.must("interrupts:read")
        return await self._interrupt(who, id)

    async def _interrupt(self, who: Principal, id: str) -> Interrupt:
        found = await self.app.interrupt(id)
        if who.see is not None:
            row = await self.app.store.thread(found.thread_id)
            if row is None or not agrees(row.context, who.see):
                raise NotFound("interrupt", id)
        return found

    async def decide(
        self, who: Principal, id: str, decision: Verb, *, digest: str, arguments: Json = None, value: Any = None, note: str = ""
    ) -> Interrupt:
        """Approve, edit (`arguments`), reject, respond or answer (`value`); every attempt is kept.

        Args:
            digest: of what the person was shown.

        Raises:
            NotFound, NotAllowed, AlreadyDecided, Expired, ArgumentsChanged, InvalidEdit: see `App`.
            Refusal: the scope is missing.
            ValueError: the note is too long.
        """
        shown = await self._interrupt(who, id)
        async with self.attempt(who, shown, decision):
            done = await self._answer(who.actor, shown, decision, digest, arguments if decision == "edit" else value, note)
        await self._keep(who, shown, decision, "voted" if done.status == "open" else "decided", None)
        return done

    @asynccontextmanager
    async def attempt(self, who: Principal, shown: Interrupt, decision: str) -> AsyncIterator[None]:
        """Somebody tries to decide: what is refused inside is kept, a missing scope first."""
        try:
            who.must("interrupts:decide")
            yield
        except (OwnloopError, Refusal, ValueError) as error:
            kind = "invalid-request" if isinstance(error, ValueError) else kind_of(error)
            await self._keep(who, shown, decision, "refused", kind)
            raise

    async def _answer(self, by: Actor, shown: Interrupt, decision: Verb, digest: str, value: Any, note: str) -> Interrupt:
        match decision:
            case "approve":
                return await self.app.approve(shown.id, by=by, digest=digest, note=note)
            case "edit":
                return await self.app.edit(shown.id, value, by=by, digest=digest, note=note)
            case "reject":
                return await self.app.reject(shown.id, by=by, digest=digest, note=note)
            case "respond":
                return await self.app.respond(shown.id, value, by=by, digest=digest, note=note)
            case "answer":
                return await self.app.answer(shown.id, value, by=by, digest=digest, note=note)
        raise ValueError(f"{decision!r} is no decision; choose approve, edit, reject, respond or answer")

    async def _keep(self, who: Principal, shown: Interrupt, decision: str, outcome: Any, problem: str | None) -> None:
        attempt = Attempt(self.app.store.clock.now(), who.actor, who.via, decision, outcome, problem)
        await audit.record(self.app.store, shown.id, attempt)

    async def attempts(self, who: Principal, id: str) -> list[Attempt]:
        """Everybody who tried to decide it, oldest first."""
        shown = await self.interrupt(who, id)
        return await audit.attempts(self.app.store, shown.id)

    async def snooze(self, who: Principal, id: str, until: datetime | None) -> None:
        """Leave it open, and out of the list until then, for everybody; None: no longer.

        Raises:
            ValueError: a naive time, one that is past, or one after the deadline.
            AlreadyDecided: it is not open.
        """
        shown, store = await self._interrupt(who, id), self.app.store
        who.must("interrupts:decide")
        if until is None:
            await store.drop("snooze", shown.id)
        else:
            if shown.status != "open":
                raise AlreadyDecided(shown)
            await store.put("snooze", shown.id, {"by": who.actor.id}, ttl=_still(shown, until, store.clock.now()))
        self.hub.recount()

    async def snoozed_until(self, id: str) -> datetime | None:
        """When an interrupt comes back into the list; None: it is there."""
        await self._opened()
        record = await self.app.store.get("snooze", id)
        return None if record is None else record.expires_at

    # ---- threads -------------------------------------------------------------------------------------------------------------------

    async def threads(
        self,
        who: Principal,
        *,
        agent: str | None = None,
        status: str | None = None,
        key: str | None = None,
        q: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[ThreadView]:
        """Threads, newest first, without their logs. `q`: a piece of text, or an id."""
        who.must("threads:read")
        if q is not None and ids.is_thread(q):
            await self._opened()
            row = await self.app.store.thread(q)
            is_seen = row is not None and agrees(row.context, who.see) and status in (None, row.status) and agent in (None, row.agent)
            return Page([thread_view(row)] if row is not None and is_seen else [])
        place = None if after is None else read_cursor(after, "thr_")
        rows = await self.app.threads(agent=agent, status=status, key=key, context=who.see, q=q, limit=limit + 1, after=place)
        return _page(rows, limit)

    async def thread(self, who: Principal, id: str) -> ThreadView:
        """A thread with its whole log."""
        who.must("threads:read")
        return await self.app.show((await self._seen(who, id)).id)

    async def summary(self, who: Principal, id: str) -> ThreadView:
        """A thread without its log, also for who may only write."""
        who.must("threads:write" if "threads:write" in who.scopes else "threads:read")
        return thread_view(await self._seen(who, id))

    async def events(self, who: Principal, id: str, *, after: int = 0, limit: int = 200) -> list[Event]:
        """A stretch of its log."""
        who.must("threads:read")
        row = await self._seen(who, id)
        return await self.app.store.events(row.id, after=after, limit=limit)

    async def follow(self, who: Principal, id: str, after: int = 0, idle: float | None = None) -> Stream:
        """Its events after a position and what passes, as items that are encoded once for all listeners."""
        who.must("threads:read")
        return self.hub.follow((await self._seen(who, id)).id, after, idle)

    async def stream(self, who: Principal, id: str, after: int = 0) -> AsyncGenerator[Said, None]:
        """The same as values."""
        async with aclosing(await self.follow(who, id, after)) as items:
            async for item in items:
                if item is not None:
                    yield cast(Said, item.value)

    async def inbox(self, who: Principal, idle: float | None = None) -> Stream:
        """The counts, and what is opened and resolved from now on."""
        who.must("interrupts:read")
        await self._opened()
        return self.hub.inbox(who.see, idle)

    async def _seen(self, who: Principal, id: str) -> ThreadRow:
        await self._opened()
        row = await self.app.store.thread(id) if ids.is_thread(id) else None
        if row is None or not agrees(row.context, who.see):
            raise NotFound("thread", id)
        return row

    async def _opened(self) -> None:
        await self.app._open()

    # ---- acting on threads -----------------------------------------------------------------------------------------------------------

    async def start(
        self, who: Principal, agent: str, input: Json = None, *, key: str | None = None, context: Mapping[str, Json] | None = None
    ) -> str:
        """A new thread, or the one that has this key. Whoever sees only some threads starts one of those.

        Raises:
            NotFound: no agent has that name.
            Refusal: its context would put it out of sight, or the key belongs to a thread that is.
        """
        who.must("threads:write")
        see, given = dict(who.see or {}), dict(context or {})
        if not agrees({**see, **given}, see):
            raise Refusal("not-allowed", f"you see threads whose context holds {see}; start one of those, or leave these names out")
        return await self._of_key(who, await self.app.start(agent, input, key=key, context={**given, **see}))

    async def _of_key(self, who: Principal, thread_id: str) -> str:
        row = await self.app.store.thread(thread_id)
        if row is None or not agrees(row.context, who.see):
            raise Refusal("key-taken", "that key belongs to a thread that you may not see; nothing was started. Choose another key")
        return thread_id

    async def send(self, who: Principal, id: str, text: str, *, dedupe: str | None = None, supersede: bool = False) -> Event:
        """A message to a thread. Raises ThreadEnded."""
        thread = await self._mine(who, id)
        return await self.app.send(thread, text, by=who.actor, dedupe=dedupe, supersede=supersede)

    async def emit(self, who: Principal, name: str, payload: Json, *, key: str | None = None, id: str | None = None) -> bool:
        """An event for whoever waits for it; False: that id was known. It may reach any thread, so only who sees all of them may emit."""
        who.must("events:write")
        if who.see is not None:
            raise Refusal("not-allowed", "an event reaches every thread that waits for it, and you see only some; ask somebody who sees all")
        return await self.app.emit(name, payload, key=key, id=id)

    async def hold(self, who: Principal, id: str, *, on: str | None = None) -> None:
        """Park the thread at its next selection (`on`: of that intent)."""
        await self.app.hold(await self._mine(who, id), on=on, by=who.actor)

    async def release_hold(self, who: Principal, id: str, *, on: str | None = None) -> None:
        """Take that away."""
        await self.app.release_hold(await self._mine(who, id), on=on, by=who.actor)

    async def pause(self, who: Principal, id: str, *, reason: str = "") -> None:
        """Start nothing more in it until `resume`."""
        await self._control(self.app.pause, who, id, reason)

    async def resume(self, who: Principal, id: str, *, reason: str = "") -> None:
        """Go on."""
        await self._control(self.app.resume, who, id, reason)

    async def cancel(self, who: Principal, id: str, *, reason: str = "") -> None:
        """End it and its open children for good."""
        await self._control(self.app.cancel, who, id, reason)

    async def retry(self, who: Principal, id: str, *, reason: str = "") -> None:
        """Wake it after the fix."""
        await self._control(self.app.retry, who, id, reason)

    async def close(self, who: Principal, id: str, *, reason: str = "") -> None:
        """End it for good, in order."""
        await self._control(self.app.close, who, id, reason)

    async def _control(self, verb: Callable[..., Any], who: Principal, id: str, reason: str) -> None:
        await verb(await self._mine(who, id), by=who.actor, reason=reason)

    async def fork(self, who: Principal, id: str, *, before: str | None = None, key: str | None = None) -> str:
        """A new thread with a copy of its whole ended steps; its id. Raises NotFound: it has no step `before`."""
        return await self._of_key(who, await self.app.fork(await self._mine(who, id), before=before, key=key))

    async def _mine(self, who: Principal, id: str) -> str:
        who.must("threads:write")
        return (await self._seen(who, id)).id


def cursor(id: str) -> str:
    """Where the next page begins, for nobody to read."""
    return base64.urlsafe_b64encode(id.encode()).decode().rstrip("=")


def read_cursor(text: str, prefix: str) -> str:
    """What `cursor` was given; an id itself is taken too.

    Raises:
        ValueError: it is neither.
    """
    if not text.startswith(prefix):
        try:
            text = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
        except (binascii.Error, ValueError):
            text = ""
    if not (ids.is_thread(text) if prefix == "thr_" else ids.interrupt_of(text)):
        raise ValueError("after= is no cursor of this list; take `next` of the page before")
    return text


def _page(found: list[Any], limit: int) -> Page[Any]:
    is_more = len(found) > limit
    return Page(found[:limit], cursor(found[limit - 1].id) if is_more else None)


def _still(shown: Interrupt, until: datetime, now: datetime) -> Any:
    if until.tzinfo is None:
        raise ValueError(f"until={until.isoformat()} has no time zone; write one, for instance {until.isoformat()}Z")
    if until <= now:
        raise ValueError(f"until={until.isoformat()} is past; name a time to come")
    if shown.expires_at is not None and until > shown.expires_at:
        raise ValueError(f"until={until.isoformat()} is after its deadline, {shown.expires_at.isoformat()}; it would expire unseen")
    return until - now
