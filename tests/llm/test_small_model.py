"""A real model drives examples/deploybot.py to an end: SmolLM2-135M under llama.cpp, on this machine's cores.

Its choices make no sense and are not looked at. That every one has the shape of an intent, that the loop ends, and that nothing is deployed
without approval must hold for any model.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from ownloop import Actor, Event, Intent, Thread
from ownloop.intents import schema_of
from ownloop.llm import CutOff, InvalidAnswer, Model
from ownloop.prompt import thread_to_prompt
from ownloop.testing import Drive, FakeClock, drive

ROOT = Path(__file__).resolve().parent.parent.parent
for folder in ("examples", "tests/recipes"):
    if str(ROOT / folder) not in sys.path:
        sys.path.insert(0, str(ROOT / folder))
import deploybot  # noqa: E402
from recipe_provider import imported, saved, weights  # noqa: E402

GGUF = weights()
INSTRUCTIONS = "You deploy the backend. Select what comes next."
MIA = Actor("mia", ["release-managers"])
CAP = 4
"""Selections after which only Done is on offer: this model does not know when to stop."""
SEEDS = 5

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def at(tmp_path: Path) -> Any:
    repository = tmp_path / "repository"
    repository.mkdir()
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"]
    (repository / "VERSION").write_text("v1.0.0")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"], ["tag", "v1.0.0"]):
        subprocess.run(["git", "-C", repository, *identity, *command], check=True)
    return deploybot.Repository(repository, tmp_path / "environments")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("GGUF", str(GGUF))
    return imported(saved("llama_cpp", tmp_path))


@pytest.fixture
def server(recipe: ModuleType) -> Iterator[str]:
    """The address of llama.cpp's own OpenAI-compatible server."""
    yield f"{recipe.model().listening_address}/v1"
    recipe.model.cache_clear()


def on_offer(thread: Thread) -> tuple[type[Intent], ...]:
    return get_args(deploybot.Choice) if len(thread.steps) < CAP else (deploybot.Done,)


async def until_the_end(at: Any, decide: Callable[..., Any]) -> tuple[Any, list[Event]]:
    """The thread as it ended. Questions are answered, the first deployment is refused, the others are approved."""
    clock = FakeClock()
    async with drive(deploybot.make_app("memory://", at, decide, clock=clock), clock) as d:
        thread = await d.start("deploybot", "deploy the backend to production")
        for _ in range(2 * CAP):
            await d.settle()
            view = await d.show(thread)
            if view.status != "open":
                return view, list(view.events)
            await decided(d, view.events)
        raise AssertionError(f"it did not come to an end: {view.events}")


async def decided(d: Drive, events: Any) -> None:
    waiting = await d.interrupt()
    if waiting.kind == "question":
        await d.answer(waiting, "production", by="jo")
    elif any(event.kind == "decision" and event.data["kind"] == "rejected" for event in events):
        await d.approve(waiting, by=MIA)
    else:
        await d.reject(waiting, by=MIA, note="not now")


def is_sound(view: Any, events: list[Event]) -> None:
    """What must hold whatever was chosen."""
    assert (view.status, type(view.result)) == ("done", str)
    chosen = [event.data for event in events if event.kind == "selected"]
    intents = {one.intent_name: one for one in get_args(deploybot.Choice)}
    for one in chosen:
        intents[one["intent"]].model_validate(one["arguments"])
        assert one["usage"]["output_tokens"] > 0
    assert 1 <= len(chosen) <= CAP + 1
    assert chosen[-1]["intent"] == "done"
    approved = {event.step_id for event in events if event.kind == "decision" and event.data["kind"] == "approved"}
    deployed = {event.step_id for event in events if event.kind == "started"}
    assert deployed <= approved


async def test_it_drives_deploybot_to_an_end_in_this_process(at: Any, recipe: ModuleType) -> None:
    async def determine_next_step(thread: Thread) -> Any:
        intents = on_offer(thread)
        name, arguments = await recipe.choose(INSTRUCTIONS, thread_to_prompt(thread), bounded(schema_of(intents)), seed=len(thread.steps))
        return next(one for one in intents if one.intent_name == name).model_validate(arguments)

    determine_next_step.intents = get_args(deploybot.Choice)  # type: ignore[attr-defined]
    is_sound(*await until_the_end(at, determine_next_step))


def bounded(schema: Any) -> Any:
    """The schema with at most 24 characters in every text; a small model may write on for ever."""
    if isinstance(schema, list):
        return [bounded(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    limit = {"maxLength": 24} if schema.get("type") == "string" and "enum" not in schema else {}
    return {key: bounded(value) for key, value in schema.items()} | limit


async def test_it_drives_deploybot_through_model_and_an_openai_compatible_server(at: Any, server: str) -> None:
    """As a JSON Schema: its chat template knows no tools, and llama.cpp then passes `tool_choice="required"` by."""
    profile: Any = {"supports_tools": False, "supports_json_schema_output": True}
    small = OpenAIChatModel("smollm2", provider=OpenAIProvider(base_url=server, api_key="none"), profile=profile)

    async def determine_next_step(thread: Thread) -> Any:
        for seed in range(SEEDS):  # no bound for its texts here: now and then one is cut off
            model = Model[on_offer(thread)](small, instructions=INSTRUCTIONS, settings={"max_tokens": 200, "seed": seed})
            try:
                return await model(thread)
            except (CutOff, InvalidAnswer) as error:
                failure = error
        raise failure

    determine_next_step.intents = get_args(deploybot.Choice)  # type: ignore[attr-defined]
    is_sound(*await until_the_end(at, determine_next_step))
