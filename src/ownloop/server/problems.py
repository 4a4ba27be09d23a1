"""What is refused, as problem details (RFC 9457). Every `type` is `urn:ownloop:error:` and one of `KINDS`; the command line uses the same words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..errors import AlreadyDecided, ArgumentsChanged, Expired, InvalidEdit, NotAllowed, NotFound, OwnloopError, StoreError, ThreadBusy, ThreadEnded
from ..events import Json
from .shown import plain

URN = "urn:ownloop:error:"
MEDIA_TYPE = "application/problem+json"
KINDS: Mapping[str, tuple[int, str]] = {
    "not-found": (404, "No thread, interrupt, agent or address of that name, or none that you may see."),
    "already-decided": (409, "Somebody was first, or it was closed without an answer: `interrupt` says who, what and when."),
    "expired": (410, "The deadline passed, measured by the store's clock."),
    "arguments-changed": (412, "The digest is not that of what waits now: read the interrupt again."),
    "not-allowed": (403, "The policy, or what you may see, does not let you do this."),
    "invalid-edit": (422, "The arguments or the answer do not fit: `errors` holds a JSON pointer for each problem."),
    "thread-ended": (409, "The thread's status does not allow this."),
    "thread-busy": (409, "Another process holds the thread's lease."),
    "key-taken": (409, "That key belongs to a thread that you may not see."),
    "invalid-request": (422, "The request itself is wrong: `errors` says where."),
    "malformed": (400, "The body is no JSON, or the request no HTTP that is understood."),
    "unauthenticated": (401, "No credentials, or none that count (any more)."),
    "missing-scope": (403, "The token does not have the scope that this needs: `scope`."),
    "foreign-host": (421, "The Host header names a host that this server is not known by."),
    "foreign-origin": (403, "A page of another origin sent this."),
    "wrong-form": (403, "The form's token is missing, or another visitor's."),
    "method-not-allowed": (405, "This address has no such method."),
    "too-large": (413, "The body is larger than is taken."),
    "idempotency-key-invalid": (400, "The Idempotency-Key is empty, too long or no text."),
    "idempotency-key-reused": (422, "That Idempotency-Key came with another request."),
    "idempotency-in-flight": (409, "A request with that Idempotency-Key is still being worked on."),
    "not-instrumented": (404, "Telemetry is not set up in this process."),
    "store-unavailable": (503, "The store could not do its work; nothing was half-written."),
    "internal": (500, "A bug of the server; its log says more."),
}


class Refusal(HTTPException):
    """A refusal that is not the library's own: its kind, what and why, and further members of the problem."""

    def __init__(self, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, status: int | None = None, **more: Json) -> None:
        super().__init__(status or KINDS[kind][0], detail, headers)
        self.kind = kind
        self.more = more


_OURS: tuple[type[OwnloopError], ...] = (NotFound, AlreadyDecided, Expired, ArgumentsChanged, NotAllowed, InvalidEdit, ThreadEnded, ThreadBusy)


def kind_of(error: Exception) -> str:
    """The last word of the problem's type."""
    if isinstance(error, Refusal):
        return error.kind
    known = next((one for one in _OURS if isinstance(error, one)), None)
    if known is not None:
        return "".join(f"-{char.lower()}" if char.isupper() else char for char in known.__name__).lstrip("-")
    return "store-unavailable" if isinstance(error, StoreError) else getattr(type(error), "kind", "internal")


