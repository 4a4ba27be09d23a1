"""A server instead of a store: what commands ask of an App, asked over HTTP. Who acts is whom the token names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import ids
from ..clock import SystemClock
from ..errors import NotFound
from ..events import Delta, Event, Progress
from ..interrupts import Interrupt
from ..views import ThreadView
from .trouble import Code, Trouble, usage

if TYPE_CHECKING:
    from ..client import Client

MOST = 20_000
STATUSES = {
    400: Code.USAGE,
    401: Code.FORBIDDEN,
    403: Code.FORBIDDEN,
    404: Code.NOT_FOUND,
    409: Code.CONFLICT,
    410: Code.STALE,
    412: Code.STALE,
    422: Code.USAGE,
}


@asynccontextmanager
async def connected(url: str, token: str | None) -> AsyncIterator[Remote]:
    """A server that answers.

    Raises:
        Trouble: 5 where it does not let us in, 7 where nothing answers, and what it refuses.
    """
    try:
        from ..client import Client, Refused, Unreachable
    except ImportError as error:
        raise usage(f"--server needs a library that is not installed ({error})", 'pip install "ownloop[server]"', kind="not-installed") from None
    try:
        async with Client(url, token) as client:
            yield Remote(client)
    except Unreachable as error:
        raise Trouble(Code.UNREACHABLE, str(error), (), "unreachable") from None
    except Refused as error:
        next = ("ownloop token create NAME --store URL",) if error.status == 401 else ()
        raise Trouble(STATUSES.get(error.status, Code.FAILURE), str(error), next, error.kind or "refused") from None


class Remote:
    """The part of an App that a server offers, with the same words."""

    agents: Mapping[str, Any] = {}

    def __init__(self, client: Client) -> None:
        self._client = client
        self._digests: dict[str, str] = {}
        self.store = _Store(client)

    def __getattr__(self, name: str) -> Any:
        raise usage(f"this needs the store itself ({name}); a server does not offer it: give --store")

    async def aclose(self) -> None:
        """The connection is closed by who opened it."""

    # ---- reading ---------------------------------------------------------------------------------------------------------------

    async def _id(self, thread: tuple[str, str]) -> str:
        found = await self._client.threads(agent=thread[0], key=thread[1], limit=1)
        if not found:
            raise NotFound("thread", thread)
        return found[0].id

    async def threads(self, *, limit: int = 50, after: str | None = None, context: Any = None, **filters: Any) -> list[ThreadView]:
        if context:
            raise usage("a server shows what its token may see; --context is a filter of the store: give --store")
        found = await self._client.threads(limit=limit if after is None else MOST, **filters)
        return [one for one in found if after is None or one.id < after][:limit]

    async def interrupts(self, *, limit: int = 50, after: str | None = None, **filters: Any) -> list[Interrupt]:
        found = await self._client.interrupts(limit=limit if after is None else MOST, **filters)
        start = next((place for place, one in enumerate(found, 1) if one.id == after), 0)
        return [self._noted(one) for one in found[start : start + limit]]

    async def interrupt(self, id: str) -> Interrupt:
        return self._noted(await self._client.interrupt(id))

    def _noted(self, one: Interrupt) -> Interrupt:
        """What is decided is what was read: its digest goes with the answer."""
        self._digests[one.id] = one.digest
        return one

    async def show(self, thread: str) -> ThreadView:
        return await self._client.show(thread)

    async def stream(self, thread: str, *, after: int = 0) -> AsyncIterator[Event | Delta | Progress]:
        async for item in self._client.stream(thread, after=after):
            yield item

    # ---- acting ----------------------------------------------------------------------------------------------------------------

    async def start(self, agent: str, input: Any = None, **more: Any) -> str:
        return await self._client.start(agent, input, **more)

    async def send(self, thread: str, text: str, *, by: object, **more: Any) -> Event:
        return await self._client.send(thread, text, **more)

    async def emit(self, name: str, payload: Any, **more: Any) -> bool:
        return await self._client.emit(name, payload, **more)

    async def approve(self, id: str, *, by: object, digest: str | None = None, note: str = "") -> Interrupt:
        return await self._client.approve(id, digest=digest or self._digests[id], note=note)

    async def reject(self, id: str, *, by: object, digest: str | None = None, note: str = "") -> Interrupt:
        return await self._client.reject(id, digest=digest or self._digests[id], note=note)

    async def edit(self, id: str, arguments: Any, *, by: object, digest: str | None = None, note: str = "") -> Interrupt:
        return await self._client.edit(id, arguments, digest=digest or self._digests[id], note=note)

    async def respond(self, id: str, value: Any, *, by: object, digest: str | None = None, note: str = "") -> Interrupt:
        return await self._client.respond(id, value, digest=digest or self._digests[id], note=note)

    async def answer(self, id: str, value: Any, *, by: object, digest: str | None = None, note: str = "") -> Interrupt:
        return await self._client.answer(id, value, digest=digest or self._digests[id], note=note)

    async def hold(self, thread: str, *, on: str | None = None, by: object = None) -> None:
        await self._client.hold(_thread(thread), on=on)
        self.store.held = [on]

    async def release_hold(self, thread: str, *, on: str | None = None, by: object = None) -> None:
        await self._client.release_hold(_thread(thread), on=on)

    async def pause(self, thread: str, *, by: object = None, reason: str = "") -> None:
        await self._client.pause(thread, reason=reason)

    async def resume(self, thread: str, *, by: object = None, reason: str = "") -> None:
        await self._client.resume(thread, reason=reason)

    async def cancel(self, thread: str, *, by: object = None, reason: str = "") -> None:
        await self._client.cancel(thread, reason=reason)

    async def retry(self, thread: str, *, by: object = None, reason: str = "") -> None:
        await self._client.retry(thread, reason=reason)

    async def close(self, thread: str, *, by: object = None, reason: str = "") -> None:
        await self._client.close(thread, reason=reason)

    async def fork(self, thread: str, **more: Any) -> str:
        return await self._client.fork(thread, **more)


def _thread(text: str) -> str:
    if ids.is_thread(text):
        return text
    raise usage(f"{text!r} is no thread; a whole agent is held in the store itself: give --store")


@dataclass(frozen=True)
class _Row:
    """Of a thread's row, what a server shows."""

    status: str
    head: int


@dataclass(frozen=True)
class _Held:
    value: dict[str, Any]


class _Store:
    """What commands read of the store beside the verbs."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.url, self.clock = client.url, SystemClock()
        self.held: list[str | None] = []

    def __getattr__(self, name: str) -> Any:
        raise usage(f"this needs the store itself ({name}); a server does not offer it: give --store")

    async def thread(self, id: str) -> _Row | None:
        try:
            view = await self._client.show(id)
        except NotFound:
            return None
        return _Row(view.status, view.events[-1].seq if view.events else 0)

    async def events(self, id: str, *, after: int = 0, limit: int = 500) -> list[Event]:
        return await self._client.events(id, after=after, limit=min(limit, 500))

    async def get(self, space: str, key: str) -> _Held:
        return _Held({"on": self.held})
