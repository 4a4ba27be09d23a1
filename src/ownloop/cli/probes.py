"""What an orchestrator asks a worker: /healthz, whether the process answers, and /readyz, whether it takes work. Needs no server extra."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress

from ..app import App
from ..errors import StoreError
from ..stores.answering import Answering
from .running import bind
from .trouble import usage

PATIENCE = 5.0
"""Seconds for a question and its answer."""
NOBODY = "thr_0000000000000"
Why = Callable[[], Awaitable[str | None]]
"""Why it takes no work, or None."""


def place(text: str) -> tuple[str, int]:
    """`PORT`, `HOST:PORT` or `[HOST]:PORT`; without a host this machine's own.

    Raises:
        Trouble: it is neither.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise usage(f"--health {text}: say PORT or HOST:PORT, a port from 0 to 65535 (0 takes a free one)")
    return host.strip("[]") or "127.0.0.1", int(port)


@asynccontextmanager
async def probes(where: str | None, why_not: Why) -> AsyncIterator[int | None]:
    """Answer at that place, if any; the port."""
    if where is None:
        yield None
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            async with asyncio.timeout(PATIENCE):
                words = (await reader.readline()).decode("latin-1").split()
                while (await reader.readline()).strip():
                    pass
            writer.write(await _response(words, why_not))
            await writer.drain()

    with bind(*place(where)) as sock:
        async with await asyncio.start_server(answer, sock=sock):
            yield sock.getsockname()[1]


async def _response(words: list[str], why_not: Why) -> bytes:
    method, path = (words[0], words[1].partition("?")[0]) if len(words) == 3 else ("", "")
    if method not in ("GET", "HEAD"):
        status, said = "405 Method Not Allowed", {"status": "GET or HEAD only"}
    elif path == "/healthz":
        status, said = "200 OK", {"status": "ok"}
    elif path == "/readyz":
        why = await why_not()
        status, said = ("200 OK", {"status": "ok"}) if why is None else ("503 Service Unavailable", {"status": "unavailable", "why": why})
    else:
        status, said = "404 Not Found", {"status": "only /healthz and /readyz are here"}
    body = json.dumps(said).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (b"" if method == "HEAD" else body)


async def why_no_work(app: App, answering: Answering, is_stopping: bool) -> str | None:
    """Whether this worker would take work now."""
    if is_stopping:
        return "it was told to stop"
    if not app._serving:
        return "it has not reached its store yet"
    if any(task.done() for task in app._serving):
        return "its engine has ended"
    try:
        await answering.check()
    except StoreError as error:
        return str(error)
    return None
