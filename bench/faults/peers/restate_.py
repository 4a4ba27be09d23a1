"""Restate: a workflow; model, rules and payment are `ctx.run`; an approval is a durable promise of the call. The server outlives the workers."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from datetime import timedelta
from typing import Any

import httpx
import hypercorn.asyncio
import restate
import world
from hypercorn.config import Config
from pydantic import BaseModel
from restate import Workflow, WorkflowContext, WorkflowSharedContext

logging.disable(logging.WARNING)
INGRESS, ADMIN = "http://127.0.0.1:28080", "http://127.0.0.1:29070"
WORKER = int(os.environ.get("FAULTS_WORKER", "0"))
VERSION = 0
# v2: VERSION = 10  # a deployment is immutable: other code has another address, and the old one stays up until its threads have ended
PORT = 29080 + VERSION + WORKER
payer = Workflow("payer", inactivity_timeout=timedelta(minutes=5), abort_timeout=timedelta(minutes=5))


async def choose(results: list, said: list) -> dict | None:
    return world.choose(results, said)


async def needs_approval(amount: int) -> bool:
    return world.needs_approval(amount)


async def pay(amount: Any, key: str) -> str:
    async with asyncio.timeout(world.TIMEOUT):
        return await world.pay(amount, key)


@payer.main()
async def run(ctx: WorkflowContext) -> str:
    results: list[str] = []
    while True:
        said = await ctx.promise("message").peek()
        call = await ctx.run_typed("model", choose, results=results, said=[said] if said else [])
        if call is None:
            return "done"
        amount = call["args"]["amount"]
        await world.gap()
        if await ctx.run_typed("rules", needs_approval, amount=amount):
            # v2: await ctx.run_typed("audit", world.audit)
            ctx.set("waiting", {"call": call["id"], "amount": amount})
            answer = await ctx.promise("answer/" + call["id"]).value()
            ctx.clear("waiting")
            if answer["kind"] == "reject":
                results.append("rejected by the user")
                continue
            if answer["kind"] == "edit":
                amount = answer["amount"]
        results.append(await ctx.run_typed("pay", pay, amount=amount, key=f"{ctx.request().id}/{call['id']}"))


class Given(BaseModel):
    call: str
    kind: str
    amount: int | None = None


@payer.handler()
async def answer(ctx: WorkflowSharedContext, given: Given) -> str:
    promise = ctx.promise("answer/" + given.call)
    if await promise.peek() is not None:
        return "already decided"
    await promise.resolve(given.model_dump())
    return "taken"


@payer.handler()
async def message(ctx: WorkflowSharedContext, text: str) -> None:
    await ctx.promise("message").resolve(text)


@payer.handler()
async def waits(ctx: WorkflowSharedContext) -> dict:
    return await ctx.get("waiting") or {}


app = restate.app([payer])


class Peer:
    LEAVES_AT_ONCE = True

    def __init__(self, store: str) -> None:
        self.http = httpx.AsyncClient(timeout=None)

    async def open(self) -> None:
        if WORKER == 0:  # else only a person, who needs no worker to answer
            await self.stand_by()

    async def stand_by(self) -> None:
        if hasattr(self, "worker"):
            return
        config = Config()
        config.bind, config.loglevel = [f"127.0.0.1:{PORT}"], "ERROR"
        self.worker = asyncio.ensure_future(hypercorn.asyncio.serve(app, config, shutdown_trigger=asyncio.Event().wait))
        await asyncio.sleep(0.2)
        registered = await self.http.post(ADMIN + "/deployments", json={"uri": f"http://127.0.0.1:{PORT}"})
        registered.raise_for_status()

    async def close(self) -> None:
        pass

    async def _post(self, path: str, body: Any = None) -> Any:
        answer = (
            await self.http.post(f"{INGRESS}/payer/t1/{path}", json=body) if body is not None else await self.http.post(f"{INGRESS}/payer/t1/{path}")
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    async def _output(self) -> str | None:
        answer = await self.http.get(f"{INGRESS}/restate/workflow/payer/t1/output")
        if answer.status_code == 470:
            return None
        return "done" if answer.status_code == 200 else f"failed: {answer.text}"

    async def _settled(self, before: str | None = None, seconds: float = 100) -> str:
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            if output := await self._output():
                return output
            waiting = await self.waiting()
            if waiting and waiting[0]["call"] != before:
                return "waiting"
            await asyncio.sleep(0.05)
        return "still at work"

    async def start(self) -> str:
        await self._post("run/send")
        return await self._settled()

    async def waiting(self) -> list[dict[str, Any]]:
        async with asyncio.timeout(5):
            found = await self._post("waits")
        return [found] if found else []

    async def answer(self, kind: str, call: str, amount: Any) -> str:
        said = await self._post("answer", {"call": call, "kind": kind, "amount": amount})
        settled = await self._settled(call)
        return settled if said == "taken" else f"{said}; {settled}"

    async def recover(self) -> str:
        await asyncio.sleep(5)  # the server drives it to this worker by itself
        return await self._settled()

    async def say(self, text: str) -> str:
        await self._post("message", text)
        return await self._settled()