def refusal_of(error: Exception) -> Refusal:
    """An exception as what a visitor is told. What nobody foresaw says nothing of its inside."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors())
    if isinstance(error, HTTPException):
        return _of_framework(error)
    kind = kind_of(error)
    if kind == "internal":
        return Refusal(kind, "the server failed on this request; nothing is known of what it did. Its log says more")
    return Refusal(kind, str(error), headers={"Retry-After": "1"} if kind == "store-unavailable" else None, **_more(error))


def _more(error: Any) -> dict[str, Json]:
    match error:
        case NotFound():
            return {"what": error.what, "value": str(error.value)}
        case AlreadyDecided() | Expired():
            decision = error.interrupt.decision
            said = None if decision is None else {"kind": decision.kind, "by": plain(decision.by), "at": plain(decision.at)}
            return {"interrupt": plain(error.interrupt), "decision": said}
        case NotAllowed():
            return {"interrupt": plain(error.interrupt), "by": plain(error.by)}
        case ArgumentsChanged():
            return {"interrupt": plain(error.interrupt), "digest": error.digest}
        case InvalidEdit():
            return {"interrupt": plain(error.interrupt), "errors": [{"pointer": pointer, "detail": text} for pointer, text in error.problems]}
        case ThreadEnded():
            return {"thread_id": error.thread_id, "thread_status": error.status}
    return {}


def _of_framework(error: HTTPException) -> Refusal:
    kind = {400: "malformed", 401: "unauthenticated", 403: "not-allowed", 404: "not-found", 405: "method-not-allowed"}.get(error.status_code)
    kind = kind or ("internal" if error.status_code >= 500 else "malformed")
    texts = {404: "nothing has this address; /openapi.json lists what there is", 405: "this address does not take that method"}
    standard = error.detail in ("Not Found", "Method Not Allowed")
    text = texts[error.status_code] if standard and error.status_code in texts else str(error.detail)
    return Refusal(kind, text, headers=error.headers, status=error.status_code)


HINTS: Mapping[tuple[str, str], str] = {
    ("missing", "digest"): "send the digest of what you were shown: the field `digest` of the interrupt",
    ("extra_forbidden", "actor"): "who acts is proved by authentication, never named in a body",
    ("extra_forbidden", "by"): "who acts is proved by authentication, never named in a body",
}


def _invalid(errors: Sequence[Any]) -> Refusal:
    told = [_one(error) for error in errors]
    if any(error["type"] == "json_invalid" for error in errors):
        return Refusal("malformed", f"the body is no JSON: {told[0]['detail']}", errors=told)
    where = "; ".join(f"{one.get('pointer', one.get('parameter'))}: {one['detail']}" for one in told[:5])
    return Refusal("invalid-request", f"the request is not valid ({where}); nothing was done", errors=told)


def _one(error: Any) -> dict[str, Json]:
    place, *path = error["loc"]
    text = HINTS.get((error["type"], str(path[-1]) if path else ""), error["msg"])
    if place == "body":
        names = [name for name in path if not (name == path[0] and name in _VARIANTS)]  # the variant of a union is no member of the body
        return {"pointer": "".join(f"/{_escaped(str(name))}" for name in names), "detail": text}
    return {"parameter": str(path[-1]) if path else "", "detail": text}


_VARIANTS = frozenset({"approve", "edit", "reject", "respond", "answer"})


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def problem(refusal: Refusal) -> dict[str, Json]:
    """The members of the problem."""
    title = refusal.kind.replace("-", " ")
    return {"type": URN + refusal.kind, "title": title, "status": refusal.status_code, "detail": refusal.detail, **refusal.more}


def response_of(error: Exception) -> Response:
    """The problem as a response."""
    refusal = refusal_of(error)
    return Response(json.dumps(problem(refusal)), refusal.status_code, refusal.headers, MEDIA_TYPE)


def documented(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """What a route's `responses` say of the problems it may answer with."""
    found: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status, text = KINDS[kind]
        known = found.get(status, {}).get("description", "")
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        found[status] = {"description": f"{known}{' ' if known else ''}`{kind}`: {text}", "content": content}
    return found


@contextmanager
def invalid_values() -> Iterator[None]:
    """What the library calls a wrong value is a wrong request."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise Refusal("invalid-request", f"{error}; nothing was done", errors=[{"pointer": "", "detail": str(error)}]) from None
    except RecursionError:
        raise Refusal("invalid-request", "the body is nested too deeply; nothing was done", errors=[]) from None
