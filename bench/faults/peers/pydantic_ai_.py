"""Pydantic AI: a tool that raises `ApprovalRequired`, messages kept in SQLite by hand as its documentation advises, one row a message."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import world
from pydantic_ai import Agent, ApprovalRequired, DeferredToolRequests, DeferredToolResults, RunContext, ToolApproved, ToolDenied
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    RetryPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import FunctionModel


async def fake(messages: list[ModelMessage], info: Any) -> ModelResponse:
    parts = [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]
    results = [str(part.content) for part in parts if isinstance(part, ToolReturnPart | RetryPromptPart)]
    call = world.choose(results, [str(part.content) for part in parts if isinstance(part, UserPromptPart)][1:])
    return ModelResponse(parts=[ToolCallPart("pay", call["args"], tool_call_id=call["id"]) if call else TextPart("done")])


agent = Agent(FunctionModel(fake), output_type=[str, DeferredToolRequests], retries=3)


@agent.tool(timeout=world.TIMEOUT)
async def pay(ctx: RunContext, amount: int) -> str:
    if world.needs_approval(amount) and not ctx.tool_call_approved:
        raise ApprovalRequired
    # v2: await world.audit()
    return await world.pay(amount, ctx.tool_call_id)


class Peer:
    def __init__(self, store: str) -> None:
        self.path = str(Path(store) / "messages.db")

    async def open(self) -> None:
        self.db = sqlite3.connect(self.path, isolation_level=None, timeout=10)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("CREATE TABLE IF NOT EXISTS messages (place INTEGER PRIMARY KEY, body TEXT)")
        self.db.execute("CREATE TABLE IF NOT EXISTS waiting (call TEXT PRIMARY KEY, amount)")

    async def close(self) -> None:
        self.db.close()

    def _save(self, messages: list[ModelMessage]) -> None:
        for place, one in enumerate(messages):
            body = ModelMessagesTypeAdapter.dump_json([one]).decode()
            self.db.execute("INSERT OR REPLACE INTO messages VALUES (?, ?)", (place, body))

    def _load(self) -> list[ModelMessage]:
        rows = self.db.execute("SELECT body FROM messages ORDER BY place")
        return [ModelMessagesTypeAdapter.validate_json(body)[0] for (body,) in rows]

    async def _run(self, prompt: str | None, history: list[ModelMessage], results: DeferredToolResults | None = None) -> str:
        async with agent.iter(prompt, message_history=history, deferred_tool_results=results) as run:
            async for node in run:
                messages = list(run.ctx.state.message_history)
                if Agent.is_call_tools_node(node):
                    if messages[-1] is not node.model_response:
                        messages.append(node.model_response)
                    self._save(messages)
                    if node.model_response.tool_calls:
                        await world.gap()
                else:
                    self._save(messages)
            assert run.result is not None
            self._save(run.all_messages())
            output = run.result.output
        self.db.execute("DELETE FROM waiting")
        if isinstance(output, DeferredToolRequests):
            for call in output.approvals:
                self.db.execute("INSERT INTO waiting VALUES (?, ?)", (call.tool_call_id, call.args_as_dict()["amount"]))
            return "waiting"
        return "done"

    async def start(self) -> str:
        return await self._run("pay", [])

    async def waiting(self) -> list[dict[str, Any]]:
        return [{"call": call, "amount": amount} for call, amount in self.db.execute("SELECT call, amount FROM waiting")]

    async def answer(self, kind: str, call: str, amount: Any) -> str:
        edited = ToolApproved(override_args={"amount": amount}) if kind == "edit" else ToolApproved()
        answer = ToolDenied("rejected by the user") if kind == "reject" else edited
        return await self._run(None, self._load(), DeferredToolResults(approvals={call: answer}))

    async def recover(self) -> str:
        return await self._run(None, self._load())

    async def say(self, text: str) -> str:
        return await self._run(text, self._load())
