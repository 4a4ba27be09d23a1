"""Every name that leaves this package, in one file.

`gen_ai.*` is that of the GenAI conventions: attributes and client metrics as in opentelemetry-semantic-conventions 0.66b2 (a test compares them),
the durations of agents and tools as in semantic-conventions-genai 0.1.0, where the conventions live now. All of it is still in development there, so
the strings stand here and not in an import that may move. What the conventions do not have begins with `ownloop.`. No metric carries an id.
"""

from __future__ import annotations

from collections.abc import Mapping

SCOPE = "ownloop"
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

# ---- operations, and what spans of them are called --------------------------------------------------------------------------

INVOKE_AGENT, CHAT, EXECUTE_TOOL = "invoke_agent", "chat", "execute_tool"

# ---- attributes of the conventions ------------------------------------------------------------------------------------------

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
CONVERSATION = "gen_ai.conversation.id"
AGENT_NAME = "gen_ai.agent.name"
AGENT_ID = "gen_ai.agent.id"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
ERROR_TYPE = "error.type"

PROVIDERS: Mapping[str, str] = {
    "openai-responses": "openai",
    "openai-chat": "openai",
    "azure": "azure.ai.openai",
    "google": "gcp.gemini",
    "google-gla": "gcp.gemini",
    "google-vertex": "gcp.vertex_ai",
    "google-cloud": "gcp.vertex_ai",
    "bedrock": "aws.bedrock",
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "grok": "x_ai",
}
"""How providers are called elsewhere, and how the conventions call them. Others keep their name."""
_KNOWN = frozenset({*PROVIDERS, *PROVIDERS.values(), "anthropic"})

# ---- own attributes and events of spans -------------------------------------------------------------------------------------

TURN = "ownloop.thread.turn"
PARENT = "ownloop.thread.parent"
WAKE_END = "ownloop.wake.end"
"""How a wake ended: "waiting", "turn", "failed", or why it was stopped ("paused", "cancelled", "lost", "shutdown", …)."""
STEP_ID = "ownloop.step.id"
STEP_NAME = "ownloop.step.name"
TRY = "ownloop.call.try"
"""From the second try on."""
CACHED = "ownloop.call.cached"
STOPPED = "ownloop.stopped"
"""Why a call or a request was cut, or not even started; it is no error."""
INTERRUPT_ID = "ownloop.interrupt.id"
INTERRUPT_REASON = "ownloop.interrupt.reason"
INTERRUPT_NAME = "ownloop.interrupt.name"
INTERRUPT_DECISION = "ownloop.interrupt.decision"
INTERRUPT_WAIT = "ownloop.interrupt.wait_s"
INTERRUPT_BY = "ownloop.interrupt.by"
"""Who decided; only with content."""

OPENED_EVENT = "ownloop.interrupt.opened"
DECISION_EVENT = "ownloop.decision"
CLOSED_EVENT = "ownloop.interrupt.closed"
MESSAGE_EVENT = "ownloop.message"
COMPACTED_EVENT = "ownloop.compacted"

# ---- metrics of the conventions ---------------------------------------------------------------------------------------------

TOKEN_USAGE = "gen_ai.client.token.usage"
CLIENT_DURATION = "gen_ai.client.operation.duration"
AGENT_DURATION = "gen_ai.invoke_agent.duration"
TOOL_DURATION = "gen_ai.execute_tool.duration"

TOKEN_BUCKETS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]
DURATION_BUCKETS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
AGENT_BUCKETS = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6]

# ---- own metrics; Prometheus shows `ownloop.interrupt.wait` in seconds as `ownloop_interrupt_wait_seconds` --------------------

PENDING = "ownloop.interrupts.pending"
OLDEST = "ownloop.interrupts.oldest"
OPENED = "ownloop.interrupt.opened"
DECISIONS = "ownloop.interrupt.decisions"
WAIT = "ownloop.interrupt.wait"
REFUSED = "ownloop.interrupt.refused"
IN_DOUBT = "ownloop.calls.in_doubt"
WAKE_LAG = "ownloop.wake.lag"
TIMERS_LAG = "ownloop.timers.lag"
LLM_TOKENS = "ownloop.llm.tokens"
LLM_COST = "ownloop.llm.cost_usd"
LIMITER_WAIT = "ownloop.limiter.wait"

# Their labels.
AGENT, KIND, TOOL, AGE, DECISION, REASON, MODEL, TYPE, LIMIT = "agent", "kind", "tool", "age", "decision", "reason", "model", "type", "limit"

WAIT_BUCKETS = [1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 3 * 86400, 7 * 86400]
LAG_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600]
AGES: Mapping[str, float] = {"under 1m": 60, "under 1h": 3600, "under 1d": 86400, "under 7d": 7 * 86400, "7d and more": float("inf")}
"""Classes of the age of what waits; the upper bound in seconds."""


def provider_of(model: object) -> str:
    """What the conventions call the model's provider."""
    name = str(getattr(model, "provider", None) or "unknown")
    return PROVIDERS.get(name, name)


def model_of(model: object) -> str:
    """The model's name without its provider: `gpt-5-mini` of "openai:gpt-5-mini"; `llama3:8b` stays."""
    name = str(getattr(model, "name", None) or "unknown")
    provider, _, rest = name.partition(":")
    return rest if rest and (provider == getattr(model, "provider", "") or provider in _KNOWN) else name


def tool_of(op: str) -> str:
    """The function's name in the key of a call: `restart` of "run:restart@web-1#2"; labels may be ids."""
    name = op.removeprefix("run:")
    for mark in "@#~":
        name = name.partition(mark)[0]
    return name


def limit_of(limit: str) -> str:
    """A rate limit without whose it is: `500/min` of "500/min of acme"."""
    return limit.partition(" of ")[0]


def error_type(error: BaseException) -> str:
    """`error.type`: the class, as the thread's log names it."""
    return type(error).__name__
