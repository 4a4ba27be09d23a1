"""What parks a step: approvals, questions, events, clocks, children. Each gives back what the log holds, or None with the request in the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter

from .branch import Branch
from .calls import model_value, outcome_of, revive, type_adapter
from .clock import micros, moment
from .errors import Expired, ProgramChanged
from .events import Draft, Event, Json, digest, sparse
from .history import interrupt_of
from .interrupts import ApprovalPolicy, Decision, InterruptKind, Vote
from .stores.base import NewThread
from .tools import Outcome

# ---- approvals -----------------------------------------------------------------------------------------------------------------


async def approval(branch: Branch, policy: ApprovalPolicy, schema: Callable[[], Awaitable[str | None]], label: str | None) -> Decision | None:
    """See `Step.request_approval`. Known by intent, arguments and who must agree; `schema` stores the arguments' JSON Schema and gives its digest."""
    if not isinstance(policy, ApprovalPolicy):
        raise TypeError(f"{policy!r} is no ApprovalPolicy; write keywords, step.approved(by={policy!r}), or ApprovalPolicy(by={policy!r})")
    await branch.read()
    arguments = dict(branch.arguments)
    decisions = (request.decision() for request in branch.closed_requests("approval"))
    edits = [one for one in decisions if one is not None and one.kind == "edited" and one.value == arguments]
    edited = edits[-1] if edits else None  # who made the call what it is now; what people go back to is asked anew
    again = [len(edits)] if len(edits) + (arguments == branch.log.arguments) > 1 else []
    key = branch.key("approval", digest([branch.log.name, arguments, policy.who(), *again])[:12], label)
    if edited is not None and edited.by is not None and policy.satisfied_by([Vote(edited.by, "edited", edited.at)]):
        branch.met.add(key)
        return edited
    op = branch.op(key)  # met before anything is awaited: siblings look at that
    is_asked = op is not None and op.request is not None and op.request.status in ("open", "decided")
    shown = {"arguments": arguments, **sparse(schema=None if is_asked else await schema(), votes=None if edited is None else [_vote_json(edited)])}
    return await _gate(branch, "approval", key, policy, shown)


async def result_approval(branch: Branch, policy: ApprovalPolicy, label: str | None) -> Decision | None:
    """See `Step.result_approved`. Known by the result and who must agree."""
    await branch.read()
    run = branch.log.result_run()
    if run is None or run.outcome is None:
        raise ProgramChanged(branch.log.id, "result_approved() before any run has ended", "call step.run(…) first")
    data = run.outcome.data
    value = data.get("value") if "error" not in data else {key: data["error"].get(key) for key in ("type", "message")}
    key = branch.key("result", digest([value, policy.who()])[:12], label)
    return await _gate(branch, "result", key, policy, {"arguments": dict(branch.arguments), "value": value, "call": run.key})


async def _gate(branch: Branch, kind: InterruptKind, key: str, policy: ApprovalPolicy, shown: Mapping[str, Json]) -> Decision | None:
    expires = policy.expires if isinstance(policy.expires, timedelta) else None
    draft = branch.request(kind, key, {**shown, "policy": branch.wake.setting.redact(policy.to_json())}, expires)
    if (closing := await branch.park(key, draft, on_expiry=policy.on_expiry)) is None:
        return None
    request = branch.wake.history.requests[closing.data["request"]]
    decision = request.decision()
    if decision is not None and decision.kind == "expired" and policy.on_expiry == "fail":
        raise Expired(interrupt_of(branch.wake.thread_id, branch.wake.row.agent, request))
    return decision


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
    for choice in offered or ():
        revive(adapter, choice, branch.log.id, f"choices={offered!r}")
    asked = adapter.json_schema() if schema is not None else {"type": "string"} if choices is None else {"enum": offered}
    shown = {"question": branch.wake.setting.redact(text), "schema": asked}
    shown |= sparse(choices=offered, policy=ApprovalPolicy(by=to).to_json() or None)
    key = branch.key("ask", digest([text, asked, offered])[:12], label)
    if (closing := await branch.park(key, branch.request("question", key, shown, expires))) is None:
        return None
    return (None if closing.data["kind"] == "expired" else revive(adapter, closing.data["value"], branch.log.id, key),)


# ---- clocks, events, children --------------------------------------------------------------------------------------------------


async def event(branch: Branch, name: str, key: str | None, timeout: timedelta | None, label: str | None) -> tuple[Any] | None:
    """See `Step.wait_for`; a tuple of one holds the payload, or None when the time is up."""
    op = branch.key("wait", name if key is None else f"{name}:{key}", label)
    closing = await branch.park(op, branch.request("event", op, {"event": name, "key": key}, timeout))
    return None if closing is None else (closing.data.get("payload"),)


async def timer(branch: Branch, until: timedelta | datetime | str, label: str | None) -> Event | None:
    """See `Step.sleep`."""
    op = branch.key("sleep", label=label)
    return await branch.park(op, branch.request("timer", op, {}, moment(until)))


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
    return str((await branch.wake.spawn(branch.request("child", key, {"agent": agent}), new)).data["child"])


def children(branch: Branch, thread_ids: Sequence[str], result_type: Callable[[str], TypeAdapter[Any]]) -> list[Outcome[Any]] | None:
    """See `Step.join`; None while one of them has not ended."""
    branch.met.add("join")
    outcomes: list[Outcome[Any]] = []
    for thread_id in thread_ids:
        if (request := branch.wake.history.child(thread_id)) is None:
            raise ProgramChanged(branch.log.id, f"{thread_id} is no child of this thread", "join what step.spawn(…) gave back")
        if (closing := branch.wake.history.closing(request, branch.upto)) is None:
            branch.waiting = True
            return None
        outcomes.append(outcome_of(closing.data, result_type(request.event.data["agent"]), branch.log.id, "the child"))
    return outcomes


# ---- the operator's breakpoint -------------------------------------------------------------------------------------------------


async def hold(branch: Branch, schema: str | None) -> Decision | None:
    """Park at the selection; what the operator decided, or None."""
    shown = {"arguments": dict(branch.log.arguments), "policy": ApprovalPolicy().to_json(), **sparse(schema=schema)}
    closing = await branch.park("hold", branch.request("hold", "hold", shown))
    return None if closing is None else branch.wake.history.requests[closing.data["request"]].decision()
