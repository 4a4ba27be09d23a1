"""DBOS on SQLite: a workflow; model, rules and payment are steps; an approval is `recv` on a topic of the call."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

import world
from dbos import DBOS, SetWorkflowID

MONTH = 30 * 86_400


@DBOS.step()
async def model(results: list[str], said: list[str]) -> dict | None:
    return world.choose(results, said)


@DBOS.step()
async def needs_approval(amount: int) -> bool:
    return world.needs_approval(amount)


@DBOS.step()
async def audit() -> str:
    return await world.audit()


@DBOS.step(timeout_seconds=world.TIMEOUT)
async def pay(amount: Any) -> str:
    return await world.pay(amount, f"{DBOS.workflow_id}:{DBOS.step_id}")


@DBOS.workflow()
async def payer() -> str:
    results: list[str] = []
    said: list[str] = []
    while True:
        message = await DBOS.recv_async("message", timeout_seconds=0)
        if message:
            said.append(message)
        call = await model(results, said)
        if call is None:
            return "done"
        amount = call["args"]["amount"]
        await world.gap()
        if await needs_approval(amount):
            # v2: if await DBOS.patch_async("audit"): await audit()
            await DBOS.set_event_async("waiting", {"call": call["id"], "amount": amount})
            answer = await DBOS.recv_async("answer/" + call["id"], timeout_seconds=MONTH)
            await DBOS.set_event_async("waiting", None)
            if answer == "reject":
                results.append("rejected by the user")
                continue
        try:
            results.append(await pay(amount))
        except Exception as error:
            results.append(f"error: {error}")


class Peer:
    LEAVES_AT_ONCE = True

    def __init__(self, store: str) -> None:
        self.url = f"sqlite:///{Path(store) / 'dbos.sqlite'}"

    async def open(self) -> None:
        logging.getLogger("dbos").setLevel(logging.ERROR)
        executor = f"worker-{os.environ.get('FAULTS_WORKER', '0')}"
        version = {"application_version": "1"}  # pinned, with DBOS.patch where code changes: its documentation's first way
        DBOS(config={"name": "payer", "system_database_url": self.url, "log_level": "ERROR", "executor_id": executor, **version})
        DBOS.launch()

    async def close(self) -> None:
        DBOS.destroy()

    async def _settled(self, before: str | None = None, seconds: float = 60) -> str:
        """Wait until the workflow ends or waits for another call than before."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            status = await DBOS.get_workflow_status_async("t1")
            if status and status.status not in ("PENDING", "ENQUEUED", "DELAYED"):
                return "done" if status.status == "SUCCESS" else f"failed: {status.status} {status.error}"
            waiting = await self.waiting()
            if waiting and waiting[0]["call"] != before:
                return "waiting"
            await asyncio.sleep(0.05)
        return "still at work"

    async def start(self) -> str:
        with SetWorkflowID("t1"):
            await DBOS.start_workflow_async(payer)
        return await self._settled()

    async def waiting(self) -> list[dict[str, Any]]:
        found = await DBOS.get_event_async("t1", "waiting", timeout_seconds=0)
        return [found] if found else []

    async def answer(self, kind: str, call: str, amount: Any) -> str:
        if kind == "edit":
            return "not offered: a message may carry other arguments, and what comes of them is the program's own affair, unchecked"
        await DBOS.send_async("t1", kind, topic="answer/" + call)
        return await self._settled(call)

    async def recover(self) -> str:
        await asyncio.sleep(5)  # it goes on by itself, and what it waited for before still stands in its event
        return await self._settled()

    async def say(self, text: str) -> str:
        await DBOS.send_async("t1", text, topic="message")
        return await self._settled()
