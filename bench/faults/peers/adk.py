"""Google ADK: a FunctionTool with `require_confirmation`, SqliteSessionService, a resumable app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import world
from google.adk.agents import LlmAgent
from google.adk.apps.app import App, ResumabilityConfig
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.adk.tools import FunctionTool, ToolContext
from google.genai import types

logging.disable(logging.WARNING)
CONFIRM = "adk_request_confirmation"
SESSION = {"user_id": "u", "session_id": "t1"}


class Fake(BaseLlm):
    async def generate_content_async(self, request: Any, stream: bool = False) -> AsyncIterator[LlmResponse]:
        parts = [(content.role, part) for content in request.contents for part in content.parts or []]
        answers: dict[Any, str] = {}  # by call: the one that ADK gives for a call that waits is replaced by its result
        for _, part in parts:
            if part.function_response and part.function_response.name == "pay":
                given = part.function_response.response or {}
                answers[part.function_response.id] = str(given.get("result") or given.get("error") or given)
        results = [one for one in answers.values() if "requires confirmation" not in one]
        said = [part.text for role, part in parts if role == "user" and part.text][1:]
        call = world.choose(results, said)
        part = types.Part(function_call=types.FunctionCall(id=call["id"], name="pay", args=call["args"])) if call else types.Part(text="done")
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


async def pay(amount: int, tool_context: ToolContext) -> dict:
    """Pay."""
    try:
        async with asyncio.timeout(world.TIMEOUT):
            return {"result": await world.pay(amount, tool_context.function_call_id)}
    except TimeoutError:
        return {"error": "timed out"}


def over_limit(amount: int, tool_context: ToolContext) -> bool:
    return world.needs_approval(amount)


async def before_tool(tool: Any, args: dict, tool_context: ToolContext) -> None:
    # v2: await world.audit()
    await world.gap()


agent = LlmAgent(name="payer", model=Fake(model="fake"), tools=[FunctionTool(pay, require_confirmation=over_limit)], before_tool_callback=before_tool)


class Peer:
    AGENT = agent

    def __init__(self, store: str) -> None:
        self.service = SqliteSessionService(str(Path(store) / "adk.db"))
        app = App(name="payer", root_agent=self.AGENT, resumability_config=ResumabilityConfig(is_resumable=True))
        self.runner = Runner(app=app, session_service=self.service)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        await self.service.close()

    async def _run(self, message: Any, **options: Any) -> str:
        waits = False
        async for event in self.runner.run_async(**SESSION, new_message=message, **options):
            waits = waits or any(call.name == CONFIRM for call in event.get_function_calls())
        return "waiting" if waits else "done"

    async def _session(self) -> Any:
        return await self.service.get_session(app_name="payer", **SESSION)

    async def asked(self) -> list[Any]:
        session = await self._session()
        return [call for event in session.events for call in event.get_function_calls() if call.name == CONFIRM]

    async def start(self) -> str:
        await self.service.create_session(app_name="payer", **SESSION)
        return await self._run(types.UserContent("pay"))

    async def waiting(self) -> list[dict[str, Any]]:
        session = await self._session()
        events = session.events if session else []
        answered = {one.id for event in events for one in event.get_function_responses() if one.name == CONFIRM}
        return [
            {"call": [call.id, event.invocation_id], "amount": call.args["originalFunctionCall"]["args"]["amount"]}
            for event in events
            for call in event.get_function_calls()
            if call.name == CONFIRM and call.id not in answered
        ]

    async def answer(self, kind: str, call: list[str], amount: Any) -> str:
        if kind == "edit":
            return "not offered: `require_confirmation` knows yes and no"
        function_call, invocation = call
        response = types.FunctionResponse(id=function_call, name=CONFIRM, response={"confirmed": kind == "approve"})
        message = types.Content(role="user", parts=[types.Part(function_response=response)])
        return await self._run(message, invocation_id=invocation)

    async def recover(self) -> str:
        session = await self._session()
        return await self._run(None, invocation_id=session.events[-1].invocation_id)

    async def say(self, text: str) -> str:
        return await self._run(types.UserContent(text))
