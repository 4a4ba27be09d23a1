"""What parks a step: approvals, questions, events, clocks, children. Each gives back what the log holds, or None with the request in the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from .branch import Again, Branch
from .calls import model_value, revive, type_adapter
from .clock import micros, moment
from .errors import Expired, ProgramChanged
from .events import Draft, Event, Json, digest, sparse
from .history import Request, interrupt_of
from .interrupts import ApprovalPolicy, Decision, Vote
from .stores.base import NewThread
from .tools import ErrorInfo, Outcome

_AGAIN: Mapping[str, Again] = {"reject": "never", "ask_again": "at once", "fail": "after a retry"}


# ---- approvals -----------------------------------------------------------------------------------------------------------------


async def approval(branch: Branch, policy: ApprovalPolicy, schema: Callable[[], Awaitable[str | None]], label: str | None) -> Decision | None:
    """See `Step.request_approval`. Known by intent, arguments and who must agree; `schema` stores the arguments' JSON Schema and gives its digest."""
    arguments = dict(branch.arguments)
    shown = {"kind": "approval", "name": branch.log.name, "arguments": arguments}
    key = branch.key("approval", digest([branch.log.name, arguments, policy.who()])[:12], label)
    edited = _editor(branch, arguments)
    if edited is not None and edited.by is not None and policy.satisfied_by([Vote(edited.by, "edited", edited.at)]):
        branch.met.add(key)
        return edited
    op = branch.op(key)  # met before anything is awaited: siblings look at that
    is_asked = op is not None and op.request is not None and op.request.status in ("open", "decided")
    request = shown if is_asked else {**shown, **sparse(schema=await schema())}
    return await _gate(branch, key, policy, request, edited)


async def result_approval(branch: Branch, policy: ApprovalPolicy, label: str | None) -> Decision | None:
    """See `Step.result_approved`. Known by the result and who must agree."""
    run = branch.log.result_run()
    if run is None or run.outcome is None:
        raise ProgramChanged(branch.log.id, "result_approved() before any run has ended", "call step.run(…) first")
    data = run.outcome.data
    value = data.get("value") if "error" not in data else {key: data["error"].get(key) for key in ("type", "message")}
    request = {"kind": "result", "name": branch.log.name, "arguments": dict(branch.arguments), "value": value, "call": run.key}
    key = branch.key("result", digest([value, policy.who()])[:12], label)
    return await _gate(branch, key, policy, request, None)


async def _gate(branch: Branch, key: str, policy: ApprovalPolicy, request: Mapping[str, Json], edited: Decision | None) -> Decision | None:
    data = {**request, "policy": branch.wake.setting.redact(policy.to_json()), **sparse(votes=None if edited is None else [_vote_json(edited)])}
    expires = policy.expires if isinstance(policy.expires, timedelta) else None
    draft = Draft("request", data, branch.log.id, key, expires=expires)
    closing = await branch.park(key, draft, again=_AGAIN[policy.on_expiry])
    if closing is None:
        return None
    one = _request(branch, closing)
    decision = one.decision()
    if decision is not None and decision.kind == "expired" and policy.on_expiry == "fail":
        raise Expired(interrupt_of(branch.wake.thread_id, "", one.status, one.event, one.votes, one.closing))
    return decision


def _request(branch: Branch, closing: Event) -> Request:
    return branch.wake.history.requests[closing.data["request"]]


def _editor(branch: Branch, arguments: Json) -> Decision | None:
    """The decision of the person who edited the call into what it is now."""
    seen = [one for one in branch.log.requests.values() if one.kind == "approval" and branch.wake.history.closing(one, branch.upto) is not None]
    decisions = (one.decision() for one in reversed(seen))
    return next((one for one in decisions if one is not None and one.kind == "edited" and one.value == arguments), None)


def _vote_json(decision: Decision) -> Json:
    assert decision.by is not None
    return {"by": decision.by.id, "groups": list(decision.by.groups), "kind": "edited", "at": micros(decision.at)}


# ---- questions -----------------------------------------------------------------------------------------------------------------


