"""LangGraph: nodes model → gate → tools, `interrupt()` in a node of its own, the SQLite checkpointer with durability="sync"."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import world
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt
from pydantic import BaseModel

THREAD = {"configurable": {"thread_id": "t1"}}


class State(TypedDict):
    messages: Annotated[list, add_messages]


class Answer(BaseModel):
    type: Literal["approve", "reject", "edit"]
    amount: int | None = None


async def model(state: State) -> dict:
    said = [one.content for one in state["messages"][1:] if isinstance(one, HumanMessage)]
    call = world.choose([one.content for one in state["messages"] if isinstance(one, ToolMessage)], said)
    return {"messages": [AIMessage("", tool_calls=[call]) if call else AIMessage("done")]}


def route(state: State) -> str:
    calls = state["messages"][-1].tool_calls
    if not calls:
        return END
    # v2: return "audit" if world.needs_approval(calls[0]["args"]["amount"]) else "tools"
    return "gate" if world.needs_approval(calls[0]["args"]["amount"]) else "tools"


async def audit(state: State) -> dict:
    await world.audit()
    return {}


async def gate(state: State) -> Command[Literal["model", "tools"]]:
    last = state["messages"][-1]
    [call] = last.tool_calls
    answer = interrupt({"pay": call["args"]}, response_schema=Answer)
    if answer.type == "reject":
        return Command(goto="model", update={"messages": [ToolMessage("rejected by the user", tool_call_id=call["id"])]})
    if answer.type == "edit":
        edited = {**call, "args": {"amount": answer.amount}}
        return Command(goto="tools", update={"messages": [AIMessage("", tool_calls=[edited], id=last.id)]})
    return Command(goto="tools")


async def tools(state: State) -> dict:
    await world.gap()
    [call] = state["messages"][-1].tool_calls
    return {"messages": [ToolMessage(await world.pay(**call["args"], key=call["id"]), tool_call_id=call["id"])]}


def graph() -> StateGraph:
    built = StateGraph(State)
    built.add_node("model", model)
    built.add_node("audit", audit)
    built.add_node("gate", gate)
    built.add_node("tools", tools, timeout=world.TIMEOUT)
    built.add_edge(START, "model")
    built.add_conditional_edges("model", route, ["audit", "gate", "tools", END])
    built.add_edge("audit", "gate")
    built.add_edge("tools", "model")
    return built


class Peer:
    BY_ID = False

    def __init__(self, store: str) -> None:
        self.path = str(Path(store) / "langgraph.db")

    async def open(self) -> None:
        self.saver = AsyncSqliteSaver.from_conn_string(self.path)
        self.graph = graph().compile(checkpointer=await self.saver.__aenter__())

    async def close(self) -> None:
        await self.saver.__aexit__(None, None, None)

    async def _go(self, input: Any) -> str:
        result = await self.graph.ainvoke(input, THREAD, durability="sync")
        return "waiting" if "__interrupt__" in result else "done"

    async def start(self) -> str:
        return await self._go({"messages": [HumanMessage("pay")]})

    async def waiting(self) -> list[dict[str, Any]]:
        state = await self.graph.aget_state(THREAD)
        return [{"call": one.id, "amount": one.value["pay"]["amount"]} for one in state.interrupts]

    async def answer(self, kind: str, call: str, amount: Any) -> str:
        value = {"type": kind, "amount": amount}
        return await self._go(Command(resume={call: value} if self.BY_ID else value))

    async def recover(self) -> str:
        return await self._go(None)

    async def say(self, text: str) -> str:
        return await self._go({"messages": [HumanMessage(text)]})
