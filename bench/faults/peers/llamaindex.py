"""LlamaIndex Workflows: `wait_for_event` requires the call's id; the context is saved to SQLite by hand after each step, as its docs show."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import world
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StepState, StepStateChanged, StopEvent, UnhandledEvent


class Call(Event):
    call: dict


class Next(Event):
    result: str


class Wanted(Event):
    call: dict


class Ask(InputRequiredEvent):
    call: dict


class Answer(HumanResponseEvent):
    call: str
    kind: str
    amount: int | None = None


class Said(HumanResponseEvent):
    text: str


class Payer(Workflow):
    @step
    async def model(self, ctx: Context, ev: StartEvent | Next) -> Call | Wanted | StopEvent:
        results = await ctx.store.get("results", default=[])
        if isinstance(ev, Next):
            results = [*results, ev.result]
            await ctx.store.set("results", results)
        call = world.choose(results, await ctx.store.get("said", default=[]))
        if call is None:
            return StopEvent(result="done")
        if world.needs_approval(call["args"]["amount"]):
            # v2: await world.audit()
            return Wanted(call=call)
        return Call(call=call)

    @step
    async def gate(self, ctx: Context, ev: Wanted) -> Call | Next:
        name = ev.call["id"]
        asks, of_it = {"waiter_event": Ask(call=ev.call), "waiter_id": name}, {"call": name}
        answer = await ctx.wait_for_event(Answer, **asks, requirements=of_it, timeout=None)
        if answer.kind == "reject":
            return Next(result="rejected by the user")
        return Call(call={**ev.call, "args": {"amount": answer.amount}} if answer.kind == "edit" else ev.call)

    @step
    async def heard(self, ctx: Context, ev: Said) -> None:
        await ctx.store.set("said", [*await ctx.store.get("said", default=[]), ev.text])

    @step
    async def pay(self, ctx: Context, ev: Call) -> Next:
        await world.gap()
        try:
            async with asyncio.timeout(world.TIMEOUT):
                return Next(result=await world.pay(**ev.call["args"], key=ev.call["id"]))
        except TimeoutError:
            return Next(result="error: timed out")


class Peer:
    def __init__(self, store: str) -> None:
        self.path = str(Path(store) / "context.db")

    async def open(self) -> None:
        self.db = sqlite3.connect(self.path, isolation_level=None, timeout=10)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("CREATE TABLE IF NOT EXISTS contexts (thread TEXT PRIMARY KEY, body TEXT, waiting TEXT)")

    async def close(self) -> None:
        self.db.close()

    def _save(self, handler: Any, waiting: str | None) -> None:
        self.db.execute("INSERT OR REPLACE INTO contexts VALUES ('t1', ?, ?)", (json.dumps(handler.ctx.to_dict()), waiting))

    def _row(self) -> tuple[Any, Any]:
        return self.db.execute("SELECT body, waiting FROM contexts").fetchone() or (None, None)

    def _resumed(self) -> Any:
        workflow = Payer(timeout=None)
        return workflow.run(ctx=Context.from_dict(workflow, json.loads(self._row()[0])))

    async def _follow(self, handler: Any, waiting: str | None = None) -> str:
        async for event in handler.stream_events(expose_internal=True):
            if isinstance(event, Ask):
                self._save(handler, json.dumps(event.call))
                await handler.cancel_run()
                return "waiting"
            if isinstance(event, UnhandledEvent):
                await handler.cancel_run()
                return "waiting"
            if isinstance(event, StepStateChanged) and event.name.endswith("pay"):
                waiting = None
            if isinstance(event, StepStateChanged) and event.step_state == StepState.NOT_RUNNING:
                self._save(handler, waiting)
                if event.name.endswith("heard"):
                    await handler.cancel_run()
                    return "waiting"
        await handler
        self._save(handler, None)
        return "done"

    async def start(self) -> str:
        return await self._follow(Payer(timeout=None).run())

    async def waiting(self) -> list[dict[str, Any]]:
        waiting = self._row()[1]
        call = json.loads(waiting) if waiting else None
        return [{"call": call["id"], "amount": call["args"]["amount"]}] if call else []

    async def answer(self, kind: str, call: str, amount: Any) -> str:
        answer = Answer(call=call, kind=kind, amount=amount)
        handler = self._resumed()
        handler.ctx.send_event(answer)
        return await self._follow(handler, self._row()[1])

    async def recover(self) -> str:
        return await self._follow(self._resumed()) if self._row()[0] else "nothing was saved"

    async def say(self, text: str) -> str:
        waiting = self._row()[1]
        handler = self._resumed()
        handler.ctx.send_event(Said(text=text))
        return await self._follow(handler, waiting)
