"""ownloop on SQLite: a loop of one's own, `approved` between the selection and the call."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import world

from ownloop import Actor, App, Happened, Intent, Interrupt, Thread, current_call, tool

ANA = Actor("ana", ("ops",))
STORE_CLASS: Any = None
"""A store to use instead, for tests that break it: called with the path of the database."""


class Pay(Intent):
    amount: int


class Done(Intent):
    """Nothing is left to do."""


def results(thread: Thread) -> list[str]:
    found = []
    for step in thread.steps:
        runs = [one for one in step.operations if one.name == "pay"]
        if runs:
            found.append(str(runs[-1].value or f"error: {runs[-1].error}"))
        elif step.name == "pay":
            found.append("rejected")
    return found


async def decide(thread: Thread) -> Pay | Done:
    call = world.choose(results(thread), [event.data["text"] for event in thread.events if event.kind == "message"])
    return Pay(**call["args"]) if call else Done()


async def pay(amount: int) -> str:
    return await world.pay(amount, current_call().key)


paying = tool(pay, timeout=f"{world.TIMEOUT}s" if world.TIMEOUT else None)


async def payer(thread: Thread) -> str:
    while True:
        step = await thread.next_step(decide)
        match step.intent:
            case Pay(amount=amount):
                await world.gap()
                # v2: await step.run(world.audit)
                if not world.needs_approval(amount) or await step.approved(by="ops"):
                    await step.run(paying)
            case Done():
                return "done"


class Peer:
    def __init__(self, store: str) -> None:
        path = str(Path(store) / "ownloop.db")
        self.app = App(STORE_CLASS(path) if STORE_CLASS else f"sqlite:///{path}", lease="3s")
        self.app.add(payer)

    async def open(self) -> None:
        await self.app.__aenter__()

    async def close(self) -> None:
        await self.app.aclose()

    async def _settled(self, seconds: float = 60) -> str:
        """Wait until the thread ends or waits for a person."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            [thread] = await self.app.threads(agent="payer", key="t1")
            if thread.status != "open":
                error = f": {thread.error.message}" if thread.error else ""
                return f"{thread.status}{error}"
            if any(one.kind != "timer" for one in await self.app.interrupts(thread=("payer", "t1"))):
                return "waiting"
            await asyncio.sleep(0.02)
        return "still at work"

    async def start(self) -> str:
        await self.app.start("payer", "pay", key="t1")
        return await self._settled()

    async def waiting(self) -> list[dict[str, Any]]:
        open = await self.app.interrupts(thread=("payer", "t1"), kind="approval")
        return [{"call": [one.id, one.digest], "amount": (one.intent or {}).get("amount")} for one in open]

    async def answer(self, kind: str, call: list[str], amount: Any) -> str:
        interrupt, digest = call
        if kind == "edit":
            await self.app.edit(interrupt, {"amount": amount}, by=ANA, digest=digest)
        elif kind == "reject":
            await self.app.reject(interrupt, by=ANA, digest=digest)
        else:
            await self.app.approve(interrupt, by=ANA, digest=digest)
        return await self._settled()

    async def recover(self) -> str:
        return await self._settled()

    async def say(self, text: str) -> str:
        await self.app.send(("payer", "t1"), text, by=ANA)
        await asyncio.sleep(0.5)  # one wake
        return await self._settled()

    async def _doubts(self) -> list[Interrupt]:
        return await self.app.interrupts(thread=("payer", "t1"), kind="in_doubt")

    async def questions(self) -> list[str]:
        return [str(one.question) for one in await self._doubts()]

    async def happened(self) -> str:
        for one in await self._doubts():
            await self.app.answer(one, Happened("paid, says the bank"), by=ANA)
        return await self._settled()
