"""What `Model` adds to a call of the provider's own SDK, against a server on this machine that answers at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from ownloop import Intent, Thread
from ownloop.llm import Model

from .agents import Deploy, Done, Work
from .measure import Result, main, median

CALLS = 50
PROMPT = "Deploy the newest tag. " * 100
CALL = {"id": "call_0", "type": "function", "function": {"name": "deploy", "arguments": '{"tag": "v1"}'}}
BODY = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [CALL]}, "finish_reason": "tool_calls"}],
    "usage": {"prompt_tokens": 500, "completion_tokens": 10, "total_tokens": 510},
}


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: every request gets the same answer."""
    body = json.dumps(BODY).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    try:
        while True:
            asked = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in asked.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            writer.write(head + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):  # the client is gone, or all is over
        writer.close()


@asynccontextmanager
async def provider() -> AsyncIterator[str]:
    """The address of a provider that answers at once, in this event loop."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


def raw(address: str) -> Callable[[], Awaitable[object]]:
    """The same question by the SDK, its answer parsed and validated: what a user would write without us."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=address, api_key="none", max_retries=0)
    tools: Any = [tool_of(intent) for intent in (Work, Deploy, Done)]

    async def call() -> object:
        found = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": PROMPT}], tools=tools, tool_choice="required"
        )
        first: Any = (found.choices[0].message.tool_calls or [])[0]
        return Deploy.model_validate_json(first.function.arguments)

    return call


def tool_of(intent: type[Intent]) -> dict[str, Any]:
    schema = intent.model_json_schema()
    return {"type": "function", "function": {"name": intent.intent_name, "description": schema.pop("description", ""), "parameters": schema}}


def ours(address: str) -> Callable[[], Awaitable[object]]:
    model = Model[Work | Deploy | Done](f"openai:gpt-4o-mini@{address}", prompt=lambda thread: PROMPT)
    thread: Any = Thread.__new__(Thread)  # the prompt does not read it
    return lambda: model(thread)


async def seconds(call: Callable[[], Awaitable[object]], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await call()
    return (time.perf_counter() - began) / calls


async def rounds_of(rounds: int) -> list[tuple[float, float]]:
    """Seconds a call, the SDK's and ours, in turn."""
    async with provider() as address:
        floor, own = raw(address), ours(address)
        if await floor() != await own():
            raise AssertionError("the SDK and Model read one answer differently")
        pairs = []
        for number in range(rounds):
            order = (floor, own) if number % 2 else (own, floor)
            taken = {call: await seconds(call, CALLS) for call in order}
            pairs.append((taken[floor], taken[own]))
        return pairs


def measure(rounds: int = 15) -> list[Result]:
    pairs = asyncio.run(rounds_of(rounds))
    floor, own = median([one for one, _ in pairs]), median([one for _, one in pairs])
    over = median([own - floor for floor, own in pairs])
    return [
        Result(
            "Model: one selection by a tool call, server on this machine",
            "≤ 3 ms over the openai SDK's own call",
            f"{over * 1e3:+.2f} ms ({own * 1e3:.2f} ms a call)",
            f"{floor * 1e3:.2f} ms a call",
            over <= 0.003,
        )
    ]


if __name__ == "__main__":
    main(measure)
