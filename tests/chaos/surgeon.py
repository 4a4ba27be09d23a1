"""A worker whose model and whose tool each wait for a file; it says where it is.

Run as a program: URL, folder, lease in seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from storm_worker import note

from ownloop import App, Intent, Thread


class Operate(Intent):
    """Something that must not be done twice."""


class Done(Intent):
    """Nothing is left to do."""


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def gate(path: Path) -> None:
    while not path.exists():
        await asyncio.sleep(0.01)


def surgeon(app: App, folder: Path, name: str) -> None:
    """An agent that operates once; it thinks until there is the file "NAME thinks", and operates until there is "NAME operates"."""

    async def decide(thread: Thread) -> Operate | Done:
        if thread.count(Operate):
            return Done()
        say("thinking", thread.key)
        await gate(folder / f"{name} thinks")
        return Operate()

    async def operate(key: str) -> str:
        say("operating", key)
        note(folder / "ledger", "began", key, name)
        await gate(folder / f"{name} operates")
        note(folder / "ledger", "effect", key, name)
        return f"by {name}"

    async def handle(thread: Thread) -> str:
        result = ""
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Operate():
                    result = (await step.run(operate, str(thread.key))).value
                case Done():
                    return result or "done"

    app.add(handle, name="surgeon", intents=(Operate, Done))


async def serve(url: str, folder: str, lease: str) -> None:
    app = App(url, lease=f"{lease}s")
    surgeon(app, Path(folder), "far")
    async with app:
        say("ready")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
