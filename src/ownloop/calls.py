"""`step.run`: which call it is, `started` before it, its tries, its timeout, and what is done when nobody knows its outcome."""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
import typing
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from . import watch
from .branch import Branch, still_unread
from .errors import CallNoLongerValid, ProgramChanged
from .events import Draft, Event, Json, canonical, clip, digest, sparse, to_json
from .history import Op
from .intents import Intent, UnknownIntent
from .tools import Answer, Call, ErrorInfo, Happened, NotHappened, Outcome, Promise, Unknown, noting, promise_of, running
from .wake import is_async, result_of

log = logging.getLogger("ownloop")

NO_OUTCOME = "the process died, or was frozen until its lease ran out, before an outcome was recorded"


class _NotStarted(Exception):
    """The lease had run out right before the call."""


@dataclass(frozen=True)
class Run:
    """One call that a program asks for."""

    branch: Branch
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    promise: Promise
    returns: TypeAdapter[Any]
    key: str
    digest: str | None
    notes: dict[str, Json] = field(default_factory=dict)

    @property
    def step_id(self) -> str:
        return self.branch.log.id

    @property
    def idempotency_key(self) -> str:
        """The same for every start and try of this operation, in every process."""
        return f"{self.step_id}/{self.key}"


async def run(
    branch: Branch, intent: Intent | None, label: str | None, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Outcome[Any]:
    """See `Step.run`."""
    if not callable(fn):
        raise TypeError(f"step.run({fn!r}): pass the function itself, then its arguments: step.run(deploy, tag)")
    await branch.read()
    promise, returns = promise_of(fn), result_type(fn)
    if not args and not kwargs and intent is not None and not isinstance(intent, UnknownIntent):
        kwargs = _from_intent(fn, intent)
    shape = None if label is not None else digest([[_plain(arg) for arg in args], {name: _plain(arg) for name, arg in kwargs.items()}])[:16]
    call = _same_or_edited(Run(branch, fn, args, kwargs, promise, returns, branch.key("run", promise.name, label), shape))
    if (live := branch.wake.live.get((call.step_id, call.key))) is not None:
        return _outcome(await asyncio.shield(live), call)
    op = branch.op(call.key)
    if op is not None and op.outcome is not None:
        return _outcome(op.outcome, call)
    branch.check_may_start()
    if isinstance(intent, UnknownIntent):
        raise CallNoLongerValid(call.step_id, intent.name, intent.why)
    if not call.promise.reads and op is not None and op.in_doubt and (known := await _resolve(call, op, NO_OUTCOME)) is not None:
        return _outcome(known, call)
    await _check_unread(call)
    branch.check_may_start()
    work = branch.wake.live.get((call.step_id, call.key)) or branch.wake.launch(call.step_id, call.key, _perform(call))
    return _outcome(await asyncio.shield(work), call)  # a branch that is cancelled in the middle of it changes nothing


# ---- identity ----------------------------------------------------------------------------------------------------------------


def _same_or_edited(call: Run) -> Run:
    """Other arguments than the recorded ones: another operation if a person edited the call since, else the program changed."""
    op, passed = call.branch.op(call.key), call.branch.passed.setdefault(call.key, call.digest)
    recorded = None if op is None else op.started[-1] if op.started else op.outcome  # the digest stands where the arguments were first known
    if call.digest in (None, passed if recorded is None else recorded.data.get("args", call.digest)):
        return call
    closings = [request.closing for request in call.branch.closed_requests("approval", "hold")]
    edits = [one for one in closings if one and op and recorded and one.data.get("kind") == "edited" and one.seq > (op.outcome or recorded).seq]
    if edits and op is not None and not op.in_doubt:
        return replace(call, key=f"{call.key}~{len(edits)}")  # no position: in a fork they are others
    what = f"{call.key} is recorded with other arguments than the program passes now"
    raise ProgramChanged(
        call.step_id, what, "pass the same arguments on every wake, or name operations that move: step.named(name).run(…); then retry"
    )


def _from_intent(fn: Callable[..., Any], intent: Intent) -> dict[str, Any]:
    """The function's parameters from the intent's fields of the same names."""
    parameters = _parameters(fn)
    fields = {name: getattr(intent, name) for name in type(intent).model_fields}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return fields
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    missing = [one.name for one in named if one.default is one.empty and one.name not in fields]
    if missing:
        raise TypeError(
            f"{promise_of(fn).name} needs {', '.join(missing)}, and {intent.intent_name} has no such field ({', '.join(fields) or 'it has none'}); "
            "rename the parameter, or pass the arguments: step.run(fn, …)"
        )
    return {one.name: fields[one.name] for one in named if one.name in fields}


@lru_cache(maxsize=1024)
def _parameters(fn: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    try:
        return tuple(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        return ()


def _plain(value: object) -> Json:
    """An argument for the digest: a set in an order of its own, for Python's differs between processes; what has no JSON form by its type."""
    try:
        return sorted(map(to_json, value), key=canonical) if isinstance(value, Set) else to_json(value)
    except Exception:  # pydantic, recursion, a __str__ that fails: none of it is this call's business
        return f"<{type(value).__qualname__}>"


async def _check_unread(call: Run) -> None:
    """Raise `ProgramChanged` if the log holds something that this hand-out passed by."""
    await call.branch.check_nothing_unread()
    if (passed := await still_unread(partial(_unread, call))) is not None and not call.promise.reads:
        what = f"{call.key} would start, but {passed} is recorded and this program did not read it"
        cure = "keep the operations of an open step in order, or name those that move or run side by side: step.named(name).run(…); then retry"
        raise ProgramChanged(call.step_id, what, cure)


def _unread(call: Run) -> str | None:
    runs = (op for op in call.branch.log.runs() if op.key not in call.branch.met and "@" not in op.key and (op.started or op.outcome))
    return next((op.key for op in runs if not (op.outcome is not None and op.outcome.data.get("reads"))), None)


# ---- starting ------------------------------------------------------------------------------------------------------------------


async def _record_start(call: Run) -> Event:
    op = call.branch.log.ops.get(call.key)
    policy = call.promise.in_doubt if call.promise.in_doubt in ("retry", "fail") else None
    data = sparse(args=call.digest, in_doubt=policy, after=op.started[-1].seq if op is not None and op.started else None)
    return (await call.branch.wake.begin(Draft("started", data, call.step_id, call.key)))[0]


async def _perform(call: Run) -> Event:
    """One start and all its tries, until an event says what became of it. Raises Suspend where only a person can."""
    wake, tries = call.branch.wake, 0
    for gate in call.promise.gates:
        await gate(call, True)
    started = None if call.promise.reads else await _record_start(call)
    first = None if started is None else call.branch.log.ops[call.key].started[0].seq
    while True:
        result = await _attempt(call)
        if isinstance(result, _NotStarted):
            assert started is not None
            await wake.fact(Draft("not_started", {"started": started.seq}, call.step_id, call.key))
            wake.stop("frozen")
            raise call.branch.suspend()
        if isinstance(result, _Trouble) and tries < call.promise.retry and not result.is_cut:
            tries += 1
            await wake.fact(Draft("tried", {"try": tries, "error": result.error}, call.step_id, call.key))
            await asyncio.sleep(min(30.0, 0.1 * 2**tries))
            if wake.stopping is not None:
                raise call.branch.suspend()
            for gate in call.promise.gates:
                await gate(call, False)
            continue
        if isinstance(result, _Trouble) and result.is_unknown:
            return await _unknown(call, result)
        return await _record(call, result, first)


@dataclass(frozen=True)
class _Trouble:
    """A try that gave no result. `is_unknown`: its effect may have happened; `is_cut`: somebody stopped it."""

    error: Json
    is_unknown: bool = False
    is_cut: bool = False


async def _attempt(call: Run) -> Any:
    """One try: the function's result, a `_Trouble`, or a `_NotStarted`."""
    promise, wake = call.promise, call.branch.wake
    try:
        if promise.reads:
            return await wake.interruptible(_within(call, promise.timeout))
        if promise.timeout is None:  # this task is the call's own: nothing cuts it
            return await _invoke(call)
        return await _let_go_after(call, asyncio.ensure_future(_invoke(call)), promise.timeout)
    except _NotStarted as refusal:
        return refusal
    except asyncio.CancelledError as error:
        return _Trouble(_error(call, error), is_unknown=not promise.reads, is_cut=True)
    except Exception as error:
        return _Trouble(_error(call, error), is_unknown=not promise.reads and isinstance(error, promise.unknown_on))


def _error(call: Run, error: BaseException) -> Json:
    return call.branch.wake.setting.redact(error_json(error))


async def _within(call: Run, timeout: timedelta | None) -> Any:
    async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
        return await _invoke(call)


async def _let_go_after(call: Run, task: asyncio.Task[Any], timeout: timedelta) -> Any:
    """The result, or a `_Trouble` once the time is up; the call itself goes on and its outcome is still taken."""
    done, _ = await asyncio.wait({task}, timeout=timeout.total_seconds())
    if done:
        return task.result()
    call.branch.wake.loosen(asyncio.ensure_future(_afterwards(call, task)))
    return _Trouble({"type": "TimeoutError", "message": f"no answer within {timeout}; it may still happen"}, is_unknown=True)


async def _afterwards(call: Run, task: asyncio.Task[Any]) -> None:
    """The outcome of a call that was let go, once it ends after all. It is no wake's any more: whoever asks about it meanwhile is woken by it."""
    op = call.branch.log.ops[call.key]
    try:
        result = await task
    except (asyncio.CancelledError, _NotStarted):
        return
    except Exception as error:
        if isinstance(error, call.promise.unknown_on):
            return
        result = _Trouble(_error(call, error))
    await _record(call, result, op.started[0].seq if op.started else None, is_own=False)


async def _invoke(call: Run) -> Any:
    """Call the function; the lease is looked at right before, where the function runs."""
    wake = call.branch.wake

    def report(item: Json) -> None:
        wake.setting.board.report(call.idempotency_key, wake.setting.redact(item))

    running.set(Call(call.idempotency_key, wake.thread_id, call.step_id, lambda: wake.stopping is not None, report, call))

    def enter() -> Any:
        if not call.promise.reads and not wake.is_leased:
            raise _NotStarted
        wake.setting.witness(call.promise)
        return call.fn(*call.args, **call.kwargs)

    with noting(call.notes), watch.current.calling(call) as heard:
        return heard.answered(await result_of(enter, is_async(call.fn)))


# ---- outcomes ------------------------------------------------------------------------------------------------------------------


async def _record(call: Run, result: Any, started: int | None, *, is_own: bool = True) -> Event:
    data = sparse(error=result.error, unknown=result.is_unknown or None) if isinstance(result, _Trouble) else _written(call, result)
    reads = call.promise.reads or None
    marks = sparse(args=call.digest if reads else None, reads=reads, judge=call.promise.judges or None)
    draft = Draft("outcome", {**call.notes, **data, **marks}, call.step_id, call.key)
    event = await call.branch.wake.fact(draft, started=started, is_own=is_own)
    return call.branch.log.ops[call.key].outcome or event


def _written(call: Run, value: Any) -> dict[str, Json]:
    """The result as it is recorded: JSON after `redact`. What cannot be written is done all the same, and never rerun for that."""
    try:
        plain = call.branch.wake.setting.redact(to_json(call.returns.dump_python(value, mode="json", warnings=False)))
        call.returns.validate_python(plain, strict=False)
        return {"value": plain}
    except Exception as error:  # pydantic, recursion, a property or a `redact` that fails
        kind = type(value).__qualname__
        log.warning(
            "%s of %s returned %s, which is no JSON (%s), and gives None; return JSON or a model", call.key, call.step_id, kind, clip(str(error), 200)
        )
        return {"value": None, "unwritable": kind}


def _outcome(event: Event, call: Run) -> Outcome[Any]:
    return outcome_of(event.data, call.returns, call.step_id, call.key)


def outcome_of(recorded: Mapping[str, Json], returns: TypeAdapter[Any], step_id: str, what: str) -> Outcome[Any]:
    """A recorded outcome as the program sees it, on the first wake as on the tenth. Raises what `revive` raises."""
    if "error" in recorded:
        return Outcome(False, ErrorInfo.of(recorded["error"]), recorded.get("unknown", False))
    return Outcome(True, _value=None if "unwritable" in recorded else revive(returns, recorded.get("value"), step_id, what))


def revive(adapter: TypeAdapter[Any], value: Json, step_id: str, what: str) -> Any:
    """Recorded JSON as the type that the program names.

    Raises:
        ProgramChanged: the type of today refuses it.
    """
    try:
        return adapter.validate_python(value, strict=False)  # a date is a text in JSON
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        name = getattr(adapter._type, "__name__", None) or str(adapter._type)
        raise ProgramChanged(step_id, f"{what} holds {clip(repr(value), 200)}, and that is no {name} ({where}: {first['msg']})") from None


@lru_cache(maxsize=1024)
def result_type(fn: Callable[..., Any]) -> TypeAdapter[Any]:
    """What the function's results are validated by: its return annotation, or plain JSON.

    Raises:
        TypeError: the annotation has no JSON form; nothing was started.
    """
    target = inspect.unwrap(fn)
    target = inspect.unwrap(target.func) if isinstance(target, partial) else target
    if not inspect.isroutine(target) and not isinstance(target, type):
        target = getattr(type(target), "__call__", target)
    return _adapter_of(getattr(target, "__func__", target))


@lru_cache(maxsize=1024)
def _adapter_of(target: Callable[..., Any]) -> TypeAdapter[Any]:
    if isinstance(target, type):
        return type_adapter(target, f"{target.__name__}(…)")
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        raise TypeError(f"{target.__name__}() yields, and a call has one result: return a list; nothing was started")
    annotation: Any = Any
    if "return" in getattr(target, "__annotations__", {}):
        with suppress(NameError):  # a class of an enclosing function, under postponed annotations
            annotation = typing.get_type_hints(target, include_extras=True)["return"]
    return type_adapter(annotation, f"{getattr(target, '__name__', target)}() -> {annotation}")


def type_adapter(annotation: Any, what: str) -> TypeAdapter[Any]:
    """A pydantic adapter, or an error that says what to do."""
    try:
        return TypeAdapter(annotation)
    except PydanticUserError as error:
        reason = str(error).splitlines()[0]
        raise TypeError(f"{what}: this type has no JSON form ({reason}). Return JSON, a dataclass or a pydantic model; nothing was started") from None


def error_json(error: BaseException) -> dict[str, Json]:
    """A failure for the log: type, message, the innermost frame of the user's own code; the traceback is for people, not for prompts."""
    frames = traceback.extract_tb(error.__traceback__)
    package = __file__.removesuffix("calls.py")
    foreign = ("site-packages", "/asyncio/", "threading.py")
    own = [one for one in frames if not one.filename.startswith((package, "<")) and not any(part in one.filename for part in foreign)]
    text = "".join(traceback.format_exception(error))
    return {
        "type": type(error).__name__,
        "message": clip(_message(error), 2000),
        **sparse(where=f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else None),
        "trace": text if len(text) <= 8000 else "…" + text[-8000:],
    }


_HINTS = {"'coroutine' object": "is an `await` missing?", "Instance is frozen": "people edit calls; a program passes others: step.run(fn, …)"}


def _message(error: BaseException) -> str:
    with suppress(Exception):  # a __str__ that fails must not hide the failure
        text = str(error).encode("utf-8", "replace").decode()
        return text + next((f"; {hint}" for part, hint in _HINTS.items() if part in text), "")
    return f"<{type(error).__name__} whose message cannot be shown>"


# ---- in doubt ------------------------------------------------------------------------------------------------------------------


async def _unknown(call: Run, trouble: _Trouble) -> Event:
    """A start of this wake whose outcome is unknown. A verify that says "not happened" makes it a plain failure."""
    op = call.branch.log.ops[call.key]
    if call.promise.in_doubt == "retry":
        return await _record(call, trouble, op.started[0].seq)
    known = await _resolve(call, op, f"{trouble.error['type']}: {trouble.error['message']}")
    return known or await _record(call, replace(trouble, is_unknown=False), op.started[0].seq)


async def _resolve(call: Run, op: Op, why: str) -> Event | None:
    """What became of a start without an outcome; None: it did not happen, start it again. Raises Suspend while a person is asked."""
    policy = call.promise.in_doubt
    if policy == "retry":
        return None
    if policy == "fail":
        return await _conclude(call.branch, op, _doubtful(why))
    if callable(policy):
        answer = await _verify(call)
        if isinstance(answer, NotHappened):
            return None
        if isinstance(answer, Happened):
            return await _conclude(call.branch, op, _written(call, answer.value), by="verify")
    return await ask_if_happened(call.branch, op, why, call.returns)


async def _verify(call: Run) -> Answer:
    """Ask the user's `verify(key)`; what fails there is not known."""
    verify = call.promise.in_doubt
    assert callable(verify)
    try:
        answer = await result_of(partial(verify, call.idempotency_key), is_async(verify))
    except Exception:
        log.exception("verify of %s failed; a person is asked", call.key)
        return Unknown()
    if not isinstance(answer, Happened | NotHappened | Unknown):
        raise TypeError(f"verify of {call.promise.name} returned {answer!r}; return Happened(value), NotHappened() or Unknown()")
    return answer


async def ask_if_happened(branch: Branch, op: Op, why: str, returns: TypeAdapter[Any] | None = None) -> Event | None:
    """One question per start: did it happen, and with what result? None: it did not."""
    start = op.started[-1]
    name = op.key.removeprefix("run:")
    shown = {
        "arguments": dict(branch.arguments),
        "question": f"Did {name} happen? It was started at {start.at:%Y-%m-%d %H:%M:%S}Z.",
        "call": op.key,
        "error": clip(why, 500),
        **sparse(schema=_result_schema(returns)),
    }
    key = f"doubt:{op.key}@{start.seq}"
    branch.met.add(op.key)
    closing = branch.or_suspend(await branch.park(key, branch.request("in_doubt", key, shown)))
    answer = closing.data["value"]
    return await _conclude(branch, op, {"value": answer.get("value")}, by=closing.by) if answer["happened"] else None


def _result_schema(returns: TypeAdapter[Any] | None) -> Json:
    with suppress(Exception):  # a type without a schema is asked for as plain JSON
        return returns.json_schema() if returns is not None else None
    return None


async def _conclude(branch: Branch, op: Op, data: Mapping[str, Json], by: str | None = None) -> Event:
    event = await branch.wake.fact(Draft("outcome", data, branch.log.id, op.key, by), started=op.started[0].seq)
    return op.outcome or event


async def end_doubts(branch: Branch) -> None:
    """Before a step ends: every call in it has an outcome, or a person is asked for it."""
    await branch.wake.drain(branch.log.id)
    for op in branch.log.doubts():
        if op.started[-1].data.get("in_doubt") in ("retry", "fail"):
            await _conclude(branch, op, _doubtful(NO_OUTCOME))
        elif await ask_if_happened(branch, op, NO_OUTCOME) is None:
            await _conclude(branch, op, {"error": {"type": "NotHappened", "message": "a person said that it did not happen"}})


def _doubtful(why: str) -> Json:
    return {"error": {"type": "InDoubt", "message": f"nobody knows whether it happened: {why}"}, "unknown": True}


def model_value(value: object) -> Json:
    """A value that a handler hands over, as JSON.

    Raises:
        TypeError: it has no JSON form.
    """
    try:
        return to_json(value.model_dump(mode="json") if isinstance(value, BaseModel) else value)
    except ValueError as error:
        raise TypeError(f"{type(value).__qualname__} cannot be written as JSON ({error}); pass JSON, a dataclass or a pydantic model") from None
