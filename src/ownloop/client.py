"""The verbs of `App` over HTTP: the same values, the same errors; who acts is whom the token names (extra `[server]`)."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict, is_dataclass
from datetime import datetime
from functools import partial
from typing import Any, Self

try:
    import httpx
except ImportError as error:
    raise ImportError("ownloop.client needs httpx; install it with: pip install 'ownloop[server]'") from error

from . import errors, ids
from .errors import NotFound, OwnloopError
from .events import Delta, Event, Json, Progress, canonical, to_json
from .history import Usage
from .interrupts import Actor, ApprovalPolicy, Decision, Interrupt, Verb, Vote
from .tools import ErrorInfo, Happened, NotHappened
from .views import Operation, StepView, ThreadView

URN = "urn:ownloop:error:"
TRIES = 4
"""How often a request is sent before its failure is told: each time with the same Idempotency-Key."""
PAUSE_SECONDS = 0.25
AGAIN = frozenset({502, 503, 504})
PAGE = 500


class Refused(OwnloopError):
    """The server refused for a reason that only a server has: no credentials, a missing scope, a wrong request.

    `kind`: the last word of the problem's type ("unauthenticated", …); `problem`: all of it (RFC 9457).
    """

    def __init__(self, status: int, problem: Mapping[str, Json]) -> None:
        super().__init__(str(problem.get("detail") or f"the server answered {status}"))
        self.status = status
        self.kind = str(problem.get("type", "")).removeprefix(URN)
        self.problem = problem


class Unreachable(OwnloopError):
    """No answer came, several times."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"{url} gave no answer ({why}); check that the server runs, and the address")
        self.url = url


class _Over(Exception):
    """The thread has ended, and all of its log was read."""


