"""The pure rules of decisions: who somebody is, what a policy says and is recorded as, what a digest covers."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ownloop import Actor, ApprovalPolicy
from ownloop.errors import NotAllowed
from ownloop.events import canonical
from ownloop.interrupts import Decision, Interrupt, Vote, interrupt_digest

AT = datetime(2026, 1, 2, tzinfo=UTC)
ANN, BOB = Actor("ann", ("leads", "ops")), Actor("bob", ("ops",))


def interrupt(kind: Any = "approval", policy: ApprovalPolicy | None = None, votes: tuple[Vote, ...] = ()) -> Interrupt:
    return Interrupt(
        id="int_1",
        thread_id="thr_1",
        step_id=None,
        agent="bot",
        kind=kind,
        status="open",
        name="deploy",
        intent={},
        question="",
        schema=None,
        choices=None,
        policy=policy or ApprovalPolicy(),
        votes=votes,
        digest="",
        created_at=AT,
        expires_at=None,
    )


def test_actors_are_the_same_person_with_the_same_groups_in_any_order() -> None:
    assert Actor("ann", ["ops", "leads"]) == ANN
    assert hash(Actor("ann", ["ops", "leads"])) == hash(ANN) == hash("ann")
    assert Actor("ann") != ANN
    assert Actor("bob", ANN.groups) != ANN
    assert Actor("eve") != ANN
    assert (ANN == "ann", ANN == "bob", ANN == 1, str(ANN)) == (True, False, False, "ann")


def test_an_actor_is_in_a_list_by_its_id_or_by_a_group() -> None:
    assert [ANN.is_in(names) for names in (["ann"], ["leads"], ["x", "ops"], ["bob"], [])] == [True, True, True, False, False]


@pytest.mark.parametrize("nobody", ["", "  ", Actor(""), Actor(None)])  # type: ignore[arg-type]  # what a program may pass all the same
def test_an_answer_of_nobody_is_refused(nobody: Any) -> None:
    with pytest.raises(ValueError, match="names nobody; pass the id that authentication proved"):
        Actor.of(nobody)
    assert (Actor.of("ann"), Actor.of(ANN)) == (Actor("ann"), ANN)


def test_groups_that_are_one_text_are_one_group_and_not_its_letters() -> None:
    assert Actor.of(Actor("ann", "ops")) == Actor("ann", ("ops",))
    assert Actor.of(Actor("ann", "ops")).is_in(["ops"])
    assert not Actor.of(Actor("ann", "ops")).is_in(["o", "p", "s"])
    assert ApprovalPolicy(allow="approve").allow == ("approve",)  # type: ignore[arg-type]  # what a program may pass all the same


@pytest.mark.parametrize("kind", ["approved", "edited", "rejected", "responded", "expired", "answered"])
def test_only_a_yes_and_an_edit_let_a_call_run(kind: Any) -> None:
    assert Decision(kind, ANN, "", AT).granted is (kind in ("approved", "edited"))


POLICIES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"by": "leads"}, {"by": ["leads"]}),
    ({"by": ["b", "a"], "quorum": 2}, {"by": ["b", "a"], "quorum": 2}),
    ({"not_by": "eve"}, {"not_by": ["eve"]}),
    ({"expires": "6h", "on_expiry": "fail"}, {"expires": 21600.0, "on_expiry": "fail"}),
    ({"expires": timedelta(seconds=1.5), "on_expiry": "ask_again"}, {"expires": 1.5, "on_expiry": "ask_again"}),
    ({"escalate": [("1h", "boss"), (timedelta(days=1), "ceo")]}, {"escalate": [[3600.0, "boss"], [86400.0, "ceo"]]}),
    ({"allow": ["approve"], "reason": "money"}, {"allow": ["approve"], "reason": "money"}),
]


@pytest.mark.parametrize(("given", "recorded"), POLICIES)
def test_a_policy_is_recorded_as_what_differs_from_the_default_and_read_back_the_same(given: dict[str, Any], recorded: dict[str, Any]) -> None:
    policy = ApprovalPolicy(**given)
    assert policy.to_json() == recorded
    assert ApprovalPolicy.from_json(canonical(recorded)) == policy


def test_what_identifies_an_approval_is_who_must_agree_in_any_order_and_never_by_when() -> None:
    one = ApprovalPolicy(by=["b", "a"], quorum=2, not_by=["d", "c"], allow=["reject", "approve"], expires="1h", reason="x")
    assert one.who() == {"by": ["a", "b"], "quorum": 2, "not_by": ["c", "d"], "allow": ["approve", "reject"]}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"quorum": 0}, "quorum=0; at least one person must agree"),
    ({"allow": []}, "allow=.*; choose from approve, edit, reject, respond"),
    ({"allow": ["approve", "shout"]}, "allow=.*shout.*; choose from"),
    ({"on_expiry": "explode"}, "on_expiry='explode'; choose"),
    ({"expires": "soon"}, "soon"),
]


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_a_policy_that_cannot_be_kept_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ApprovalPolicy(**given)


@pytest.mark.parametrize(
    ("policy", "ann", "bob"),
    [
        (ApprovalPolicy(), None, None),
        (ApprovalPolicy(by="leads"), None, "the policy asks for leads, so let one of them decide"),
        (ApprovalPolicy(not_by="leads"), "the policy excludes leads, so somebody else has to", None),
        (ApprovalPolicy(by="ops", not_by="ann"), "the policy excludes ann, so somebody else has to", None),
    ],
)
def test_a_policy_says_who_may_answer(policy: ApprovalPolicy, ann: str | None, bob: str | None) -> None:
    assert (policy.refuses(ANN), policy.refuses(BOB)) == (ann, bob)


def test_a_quorum_counts_different_people_whom_the_policy_allows() -> None:
    yes = [Vote(ANN, "approved", AT), Vote(Actor("ann"), "approved", AT), Vote(BOB, "edited", AT)]
    assert ApprovalPolicy(quorum=2).satisfied_by(yes)
    assert not ApprovalPolicy(quorum=2).satisfied_by(yes[:2])
    assert not ApprovalPolicy(quorum=2, not_by="bob").satisfied_by(yes)
    assert not ApprovalPolicy().satisfied_by([])


OFFERS: list[tuple[str, str, str]] = [
    ("approval", "approve edit reject respond", "approve, edit, reject, respond"),
    ("result", "approve edit reject respond", "approve, edit, reject, respond"),
    ("hold", "approve edit reject respond", "approve, edit, reject, respond"),
    ("question", "answer", "answer"),
    ("in_doubt", "answer", "answer"),
    ("budget", "answer reject", "answer, reject"),
    *((kind, "", "nothing: it waits for an event, a clock or a child") for kind in ("event", "timer", "child")),
]


@pytest.mark.parametrize(("kind", "offered", "said"), OFFERS)
def test_each_kind_offers_its_answers_and_an_error_names_them(kind: str, offered: str, said: str) -> None:
    verbs: list[Any] = ["approve", "edit", "reject", "respond", "answer"]
    for verb in verbs:
        if verb in offered.split():
            interrupt(kind).may(verb, ANN)
        else:
            with pytest.raises(NotAllowed, match=f"{verb} is not offered for this {kind}; it offers {said}"):
                interrupt(kind).may(verb, ANN)


def test_a_policy_narrows_what_is_offered_and_to_whom_and_nobody_agrees_twice() -> None:
    with pytest.raises(NotAllowed, match="edit is not offered for this approval; it offers approve"):
        interrupt(policy=ApprovalPolicy(allow=["approve"])).may("edit", ANN)
    with pytest.raises(NotAllowed, match="excludes ann"):
        interrupt("question", ApprovalPolicy(not_by="ann")).may("answer", ANN)
    half = interrupt(policy=ApprovalPolicy(quorum=2), votes=(Vote(BOB, "approved", AT),))
    half.may("approve", ANN)
    half.may("reject", BOB)
    with pytest.raises(NotAllowed, match="bob agreed already, and 2 different people must"):
        half.may("approve", BOB)


SHOWN: dict[str, Any] = {"kind": "approval", "name": "deploy", "arguments": {"tag": "v1"}, "question": "?", "schema": {}, "choices": [1], "value": 2}


@pytest.mark.parametrize("field", SHOWN)
def test_a_digest_covers_everything_that_a_person_is_shown(field: str) -> None:
    plain = interrupt_digest("thr_1", "stp_1", SHOWN)
    assert plain != interrupt_digest("thr_1", "stp_1", {**SHOWN, field: "other"})
    assert plain != interrupt_digest("thr_1", "stp_1", {key: value for key, value in SHOWN.items() if key != field})


def test_a_digest_is_of_one_place_and_of_nothing_else() -> None:
    plain = interrupt_digest("thr_1", "stp_1", SHOWN)
    assert plain == interrupt_digest("thr_1", "stp_1", {**SHOWN, "policy": {"by": ["ann"]}, "votes": []})
    assert (
        len({plain, interrupt_digest("thr_2", "stp_1", SHOWN), interrupt_digest("thr_1", "stp_2", SHOWN), interrupt_digest("thr_1", None, SHOWN)})
        == 4
    )


def test_a_digest_is_the_sha_256_of_canonical_json_that_anybody_can_compute() -> None:
    shown = '"arguments":{"tag":"v1"},"choices":[1],"kind":"approval","name":"deploy","question":"?","schema":{}'
    text = f'{{{shown},"step":"stp_1","thread":"thr_1","value":2}}'
    assert interrupt_digest("thr_1", "stp_1", SHOWN) == hashlib.sha256(text.encode()).hexdigest()
