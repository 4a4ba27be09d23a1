"""What pydantic-ai does not hand on of an HTTP answer: its headers, and an error that comes with status 200."""

from __future__ import annotations

import json
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ..events import Json
from .waiting import lowered


@dataclass
class Overheard:
    """What came back while one request was out.

    Attributes:
        headers: of the last answer, names in lower case.
        error: the body of an answer with status 200 that is an error all the same, as gateways send it.
        has_answered: whether an answer with a good status came.
        is_whole: whether that was one whole JSON text.
    """

    headers: dict[str, str] = field(default_factory=dict)
    error: Json = None
    has_answered: bool = False
    body: bytes = b""

    @property
    def is_whole(self) -> bool:
        with suppress(ValueError):
            return json.loads(self.body) is not None
        return False

    def __enter__(self) -> Overheard:
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


_current: ContextVar[Overheard] = ContextVar("ownloop_overheard")


def overhear(model: Any) -> Overheard:
    """Listen to the HTTP client under this model from now on; where there is none, nothing is overheard."""
    client = _http_client(model)
    hooks = getattr(client, "event_hooks", None)
    if hooks is not None and _hear not in hooks.get("response", ()):
        client.event_hooks = {**hooks, "response": [*hooks.get("response", ()), _hear]}
    return Overheard()


async def _hear(response: Any) -> None:
    heard = _current.get(None)
    if heard is None:
        return
    heard.headers = lowered(response.headers)
    heard.has_answered, heard.body = response.status_code < 400, b""
    if heard.has_answered and "json" in heard.headers.get("content-type", ""):
        heard.body = await response.aread()
        heard.error = error_in(heard.body)


def error_in(body: bytes) -> Json:
    """The body, parsed, if it is an error and nothing else: `{"error": {…}}` without an answer beside it."""
    if b'"error"' not in body:
        return None
    try:
        value = json.loads(body)
    except ValueError:
        return None
    is_error = isinstance(value, dict) and value.get("error") and not {"choices", "output", "content", "candidates"} & set(value)
    return value if is_error else None


def _http_client(model: Any) -> Any:
    """The httpx client under a model of openai, anthropic, groq (`client._client`) or google."""
    client = getattr(model, "client", None)
    return getattr(client, "_client", None) or getattr(getattr(client, "_api_client", None), "_async_httpx_client", None)
