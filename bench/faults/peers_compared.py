"""The frameworks of the table, in its order."""

from __future__ import annotations

from .processes import HERE, Peer


def _peer(name: str, module: str, environment: str, disk_mb: int = 32, old_code_stays: bool = False) -> Peer:
    return Peer(name, HERE / "peers" / f"{module}.py", environment, disk_mb, old_code_stays)


PEERS = {
    "ownloop": _peer("ownloop", "ownloop_", "ownloop"),
    "langgraph": _peer("LangGraph", "langgraph_", "langgraph"),
    "langgraph_ids": _peer("LangGraph (answers by id)", "langgraph_ids", "langgraph"),
    "openai": _peer("OpenAI Agents SDK", "openai_agents", "oai"),
    "pydantic_ai": _peer("Pydantic AI", "pydantic_ai_", "pydai"),
    "adk": _peer("Google ADK", "adk", "adk"),
    "adk_payload": _peer("Google ADK (answers with payload)", "adk_payload", "adk"),
    "dbos": _peer("DBOS", "dbos_", "dbos"),
    "burr": _peer("Burr", "burr_", "burr"),
    "llamaindex": _peer("LlamaIndex Workflows", "llamaindex", "llama"),
    "restate": _peer("Restate", "restate_", "restate", 512, old_code_stays=True),
}
