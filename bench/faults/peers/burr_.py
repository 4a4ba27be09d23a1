"""Apache Burr: actions model → ask → pay, halted after `ask`, SQLitePersister, resumed at the next action."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import world
from burr.core import ApplicationBuilder, State, action, default, expr
from burr.core.persistence import SQLitePersister


@action(reads=["results"], writes=["call", "next"])
async def model(state: State) -> State:
    call = world.choose(state["results"])
    step = "done" if call is None else "ask" if world.needs_approval(call["args"]["amount"]) else "pay"
    return state.update(call=call, next=step)


@action(reads=["call"], writes=["asked"])
async def ask(state: State) -> State:
    # v2: await world.audit()
    return state.update(asked=state["call"]["id"])


@action(reads=[], writes=["approved"])
async def decided(state: State, kind: str) -> State:
    return state.update(approved=kind != "reject")


@action(reads=[], writes=["results"])
async def refused(state: State) -> State:
    return state.append(results="rejected by the user")


@action(reads=["call"], writes=["results"])
async def pay(state: State) -> State:
    await world.gap()
    try:
        async with asyncio.timeout(world.TIMEOUT):
            result = await world.pay(**state["call"]["args"], key=state["call"]["id"])
    except TimeoutError:
        result = "error: timed out"
    return state.append(results=result)


@action(reads=[], writes=["ended"])
async def done(state: State) -> State:
    return state.update(ended=True)


class Peer:
    def __init__(self, store: str) -> None:
        self.path = str(Path(store) / "burr.db")

    async def open(self) -> None:
        self.persister = SQLitePersister(self.path)
        self.persister.initialize()

    async def close(self) -> None:
        self.persister.connection.close()

    def _app(self) -> Any:
        builder = (
            ApplicationBuilder()
            .with_actions(model, ask, decided, refused, pay, done)
            .with_transitions(
                ("model", "done", expr("next == 'done'")),
                ("model", "ask", expr("next == 'ask'")),
                ("model", "pay", default),
                ("ask", "decided"),
                ("decided", "pay", expr("approved")),
                ("decided", "refused", default),
                ("refused", "model"),
                ("pay", "model"),
            )
            .with_identifiers(app_id="t1")
            .with_state_persister(self.persister)
            .initialize_from(self.persister, resume_at_next_action=True, default_state={"results": []}, default_entrypoint="model")
        )
        return builder.build()

    async def _run(self, **inputs: Any) -> str:
        last, _, _ = await self._app().arun(halt_after=["ask", "done"], inputs=inputs)
        return "waiting" if last.name == "ask" else last.name

    async def start(self) -> str:
        return await self._run()

    async def waiting(self) -> list[dict[str, Any]]:
        saved = self.persister.load(None, "t1")
        if saved is None or saved["position"] != "ask":
            return []
        return [{"call": "t1", "amount": saved["state"]["call"]["args"]["amount"]}]

    async def answer(self, kind: str, call: str, amount: Any) -> str:
        if kind == "edit":
            return "not offered: an answer is an input of the next action; changing the call with it is the program's own affair, unchecked"
        return await self._run(kind=kind)

    async def recover(self) -> str:
        return await self._run()
