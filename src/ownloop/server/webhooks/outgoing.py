"""Webhooks that go out: what happened, told to other systems at least once and in order per thread, and escalations.

A notice becomes one record per endpoint before it is forgotten; a record is dropped once the endpoint said 2xx, and becomes a dead letter after
the last try. Any process that serves delivers; a record is taken by compare-and-set, so that two processes rarely tell the same thing twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, get_args

import httpx

from ...app import App
from ...clock import from_micros, micros
from ...errors import NotFound
from ...events import Json, digest, sparse
from ...interrupts import Interrupt
from ...stores.base import NoticeName, Record
from ...stores.outbox import Notice
from .guard import Forbidden, GuardedTransport
from .signing import key_of, signed_headers

log = logging.getLogger("ownloop")

NAMES: tuple[str, ...] = (*get_args(NoticeName), "interrupt.escalated")
SCHEDULE = [timedelta(seconds=seconds) for seconds in (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)]
"""Pauses between the tries: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h, each up to a tenth longer by chance. Source: Standard Webhooks."""
BODY_LIMIT = 20_000
DEAD_KEPT = timedelta(days=30)
TAKEN_FOR = timedelta(seconds=60)
TIMEOUT = 20.0
AT_ONCE = 20
EVERY = 5.0

Escalated = Callable[[Interrupt, str], Awaitable[None]]


@dataclass(frozen=True)
class Endpoint:
    """Who is told, and what.

    Attributes:
        url: https, or http for a network that is allowed.
        secrets: "whsec_…", the newest first; more than one while a secret is replaced.
        events: names of what is told; empty: all.
    """

    url: str
    secrets: Sequence[str]
    events: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "secrets", (self.secrets,) if isinstance(self.secrets, str) else tuple(self.secrets))
        if not self.secrets:
            raise ValueError(f"the endpoint {self.url} has no secret; receivers could not tell our requests from others'")
        for secret in self.secrets:
            key_of(secret)
        if not self.url.startswith(("https://", "http://")):
            raise ValueError(f"the endpoint {self.url!r} is no http(s) URL")
        if unknown := set(self.events) - set(NAMES):
            raise ValueError(f"no event is named {', '.join(sorted(unknown))}; choose from {', '.join(NAMES)}")

    @property
    def id(self) -> str:
        """The same in every process that knows this URL."""
        return digest(self.url)[:12]

    def wants(self, name: str) -> bool:
        return not self.events or name in self.events


@dataclass(frozen=True)
class Delivery:
    """One message to one endpoint. `status`: pending or dead. `problem`: what the last try came to."""

    key: str
    id: str
    url: str
    type: str
    thread_id: str
    tries: int
    status: str
    next_at: datetime | None
    problem: str


class Webhooks:
    """Tells endpoints what happens to the threads of an App. `serve` runs in any number of processes.

    Args:
        allow: networks that endpoints may be in although they are not public ("127.0.0.0/8").
        escalated: `async fn(interrupt, whom)`, called when a policy's `escalate` is due, besides the event "interrupt.escalated".
    """

    def __init__(self, app: App, endpoints: Sequence[Endpoint] = (), *, allow: Sequence[str] = (), escalated: Escalated | None = None) -> None:
        self.app = app
        self._endpoints = {endpoint.id: endpoint for endpoint in endpoints}
        self._allow = allow
        self._escalated = escalated
        self._changed = asyncio.Event()
        names: tuple[NoticeName, ...] = get_args(NoticeName)
        for name in names:
            if name == "interrupt.opened" or any(endpoint.wants(name) for endpoint in endpoints):
                app.on(name)(self._noticed)

    # ---- taking in ---------------------------------------------------------------------------------------------------------------

    async def _noticed(self, notice: Notice) -> None:
        """Keep what is to be told; the notice may be forgotten afterwards. Of a thread that was forgotten nothing is."""
        try:
            interrupt = None if notice.interrupt_id is None else await self.app.interrupt(notice.interrupt_id)
        except NotFound:
            return
        if notice.name == "interrupt.opened" and interrupt is not None:
            await self._plan_escalations(interrupt)
        number = int(notice.id.removeprefix("ntc_"))
        await self._tell(notice.name, notice.thread_id, f"{number:015d}", notice.at, interrupt, {})

    async def _tell(self, name: str, thread_id: str, place: str, at: datetime, interrupt: Interrupt | None, more: Mapping[str, Json]) -> None:
        wanting = [endpoint for endpoint in self._endpoints.values() if endpoint.wants(name)]
        if not wanting:
            return
        row = await self.app.store.thread(thread_id)
        data = {"thread_id": thread_id, **sparse(agent=row and row.agent, key=row and row.key), **more}
        body = _body(name, at, data, interrupt)
        for endpoint in wanting:
            id = f"msg_{digest([endpoint.id, thread_id, place, name])[:24]}"
            message = {"id": id, "url": endpoint.url, "type": name, "body": body, "tries": 0, "next": micros(at)}
            await self.app.store.put("delivery", f"{endpoint.id}|{thread_id}|{place}", message, expect=0)
        self._changed.set()

    async def _plan_escalations(self, interrupt: Interrupt) -> None:
        for number, (after, whom) in enumerate(interrupt.policy.escalate):
            assert isinstance(after, timedelta)
            plan = {"at": micros(interrupt.created_at + after), "to": whom}
            await self.app.store.put("escalation", f"{interrupt.id}|{number}", plan, expect=0)

    # ---- escalations ---------------------------------------------------------------------------------------------------------------

    async def escalate(self) -> datetime | None:
        """Tell whom open interrupts are due to be told to; when the next is due."""
        store, later = self.app.store, []
        for key, record in (await store.records("escalation")).items():
            at = from_micros(record.value["at"])
            if at > store.clock.now():
                later.append(at)
                continue
            id, _, number = key.partition("|")
            with suppress(NotFound):  # its thread was forgotten
                interrupt = await self.app.interrupt(id)
                if interrupt.status == "open":
                    await self._carry_out(interrupt, record.value["to"], int(number))
            await store.drop("escalation", key)
        return min(later, default=None)

    async def _carry_out(self, interrupt: Interrupt, whom: str, number: int) -> None:
        log.warning("%s waits since %s: escalated to %s", interrupt.id, interrupt.created_at.isoformat(timespec="seconds"), whom)
        done = {"to": whom, "at": micros(self.app.store.clock.now())}
        place = f"{interrupt.seq:015d}e{number}"
        await self._tell("interrupt.escalated", interrupt.thread_id, place, self.app.store.clock.now(), interrupt, {"to": whom})
        if self._escalated is not None:
            await self._escalated(interrupt, whom)
        await self.app.store.put("escalated", f"{interrupt.id}|{number}", done, ttl=DEAD_KEPT)

    # ---- delivering ----------------------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Deliver and escalate until cancelled."""
        unlisten = self.app.store.listen(self._heard(asyncio.get_running_loop()))
        try:
            while True:
                self._changed.clear()
                soonest = await self._pass()
                now = self.app.store.clock.now()
                pause = EVERY if soonest is None else min(EVERY, max(0.05, (soonest - now).total_seconds()))
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._changed.wait()
        finally:
            unlisten()

    def _heard(self, loop: asyncio.AbstractEventLoop) -> Callable[[Collection[str] | None], None]:
        def heard(thread_ids: Collection[str] | None) -> None:
            if thread_ids is None:  # another process: it may have left something to deliver
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._changed.set)

        return heard

    async def _pass(self) -> datetime | None:
        """Both, whatever becomes of one of them."""
        due = []
        for work in (self.escalate, self.deliver):
            try:
                due.append(await work())
            except Exception:
                log.exception("webhooks could not be delivered, trying again")
        return min((at for at in due if at is not None), default=None)

    async def deliver(self) -> datetime | None:
        """Send what is due, as long as something is; when the next is. The messages of one thread go to an endpoint one after the other."""
        while True:
            heads, now = await self._heads(), self.app.store.clock.now()
            due = [(key, record) for key, record in heads.items() if from_micros(record.value["next"]) <= now]
            if not due:
                return min((from_micros(record.value["next"]) for record in heads.values()), default=None)
            async with httpx.AsyncClient(transport=GuardedTransport(self._allow), timeout=TIMEOUT, follow_redirects=False, trust_env=False) as client:
                for start in range(0, len(due), AT_ONCE):
                    await asyncio.gather(*(self._try(client, key, record) for key, record in due[start : start + AT_ONCE]))

    async def _heads(self) -> dict[str, Record]:
        """The oldest message of each thread for each endpoint that is known here and wants it."""
        heads: dict[str, tuple[str, Record]] = {}
        gone = await self.app.store.records("endpoint_gone")
        for key, record in (await self.app.store.records("delivery")).items():  # by key: oldest first
            endpoint, thread, _ = key.split("|")
            if endpoint in self._endpoints and endpoint not in gone:
                heads.setdefault(f"{endpoint}|{thread}", (key, record))
        return dict(heads.values())

    async def _try(self, client: httpx.AsyncClient, key: str, record: Record) -> None:
        store, endpoint = self.app.store, self._endpoints[key.partition("|")[0]]
        now = store.clock.now()
        taken = {**record.value, "next": micros(now + TAKEN_FOR)}
        if not await store.put("delivery", key, taken, expect=record.version):
            return  # another process has it
        body = record.value["body"].encode()
        headers = {**signed_headers(endpoint.secrets, record.value["id"], now, body), "content-type": "application/json", "user-agent": "ownloop"}
        problem, asked = await _post(client, endpoint.url, body, headers)
        if problem is None:
            await store.drop("delivery", key)
        elif problem.startswith("410"):
            log.warning("%s is gone (410); nothing more is sent there until it is enabled again", endpoint.url)
            await store.put("endpoint_gone", endpoint.id, {"url": endpoint.url, "at": micros(now)})
        else:
            await self._failed(key, record.value, problem, asked, endpoint)

    async def _failed(self, key: str, message: Mapping[str, Json], problem: str, asked: float | None, endpoint: Endpoint) -> None:
        store, tries = self.app.store, message["tries"] + 1
        if tries > len(SCHEDULE):
            log.error("webhook %s to %s failed %d times (%s); it is a dead letter now", message["id"], endpoint.url, tries, problem)
            await store.put("dead_letter", key, {**message, "tries": tries, "problem": problem}, ttl=DEAD_KEPT)
            await store.drop("delivery", key)
            return
        pause = SCHEDULE[tries - 1] * (1 + random.random() / 10)
        later = store.clock.now() + max(pause, timedelta(seconds=min(asked or 0.0, 86_400.0)))
        log.warning(
            "webhook %s to %s failed (%s), try %d follows at %s", message["id"], endpoint.url, problem, tries + 1, later.isoformat(timespec="seconds")
        )
        kept = {**message, "tries": tries, "problem": problem, "next": micros(later)}
        await store.put("delivery", key, kept)

    # ---- looking, and trying again -------------------------------------------------------------------------------------------------

    async def deliveries(self) -> list[Delivery]:
        """What was not delivered yet, and the dead letters of the last 30 days."""
        found = [("pending", await self.app.store.records("delivery")), ("dead", await self.app.store.records("dead_letter"))]
        return [self._shown(status, key, record.value) for status, records in found for key, record in records.items()]

    @staticmethod
    def _shown(status: str, key: str, message: Mapping[str, Json]) -> Delivery:
        next_at = from_micros(message["next"]) if status == "pending" else None
        thread_id = key.split("|")[1]
        return Delivery(key, message["id"], message["url"], message["type"], thread_id, message["tries"], status, next_at, message.get("problem", ""))

    async def send_again(self, key: str) -> bool:
        """Deliver a dead letter after all, or a waiting message now; whether there was one."""
        store = self.app.store
        space = "dead_letter"
        record = await store.get(space, key)
        if record is None:
            space, record = "delivery", await store.get("delivery", key)
        if record is None:
            return False
        await store.put("delivery", key, {**record.value, "tries": 0, "next": micros(store.clock.now())})
        if space == "dead_letter":
            await store.drop(space, key)
        self._changed.set()
        return True

    async def enable(self, url: str) -> bool:
        """Send to an endpoint again that said 410; whether it was off."""
        return await self.app.store.drop("endpoint_gone", digest(url)[:12])


