"""Requests to an engine's server over HTTP: no line in the log for each, as a client writes it, and errors with the server's own words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx


class Posting:
    """To one server.

    Args:
        headers: sent with every request.
        seconds: that an answer may take.
        keeps: connections, for the next request; else each is closed after its answer.
    """

    def __init__(self, headers: Mapping[str, str] | None, seconds: float, *, keeps: bool) -> None:
        self._headers, self._seconds = httpx.Headers(headers), seconds
        self._limits = httpx.Limits(max_connections=100, max_keepalive_connections=20 if keeps else 0)
        self._sender: tuple[asyncio.AbstractEventLoop, httpx.AsyncHTTPTransport] | None = None

    async def post(self, url: str, json: Any = None) -> httpx.Response:
        """The answer, read.

        Raises:
            httpx.HTTPError: there is none, or it is no success.
        """
        loop = asyncio.get_running_loop()
        if self._sender is None or self._sender[0] is not loop:
            self._sender = loop, httpx.AsyncHTTPTransport(limits=self._limits)
        request = httpx.Request("POST", url, headers=self._headers, json=json, extensions={"timeout": httpx.Timeout(self._seconds).as_dict()})
        answer = await self._sender[1].handle_async_request(request)
        await answer.aread()
        if not answer.is_success:
            said = answer.text[:300] or httpx.codes.get_reason_phrase(answer.status_code)
            raise httpx.HTTPStatusError(f"{answer.status_code} {said}", request=request, response=answer)
        return answer
