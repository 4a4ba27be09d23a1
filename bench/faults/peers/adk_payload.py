"""Google ADK with "advanced confirmation": the tool asks by itself, with a payload that a person may change, and reads the answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import world
from google.adk.agents import LlmAgent
from google.adk.tools import FunctionTool, ToolContext
from google.genai import types

sys.path.insert(0, str(Path(__file__).parent))
import adk


async def pay(amount: int, tool_context: ToolContext) -> dict:
    """Pay."""
    answer = tool_context.tool_confirmation
    if answer is None and world.needs_approval(amount):
        tool_context.request_confirmation(hint=f"pay {amount}? A lower amount may be given.", payload={"amount": amount})
        return {"status": "requires confirmation"}
    if answer is None:
        return await adk.pay(amount, tool_context)
    if not answer.confirmed:
        return {"error": "rejected by the user"}
    return await adk.pay(min(answer.payload["amount"], amount), tool_context)


agent = LlmAgent(name="payer", model=adk.Fake(model="fake"), tools=[FunctionTool(pay)], before_tool_callback=adk.before_tool)


class Peer(adk.Peer):
    AGENT = agent

    async def answer(self, kind: str, call: list[str], amount: Any) -> str:
        function_call, invocation = call
        [asked] = [one for one in await self.asked() if one.id == function_call]
        payload = {"amount": amount} if kind == "edit" else asked.args["toolConfirmation"]["payload"]
        response = types.FunctionResponse(id=function_call, name=adk.CONFIRM, response={"confirmed": kind != "reject", "payload": payload})
        return await self._run(types.Content(role="user", parts=[types.Part(function_response=response)]), invocation_id=invocation)
