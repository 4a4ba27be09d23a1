"""A process whose threads call a server behind a rate limit, as fast as they may: `limits_process.py STORE PORT RATE MAX_WAIT THREADS`."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time

from ownloop import App, Intent, Thread, tool
from ownloop.llm import RateLimit, limited


class Call(Intent):
    """Call the server once more."""


async def decide(thread: Thread) -> Call:
    return Call()


async def main(store: str, port: int, rate: str, max_wait: str, threads: int) -> None:
    app = App(store, lease="5s")

    @tool(reads=True)
    async def call(name: str) -> None:
        let_through = time.monotonic()
        with socket.create_connection(("127.0.0.1", port)) as door:
            door.sendall(f"GET /{name}?{let_through} HTTP/1.1\r\n\r\n".encode())
            door.setblocking(False)
            while await asyncio.get_running_loop().sock_recv(door, 1_000):
                pass

    served = limited(call, RateLimit(rate, key="server", max_wait=max_wait))

    async def caller(thread: Thread) -> None:
        while True:
            step = await thread.next_step(decide)
            (await step.run(served, thread.id)).value  # noqa: B018  # a failure fails the thread

    name = f"caller{os.getpid()}"  # each process wakes its own threads
    app.add(caller, name=name)
    async with app:
        for _ in range(threads):
            await app.start(name)
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])))
