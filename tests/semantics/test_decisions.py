"""DESIGN 3, Decisions: who may answer, what counts, what is refused and how it is said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from worlds import Deploy, Done, Look, World, approving, only, script

from ownloop import Actor, ApprovalPolicy, Happened, Thread
from ownloop.errors import AlreadyDecided, ArgumentsChanged, Expired, InvalidEdit, NotAllowed, NotFound
from ownloop.prompt import thread_to_prompt


async def parked(world: World, ran: list[Any], policy: ApprovalPolicy | None = None) -> tuple[str, Any]:
    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(script(Deploy(tag="v1"), Done()))
            if step.name == "done":
                return "end"
            if await step.approved(policy):
                await step.run(deploy)
            decisions.append(step.decision)

    def deploy(tag: str) -> str:
        ran.append(tag)
        return f"deployed {tag}"

    decisions: list[Any] = []
    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    return thread, decisions


async def test_keywords_beside_a_policy_change_it_and_are_not_left_out(world: World) -> None:
    policy = ApprovalPolicy(by=("ann", "bob"), reason="high stakes")

    async def agent(thread: Thread[Any]) -> str:
        step = thread.step("release", Deploy(tag="v1"))
        if await step.approved(policy, quorum=2, reason=f"for {thread.input}"):
            await step.run(lambda: "built")
            await step.result_approved(policy, not_by="bob")
        return "end"

    d = await world.deploy(agent)
    thread = await d.start("agent", "eve")
    await d.settle()
    one = await only(d)
    assert (one.policy.by, one.policy.quorum, one.policy.reason) == (("ann", "bob"), 2, "for eve")
    await d.approve(one, by="ann")
    await d.settle()
    await d.approve(await only(d), by="bob")
    await d.settle()
    result = await only(d)
    assert (result.policy.by, result.policy.not_by, result.policy.quorum) == (("ann", "bob"), ("bob",), 1)
    await d.approve(result, by="ann")
    await d.settle()
    assert (await world.ended(thread)).result == "end"


async def test_a_late_decision_is_refused_and_names_the_winner(world: World) -> None:
    ran: list[str] = []
    thread, _ = await parked(world, ran)
    one = await only(world.d)
    await world.d.reject(one, by="ann", note="not on Fridays")
    for verb in (world.d.approve(one, by="bob"), world.d.reject(one, by="ann"), world.d.edit(one, {"tag": "v2"}, by="bob")):
        with pytest.raises(AlreadyDecided, match="was rejected by ann at 2026-01-01 00:00:00Z; the first answer stands, and yours changed nothing"):
            await verb
    await world.d.settle()
    assert ran == []
    assert (await world.ended(thread)).result == "end"


async def test_of_many_decisions_at_once_exactly_one_wins(world: World) -> None:
    ran: list[str] = []
    await parked(world, ran)
    one = await only(world.d)
    votes = [world.d.approve(one, by=f"p{n}") if n % 2 else world.d.edit(one, {"tag": "v2"}, by=f"p{n}") for n in range(20)]
    results = await asyncio.gather(*votes, return_exceptions=True)
    losers = [result for result in results if isinstance(result, AlreadyDecided)]
    assert len(losers) == 19
    winner = next(result for result in results if not isinstance(result, BaseException))
    assert all(f"by {winner.decision.by.id} at" in str(loser) for loser in losers)
    await world.d.settle()
    assert ran == ["v1" if winner.decision.kind == "approved" else "v2"]


async def test_a_decision_on_what_one_did_not_see_is_refused(world: World) -> None:
    ran: list[str] = []
    await parked(world, ran)
    with pytest.raises(ArgumentsChanged, match="carries digest 0000.* read the interrupt again"):
        await world.d.approve(await only(world.d), by="ann", digest="0" * 64)
    with pytest.raises(NotFound):
        await world.d.approve("int_0000000000000_1", by="ann")
    await world.d.settle()
    assert ran == []


async def test_an_edit_runs_the_new_arguments_and_the_original_stays_beside_it(world: World) -> None:
    ran: list[str] = []
    thread, _ = await parked(world, ran)
    await world.d.edit(await only(world.d), {"tag": "v2"}, by="ann", note="v1 is broken")
    await world.d.settle()
    assert ran == ["v2"]
    view = await world.ended(thread)
    assert (dict(view.steps[0].proposed), dict(view.steps[0].intent)) == ({"tag": "v1"}, {"tag": "v2"})
    prompt = thread_to_prompt(view)
    assert "A person changed this call" in prompt
    assert "v1 is broken" in prompt


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("bad", [{"tag": 7}, {}, {"tag": "v2", "force": True}, ["v2"], "v2"])
async def test_an_edit_that_does_not_fit_is_refused_with_and_without_jsonschema(
    world: World, monkeypatch: pytest.MonkeyPatch, installed: bool, bad: Any
) -> None:
    ran: list[str] = []
    await parked(world, ran)
    if not installed:
        monkeypatch.setattr("ownloop.deciding.importlib.import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(InvalidEdit, match="does not fit its schema .* nothing was decided, send it again corrected"):
        await world.d.edit(await only(world.d), bad, by="ann")
    await world.d.settle()
    assert ran == []
    assert (await only(world.d)).status == "open"


async def test_a_response_becomes_the_result_and_nothing_runs(world: World) -> None:
    ran: list[str] = []
    thread, decisions = await parked(world, ran)
    await world.d.respond(await only(world.d), {"deployed": "by hand"}, by="ann")
    await world.d.settle()
    assert ran == []
    assert (decisions[-1].kind, decisions[-1].value, decisions[-1].granted) == ("responded", {"deployed": "by hand"}, False)
    assert "by hand" in thread_to_prompt(await world.ended(thread))


async def test_only_those_whom_the_policy_names_may_answer(world: World) -> None:
    ran: list[str] = []
    await parked(world, ran, ApprovalPolicy(by=["ops", "ann"], not_by="bob", allow=("approve", "reject")))
    one = await only(world.d)
    with pytest.raises(NotAllowed, match="carl may not decide int_.*: the policy asks for ops, ann"):
        await world.d.approve(one, by="carl")
    with pytest.raises(NotAllowed, match="bob may not decide int_.*: the policy excludes bob"):
        await world.d.approve(one, by=Actor("bob", ["ops"]))
    with pytest.raises(NotAllowed, match="edit is not offered for this approval; it offers approve, reject"):
        await world.d.edit(one, {"tag": "v2"}, by="ann")
    with pytest.raises(NotAllowed, match="answer is not offered"):
        await world.d.answer(one, "yes", by="ann")
    await world.d.approve(one, by=Actor("carl", ["ops"]))
    await world.d.settle()
    assert ran == ["v1"]


async def test_a_quorum_needs_different_people(world: World) -> None:
    ran: list[str] = []
    _, decisions = await parked(world, ran, ApprovalPolicy(quorum=2))
    await world.d.approve(await only(world.d), by="ann")
    with pytest.raises(NotAllowed, match="ann agreed already, and 2 different people must"):
        await world.d.approve(await only(world.d), by="ann")
    await world.d.settle()
    assert ran == []
    await world.d.approve(await only(world.d), by="bob")
    await world.d.settle()
    assert ran == ["v1"]
    assert [vote.by.id for vote in decisions[-1].votes] == ["ann"]


async def test_an_edit_voids_the_votes_and_its_editor_counts_as_one(world: World) -> None:
    ran: list[str] = []
    await parked(world, ran, ApprovalPolicy(quorum=2))
    await world.d.approve(await only(world.d), by="ann")
    await world.d.edit(await only(world.d), {"tag": "v2"}, by="bob")
    await world.d.settle()
    again = await only(world.d)
    assert (ran, dict(again.intent), [vote.by.id for vote in again.votes]) == ([], {"tag": "v2"}, ["bob"])
    with pytest.raises(NotAllowed, match="bob agreed already"):
        await world.d.approve(again, by="bob")
    await world.d.approve(again, by="ann")
    await world.d.settle()
    assert ran == ["v2"]


async def test_a_raised_policy_asks_anew_and_the_old_yes_never_counts(world: World) -> None:
    ran: list[str] = []
    d = await world.deploy(approving(script(Deploy(tag="v1"), Done()), ran.append, by="ann"))
    thread = await d.start("agent")
    await d.settle()
    await d.approve(await only(d), by="ann")
    d = await world.deploy(approving(script(Deploy(tag="v1"), Done()), ran.append, by="cfo"))
    await d.settle()
    assert ran == []
    await d.approve(await only(d), by="cfo")
    await d.settle()
    await world.ended(thread)
    assert ran == ["v1"]


@pytest.mark.parametrize("on_expiry", ["reject", "ask_again", "fail"])
async def test_a_deadline_that_passed_is_an_outcome_of_its_own_and_no_persons_no(world: World, on_expiry: Any) -> None:
    ran: list[str] = []
    thread, decisions = await parked(world, ran, ApprovalPolicy(expires="1h", on_expiry=on_expiry))
    old = await only(world.d)
    await world.d.advance("1h")
    with pytest.raises(Expired, match="expired at 2026-01-01 01:00:00.000Z by the store's clock"):
        await world.d.approve(old, by="ann")
    assert (await world.d.app.interrupt(old.id)).status == "expired"
    if on_expiry == "reject":
        assert (decisions[-1].kind, decisions[-1].by, decisions[-1].granted) == ("expired", None, False)
        assert "nobody decided in time" in thread_to_prompt(await world.ended(thread))
        return
    if on_expiry == "fail":
        await world.failure(thread, "Expired")
        await world.d.retry(thread)
        await world.d.settle()
    again = await only(world.d)
    assert again.id != old.id
    await world.d.approve(again, by="ann")
    await world.d.settle()
    assert ran == ["v1"]


async def test_a_note_is_kept_up_to_its_limit_and_longer_ones_are_refused(world: World) -> None:
    ran: list[str] = []
    _, decisions = await parked(world, ran)
    with pytest.raises(ValueError, match="the note has 4001 characters; at most 4,000 are kept"):
        await world.d.approve(await only(world.d), by="ann", note="x" * 4001)
    with pytest.raises(ValueError, match="names nobody"):
        await world.d.approve(await only(world.d), by=" ")
    await world.d.approve(await only(world.d), by="ann", note="x" * 4000)
    await world.d.settle()
    assert len(decisions[-1].note) == 4000


async def test_a_question_takes_only_an_answer_that_fits_and_from_whom_it_was_put_to(world: World) -> None:
    async def agent(thread: Thread[Any]) -> Any:
        step = await thread.next_step(script(Look()))
        size = await step.ask("which size?", choices=["s", "m"], to="ann")
        count = await step.ask("how many?", schema=int)
        return [size, count, await step.ask("still there?", expires="1h")]

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    with pytest.raises(NotAllowed, match="the policy asks for ann"):
        await d.answer(await only(d), "s", by="bob")
    with pytest.raises(InvalidEdit, match="'xl'"):
        await d.answer(await only(d), "xl", by="ann")
    with pytest.raises(ArgumentsChanged, match="carries digest 0000"):
        await d.answer(await only(d), "m", by="ann", digest="0" * 64)
    await d.answer(await only(d), "m", by="ann", digest=(await only(d)).digest)
    await d.settle()
    with pytest.raises(InvalidEdit, match="many"):
        await d.answer(await only(d), "many", by="bob")
    with pytest.raises(NotAllowed, match="approve is not offered for this question; it offers answer"):
        await d.approve(await only(d), by="bob")
    await d.answer(await only(d), 3, by="bob")
    await d.settle()
    await d.advance("1h")
    assert (await world.ended(thread)).result == ["m", 3, None]


@pytest.mark.parametrize("verb", ["approve", "edit", "reject", "respond"])
async def test_people_see_a_result_before_the_model_does(world: World, verb: str) -> None:
    granted: list[bool] = []

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(script(Look(), Done()))
            if step.name == "done":
                return "end"
            await step.run(lambda: "the password is swordfish")
            granted.append(await step.result_approved(by="ann"))

    d = await world.deploy(agent)
    thread = await d.start("agent")
    await d.settle()
    assert "swordfish" not in thread_to_prompt(await d.show(thread))
    one = await only(d)
    assert (one.kind, one.value["value"] if isinstance(one.value, dict) else one.value) == ("result", "the password is swordfish")
    values = {"edit": ["the password is …"], "respond": ["ask me"]}.get(verb, [])
    await getattr(d, verb)(one, *values, by="ann", note="secret")
    await d.settle()
    prompt = thread_to_prompt(await world.ended(thread))
    assert ("swordfish" in prompt) == (verb == "approve")
    assert {"approve": "swordfish", "edit": "the password is …", "reject": "withheld: secret", "respond": "ask me"}[verb] in prompt
    assert granted == [verb in ("approve", "edit")]


async def test_an_answer_in_doubt_must_fit_what_the_function_returns(world: World) -> None:
    from worlds import Died

    def count() -> int:
        raise Died

    async def agent(thread: Thread[Any]) -> Any:
        return (await (await thread.next_step(script(Look()))).run(count)).value

    await world.deploy(agent)
    thread = await world.d.start("agent")
    await world.dies()
    d = await world.deploy(agent)
    await d.settle()
    with pytest.raises(InvalidEdit, match="many"):
        await d.answer(await only(d), Happened("many"), by="ann")
    with pytest.raises(InvalidEdit, match="does not say whether it happened"):
        await d.answer(await only(d), 5, by="ann")
    await d.answer(await only(d), {"happened": True, "value": 5}, by="ann")
    await d.settle()
    assert (await world.ended(thread)).result == 5
