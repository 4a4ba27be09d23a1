"""Programs that tests of the SQLite store run in processes of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from ownloop import stores
from ownloop.events import Draft
from ownloop.stores.base import NewThread
from ownloop.stores.sqlite import SqliteStore

SOURCE = Path(next(iter(stores.__path__))).parents[1]


def start(name: str, *args: object, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Run one of the functions below; it prints what it was told."""
    command = [*before, sys.executable, __file__, name, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE)})


async def append(url: str, thread: str, count: str) -> None:
    """Append so many messages, some at once, and print the text of each that was told "ok"."""
    store = SqliteStore(url)
    await store.open()

    async def one(number: int) -> None:
        text = f"{os.getpid()}:{number}"
        await store.message(thread, [Draft("message", {"text": text})])
        print(text, flush=True)

    for number in range(0, int(count), 5):
        await asyncio.gather(*(one(number + more) for more in range(5)))
    await store.close()


async def create(url: str) -> None:
    """Open the file, which may not be there yet, and create one thread."""
    store = SqliteStore(url)
    await store.open()
    thread, _ = await store.create(NewThread("bot", [Draft("input", {"input": 1})]))
    await store.close()
    print(thread, flush=True)


async def listen(url: str, seconds: str) -> None:
    """Listen and do nothing."""
    store = SqliteStore(url)
    await store.open()
    store.listen(lambda thread_ids: None)
    print("ready", flush=True)
    await asyncio.sleep(float(seconds))
    os._exit(0)


if __name__ == "__main__":
    asyncio.run({"append": append, "create": create, "listen": listen}[sys.argv[1]](*sys.argv[2:]))