async def _post(client: httpx.AsyncClient, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[str | None, float | None]:
    """What went wrong, or None; and after how many seconds the endpoint wants to be asked again."""
    try:
        response = await client.post(url, content=body, headers=headers)
    except Forbidden as error:
        return str(error), None
    except httpx.HTTPError as error:
        return f"{type(error).__name__}: {error}", None
    if response.is_success:
        return None, None
    return f"{response.status_code} {response.reason_phrase}", _retry_after(response.headers.get("retry-after"))


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return None


def _body(name: str, at: datetime, data: Mapping[str, Json], interrupt: Interrupt | None) -> str:
    """The message; where it would be too long, the arguments and texts are left out and the reader is sent to the inbox."""
    whole: dict[str, Any] = {"type": name, "timestamp": at.isoformat(), "data": {**data, **sparse(interrupt=_interrupt_json(interrupt))}}
    text = json.dumps(whole, ensure_ascii=False)
    if interrupt is not None and len(text.encode()) > BODY_LIMIT:
        short = {name: value for name, value in whole["data"]["interrupt"].items() if name not in ("arguments", "question", "value", "decision")}
        text = json.dumps({**whole, "data": {**data, "interrupt": {**short, "left_out": ["arguments", "question", "value", "decision"]}}})
    return text


def _interrupt_json(interrupt: Interrupt | None) -> Json:
    if interrupt is None:
        return None
    decision = interrupt.decision
    decided = (
        None
        if decision is None
        else {"kind": decision.kind, "by": decision.by and decision.by.id, "at": decision.at.isoformat(), "note": decision.note}
    )
    shown = {"id": interrupt.id, "kind": interrupt.kind, "status": interrupt.status, "name": interrupt.name, "digest": interrupt.digest}
    about = sparse(
        arguments=dict(interrupt.intent) or None,
        question=interrupt.question or None,
        value=interrupt.value,
        reason=interrupt.policy.reason or None,
        created_at=interrupt.created_at.isoformat(),
        expires_at=interrupt.expires_at and interrupt.expires_at.isoformat(),
        url=interrupt.url,
        decision=decided,
    )
    return {**shown, **about}