async def question(
    branch: Branch, text: str, schema: Any, choices: Sequence[Any] | None, to: Sequence[str] | str, expires: timedelta | None, label: str | None
) -> tuple[Any] | None:
    """See `Step.request_answer`; a tuple of one holds the answer, which is None if the question expired."""
    adapter = type_adapter(str if schema is None and choices is None else schema if schema is not None else Any, f"schema={schema!r}")
    offered = None if choices is None else [model_value(choice) for choice in choices]
    asked = adapter.json_schema() if schema is not None else {"type": "string"} if choices is None else {"enum": offered}
    request = {"kind": "question", "name": branch.log.name, "question": branch.wake.setting.redact(text), "schema": asked}
    request |= sparse(choices=offered, policy=ApprovalPolicy(by=to).to_json() or None)
    key = branch.key("ask", digest([text, asked, offered])[:12], label)
    closing = await branch.park(key, Draft("request", request, branch.log.id, key, expires=expires))
    if closing is None or closing.data["kind"] == "expired":
        return None if closing is None else (None,)
    return (revive(adapter, closing.data["value"], branch.log.id, key),)


# ---- clocks, events, children --------------------------------------------------------------------------------------------------


async def event(branch: Branch, name: str, key: str | None, timeout: timedelta | None, label: str | None) -> tuple[Any] | None:
    """See `Step.wait_for`; a tuple of one holds the payload, or None when the time is up."""
    op = branch.key("wait", name if key is None else f"{name}:{key}", label)
    request = {"kind": "event", "name": branch.log.name, "event": name, "key": key}
    closing = await branch.park(op, Draft("request", request, branch.log.id, op, expires=timeout))
    return None if closing is None else (closing.data.get("payload"),)


async def timer(branch: Branch, until: timedelta | datetime | str, label: str | None) -> bool:
    """See `Step.sleep`; whether it is over."""
    op = branch.key("sleep", label=label)
    request = {"kind": "timer", "name": branch.log.name}
    return await branch.park(op, Draft("request", request, branch.log.id, op, expires=moment(until))) is not None


async def child(branch: Branch, agent: str, input: Any, budget: Json, label: str | None) -> str:
    """See `Step.spawn`; the child's id."""
    await branch.read()
    key = branch.key("spawn", agent, label)
    op = branch.op(key)
    if op is not None and op.request is not None:
        return str(op.request.event.data["child"])
    branch.check_may_start()
    await branch.check_nothing_unread()
    branch.check_may_start()
    value = branch.wake.setting.redact(model_value(input))
    new = NewThread(agent, [Draft("input", {"input": value, **sparse(budget=model_value(budget))})], context=branch.wake.row.context)
    request = {"kind": "child", "name": branch.log.name, "agent": agent}
    return str((await branch.wake.spawn(Draft("request", request, branch.log.id, key), new)).data["child"])


async def children(branch: Branch, thread_ids: Sequence[str], types: Sequence[Any]) -> list[Outcome[Any]] | None:
    """See `Step.join`; None while one of them has not ended."""
    branch.met.add("join")
    outcomes: list[Outcome[Any]] = []
    for thread_id, adapter in zip(thread_ids, types, strict=True):
        request = branch.wake.history.child(thread_id)
        if request is None:
            raise ProgramChanged(branch.log.id, f"{thread_id} is no child of this thread", "join what step.spawn(…) gave back")
        closing = branch.wake.history.closing(request, branch.upto)
        if closing is None:
            branch.waiting = True
            return None
        outcomes.append(_child_outcome(closing, adapter, branch))
    return outcomes


def _child_outcome(closing: Event, adapter: Any, branch: Branch) -> Outcome[Any]:
    error = closing.data.get("error")
    if error is not None:
        return Outcome(False, ErrorInfo(error["type"], error["message"], error.get("where")))
    return Outcome(True, _value=revive(adapter, closing.data.get("value"), branch.log.id, "the child"))


# ---- the operator's breakpoint -------------------------------------------------------------------------------------------------


async def hold(branch: Branch, schema: str | None) -> Decision | None:
    """Park at the selection; what the operator decided, or None."""
    request = {
        "kind": "hold",
        "name": branch.log.name,
        "arguments": dict(branch.proposed),
        "policy": ApprovalPolicy().to_json(),
        **sparse(schema=schema),
    }
    closing = await branch.park("hold", Draft("request", request, branch.log.id, "hold"))
    return None if closing is None else _request(branch, closing).decision()
