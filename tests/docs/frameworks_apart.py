"""Runs a program of docs/gate in the environment of the frameworks: `python frameworks_apart.py FRAMEWORK PROGRAM`, the model replaced by the
framework's own fake. What happened is one line of JSON: by scenario, what was deployed, what the agent said in the end, and what people saw."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import sys
import types
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ownloop import App
from ownloop.errors import AlreadyDecided
from ownloop.testing import FakeClock, crash_everywhere, drive

ONE, TWO_AT_ONCE, ONE_AFTER_ANOTHER = [["v1"]], [["v1", "v2"]], [["v1"], ["v2"]]
Begin = Callable[[str], Awaitable[Any]]


class World:
    """What the fake model is to choose, turn by turn, and what has happened. `fails`: how often the model still raises once it has read a result."""

    def __init__(self) -> None:
        self.plan: list[list[str]] = ONE
        self.run = ""
        self.fails = 0
        self.deployed: list[str] = []
        self.numbers = itertools.count()

    def deploy(self, tag: str) -> str:
        self.deployed.append(tag)
        if tag == "broken":
            raise OSError("the registry is down")
        return f"{tag} deployed"

    def next(self, turn: int, results: list[str]) -> list[tuple[str, dict[str, str]]] | str:
        """Calls as (id, arguments), or the text at the end."""
        if results and self.fails:
            self.fails -= 1
            raise ConnectionError("the model is down")
        if turn < len(self.plan):
            return [(f"call_{self.run}_{turn}_{place}", {"tag": tag}) for place, tag in enumerate(self.plan[turn])]
        return "; ".join(results)


def loaded(path: str, stand_in: types.ModuleType) -> Any:
    sys.modules[stand_in.__name__] = stand_in
    spec = importlib.util.spec_from_file_location("deploy_gate", path)
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    sys.modules["deploy_gate"] = program
    spec.loader.exec_module(program)
    return program


# ---- the frameworks, each with its own fake ------------------------------------------------------------------------------------------------


def langgraph(world: World, path: str) -> tuple[Any, Begin, Callable[[Any, Any], Awaitable[str]]]:
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage, ToolMessage
    from langgraph.checkpoint.memory import InMemorySaver

    async def model(state: Any) -> Any:
        turns = [one for one in state["messages"] if isinstance(one, AIMessage)]
        chosen = world.next(len(turns), [one.content for one in state["messages"] if isinstance(one, ToolMessage)])
        calls = [{"name": "deploy", "args": arguments, "id": call_id} for call_id, arguments in chosen] if isinstance(chosen, list) else []
        answer = AIMessage("" if calls else str(chosen), tool_calls=calls)
        return {"messages": [await GenericFakeChatModel(messages=iter([answer])).ainvoke(state["messages"])]}

    yours = types.ModuleType("my_graph")
    yours.__dict__.update(model=model, deploy=world.deploy, checkpointer=InMemorySaver())
    program = loaded(path, yours)

    async def begin(run: str) -> Any:
        return await program.graph.ainvoke({"messages": [("user", "deploy")]}, {"configurable": {"thread_id": run}})

    async def end(d: Any, run: str) -> str:
        state = await program.graph.aget_state({"configurable": {"thread_id": run}})
        return str(state.values["messages"][-1].content) if not state.next else f"parked before {state.next}"

    return program, begin, end


def pydantic_ai(world: World, path: str) -> tuple[Any, Begin, Callable[[Any, Any], Awaitable[str]]]:
    from pydantic_ai import models
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
    from pydantic_ai.models.function import FunctionModel

    models.ALLOW_MODEL_REQUESTS = False

    def model(messages: list[Any], info: Any) -> ModelResponse:
        turns = [one for one in messages if isinstance(one, ModelResponse)]
        results = [str(part.content) for one in messages for part in one.parts if isinstance(part, ToolReturnPart)]
        chosen = world.next(len(turns), results)
        if isinstance(chosen, str):
            return ModelResponse(parts=[TextPart(chosen)])
        return ModelResponse(parts=[ToolCallPart("deploy", arguments, tool_call_id=call_id) for call_id, arguments in chosen])

    yours = types.ModuleType("my_tools")
    yours.__dict__.update(deploy=world.deploy)
    program = loaded(path, yours)
    program.agent.model = FunctionModel(model)
    return program, lambda run: program.ask("deploy"), last_result


def openai_agents(world: World, path: str) -> tuple[Any, Begin, Callable[[Any, Any], Awaitable[str]]]:
    from agents import set_tracing_disabled
    from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

    set_tracing_disabled(True)

    def respond(call: Any) -> Any:
        items = call.input if isinstance(call.input, list) else []
        results = [str(item["output"]) for item in items if item.get("type") == "function_call_output"]
        calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
        chosen = world.next(len({one.split("_")[2] for one in calls}), results)
        if isinstance(chosen, str):
            return [assistant_message(chosen)]
        return [function_call("deploy", arguments, call_id=call_id, item_id=call_id) for call_id, arguments in chosen]

    yours = types.ModuleType("my_tools")
    yours.__dict__.update(deploy=world.deploy)
    program = loaded(path, yours)
    program.agent.model = ScriptedModel([ModelStep.respond(respond) for _ in range(1000)])
    return program, lambda run: program.ask("deploy"), last_result


async def last_result(d: Any, run: str) -> str:
    views = await d.threads()
    return str((await d.show(views[0].id)).result)  # the newest


# ---- scenarios -----------------------------------------------------------------------------------------------------------------------------


class Scenarios:
    def __init__(self, framework: str, path: str) -> None:
        self.world = World()
        makers = {"langgraph": langgraph, "pydantic-ai": pydantic_ai, "openai-agents": openai_agents}
        self.program, self._begin, self._end = makers[framework](self.world, path)

    def app(self, url: Any, clock: FakeClock) -> App:
        self.program.gate = app = App(url, clock=clock)
        app.add(self.program.guarded_deploy)
        return app

    async def begin(self, plan: list[list[str]]) -> str:
        self.world.plan, self.world.run, self.world.deployed = plan, f"r{next(self.world.numbers)}", []
        await self._begin(self.world.run)
        return self.world.run

    async def played(self, plan: list[list[str]], decide: Callable[[Any, Any], Awaitable[Any]]) -> dict[str, Any]:
        """Start, and decide one interrupt after the other until none is left."""
        clock, asked = FakeClock(), []
        async with drive(self.app("memory://", clock), clock) as d:
            run = await self.begin(plan)
            await d.settle()
            while waiting := await d.interrupts():
                asked.append([waiting[0].name, dict(waiting[0].intent)])
                await decide(d, waiting[0])
                await d.settle()
            failed = [one.id for one in await d.threads(status="failed")]
            for thread in failed:
                await d.retry(thread)
            await d.settle()
            return {"deployed": self.world.deployed, "said": await self._end(d, run), "asked": asked, "failed": len(failed)}

    async def all(self) -> dict[str, Any]:
        approve = lambda d, one: d.approve(one, by="ops")  # noqa: E731
        return {
            "approved": await self.played(ONE, approve),
            "rejected": await self.played(ONE, lambda d, one: d.reject(one, by="ops", note="not on a Friday")),
            "edited": await self.played(ONE, lambda d, one: d.edit(one, {"tag": "v9"}, by="ops")),
            "answered": await self.played(ONE, lambda d, one: d.respond(one, "it is live already", by="ops")),
            "raised": await self.played([["broken"]], approve),
            "two_at_once": await self.played(TWO_AT_ONCE, approve),
            "one_after_another": await self.played(ONE_AFTER_ANOTHER, approve),
            "decided_by_two": await self.played(ONE, twice),
            "model_down": await self.model_down(approve),
            "crashed": await self.crashed(),
        }

    async def model_down(self, approve: Any) -> dict[str, Any]:
        self.world.fails = 1
        return await self.played(ONE, approve)

    async def crashed(self) -> dict[str, Any]:
        """The gate's process dies before and after each of its writes."""

        said: list[str] = []

        async def scenario(d: Any) -> None:
            run = await self.begin(ONE_AFTER_ANOTHER)
            await d.settle()
            while waiting := [one for one in await d.interrupts() if one.kind == "approval"]:
                await d.approve(waiting[0], by="ops")
                await d.settle()
            said.append(await self._end(d, run))

        report = await crash_everywhere(scenario, self.app, url="memory://")
        return {"runs": report.runs, "lost": report.lost, "silent": report.silent, "asked": len(report.asked), "said": said}


async def twice(d: Any, waiting: Any) -> None:
    await d.approve(waiting, by="ops")
    try:
        await d.approve(waiting, by="ops")
    except AlreadyDecided:
        return
    raise AssertionError("the second decision was taken")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Scenarios(sys.argv[1], str(Path(sys.argv[2]).resolve())).all())))
