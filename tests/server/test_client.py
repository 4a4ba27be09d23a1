"""The verbs over HTTP: the same values as the App's, the same errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields
from datetime import timedelta
from typing import Any

import httpx
import pytest
from bureau import BASE, Place

from ownloop import Actor, Happened
from ownloop.client import Client, Refused, Unreachable
from ownloop.errors import AlreadyDecided, ArgumentsChanged, Expired, InvalidEdit, NotAllowed, NotFound, OwnloopError, StoreError, ThreadEnded


@pytest.fixture
async def client(place: Place) -> AsyncIterator[Client]:
    async with Client(BASE, place.token, transport=httpx.ASGITransport(app=place.site)) as made:
        yield made


def same(one: Any, other: Any) -> None:
    """Equal values field by field, policies and all."""
    for field in fields(one):
        assert getattr(one, field.name) == getattr(other, field.name), field.name


@pytest.mark.parametrize("input", ["deploy", "two", "short", "ask", "charge", "review", "managers", "event", "child", "fail", "done"])
async def test_what_it_shows_is_what_the_app_shows(place: Place, client: Client, input: str) -> None:
    id = await client.start("desk", input, key=f"k-{input}", context={"n": [1]})
    await place.bureau.settle()
    app = place.bureau.app
    if input == "two":
        (one,) = await app.interrupts(thread=id)
        await app.approve(one, by=Actor("bob", ("x", "y")))
    same(await client.show(id), await app.show(id))
    for one in (await app.show(id)).interrupts:
        same(await client.interrupt(one.id), one)


async def test_lists_are_the_apps(place: Place, client: Client) -> None:
    for n in range(7):
        await place.bureau.parked("deploy", key=f"k{n}")
    assert [one.id for one in await client.threads(limit=7)] == [one.id for one in await place.bureau.app.threads()]
    everything = await client.interrupts(limit=1000)
    assert len(everything) == 7
    assert await client.interrupts(limit=2) == everything[:2]
    assert await client.interrupts(limit=2, after=everything[1].id) == everything[2:4]
    assert [one.key for one in await client.threads(key="k3")] == ["k3"]
    assert await client.interrupts(name="nothing") == []


async def test_every_verb_of_a_decision(place: Place, client: Client) -> None:
    waiting = [await place.bureau.parked("deploy") for _ in range(4)]
    question, doubt = await place.bureau.parked("ask"), await place.bureau.parked("charge")
    assert (await client.approve(waiting[0], note="go")).decision.kind == "approved"  # type: ignore[union-attr]  # it is decided
    assert (await client.edit(waiting[1], {"tag": "v2", "count": 2})).decision.value == {"tag": "v2", "count": 2}  # type: ignore[union-attr]
    assert (await client.reject(waiting[2].id, note="no", digest=waiting[2].digest)).decision.note == "no"  # type: ignore[union-attr]
    assert (await client.respond(waiting[3], {"by": "hand"})).decision.kind == "responded"  # type: ignore[union-attr]
    assert (await client.answer(question, "alpha")).decision.value == "alpha"  # type: ignore[union-attr]
    assert (await client.answer(doubt, Happened("paid"))).decision.value == {"happened": True, "value": "paid"}  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="needs the digest of what was shown"):
        await client.approve(waiting[0].id)


async def test_every_verb_of_the_operator(place: Place, client: Client) -> None:
    id = await place.bureau.thread("event")
    for verb, status in (("pause", "paused"), ("resume", "open"), ("hold", "open"), ("release_hold", "open")):
        await getattr(client, verb)(id)
        assert (await client.show(id)).status == status
    assert (await client.send(id, "hello", dedupe="m")).by == "ann"
    assert (await client.emit("built", {"ok": 1}, key="job-1", id="e"), await client.emit("built", 1, key="job-1", id="e")) == (True, False)
    forked = await client.fork(id, key="copy")
    assert (await client.show(forked)).key == "copy"
    await client.cancel(forked)
    await client.close(id)
    failed = await place.bureau.thread("fail")
    await client.retry(failed)
    assert [(await client.show(one)).status for one in (forked, id, failed)] == ["cancelled", "closed", "open"]
    one = await place.bureau.parked("deploy")
    await client.snooze(one, place.clock.now() + timedelta(hours=1))
    assert [item.id for item in await client.interrupts(snoozed=True)] == [one.id]
    assert [event.seq for event in await client.events(one.thread_id, after=1, limit=1)] == [2]


# ---- errors ------------------------------------------------------------------------------------------------------------------------


async def told(call: Any) -> OwnloopError:
    with pytest.raises(OwnloopError) as caught:
        await call
    return caught.value


async def test_errors_are_the_librarys_own_with_its_words_and_values(place: Place, client: Client) -> None:
    app, one = place.bureau.app, await place.bureau.parked("managers")
    assert type(error := await told(client.approve(one, digest="0" * 64))) is ArgumentsChanged
    assert error.digest == "0" * 64
    assert type(error := await told(client.edit(one, {"tag": 1}))) is InvalidEdit
    assert error.problems == (("/tag", "1 is not of type 'string'"),)
    await app.approve(one, by=Actor("bob", ("managers",)))
    ours, theirs = await told(app.reject(one.id, by=Actor("x", ("managers",)))), await told(client.reject(one))
    assert (type(theirs), str(theirs)) == (AlreadyDecided, str(ours))
    assert theirs.interrupt.decision.by == Actor("bob", ("managers",))  # type: ignore[attr-defined]
    assert type(error := await told(client.show("thr_0000000000001"))) is NotFound
    assert (error.what, error.value) == ("thread", "thr_0000000000001")
    late = await place.bureau.parked("short")
    place.clock.advance("2h")
    assert type(error := await told(client.approve(late))) is Expired
    assert error.interrupt.id == late.id
    assert type(error := await told(client.answer(late, 1))) in (Expired, NotAllowed)
    await client.close(one.thread_id)
    assert type(error := await told(client.send(one.thread_id, "x"))) is ThreadEnded
    assert (error.thread_id, error.status) == (one.thread_id, "closed")
    quorum = await place.bureau.parked("two")
    await client.approve(quorum)
    assert type(error := await told(client.approve(quorum))) is NotAllowed
    assert error.by.id == "ann" and "agreed already" in str(error)


async def test_what_only_a_server_refuses_is_refused_by_its_kind(place: Place) -> None:
    async with Client(BASE, "ownloop_none", transport=httpx.ASGITransport(app=place.site)) as nobody:
        error = await told(nobody.threads())
        assert isinstance(error, Refused) and (error.status, error.kind) == (401, "unauthenticated")
    text = await place.bureau.token("bob", scopes=["threads:read"])
    async with Client(BASE, text, transport=httpx.ASGITransport(app=place.site)) as bob:
        error = await told(bob.start("desk"))
        assert isinstance(error, Refused) and (error.kind, error.problem["scope"]) == ("missing-scope", "threads:write")


async def test_a_request_that_is_lost_is_sent_again_with_its_key_and_done_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownloop.client.PAUSE_SECONDS", 0.001)
    inner, keys = httpx.ASGITransport(app=place.site), list[str]()

    class Lossy(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            keys.append(request.headers["Idempotency-Key"])
            response = await inner.handle_async_request(request)
            if len(keys) < 3:
                raise httpx.ReadError("the line broke")
            return response

    async with Client(BASE, place.token, transport=Lossy()) as client:
        id = await client.start("desk", "deploy")
    assert len(keys) == 3 and len(set(keys)) == 1
    assert [row.id for row in await place.bureau.app.store.threads()] == [id]


async def test_a_server_that_is_not_there_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownloop.client.PAUSE_SECONDS", 0.001)
    async with Client("http://127.0.0.1:1") as client:
        error = await told(client.threads())
    assert isinstance(error, Unreachable)
    assert "http://127.0.0.1:1 gave no answer" in str(error)


async def test_a_store_that_fails_is_a_store_error(place: Place, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownloop.client.PAUSE_SECONDS", 0.001)

    async def busy(*_: Any, **__: Any) -> Any:
        raise StoreError("the disk is on fire")

    with monkeypatch.context() as patched:
        patched.setattr(place.bureau.app.store, "threads", busy)
        assert isinstance(error := await told(client.threads()), StoreError)
        assert str(error) == "the disk is on fire"
