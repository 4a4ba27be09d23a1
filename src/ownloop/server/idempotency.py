"""`Idempotency-Key`: the same request twice is done once, and answered twice.

Source: draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

from fastapi import Request
from starlette.responses import Response

from ..events import Json, canonical
from ..stores.base import Store
from .auth import Principal
from .problems import Refusal

SPACE = "idempotency"
KEPT = timedelta(hours=24)
IN_FLIGHT = timedelta(minutes=1)
"""How long a request whose process died keeps its key."""
LONGEST = 255
_HEADERS = ("content-type", "location", "etag")


def key_of(request: Request) -> str | None:
    """The key, quoted (as the draft has it) or not; None without the header.

    Raises:
        Refusal: "idempotency-key-invalid".
    """
    text = request.headers.get("Idempotency-Key")
    if text is None:
        return None
    is_quoted = len(text) > 1 and text.startswith('"') and text.endswith('"')
    key = text[1:-1].replace('\\"', '"').replace("\\\\", "\\") if is_quoted else text
    if not key or len(key) > LONGEST or not key.isascii() or not key.isprintable():
        raise Refusal("idempotency-key-invalid", f"Idempotency-Key has {len(key)} characters; send 1 to {LONGEST} printable ones of ASCII")
    return key


async def once(store: Store, who: Principal, key: str, request: Request, act: Callable[[], Awaitable[Response]]) -> Response:
    """Act, and keep the answer; or give the answer that was kept.

    Raises:
        Refusal: the key came with another request, or that one is still being worked on.
    """
    place = _digest(canonical([who.via, who.actor.id, None if who.see is None else dict(who.see), key]).encode("utf-8", "surrogatepass"))
    asked = _digest(f"{request.method} {request.url.path}?{request.url.query}\n".encode("utf-8", "surrogatepass") + await request.body())
    if not await store.put(SPACE, place, {"request": asked}, expect=0, ttl=IN_FLIGHT):
        record = await store.get(SPACE, place)
        return _again(asked, record.value if record is not None else {"request": asked})
    try:
        response = await act()
    except BaseException:
        await store.drop(SPACE, place)  # nobody was answered: who tries again may
        raise
    if response.status_code < 500 and hasattr(response, "body"):
        await store.put(SPACE, place, {"request": asked, "response": _kept(response)}, ttl=KEPT)
    else:
        await store.drop(SPACE, place)
    return response


def _again(asked: str, known: Json) -> Response:
    if known["request"] != asked:
        raise Refusal("idempotency-key-reused", "that Idempotency-Key came with another request; nothing was done. Use a new key for a new request")
    if "response" not in known:
        raise Refusal("idempotency-in-flight", "the first request with that Idempotency-Key is still being worked on", headers={"Retry-After": "1"})
    kept = known["response"]
    return Response(base64.b64decode(kept["body"]), kept["status"], {**kept["headers"], "Idempotency-Replayed": "true"})


def _kept(response: Response) -> Json:
    headers = {name: response.headers[name] for name in _HEADERS if name in response.headers}
    return {"status": response.status_code, "headers": headers, "body": base64.b64encode(bytes(response.body)).decode()}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
