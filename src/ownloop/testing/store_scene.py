"""What the store contract's tests do again and again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from .. import ids
from ..events import Draft, Event, Json
from ..stores.base import Begun, Claim, ControlVerb, NewThread, Store, ThreadRow
from .clock import FakeClock

TTL = timedelta(seconds=30)


@dataclass
class Wake:
    """A wake in a test: a claim and what it writes under."""

    store: Store
    claim: Claim

    @property
    def id(self) -> str:
        return self.claim.row.id

    @property
    def epoch(self) -> int:
        return self.claim.row.epoch

    def step(self, step: int | str = 1) -> str:
        return ids.step_id(self.id, step)

    async def begin(self, *drafts: Draft, known: int | None = None, selecting: bool = False) -> Begun:
        known = self.claim.row.head if known is None else known
        return await self.store.begin(self.id, self.epoch, drafts, known=known, selecting=selecting)

    async def select(self, step: int = 1, name: str = "deploy") -> Event:
        draft = Draft("selected", {"intent": name, "arguments": {}, "read": self.claim.row.head}, self.step(step))
        return (await self.begin(draft, selecting=True)).events[0]

    async def request(self, kind: str = "approval", *, step: int | str = 1, expires: datetime | timedelta | None = None, **data: Json) -> Event:
        draft = Draft("request", {"kind": kind, "name": "deploy", **data}, self.step(step), f"{kind}:x", expires=expires)
        return (await self.begin(draft)).events[0]

    async def wait(self, event: str, key: str | None = None, *, step: int | str = 1, op: str = "wait:x") -> list[Event]:
        draft = Draft("request", {"kind": "event", "event": event, "key": key}, self.step(step), op)
        return (await self.begin(draft)).events

    async def started(self, op: str = "run:f", *, step: int | str = 1, after: int | None = None) -> Event:
        data = {} if after is None else {"after": after}
        return (await self.begin(Draft("started", data, self.step(step), op))).events[0]

    async def outcome(self, op: str = "run:f", *, step: int | str = 1, started: int | None = None, **data: Json) -> Event:
        draft = Draft("outcome", data or {"value": 1}, self.step(step), op)
        return await self.store.fact(self.id, self.epoch, draft, started=started)

    async def settle(self, request: Event, kind: str = "expired") -> list[Event]:
        draft = Draft("decision", {"request": request.seq, "kind": kind}, request.step_id, request.op)
        return await self.store.settle(self.id, self.epoch, [draft])

    async def release(self, *, seen: int | None = None, due: datetime | None = None) -> bool:
        return await self.store.release(self.id, self.epoch, seen=self.claim.row.head if seen is None else seen, due=due)

    async def finish(
        self,
        *drafts: Draft,
        status: Literal["done", "failed"] = "done",
        read: int | None = None,
        due: datetime | None = None,
        aside: Collection[str] = (),
        tell: Draft | None = None,
    ) -> bool:
        seen = self.claim.row.head
        data = {"value": None, "read": seen if read is None else read}
        last = Draft("turn_ended", data) if status == "done" else Draft("failed", {"error": {"type": "ValueError", "message": "no"}})
        return await self.store.finish(self.id, self.epoch, [*drafts, last], status=status, seen=seen, due=due, aside=aside, tell=tell)


@dataclass
class Scene:
    """A store under test with its clock, and short words for what happens to it."""

    store: Store
    clock: FakeClock

    async def thread(self, agent: str = "bot", key: str | None = None, **context: Json) -> str:
        thread_id, _ = await self.store.create(NewThread(agent, [Draft("input", {"input": 1})], key, context))
        return thread_id

    async def wake(self, thread_id: str | None = None, agent: str = "bot") -> Wake:
        claim = await self.store.claim(thread_id or await self.thread(agent), [agent], TTL)
        assert claim is not None, "the thread was not runnable"
        return Wake(self.store, claim)

    async def parked(self, **request: Any) -> tuple[str, Event]:
        """A thread that waits on a request, and the request."""
        wake = await self.wake()
        await wake.select()
        event = await wake.request(**request)
        await wake.release()
        return wake.id, event

    async def row(self, thread_id: str) -> ThreadRow:
        row = await self.store.thread(thread_id)
        assert row is not None
        return row

    async def is_runnable(self, thread_id: str, agent: str = "bot") -> bool:
        return thread_id in (await self.store.runnable([agent], 100))[0]

    async def message(self, thread_id: str, text: str = "hello", **options: Any) -> tuple[Event, bool]:
        return await self.store.message(thread_id, [Draft("message", {"text": text}, by="ann")], **options)

    async def control(self, thread_id: str, verb: ControlVerb) -> bool:
        return await self.store.control(thread_id, verb, Draft("control", {"verb": verb}, by="ann"))

    async def decide(self, thread_id: str, seq: int, kind: str = "approved", *, by: str = "ann", digest: str | None = None, votes: int = 0) -> Event:
        draft = Draft("decision", {"request": seq, "kind": kind}, by=by)
        return await self.store.decide(thread_id, seq, draft, digest=digest, votes=votes)

    async def vote(self, thread_id: str, seq: int, *, by: str, votes: int) -> Event:
        draft = Draft("vote", {"request": seq, "kind": "approved"}, by=by)
        return await self.store.decide(thread_id, seq, draft, digest=None, votes=votes)

    async def status_of(self, thread_id: str, seq: int) -> str:
        item = await self.store.interrupt(thread_id, seq)
        assert item is not None
        return item.status

    async def kinds(self, thread_id: str) -> list[str]:
        return kinds(await self.store.events(thread_id))


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.kind for event in events]