class Client:
    """A server's App.

    Args:
        url: where it is, without `/v1`.
        token: "ownloop_…"; sent with every request.
        timeout: seconds for one answer.
        transport: instead of the network (tests).

    Example:
        async with Client("http://127.0.0.1:8470", token) as client:
            for one in await client.interrupts():
                await client.approve(one)
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 30.0, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        self._http = httpx.AsyncClient(base_url=f"{self.url}/v1", headers=headers, timeout=timeout, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # ---- threads ---------------------------------------------------------------------------------------------------------------

    async def start(self, agent: str, input: Any = None, *, key: str | None = None, context: Mapping[str, Any] | None = None) -> str:
        """See `App.start`."""
        body = {"agent": agent, "input": _json(input), "key": key, "context": None if context is None else _json(dict(context))}
        return str((await self._post("/threads", _sparse(body)))["id"])

    async def send(self, thread: str, text: str, *, dedupe: str | None = None, supersede: bool = False) -> Event:
        """See `App.send`."""
        return _event(await self._post(f"/threads/{thread}/messages", _sparse({"text": text, "dedupe": dedupe, "supersede": supersede})))

    async def emit(self, name: str, payload: Any, *, key: str | None = None, id: str | None = None) -> bool:
        """See `App.emit`."""
        return bool((await self._post("/events", {"payload": _json(payload), **_sparse({"name": name, "key": key, "id": id})}))["is_new"])

    async def hold(self, thread: str, *, on: str | None = None) -> None:
        """See `App.hold`; of one thread only."""
        await self._post(f"/threads/{thread}/hold", _sparse({"on": on}))

    async def release_hold(self, thread: str, *, on: str | None = None) -> None:
        """See `App.release_hold`."""
        await self._post(f"/threads/{thread}/release_hold", _sparse({"on": on}))

    async def pause(self, thread: str, *, reason: str = "") -> None:
        """See `App.pause`."""
        await self._post(f"/threads/{thread}/pause", {"reason": reason})

    async def resume(self, thread: str, *, reason: str = "") -> None:
        """See `App.resume`."""
        await self._post(f"/threads/{thread}/resume", {"reason": reason})

    async def cancel(self, thread: str, *, reason: str = "") -> None:
        """See `App.cancel`."""
        await self._post(f"/threads/{thread}/cancel", {"reason": reason})

    async def retry(self, thread: str, *, reason: str = "") -> None:
        """See `App.retry`."""
        await self._post(f"/threads/{thread}/retry", {"reason": reason})

    async def close(self, thread: str, *, reason: str = "") -> None:
        """See `App.close`."""
        await self._post(f"/threads/{thread}/close", {"reason": reason})

    async def fork(self, thread: str, *, before: str | None = None, key: str | None = None) -> str:
        """See `App.fork`."""
        return str((await self._post(f"/threads/{thread}/fork", _sparse({"before": before, "key": key})))["id"])

    # ---- decisions -------------------------------------------------------------------------------------------------------------

    async def approve(self, interrupt: Interrupt | str, *, digest: str | None = None, note: str = "") -> Interrupt:
        """See `App.approve`. The digest is that of the `Interrupt`; who gives an id gives the digest of what was shown, too."""
        return await self._decide(interrupt, "approve", digest, {"note": note})

    async def edit(self, interrupt: Interrupt | str, arguments: Any, *, digest: str | None = None, note: str = "") -> Interrupt:
        """See `App.edit`."""
        return await self._decide(interrupt, "edit", digest, {"arguments": _json(arguments), "note": note})

    async def reject(self, interrupt: Interrupt | str, *, note: str = "", digest: str | None = None) -> Interrupt:
        """See `App.reject`."""
        return await self._decide(interrupt, "reject", digest, {"note": note})

    async def respond(self, interrupt: Interrupt | str, value: Any, *, note: str = "", digest: str | None = None) -> Interrupt:
        """See `App.respond`."""
        return await self._decide(interrupt, "respond", digest, {"value": _json(value), "note": note})

    async def answer(self, interrupt: Interrupt | str, value: Any, *, note: str = "", digest: str | None = None) -> Interrupt:
        """See `App.answer`."""
        return await self._decide(interrupt, "answer", digest, {"value": _answer(value), "note": note})

    async def _decide(self, interrupt: Interrupt | str, verb: Verb, digest: str | None, body: Mapping[str, Json]) -> Interrupt:
        id = interrupt if isinstance(interrupt, str) else interrupt.id
        digest = digest or (interrupt.digest if isinstance(interrupt, Interrupt) else None)
        if digest is None:
            raise ValueError(f"a decision on {id} needs the digest of what was shown; pass the Interrupt itself, or digest=")
        return _interrupt(await self._post(f"/interrupts/{id}/decision", {"decision": verb, "digest": digest, **body}))

    async def snooze(self, interrupt: Interrupt | str, until: datetime | None) -> None:
        """Leave it open and out of the list until then, for everybody; None: no longer."""
        id = interrupt if isinstance(interrupt, str) else interrupt.id
        await self._post(f"/interrupts/{id}/snooze", {"until": None if until is None else until.isoformat()})

    # ---- reading ---------------------------------------------------------------------------------------------------------------

    async def show(self, thread: str) -> ThreadView:
        """See `App.show`."""
        return _thread(await self._get(f"/threads/{thread}"))

    async def events(self, thread: str, *, after: int = 0, limit: int = 200) -> list[Event]:
        """A stretch of the log."""
        return [_event(one) for one in (await self._get(f"/threads/{thread}/events", after=after, limit=limit))["items"]]

    async def threads(self, *, limit: int = 50, after: str | None = None, **filters: str | None) -> list[ThreadView]:
        """See `App.threads`; filters: agent, status, key, q."""
        return [_thread(one) for one in await self._list("/threads", limit, after, filters)]

    async def interrupts(self, *, limit: int = 50, after: str | None = None, **filters: str | bool | None) -> list[Interrupt]:
        """What a person can decide, the most urgent first; filters: thread, agent, kind, name, status, q, snoozed."""
        return [_interrupt(one) for one in await self._list("/interrupts", limit, after, filters)]

    async def interrupt(self, id: str) -> Interrupt:
        """See `App.interrupt`."""
        return _interrupt(await self._get(f"/interrupts/{id}"))

    async def _list(self, path: str, limit: int, after: str | None, filters: Mapping[str, Any]) -> list[Json]:
        found: list[Json] = []
        while len(found) < limit:
            page = await self._get(path, **_sparse({**filters, "limit": min(limit - len(found), PAGE), "after": after}))
            found += page["items"]
            after = page["next"]
            if after is None:
                break
        return found

    async def stream(self, thread: str, *, after: int = 0) -> AsyncGenerator[Event | Delta | Progress, None]:
        """See `App.stream`. Goes on after a broken connection where it was, without gap or duplicate."""
        failures = 0
        while True:
            try:
                async with aclosing(self._frames(f"/threads/{thread}/stream", after)) as frames:
                    async for name, data in frames:
                        failures = 0
                        item = _item(name, data)
                        after = item.seq if isinstance(item, Event) else after
                        yield item
            except _Over:
                return
            except httpx.TransportError as error:
                if failures >= 10 * TRIES:
                    raise Unreachable(self.url, str(error) or type(error).__name__) from error
            failures += 1
            await asyncio.sleep(PAUSE_SECONDS * min(failures, 8))

    def _stream_request(self, path: str, after: int) -> httpx.Request:
        timeout = httpx.Timeout(30.0, read=60.0)  # a comment comes every 15 seconds
        return self._http.build_request("GET", path, headers={"Last-Event-ID": str(after)}, timeout=timeout)

    async def _frames(self, path: str, after: int) -> AsyncGenerator[tuple[str, Json], None]:
        response = await self._http.send(self._stream_request(path, after), stream=True)
        try:
            if response.status_code == 204:
                raise _Over
            if response.status_code != 200:
                await response.aread()
                raise _error(response)
            async for one in _said(response.aiter_lines()):
                yield one
        finally:
            await response.aclose()

    # ---- requests --------------------------------------------------------------------------------------------------------------

    async def _get(self, path: str, **query: Any) -> Json:
        return await self._ask(partial(self._http.get, path, params=query))

    async def _post(self, path: str, body: Mapping[str, Json]) -> Json:
        headers = {"Idempotency-Key": f'"{uuid.uuid4()}"', "Content-Type": "application/json"}
        return await self._ask(partial(self._http.post, path, content=json.dumps(body), headers=headers))

    async def _ask(self, request: Callable[[], Any]) -> Json:
        """The same request again where the server was out of reach, or busy with the one before."""
        for number in range(1, TRIES + 1):
            try:
                response: httpx.Response = await request()
            except httpx.TransportError as error:
                if number == TRIES:
                    raise Unreachable(self.url, str(error) or type(error).__name__) from error
            else:
                if response.is_success:
                    return response.json()
                is_passing = response.status_code in AGAIN or _problem(response).get("type") == URN + "idempotency-in-flight"
                if not is_passing or number == TRIES:
                    raise _error(response)
            await asyncio.sleep(PAUSE_SECONDS * 2**number)
        raise AssertionError("the last try returns or raises")


# ---- values ------------------------------------------------------------------------------------------------------------------------


def _actor(value: Json) -> Actor:
    return Actor(value["id"], tuple(value["groups"]))


def _time(value: str) -> datetime:
    return datetime.fromisoformat(value)


def _votes(values: Json) -> tuple[Vote, ...]:
    return tuple(Vote(_actor(one["by"]), one["kind"], _time(one["at"])) for one in values)


def _decision(value: Json) -> Decision:
    by = None if value["by"] is None else _actor(value["by"])
    return Decision(value["kind"], by, value["note"], _time(value["at"]), value["value"], _votes(value["votes"]))


def _interrupt(value: Json) -> Interrupt:
    place = ids.interrupt_of(value["id"])
    made = {
        "choices": None if value["choices"] is None else tuple(value["choices"]),
        "policy": ApprovalPolicy.from_json(canonical(value["policy"])),
        "votes": _votes(value["votes"]),
        "created_at": _time(value["created_at"]),
        "expires_at": None if value["expires_at"] is None else _time(value["expires_at"]),
        "decision": None if value["decision"] is None else _decision(value["decision"]),
        "seq": 0 if place is None else place[1],
    }
    return Interrupt(**{**value, **made})


def _event(value: Json) -> Event:
    return Event(**{**value, "at": _time(value["at"])})


def _error_info(value: Json) -> ErrorInfo | None:
    return None if value is None else ErrorInfo(**value)


def _step(value: Json) -> StepView:
    operations = tuple(Operation(**{**one, "error": _error_info(one["error"])}) for one in value["operations"])
    return StepView(**{**value, "operations": operations})


def _thread(value: Json) -> ThreadView:
    made = {
        "error": _error_info(value["error"]),
        "steps": tuple(_step(one) for one in value["steps"]),
        "interrupts": tuple(_interrupt(one) for one in value["interrupts"]),
        "events": tuple(_event(one) for one in value["events"]),
        "usage": Usage(**value["usage"]),
        "created_at": _time(value["created_at"]),
        "updated_at": _time(value["updated_at"]),
    }
    return ThreadView(**{**value, **made})


def _item(name: str, data: Json) -> Event | Delta | Progress:
    if name == "delta":
        return Delta(**data)
    if name == "progress":
        return Progress(**{**data, "started_at": None if data["started_at"] is None else _time(data["started_at"])})
    return _event(data)


def _json(value: Any) -> Json:
    return to_json(asdict(value) if is_dataclass(value) and not isinstance(value, type) else value)


def _answer(value: Any) -> Json:
    if isinstance(value, Happened):
        return {"happened": True, "value": _json(value.value)}
    return {"happened": False} if isinstance(value, NotHappened) else _json(value)


def _sparse(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


async def _said(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, Json]]:
    """Name and data of each event; comments and `retry` are not for us."""
    name, data = "message", list[str]()
    async for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not line and data:
            yield name, json.loads("\n".join(data))
        if not line:
            name, data = "message", []


# ---- errors ------------------------------------------------------------------------------------------------------------------------


def _problem(response: httpx.Response) -> dict[str, Json]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _error(response: httpx.Response) -> OwnloopError:
    """The library's own error, if the server raised one."""
    problem = _problem(response)
    kind = str(problem.get("type", "")).removeprefix(URN)
    name = "".join(part.capitalize() for part in kind.split("-"))
    known = getattr(errors, name, None)
    if kind == "store-unavailable":
        return errors.StoreError(str(problem.get("detail")))
    if isinstance(known, type) and issubclass(known, OwnloopError) and (found := _attributes(known, problem)):
        return _rebuilt(known, problem, **found)
    return Refused(response.status_code, problem)


def _attributes(kind: type[OwnloopError], problem: Mapping[str, Any]) -> dict[str, Any]:
    """What the error holds besides its words; nothing where the problem is a server's only."""
    if kind is NotFound:
        return {"what": problem["what"], "value": problem["value"]} if "what" in problem else {}
    if kind is errors.ThreadEnded:
        return {"thread_id": problem["thread_id"], "status": problem["thread_status"]}
    if not problem.get("interrupt"):
        return {}
    found: dict[str, Any] = {"interrupt": _interrupt(problem["interrupt"])}
    if kind is errors.InvalidEdit:
        found["problems"] = tuple((one["pointer"], one["detail"]) for one in problem["errors"])
    if kind is errors.NotAllowed:
        found["by"] = _actor(problem["by"])
    if kind is errors.ArgumentsChanged:
        found["digest"] = problem["digest"]
    return found


def _rebuilt(kind: type[OwnloopError], problem: Mapping[str, Json], **attributes: Any) -> OwnloopError:
    """An error with the server's words, which it built from values that we do not have."""
    error = kind.__new__(kind)
    Exception.__init__(error, str(problem.get("detail", "")))
    for name, value in attributes.items():
        setattr(error, name, value)
    return error
