"""Every exception of ownloop. Each builds its own message: the value, the rule, the next step; the values stay as attributes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from .interrupts import Actor, Interrupt


class OwnloopError(Exception):
    """The base of everything that ownloop raises on purpose."""


class Suspend(BaseException):
    """Unwinds a handler that waits; public only so that it can be named.

    A `BaseException` like `asyncio.CancelledError`, so that `except Exception` cannot swallow it. Catching it is safe: nothing new
    begins in the step that waits, and the thread goes on waiting.
    """


def only_suspends(error: BaseException | None) -> bool:
    """A Suspend, or a group of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(only_suspends(one) for one in error.exceptions)
    return isinstance(error, Suspend)


def is_unwinding() -> bool:
    """Whether the code that runs is a `finally`, an `except` or an `__aexit__` on the way out of a handler that waits."""
    return only_suspends(sys.exception())


# ---- decisions -------------------------------------------------------------------------------------------------------------


class AlreadyDecided(OwnloopError):
    """Somebody answered this interrupt first, or it was closed without an answer."""

    def __init__(self, interrupt: Interrupt) -> None:
        decision = interrupt.decision
        if decision is not None:
            who = decision.by.id if decision.by is not None else "ownloop"
            what = f"was {decision.kind} by {who} at {decision.at:%Y-%m-%d %H:%M:%S}Z; the first answer stands, and yours changed nothing"
        else:
            what = f"is {interrupt.status}: nobody can answer it any more, and your answer changed nothing"
        super().__init__(f"interrupt {interrupt.id} {what}")
        self.interrupt = interrupt


class Expired(OwnloopError):
    """The deadline passed, measured by the store's clock."""

    def __init__(self, interrupt: Interrupt) -> None:
        at = f"{interrupt.expires_at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z" if interrupt.expires_at else "its deadline"
        super().__init__(
            f"interrupt {interrupt.id} expired at {at} by the store's clock; your answer changed nothing. "
            "Send the thread a message if the work should be asked for again"
        )
        self.interrupt = interrupt


class ArgumentsChanged(OwnloopError):
    """The digest that came with a decision is not that of the call that waits now."""

    def __init__(self, interrupt: Interrupt, digest: str) -> None:
        super().__init__(
            f"your decision on {interrupt.id} carries digest {digest[:12]}…, but what waits has {interrupt.digest[:12]}…; "
            "read the interrupt again and decide on what it shows now"
        )
        self.interrupt = interrupt
        self.digest = digest


class NotAllowed(OwnloopError):
    """The policy does not let this actor give this answer."""

    def __init__(self, interrupt: Interrupt, by: Actor, rule: str) -> None:
        super().__init__(f"{by.id} may not decide {interrupt.id}: {rule}; nothing was decided")
        self.interrupt = interrupt
        self.by = by


class InvalidEdit(OwnloopError):
    """The edited arguments, or the answer, do not fit what was asked for; nothing was decided."""

    def __init__(self, interrupt: Interrupt, problems: Sequence[tuple[str, str]]) -> None:
        shown = "; ".join(f"{pointer or '/'}: {text}" for pointer, text in problems)
        super().__init__(f"the answer to {interrupt.id} does not fit its schema ({shown}); nothing was decided, send it again corrected")
        self.interrupt = interrupt
        self.problems = tuple(problems)
        """Pairs of JSON pointer (RFC 6901) and what is wrong there."""


# ---- threads ---------------------------------------------------------------------------------------------------------------


class NotFound(OwnloopError):
    """No thread, interrupt, step or agent of that name."""

    def __init__(self, what: str, value: object, known: Iterable[str] = ()) -> None:
        names, which = ", ".join(sorted(known)), " or (agent, key)" if what == "thread" else ""
        super().__init__(f"no {what} {value!r} here" + (f"; known: {names}" if names else f"; check the store's URL, and the id{which}"))
        self.what = what
        self.value = value


