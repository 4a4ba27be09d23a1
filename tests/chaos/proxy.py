"""A TCP proxy before a server's socket that a test cuts and mends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

How = Literal["reset", "stall"]
"""How the line is cut: connections end and none are taken; or nothing passes, and what was sent arrives when it is mended."""


class Proxy:
    """Listens on a port of this machine; `url` is the server's URL by way of it."""

    def __init__(self, target: Path) -> None:
        self._target = str(target)
        self._passes = asyncio.Event()
        self._passes.set()
        self._refuses = False
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.stopped = 0
        """Bytes that have waited since the last cut."""

    def url(self, settings: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?sslmode=disable&gssencmode=disable&{settings}"

    def cut(self, how: How) -> None:
        self.stopped = 0
        if how == "stall":
            self._passes.clear()
            return
        self._refuses = True
        for writer in list(self._writers):
            _reset(writer)

    def mend(self) -> None:
        self._refuses = False
        self._passes.set()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            return _reset(writer)
        there_reader, there_writer = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, there_writer}
        for source, target in ((reader, there_writer), (there_reader, writer)):
            pump = asyncio.ensure_future(self._pump(source, target))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if not self._passes.is_set():
                    self.stopped += len(data)
                    await self._passes.wait()
                target.write(data)
                await target.drain()
        target.close()
        self._writers.discard(target)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection so that the other side hears an error and not an end."""
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def proxy(target: Path) -> AsyncIterator[Proxy]:
    made = Proxy(target)
    server = await asyncio.start_server(made._take, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for pump in list(made._pumps):
            pump.cancel()
        for writer in list(made._writers):
            writer.transport.abort()
