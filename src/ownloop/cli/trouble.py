"""What goes wrong, as people and programs are told: what, why, the next command, and the exit code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from ..errors import AlreadyDecided, ArgumentsChanged, Expired, InvalidEdit, NotAllowed, NotFound, OwnloopError, ThreadBusy, ThreadEnded
from ..events import Json


class Code(IntEnum):
    """Exit codes."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    FORBIDDEN = 5
    STALE = 6
    UNREACHABLE = 7
    WAITING = 10
    FAILED = 11
    CANCELLED = 12
    TIMEOUT = 124
    INTERRUPTED = 130


@dataclass
class Trouble(Exception):
    """An end of a command that is not its success. `next`: commands, ready to copy."""

    code: Code
    what: str
    next: tuple[str, ...] = ()
    kind: str = "usage"
    more: dict[str, Json] | None = None

    def problem(self) -> dict[str, Json]:
        """After RFC 9457 (problem details)."""
        return {
            "type": f"urn:ownloop:error:{self.kind}",
            "title": self.kind.replace("-", " "),
            "status": STATUSES.get(self.code, 500),
            "detail": self.what,
            "exit_code": int(self.code),
            "next": list(self.next),
            **(self.more or {}),
        }


STATUSES = {Code.USAGE: 422, Code.NOT_FOUND: 404, Code.CONFLICT: 409, Code.FORBIDDEN: 403, Code.STALE: 410, Code.UNREACHABLE: 503, Code.TIMEOUT: 408}
CODES: tuple[tuple[type[Exception], Code], ...] = (
    (NotFound, Code.NOT_FOUND),
    (AlreadyDecided, Code.CONFLICT),
    (ThreadEnded, Code.CONFLICT),
    (ThreadBusy, Code.CONFLICT),
    (NotAllowed, Code.FORBIDDEN),
    (Expired, Code.STALE),
    (ArgumentsChanged, Code.STALE),
    (InvalidEdit, Code.USAGE),
    (OwnloopError, Code.FAILURE),
    (ValueError, Code.USAGE),
)
Again = Callable[..., str]
"""Makes a command to copy from its words."""


def usage(what: str, *next: str, kind: str = "usage", more: dict[str, Json] | None = None) -> Trouble:
    """Something about the command itself is wrong."""
    return Trouble(Code.USAGE, what, next, kind, more)


INSTALL = "; install it with: "
"""How our own ImportErrors go on."""


def trouble_of(error: Exception, again: Again) -> Trouble:
    """An exception as the end of a command."""
    if isinstance(error, Trouble):
        return error
    code = next((code for kind, code in CODES if isinstance(error, kind)), Code.FAILURE)
    kind = "".join(f"-{char.lower()}" if char.isupper() else char for char in type(error).__name__).lstrip("-")
    if isinstance(error, ImportError) and INSTALL in str(error):  # one of our extras
        what, _, how = str(error).partition(INSTALL)
        return Trouble(Code.USAGE, what, (how,), "not-installed")
    text = str(error) if isinstance(error, OwnloopError | ValueError) else f"{type(error).__name__}: {error}"
    return Trouble(code, text, _next(error, again), kind, _more(error))


def _next(error: Exception, again: Again) -> tuple[str, ...]:
    match error:
        case NotFound(what=what) if "interrupt" in what or "question" in what:
            return (again("inbox"),)
        case NotFound(what="thread"):
            return (again("threads"),)
        case NotFound(what="token"):
            return (again("token", "list"),)
        case NotFound(what="message"):
            return (again("webhook", "list"),)
        case AlreadyDecided() | Expired():
            return (again("show", error.interrupt.thread_id),)
        case ArgumentsChanged():
            return (again("show", error.interrupt.thread_id), again("decide", error.interrupt.id))
        case NotAllowed():
            voted = any(vote.by.id == error.by.id for vote in error.interrupt.votes)
            if not voted and error.interrupt.policy.refuses(error.by) is None:  # the person is right, the decision is none that is offered
                return (again("show", error.interrupt.thread_id),)
            groups = [word for name in list(error.interrupt.policy.by)[:1] for word in ("--group", name)]
            return (again("decide", error.interrupt.id, "approve", "--as", "NAME", *groups),) if groups else ()
        case ThreadEnded():
            return (again("show", error.thread_id),)
    return ()


def _more(error: Any) -> dict[str, Json] | None:
    match error:
        case AlreadyDecided() if error.interrupt.decision is not None:
            decision = error.interrupt.decision
            by = None if decision.by is None else decision.by.id
            return {"interrupt": error.interrupt.id, "decision": {"kind": decision.kind, "by": by, "at": decision.at.isoformat()}}
        case AlreadyDecided() | Expired() | ArgumentsChanged() | NotAllowed():
            return {"interrupt": error.interrupt.id}
        case InvalidEdit():
            problems = [{"pointer": pointer, "detail": text} for pointer, text in error.problems]
            return {"interrupt": error.interrupt.id, "errors": problems}
    return None