class ThreadEnded(OwnloopError):
    """The thread's status does not allow this: mostly it was closed or cancelled, and nothing can be added to it."""

    def __init__(self, thread_id: str, status: str) -> None:
        cure = {"failed": "Retry it after the fix", "done": "Send it a message", "paused": "Resume it"}.get(status, "Fork it, or start a new one")
        super().__init__(f"thread {thread_id} is {status}; nothing was added. {cure}")
        self.thread_id = thread_id
        self.status = status


class ThreadBusy(OwnloopError):
    """Another process holds the thread's lease."""

    def __init__(self, thread_id: str, until: datetime | None) -> None:
        when = f" until {until:%H:%M:%S}Z unless it is renewed" if until else ""
        super().__init__(f"thread {thread_id} is held by another wake{when}; wait for it to end, or pause the thread")
        self.thread_id = thread_id


# ---- the program and the log disagree ----------------------------------------------------------------------------------------


class StepIgnored(OwnloopError):
    """The program asked for the next step although it had done nothing for this one."""

    def __init__(self, agent: str, intent: str, step_id: str) -> None:
        super().__init__(f"{agent} passed {intent} by ({step_id}): add a case that awaits step.run(…), step.ask(…) …, or step.close()")
        self.step_id = step_id
        self.intent = intent


class TwoLoops(OwnloopError):
    """One wake met two places that ask for the next step."""

    def __init__(self, agent: str, first: tuple[str, int], second: tuple[str, int]) -> None:
        super().__init__(
            f"{agent} asks for its next step at {first[0]}:{first[1]} and at {second[0]}:{second[1]}; a thread has one loop. "
            "Write a phase before the loop as a named step (thread.step('plan')), and an agent inside a step as a child (step.spawn)"
        )
        self.sites = (first, second)


class ProgramChanged(OwnloopError):
    """The branch of an open step no longer matches what the log recorded for it; nothing was started."""

    def __init__(self, step_id: str, what: str, next_step: str = "deploy a program that reads it, then retry the thread") -> None:
        super().__init__(f"{step_id}: {what}; nothing was started. Next: {next_step}")
        self.step_id = step_id


class CallNoLongerValid(OwnloopError):
    """The recorded call is not valid for the classes of today; the decision stays."""

    def __init__(self, step_id: str, intent: str, why: str) -> None:
        super().__init__(
            f"{step_id}: the recorded call of {intent} is not valid any more ({why}); nothing was started and its decision stays. "
            "Next: deploy a class that accepts it, then retry the thread; or cancel it"
        )
        self.step_id = step_id
        self.intent = intent


class StepFailed(OwnloopError):
    """`Outcome.value` was read although the call failed."""

    def __init__(self, error: Any) -> None:
        super().__init__(f"{error.type}: {error.message}" + (f" (at {error.where})" if error.where else "") + "; look at Outcome.ok before .value")
        self.error = error


# ---- stores ------------------------------------------------------------------------------------------------------------------


class StoreError(OwnloopError):
    """The store could not do its work; nothing was half-written."""


class StoreFull(StoreError):
    """The disk is full."""

    def __init__(self, where: str) -> None:
        super().__init__(f"the disk of {where} is full; nothing was written and nothing recorded is lost. Free some space and go on")


class StoreReadOnly(StoreError):
    """The file, its folder or the connection does not allow writing."""

    def __init__(self, where: str, next_step: str = "Give this user the right to write the file and its folder") -> None:
        super().__init__(f"{where} cannot be written; nothing was changed. {next_step}")


class StoreBusy(StoreError):
    """Another process kept the store locked for too long."""

    def __init__(self, where: str, seconds: float) -> None:
        super().__init__(f"another process kept {where} locked for {seconds:g} s; nothing was written. Find who holds it, then try again")


class NotAStore(StoreError):
    """The file or database holds something else."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where} is not an ownloop store ({why}); it was left as it is. Name another one")


class NewerSchema(StoreError):
    """The store was written by a later ownloop."""

    def __init__(self, where: str, found: int, known: int) -> None:
        super().__init__(
            f"{where} has schema version {found}, this ownloop knows up to {known}; it was left as it is. Upgrade ownloop on this machine"
        )
        self.found = found
        self.known = known
