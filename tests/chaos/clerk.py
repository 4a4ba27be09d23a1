"""The old version of an agent; the test edits this text into its successors.

Run as a program: URL, ledger, the version's name.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from ownloop import App, Intent, Thread


class Deploy(Intent):
    """Needs a person."""

    tag: str


class Charge(Intent):
    """Takes money, waits for the bank, and writes a receipt."""

    cents: int


class Done(Intent):
    """Nothing is left to do."""


def note(*words: object) -> None:
    """One line of the ledger, with the name of this version."""
    with Path(sys.argv[2]).open("a") as ledger:
        ledger.write(" ".join(map(str, (*words, sys.argv[3]))) + "\n")


async def decide(thread: Thread) -> Deploy | Charge | Done:
    if thread.steps:
        return Done()
    return Deploy(tag="v1") if str(thread.key).startswith("deploy") else Charge(cents=100)


async def deploy(key: str, tag: str) -> str:
    note(key, "deployed", tag)
    return tag


async def charge(key: str, cents: int, currency: str = "usd") -> int:
    note(key, "charged", cents)
    return cents


async def receipt(key: str) -> str:
    note(key, "receipt")
    return "sent"


async def clerk(thread: Thread) -> str:
    while True:
        step: Any = await thread.next_step(decide)
        match step.intent:
            case Deploy(tag=tag):
                if await step.approved(by="ops"):
                    await step.run(deploy, thread.key, tag)
            case Charge(cents=cents):
                await step.run(charge, thread.key, cents)
                await step.wait_for("bank", key=thread.key)
                await step.run(receipt, thread.key)
            case Done():
                return sys.argv[3]


async def serve() -> None:
    app = App(sys.argv[1], lease="2s")
    app.add(clerk)
    async with app:
        os.write(1, b"ready\n")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
