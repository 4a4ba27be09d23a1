"""The same request twice is done once, and answered twice (draft-ietf-httpapi-idempotency-key-header-07)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from bureau import Place, kind

BODY = {"agent": "desk", "input": "deploy"}


async def start(place: Place, key: str, body: Any = BODY, http: Any = None, path: str = "/v1/threads") -> Any:
    return await (http or place.http).post(path, json=body, headers={"Idempotency-Key": key})


async def count(place: Place) -> int:
    return len(await place.bureau.app.store.threads(limit=1000))


@pytest.mark.parametrize(("first", "second"), [('"k-1"', '"k-1"'), ("k-1", "k-1"), ('"k-1"', "k-1"), ('"say \\"hi\\""', '"say \\"hi\\""')])
async def test_the_same_request_is_done_once_and_answered_twice(place: Place, first: str, second: str) -> None:
    one, other = await start(place, first), await start(place, second)
    assert (one.status_code, one.content, one.headers["location"]) == (other.status_code, other.content, other.headers["location"])
    assert ("idempotency-replayed" in one.headers, other.headers["idempotency-replayed"]) == (False, "true")
    assert await count(place) == 1


async def test_another_request_with_the_same_key_is_refused(place: Place) -> None:
    await start(place, "k")
    for body, path in (({"agent": "desk"}, "/v1/threads"), (BODY, "/v1/threads?x=1"), ({"name": "e", "payload": 1}, "/v1/events")):
        refused = await start(place, "k", body, path=path)
        assert (refused.status_code, kind(refused)) == (422, "idempotency-key-reused")
    assert await count(place) == 1


async def test_a_key_belongs_to_who_sent_it(place: Place) -> None:
    one = await start(place, "k")
    async with await place.visitor("bob") as bob:
        other = await start(place, "k", http=bob)
    assert (other.status_code, other.json()["id"] != one.json()["id"]) == (201, True)


async def test_a_refusal_is_answered_again_too(place: Place) -> None:
    one = await place.bureau.parked("deploy")
    path, body = f"/v1/interrupts/{one.id}/decision", {"decision": "approve", "digest": one.digest}
    await place.bureau.app.reject(one.id, by="bob")
    first, second = await start(place, "k", body, path=path), await start(place, "k", body, path=path)
    assert (first.status_code, first.content, first.headers["content-type"]) == (409, second.content, second.headers["content-type"])


async def test_of_many_at_once_one_is_done(place: Place) -> None:
    answers = await asyncio.gather(*(start(place, "k") for _ in range(20)))
    assert await count(place) == 1
    assert {one.status_code for one in answers} <= {201, 409}
    assert {kind(one) for one in answers if one.status_code == 409} <= {"idempotency-in-flight"}
    assert len({one.json()["id"] for one in answers if one.status_code == 201}) == 1
    assert all(one.headers["retry-after"] == "1" for one in answers if one.status_code == 409)


async def test_after_a_day_the_key_is_free(place: Place) -> None:
    await start(place, "k")
    place.clock.advance("24h")
    assert "idempotency-replayed" not in (await start(place, "k")).headers
    assert await count(place) == 2


async def test_a_request_whose_process_died_can_be_sent_again_after_a_minute(place: Place) -> None:
    store = place.bureau.app.store
    await start(place, "k")
    (key,) = await store.records("idempotency")
    record = await store.get("idempotency", key)
    assert record is not None
    await store.drop("idempotency", key)
    from datetime import timedelta

    await store.put("idempotency", key, {"request": record.value["request"]}, ttl=timedelta(minutes=1))
    assert kind(await start(place, "k")) == "idempotency-in-flight"
    place.clock.advance("1m")
    assert (await start(place, "k")).status_code == 201


async def test_a_failure_of_the_server_is_not_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from ownloop.errors import StoreBusy

    async def busy(*_: Any, **__: Any) -> Any:
        raise StoreBusy("t.db", 60)

    with monkeypatch.context() as patched:
        patched.setattr(place.bureau.app.store, "create", busy)
        refused = await start(place, "k")
        assert (refused.status_code, kind(refused), refused.headers["retry-after"]) == (503, "store-unavailable", "1")
    assert (await start(place, "k")).status_code == 201


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "\x07", "schlüssel"])
async def test_a_key_that_is_none_is_refused(place: Place, key: str) -> None:
    refused = await place.http.post("/v1/threads", json=BODY, headers=[(b"Idempotency-Key", key.encode("latin-1"))])
    assert (refused.status_code, kind(refused)) == (400, "idempotency-key-invalid")
    assert await count(place) == 0


async def test_who_is_nobody_leaves_no_key(place: Place) -> None:
    place.http.headers.pop("Authorization")
    assert kind(await start(place, "k")) == "unauthenticated"
    assert await place.bureau.app.store.records("idempotency") == {}
