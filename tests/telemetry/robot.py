"""An agent for the tests of telemetry: it asks a model that is not there, waits for an approval, deploys, and does what its input says."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

from pydantic_ai.messages import ModelRequest, ModelResponse, SystemPromptPart, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.usage import RequestUsage

from ownloop import App, InDoubt, Intent, Thread, tool, watch
from ownloop.tools import annotate

SECRET = "the-word-that-must-not-leave"


class Deploy(Intent):
    """Deploy a tag."""

    tag: str


class Done(Intent):
    """The end."""


class Gpt:
    """What is told of a model."""

    name, provider = "openai:gpt-5-mini", "openai"


ANSWER = ModelResponse(
    parts=[TextPart(f"I say {SECRET}"), ToolCallPart("deploy", {"tag": SECRET}, "call_1")],
    usage=RequestUsage(input_tokens=120, output_tokens=30, cache_read_tokens=100, output_reasoning_tokens=7),
    model_name="gpt-5-mini-2026-01-01",
    provider_response_id="resp_1",
    finish_reason="tool_call",
)
QUESTION = [ModelRequest([SystemPromptPart("You deploy."), UserPromptPart(f"Deploy {SECRET}")])]


async def decide(thread: Thread) -> Deploy | Done:
    with watch.current.asking(Gpt(), thread, QUESTION) as heard:
        if thread.input == "down" and thread.count(Deploy):
            raise TimeoutError(f"no answer about {SECRET}")
        heard.answered(ANSWER)
    annotate(usage={"input_tokens": 120, "output_tokens": 30, "cost_usd": 0.0125, "requests": 1}, model="gpt-5-mini")
    return Done() if thread.count(Deploy) else Deploy(tag=SECRET)


async def deploy(tag: str) -> str:
    logging.getLogger("robot").info("deploying with password=%s", tag)
    return f"deployed {tag}"


async def broken(tag: str) -> str:
    raise RuntimeError(f"cannot deploy {tag}")


async def doubtful(tag: str) -> str:
    raise InDoubt("the reply was lost")


@tool(timeout="50ms")
async def slow(tag: str) -> str:
    await asyncio.sleep(0.3)
    return "at last"


@tool(reads=True)
def read(tag: str) -> str:
    return tag


TOOLS: dict[Any, Callable[..., Any]] = {"broken": broken, "doubtful": doubtful, "slow": slow, "read": read}


def robot_on(app: App, inside: Callable[[], Any] = lambda: None) -> App:
    """The agent on an App; `inside` is called in the handler, right before the call."""

    @app.agent
    async def robot(thread: Thread) -> str | None:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Deploy():
                    inside()
                    if thread.input == "crash":
                        raise ValueError(f"a bug with {SECRET}")
                    if thread.input == "sleep":
                        await step.sleep("1h")
                    elif thread.input in TOOLS:
                        await step.run(TOOLS[thread.input])
                    elif await step.approved(by="managers", expires="1h" if thread.input == "short" else None):
                        await step.run(deploy)
                case Done():
                    return "done"

    return app


app = robot_on(App(os.environ.get("ROBOT_STORE", "memory://")))
