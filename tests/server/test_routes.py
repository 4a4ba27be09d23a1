"""Each route does what it says, and answers in the shape that the OpenAPI document promises."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bureau import Place, kind, opened, visitor

from ownloop.server import schemas
from ownloop.server.webhooks import Emit, Hooks, Request, new_secret, signed_headers

ABSENT = "thr_0000000000001"


def shape(model: Any, value: Any) -> Any:
    """The value, which is of that shape and has nothing besides."""
    seen = model.model_validate(value)
    assert set(value) == {field.alias or name for name, field in model.model_fields.items()}
    return seen


# ---- threads -----------------------------------------------------------------------------------------------------------------------


async def test_a_thread_is_started_once_by_its_key(place: Place) -> None:
    body = {"agent": "desk", "input": {"any": ["json", 1, None]}, "key": "mail:1", "context": {"tenant": "acme"}}
    first = await place.http.post("/v1/threads", json=body)
    assert first.status_code == 201
    thread = shape(schemas.ThreadView, first.json())
    assert first.headers["location"] == f"/v1/threads/{thread.id}"
    assert (thread.status, thread.key, thread.context, thread.events) == ("open", "mail:1", {"tenant": "acme"}, [])
    again = await place.http.post("/v1/threads", json=body)
    assert (again.status_code, again.json()["id"]) == (200, thread.id)


async def test_an_agent_that_is_not_there_starts_nothing(place: Place) -> None:
    refused = await place.http.post("/v1/threads", json={"agent": "ghost"})
    assert (refused.status_code, kind(refused)) == (404, "not-found")
    assert "known: desk" in refused.json()["detail"]
    assert (await place.http.get("/v1/threads")).json() == {"items": [], "next": None}


async def test_threads_are_listed_newest_first_in_pages(place: Place) -> None:
    made = sorted([await place.bureau.thread("x", key=f"k{n}") for n in range(5)], reverse=True)
    seen: list[str] = []
    after = None
    while True:
        page = (await place.http.get("/v1/threads", params={"limit": 2, **({"after": after} if after else {})})).json()
        seen += [shape(schemas.ThreadView, one).id for one in page["items"]]
        if (after := page["next"]) is None:
            break
    assert seen == made


async def test_threads_are_found_by_what_is_asked(place: Place) -> None:
    one = await place.bureau.thread("deploy", key="zendesk:812")
    other = await place.bureau.thread("done")

    async def found(**query: str) -> list[str]:
        return [item["id"] for item in (await place.http.get("/v1/threads", params=query)).json()["items"]]

    assert await found(status="open") == [one]
    assert await found(status="done") == [other]
    assert await found(key="zendesk:812") == [one]
    assert await found(q="ZENDESK") == [one]
    assert await found(q=other) == [other]
    assert await found(q=other, status="open") == []
    assert await found(agent="ghost") == []


async def test_a_thread_is_shown_with_its_log_and_without(place: Place) -> None:
    id = await place.bureau.thread("deploy")
    whole = await place.http.get(f"/v1/threads/{id}")
    thread = shape(schemas.ThreadView, whole.json())
    assert [step.name for step in thread.steps] == ["deploy"]
    assert thread.interrupts[0].kind == "approval"
    assert [event.seq for event in thread.events] == list(range(1, len(thread.events) + 1))
    brief = (await place.http.get(f"/v1/threads/{id}", params={"events": False})).json()
    assert brief == {**whole.json(), "events": []}


async def test_what_has_not_changed_is_not_sent_again(place: Place) -> None:
    id = await place.bureau.thread("deploy")
    first = await place.http.get(f"/v1/threads/{id}")
    same = await place.http.get(f"/v1/threads/{id}", headers={"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    await place.http.post(f"/v1/threads/{id}/messages", json={"text": "hello"})
    assert (await place.http.get(f"/v1/threads/{id}", headers={"If-None-Match": first.headers["etag"]})).status_code == 200


async def test_events_come_in_pages(place: Place) -> None:
    id = await place.bureau.thread("deploy")
    everything = (await place.http.get(f"/v1/threads/{id}/events")).json()
    assert everything["next"] is None
    shape(schemas.Event, everything["items"][0])
    seen: list[Any] = []
    after: int | None = 0
    while after is not None:
        page = (await place.http.get(f"/v1/threads/{id}/events", params={"after": after, "limit": 1})).json()
        seen += page["items"]
        after = page["next"]
    assert seen == everything["items"]


async def test_a_message_is_signed_by_who_sent_it(place: Place) -> None:
    id = await place.bureau.thread("deploy")
    body = {"text": "use the canary", "dedupe": "m1"}
    sent = await place.http.post(f"/v1/threads/{id}/messages", json=body)
    assert sent.status_code == 201
    event = shape(schemas.Event, sent.json())
    assert (event.kind, event.by, event.data["text"]) == ("message", "ann", "use the canary")
    assert (await place.http.post(f"/v1/threads/{id}/messages", json=body)).json() == sent.json()


async def test_an_event_reaches_who_waits_once(place: Place) -> None:
    id = await place.bureau.thread("event")
    body = {"name": "built", "key": "job-1", "payload": {"ok": True}, "id": "e1"}
    assert (await place.http.post("/v1/events", json=body)).json() == {"is_new": True}
    assert (await place.http.post("/v1/events", json=body)).json() == {"is_new": False}
    await place.bureau.settle()
    assert (await place.http.get(f"/v1/threads/{id}")).json()["status"] == "done"
    empty = await place.http.post("/v1/events", json={"name": "built", "payload": None})
    assert (empty.status_code, kind(empty)) == (422, "invalid-request")


async def test_the_operators_verbs_change_the_status(place: Place) -> None:
    id = await place.bureau.thread("deploy")

    async def act(verb: str, **body: Any) -> Any:
        answer = await place.http.post(f"/v1/threads/{id}/{verb}", json=body)
        return answer.json()["status"] if answer.is_success else kind(answer)

    assert await act("pause", reason="lunch") == "paused"
    assert await act("resume") == "open"
    assert await act("hold", on="deploy") == "open"
    assert await act("release_hold") == "open"
    assert await act("retry") == "open"
    assert await act("close") == "closed"
    assert await act("pause") == "thread-ended"
    events = (await place.http.get(f"/v1/threads/{id}/events")).json()["items"]
    said = [(event["data"]["verb"], event["by"], event["data"].get("reason")) for event in events if event["kind"] == "control"]
    assert said[0] == ("pause", "ann", "lunch")
    assert {by for _, by, _ in said} == {"ann"}
    refused = await place.http.post(f"/v1/threads/{id}/messages", json={"text": "too late"})
    assert (refused.status_code, kind(refused)) == (409, "thread-ended")
    assert refused.json()["thread_status"] == "closed"


async def test_a_verb_needs_no_body(place: Place) -> None:
    id = await place.bureau.thread("deploy")
    assert (await place.http.post(f"/v1/threads/{id}/cancel")).json()["status"] == "cancelled"


async def test_a_failed_thread_is_retried(place: Place) -> None:
    id = await place.bureau.thread("fail")
    shown = (await place.http.get(f"/v1/threads/{id}")).json()
    assert (shown["status"], shown["error"]["type"]) == ("failed", "RuntimeError")
    assert (await place.http.post(f"/v1/threads/{id}/retry")).json()["status"] == "open"


async def test_a_fork_is_a_new_thread(place: Place) -> None:
    id = await place.bureau.thread("done", context={"tenant": "acme"})
    forked = await place.http.post(f"/v1/threads/{id}/fork", json={"key": "again"})
    assert forked.status_code == 201
    assert (forked.json()["id"] != id, forked.json()["key"], forked.json()["context"]) == (True, "again", {"tenant": "acme"})
    assert kind(await place.http.post(f"/v1/threads/{id}/fork", json={"before": "stp_x_1"})) == "not-found"


# ---- interrupts --------------------------------------------------------------------------------------------------------------------


async def test_an_interrupt_is_shown_as_it_was_recorded(place: Place) -> None:
    one = await place.bureau.parked("managers")
    seen = shape(schemas.Interrupt, (await place.http.get(f"/v1/interrupts/{one.id}")).json())
    assert (seen.intent, seen.name, seen.digest, seen.status) == ({"tag": "v1.1.0", "count": 1}, "deploy", one.digest, "open")
    assert (seen.policy.by, seen.policy.not_by, seen.policy.reason, seen.decision) == (["managers"], ["eve"], "it is production", None)
    assert seen.schema_["properties"]["count"]["type"] == "integer"


async def test_interrupts_come_by_urgency_and_only_those_for_people(place: Place) -> None:
    calm, urgent = await place.bureau.parked("deploy"), await place.bureau.parked("short")
    event = await place.bureau.thread("event")
    page = (await place.http.get("/v1/interrupts")).json()
    assert [shape(schemas.Interrupt, one).id for one in page["items"]] == [urgent.id, calm.id]
    assert page["items"][0]["expires_at"].endswith("Z")
    waits = (await place.http.get("/v1/interrupts", params={"kind": "event"})).json()["items"]
    assert [one["thread_id"] for one in waits] == [event]


async def test_interrupts_are_found_by_what_is_asked(place: Place) -> None:
    one, other = await place.bureau.parked("deploy", key="mail:1"), await place.bureau.parked("ask")

    async def found(**query: Any) -> list[str]:
        return [item["id"] for item in (await place.http.get("/v1/interrupts", params=query)).json()["items"]]

    assert await found(kind="question") == [other.id]
    assert await found(name="deploy") == [one.id]
    assert await found(thread=one.thread_id) == await found(q=one.thread_id) == await found(q=one.id) == [one.id]
    assert await found(q="V1.1") == await found(q="MAIL:1") == [one.id]
    assert await found(q="which NAME") == [other.id]
    assert await found(agent="ghost") == await found(status="decided") == await found(q=ABSENT) == []


async def test_interrupts_come_in_pages_while_they_are_decided(place: Place) -> None:
    made = [await place.bureau.parked("deploy") for _ in range(5)]
    first = (await place.http.get("/v1/interrupts", params={"limit": 2})).json()
    await place.bureau.app.reject(first["items"][-1]["id"], by="ann")
    rest = (await place.http.get("/v1/interrupts", params={"after": first["next"]})).json()
    assert {one["id"] for one in first["items"]} | {one["id"] for one in rest["items"]} == {one.id for one in made}
    assert len(rest["items"]) == 3


async def test_what_is_put_off_comes_back_at_its_time(place: Place) -> None:
    one, other = await place.bureau.parked("deploy"), await place.bureau.parked("short")
    until = place.clock.now() + timedelta(minutes=30)
    put_off = await place.http.post(f"/v1/interrupts/{one.id}/snooze", json={"until": until.isoformat()})
    assert shape(schemas.Snoozed, put_off.json()).until == until

    async def listed(**query: Any) -> list[str]:
        return [item["id"] for item in (await place.http.get("/v1/interrupts", params=query)).json()["items"]]

    assert (await listed(), await listed(snoozed=True)) == ([other.id], [one.id])
    place.clock.advance("30m")
    assert set(await listed()) == {one.id, other.id}
    await place.http.post(f"/v1/interrupts/{one.id}/snooze", json={"until": "2026-01-02T00:00:00Z"})
    assert (await place.http.post(f"/v1/interrupts/{one.id}/snooze", json={"until": None})).json()["until"] is None
    assert set(await listed()) == {one.id, other.id}


@pytest.mark.parametrize("until", ["2025-12-31T00:00:00Z", "2026-01-01T02:00:00Z", "2026-01-01T00:30:00", "soon"])
async def test_what_cannot_be_put_off_until_then_is_refused(place: Place, until: str) -> None:
    one = await place.bureau.parked("short")
    assert kind(await place.http.post(f"/v1/interrupts/{one.id}/snooze", json={"until": until})) == "invalid-request"
    assert len((await place.http.get("/v1/interrupts")).json()["items"]) == 1


async def test_half_a_surrogate_pair_goes_in_and_comes_out(place: Place) -> None:
    body = '{"agent": "desk", "input": {"half": "\\ud83d"}}'
    made = await place.http.post("/v1/threads", content=body, headers={"Content-Type": "application/json"})
    assert made.status_code == 201
    shown = await place.http.get(f"/v1/threads/{made.json()['id']}")
    assert shown.json()["events"][0]["data"]["input"] == {"half": "\ud83d"}


# ---- webhooks ----------------------------------------------------------------------------------------------------------------------


async def test_a_webhook_is_taken_once_if_it_is_genuine(tmp_path: Path) -> None:
    secret = new_secret()
    hooks = Hooks()

    @hooks.on("ci", secrets=[secret])
    def ci(request: Request) -> Emit:
        return Emit("built", request.body["data"], key="job-1")

    async with opened(f"sqlite:///{tmp_path}/t.db", hooks=hooks) as place:
        thread = await place.bureau.thread("event")
        body = b'{"data": {"ok": true}}'
        headers = signed_headers([secret], "msg_1", place.clock.now(), body)
        async with visitor(place.site) as ci_server:
            wrong = await ci_server.post("/v1/hooks/ci", content=body + b" ", headers=headers)
            assert (wrong.status_code, kind(wrong)) == (401, "unauthenticated")
            assert kind(await ci_server.post("/v1/hooks/other", content=body, headers=headers)) == "not-found"
            first = await ci_server.post("/v1/hooks/ci", content=body, headers={**headers, "Idempotency-Key": "theirs"})
            again = await ci_server.post("/v1/hooks/ci", content=body, headers=headers)
        assert (first.json(), again.json()) == ({"is_new": True}, {"is_new": False})
        await place.bureau.settle()
        assert (await place.bureau.app.show(thread)).status == "done"


# ---- addresses ---------------------------------------------------------------------------------------------------------------------


async def test_an_address_that_is_not_there_is_a_problem_too(place: Place) -> None:
    assert kind(await place.http.get("/v1/nothing")) == "not-found"
    assert kind(await place.http.get("/nothing")) == "not-found"
    wrong = await place.http.delete("/v1/threads")
    assert (wrong.status_code, kind(wrong)) == (405, "method-not-allowed")
    assert "POST" in wrong.headers["allow"] or "GET" in wrong.headers["allow"]


@pytest.mark.parametrize("id", ["nothing", ABSENT, "thr_", "int_1", "int_0000000000001_2", "int_0000000000001_" + "9" * 40, "%00", "ü"])
async def test_an_id_that_is_none_is_not_found(place: Place, id: str) -> None:
    for path in (f"/v1/threads/{id}", f"/v1/threads/{id}/events", f"/v1/threads/{id}/stream", f"/v1/interrupts/{id}"):
        assert kind(await place.http.get(path)) == "not-found"


@pytest.mark.parametrize(
    "query",
    [
        "/v1/threads?limit=0",
        "/v1/threads?limit=x",
        "/v1/threads?status=odd",
        "/v1/threads?after=!!",
        "/v1/interrupts?after=dGhyX3g",
        "/v1/interrupts?kind=x",
        "/v1/interrupts?q=" + "x" * 300,
    ],
)
async def test_a_query_that_makes_no_sense_is_told_where(place: Place, query: str) -> None:
    refused = await place.http.get(query)
    assert (refused.status_code, kind(refused)) == (422, "invalid-request")
    assert refused.json()["errors"]


@pytest.mark.parametrize("body", ["{", "", "[1", '"x"', "\xff"])
async def test_a_body_that_is_no_json_is_refused(place: Place, body: str) -> None:
    refused = await place.http.post("/v1/threads", content=body.encode("latin-1"), headers={"Content-Type": "application/json"})
    assert refused.status_code in (400, 422)
    assert kind(refused) in ("malformed", "invalid-request")


async def test_a_body_of_another_type_is_refused(place: Place) -> None:
    refused = await place.http.post("/v1/threads", content=b'{"agent": "desk"}', headers={"Content-Type": "text/plain"})
    assert kind(refused) == "invalid-request"


async def test_a_body_without_end_is_refused(place: Place) -> None:
    async def endless() -> Any:
        for _ in range(40):
            yield b"x" * 1_000_000

    assert kind(await place.http.post("/v1/threads", content=endless(), headers={"Content-Type": "application/json"})) == "too-large"
    assert kind(await place.http.post("/v1/threads", content=b"x" * 20_000_000, headers={"Content-Type": "application/json"})) == "too-large"


async def test_a_body_that_is_nested_too_deeply_is_refused(place: Place) -> None:
    body = '{"agent": "desk", "input": ' + "[" * 900 + "]" * 900 + "}"
    answer = await place.http.post("/v1/threads", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (201, 422)


async def test_the_probes_answer_anybody_and_metrics_do_not(place: Place) -> None:
    place.http.headers.pop("Authorization")
    assert (await place.http.get("/healthz")).json() == (await place.http.get("/readyz")).json() == {"status": "ok"}
    assert kind(await place.http.get("/metrics")) == "unauthenticated"
    place.http.headers["Authorization"] = f"Bearer {place.token}"
    assert kind(await place.http.get("/metrics")) == "not-instrumented"


async def test_every_answer_has_the_headers_that_keep_it_inert(place: Place) -> None:
    for path in ("/v1/threads", "/v1/nothing", "/healthz", "/login"):
        headers = (await place.http.get(path)).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["referrer-policy"], headers["cache-control"]) == ("nosniff", "same-origin", "no-store")
