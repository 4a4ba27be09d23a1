"""OpenAI Agents SDK: a function tool with `needs_approval`, SQLiteSession, the RunState kept as a string in a table."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import world
from agents import Agent, ModelResponse, RunConfig, RunContextWrapper, RunHooks, Runner, SQLiteSession, Usage, function_tool, set_tracing_disabled
from agents.models.interface import Model
from agents.run_state import RunState
from agents.tool_context import ToolContext
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

set_tracing_disabled(True)


class Fake(Model):
    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **options: Any) -> ModelResponse:
        items = input if isinstance(input, list) else []
        outputs = [str(one["output"]) for one in items if one.get("type") == "function_call_output"]
        said = [str(one["content"]) for one in items if one.get("role") == "user"][1:]
        call = world.choose(outputs, said)
        if call is None:
            text = ResponseOutputText(text="done", type="output_text", annotations=[])
            output: Any = ResponseOutputMessage(id="m", role="assistant", status="completed", type="message", content=[text])
        else:
            arguments = json.dumps(call["args"])
            output = ResponseFunctionToolCall(call_id=call["id"], name="pay", arguments=arguments, type="function_call", id="f" + call["id"])
        return ModelResponse(output=[output], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


async def over_limit(context: RunContextWrapper, params: dict, call_id: str) -> bool:
    # v2: await world.audit()
    return world.needs_approval(params["amount"])


@function_tool(needs_approval=over_limit, timeout=world.TIMEOUT)
async def pay(ctx: ToolContext, amount: int) -> str:
    return await world.pay(amount, ctx.tool_call_id)


class Hooks(RunHooks):
    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        await world.gap()


agent = Agent(name="payer", model=Fake(), tools=[pay])
CONFIG = RunConfig(tracing_disabled=True)


class Peer:
    def __init__(self, store: str) -> None:
        self.sessions, self.states = str(Path(store) / "session.db"), str(Path(store) / "states.db")

    async def open(self) -> None:
        self.db = sqlite3.connect(self.states, isolation_level=None, timeout=10)
        self.db.execute("CREATE TABLE IF NOT EXISTS paused (thread TEXT PRIMARY KEY, state TEXT)")
        self.session = SQLiteSession("t1", self.sessions)

    async def close(self) -> None:
        self.session.close()
        self.db.close()

    async def _run(self, input: Any) -> str:
        result = await Runner.run(agent, input, session=self.session, run_config=CONFIG, hooks=Hooks())
        if result.interruptions:
            self.db.execute("INSERT OR REPLACE INTO paused VALUES ('t1', ?)", (result.to_state().to_string(),))
            return "waiting"
        self.db.execute("DELETE FROM paused")
        return "done"

    async def _state(self) -> RunState | None:
        row = self.db.execute("SELECT state FROM paused").fetchone()
        return await RunState.from_string(agent, row[0]) if row else None

    async def start(self) -> str:
        return await self._run("pay")

    async def waiting(self) -> list[dict[str, Any]]:
        state = await self._state()
        return [{"call": one.call_id, "amount": json.loads(one.arguments)["amount"]} for one in state.get_interruptions()] if state else []

    async def answer(self, kind: str, call: str, amount: Any) -> str:
        if kind == "edit":
            return "not offered: a person can approve or reject, with a message to the model"
        state = await self._state()
        found = [one for one in state.get_interruptions() if one.call_id == call] if state else []
        if not found:
            return "nothing of this id waits (looked up by the program)"
        for one in found:
            state.approve(one) if kind == "approve" else state.reject(one)
        return await self._run(state)

    async def recover(self) -> str:
        return await self._run([])

    async def say(self, text: str) -> str:
        state = await self._state()
        state.add_input(text)
        self.db.execute("INSERT OR REPLACE INTO paused VALUES ('t1', ?)", (state.to_string(),))
        return "waiting"
