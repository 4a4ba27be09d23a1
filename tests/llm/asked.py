"""What the tests of `Model` ask with: a thread that is only a prompt, addresses of providers, and what was noted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from replay.server import Tape

from ownloop.llm.model import Model
from ownloop.tools import noting

ADDRESSES = {
    "openai_chat": "openai:gpt-4o-mini@{}/v1",
    "openai_responses": "openai-responses:gpt-5-mini@{}/v1",
    "anthropic": "anthropic:claude-sonnet-4-6@{}",
    "gemini": "google:gemini-2.5-flash@{}",
    "other": "openai:grok-4-1-fast@{}/v1",
}


class Listener:
    """A thread with somebody who listens, as far as a Model looks at it."""

    def __init__(self) -> None:
        self.id = "thr_of_a_test"
        self.heard: list[str] = []
        board = SimpleNamespace(say=lambda thread_id, text: self.heard.append(text))
        self._wake = SimpleNamespace(setting=SimpleNamespace(board=board))


class Asked:
    """One call of a Model: what came of it, what was noted for the log, and what listeners heard."""

    def __init__(self, answer: Any, noted: dict[str, Any], heard: list[str]) -> None:
        self.answer, self.noted, self.heard = answer, noted, heard


async def ask_at(provider: str, tape: Tape, choice: Any, **options: Any) -> Asked:
    """Ask the provider that the tape plays; an exception is the answer, too."""
    model = Model[choice](ADDRESSES[provider].format(tape.url), prompt=lambda thread: "What next?", **options)
    return await ask(model)


async def ask(model: Any) -> Asked:
    thread, noted = Listener(), dict[str, Any]()
    try:
        with noting(noted):
            answer = await model(thread)
    except Exception as error:
        answer = error
    return Asked(answer, noted, thread.heard)
