"""Decisions over HTTP: the first valid one wins, the others are told who; nothing is dispatched that was not decided."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from bureau import Place, kind

from ownloop import Actor
from ownloop.errors import AlreadyDecided
from ownloop.events import canonical
from ownloop.server import Desk
from ownloop.server.auth import ALL_SCOPES, Principal

ANN = Principal(Actor("ann"), ALL_SCOPES, None, "token")


async def decide(place: Place, one: Any, decision: str = "approve", http: Any = None, **body: Any) -> Any:
    said = {"decision": decision, "digest": one.digest, **body}
    return await (http or place.http).post(f"/v1/interrupts/{one.id}/decision", json=said)


async def test_an_approved_call_runs_as_it_was_shown(place: Place) -> None:
    one = await place.bureau.parked("managers")
    answer = await decide(place, one, note="go")
    assert answer.status_code == 200
    said = answer.json()["decision"]
    assert (said["kind"], said["by"], said["note"], said["granted"]) == ("approved", {"id": "ann", "groups": ["managers"]}, "go", True)
    await place.bureau.settle()
    assert place.bureau.ran == [{"tag": "v1.1.0", "count": 1}]


async def test_an_edited_call_runs_as_it_was_edited_and_only_so(place: Place) -> None:
    one = await place.bureau.parked("deploy")
    edited = {"tag": "v1.0.9", "count": 3}
    assert (await decide(place, one, "edit", arguments=edited)).json()["decision"]["value"] == edited
    await place.bureau.settle()
    assert [canonical(ran) for ran in place.bureau.ran] == [canonical(edited)]


async def test_a_rejected_call_does_not_run_and_a_response_takes_its_place(place: Place) -> None:
    one, other = await place.bureau.parked("deploy"), await place.bureau.parked("deploy")
    assert (await decide(place, one, "reject", note="not on a Friday")).json()["decision"]["kind"] == "rejected"
    assert (await decide(place, other, "respond", value={"deployed": "by hand"})).json()["decision"]["value"] == {"deployed": "by hand"}
    await place.bureau.settle()
    assert place.bureau.ran == []


async def test_a_question_and_a_doubt_are_answered(place: Place) -> None:
    question, doubt = await place.bureau.parked("ask"), await place.bureau.parked("charge")
    refused = await decide(place, question, "answer", value="gamma")
    assert (refused.status_code, kind(refused)) == (422, "invalid-edit")
    assert (await decide(place, question, "answer", value="alpha")).json()["status"] == "decided"
    assert kind(await decide(place, doubt, "answer", value="yes")) == "invalid-edit"
    assert (await decide(place, doubt, "answer", value={"happened": True, "value": "paid"})).json()["status"] == "decided"
    await place.bureau.settle()
    assert [row.status for row in await place.bureau.app.store.threads()] == ["done", "done"]


async def test_two_people_must_agree(place: Place) -> None:
    one = await place.bureau.parked("two")
    first = (await decide(place, one)).json()
    assert (first["status"], [vote["by"]["id"] for vote in first["votes"]], first["decision"]) == ("open", ["ann"], None)
    again = await decide(place, one)
    assert (again.status_code, kind(again)) == (403, "not-allowed")
    async with await place.visitor("bob") as bob:
        assert (await decide(place, one, http=bob)).json()["status"] == "decided"


# ---- refusals ----------------------------------------------------------------------------------------------------------------------


async def test_the_second_one_is_told_who_was_first_and_when(place: Place) -> None:
    one = await place.bureau.parked("deploy")
    place.clock.advance("5m")
    await decide(place, one)
    async with await place.visitor("bob") as bob:
        late = await decide(place, one, "reject", http=bob)
    assert (late.status_code, kind(late)) == (409, "already-decided")
    problem = late.json()
    assert problem["decision"] == {"kind": "approved", "by": {"id": "ann", "groups": ["managers"]}, "at": "2026-01-01T00:05:00.000000Z"}
    assert problem["interrupt"]["decision"]["by"]["id"] == "ann"
    assert "approved by ann at 2026-01-01 00:05:00Z" in problem["detail"]


async def test_a_decision_a_millisecond_late_is_refused_although_nobody_swept(place: Place) -> None:
    one = await place.bureau.parked("short")
    place.clock.advance(timedelta(hours=1) - timedelta(milliseconds=1))
    assert kind(await decide(place, one, digest="0" * 64)) == "arguments-changed"  # still open
    place.clock.advance(timedelta(milliseconds=2))
    late = await decide(place, one)
    assert (late.status_code, kind(late)) == (410, "expired")
    assert late.json()["interrupt"]["expires_at"] == "2026-01-01T01:00:00.000000Z"
    await place.bureau.settle()
    assert place.bureau.ran == []


async def test_a_policy_that_forbids_it_forbids_it(place: Place) -> None:
    one = await place.bureau.parked("managers")
    for name, groups in (("bob", ()), ("eve", ("managers",))):
        async with await place.visitor(name, groups=groups) as http:
            refused = await decide(place, one, http=http)
            assert (refused.status_code, kind(refused)) == (403, "not-allowed")
            assert "policy" in refused.json()["detail"]
    assert (await place.bureau.app.interrupt(one.id)).status == "open"


async def test_a_verb_that_is_not_offered_is_not_taken(place: Place) -> None:
    gate, question = await place.bureau.parked("deploy"), await place.bureau.parked("ask")
    assert kind(await decide(place, gate, "answer", value=1)) == "not-allowed"
    assert kind(await decide(place, question)) == "not-allowed"


@pytest.mark.parametrize("verb", ["approve", "edit", "reject", "respond", "answer"])
async def test_another_digest_decides_nothing(place: Place, verb: str) -> None:
    one = await place.bureau.parked("ask" if verb == "answer" else "deploy")
    more = {"edit": {"arguments": {"tag": "x", "count": 1}}, "respond": {"value": 1}, "answer": {"value": "alpha"}}.get(verb, {})
    refused = await decide(place, one, verb, **{"digest": "0" * 64, **more})
    assert (refused.status_code, kind(refused)) == (412, "arguments-changed")
    assert refused.json()["interrupt"]["digest"] == one.digest
    assert (await place.bureau.app.interrupt(one.id)).status == "open"


async def test_a_decision_without_a_digest_is_told_to_bring_one(place: Place) -> None:
    one = await place.bureau.parked("deploy")
    refused = await place.http.post(f"/v1/interrupts/{one.id}/decision", json={"decision": "approve"})
    assert (refused.status_code, kind(refused)) == (422, "invalid-request")
    assert refused.json()["errors"] == [
        {"pointer": "/digest", "detail": "send the digest of what you were shown: the field `digest` of the interrupt"}
    ]


@pytest.mark.parametrize(
    ("arguments", "pointers"),
    [
        ({"tag": "v1", "count": "3"}, ["/count"]),
        ({"tag": 7, "count": None}, ["/count", "/tag"]),
        ({"count": 3}, [""]),
        ({"tag": "v1", "count": 1, "more": 1}, None),
        ([], [""]),
        (None, [""]),
        ("tag", [""]),
    ],
)
async def test_an_edit_that_does_not_fit_is_refused_and_nothing_is_dispatched(place: Place, arguments: Any, pointers: Any) -> None:
    one = await place.bureau.parked("deploy")
    refused = await decide(place, one, "edit", arguments=arguments)
    if pointers is not None:
        assert (refused.status_code, kind(refused)) == (422, "invalid-edit")
        assert [error["pointer"].rstrip("/") for error in refused.json()["errors"]] == pointers
        assert (await place.bureau.app.interrupt(one.id)).status == "open"
        await place.bureau.settle()
        assert place.bureau.ran == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"decision": "allow", "digest": "x"},
        {"decision": "edit", "digest": "x"},
        {"decision": "respond", "digest": "x"},
        {"decision": "approve", "digest": "x", "arguments": {}},
        {"decision": "approve", "digest": "", "note": ""},
        {"decision": "approve", "digest": "x", "note": "n" * 4001},
        {"decision": ["approve"], "digest": "x"},
        [],
    ],
)
async def test_a_decision_that_is_none_is_refused(place: Place, body: Any) -> None:
    one = await place.bureau.parked("deploy")
    refused = await place.http.post(f"/v1/interrupts/{one.id}/decision", json=body)
    assert (refused.status_code, kind(refused)) == (422, "invalid-request")


# ---- the audit ---------------------------------------------------------------------------------------------------------------------


async def test_every_attempt_is_kept_also_the_refused_ones(place: Place) -> None:
    one = await place.bureau.parked("managers")
    async with await place.visitor("eve") as eve, await place.visitor("bob", scopes=["interrupts:read"]) as bob:
        await decide(place, one, http=eve)
        await decide(place, one, http=bob)
        place.clock.advance("1m")
        await decide(place, one, digest="0" * 64)
        await decide(place, one, "edit", arguments={"tag": 1})
        place.clock.advance("1m")
        await decide(place, one)
        place.clock.advance("1m")
        await decide(place, one, "reject")
    kept = await Desk(place.bureau.app).attempts(ANN, one.id)
    assert sorted((one.actor.id, one.via, one.decision, one.outcome, one.problem) for one in kept) == [
        ("ann", "token", "approve", "decided", None),
        ("ann", "token", "approve", "refused", "arguments-changed"),
        ("ann", "token", "edit", "refused", "invalid-edit"),
        ("ann", "token", "reject", "refused", "already-decided"),
        ("bob", "token", "approve", "refused", "missing-scope"),
        ("eve", "token", "approve", "refused", "not-allowed"),
    ]
    assert [one.at for one in kept] == sorted(one.at for one in kept)


# ---- two channels ------------------------------------------------------------------------------------------------------------------


async def test_of_two_decisions_at_once_through_two_channels_one_wins(kept_place: Place) -> None:
    """HTTP and the library itself, let go together; the loser is told the winner, and the call runs once.

    A request takes more turns than a call: the calls wait for 0, 1, 2, … turns, so that each channel is first at some. A turn is one of the loop,
    or of a server a round trip.
    """
    place, app = kept_place, kept_place.bureau.app
    is_server = app.store.url.startswith("postgres")
    pairs, most = (60, 20) if is_server else (200, 50)
    waiting = [await place.bureau.parked("deploy", context={"n": n}) for n in range(pairs)]
    gate = asyncio.Event()

    async def by_http(one: Any) -> str:
        await gate.wait()
        answer = await decide(place, one)
        if answer.status_code == 200:
            return str(answer.json()["decision"]["by"]["id"])
        assert (answer.status_code, kind(answer)) == (409, "already-decided")
        return "beaten by " + str(answer.json()["decision"]["by"]["id"])

    async def by_app(one: Any, turns: int) -> str:
        await gate.wait()
        for _ in range(turns):
            await (app.store.get("no", "record") if is_server else asyncio.sleep(0))
        try:
            done = await app.approve(one.id, by="bob", digest=one.digest)
        except AlreadyDecided as error:
            assert error.interrupt.decision is not None
            return f"beaten by {error.interrupt.decision.by}"
        return str(done.decision.by)  # type: ignore[union-attr]  # it is decided

    both = [asyncio.gather(by_http(one), by_app(one, n % most)) for n, one in enumerate(waiting)]
    await asyncio.sleep(0)
    gate.set()
    outcomes = [sorted(outcome) for outcome in await asyncio.gather(*both)]
    assert all(outcome in (["ann", "beaten by ann"], ["beaten by bob", "bob"]) for outcome in outcomes)
    assert {outcome[0] for outcome in outcomes} == {"ann", "beaten by bob"}
    await place.bureau.settle()
    assert len(place.bureau.ran) == pairs
    for one in waiting:
        kept = await Desk(app).attempts(ANN, one.id)
        assert [attempt.actor.id for attempt in kept] == ["ann"]
