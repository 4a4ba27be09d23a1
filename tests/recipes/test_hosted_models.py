"""docs/recipes with a hosted model: each program runs to its end over the real SDK and recorded answers, and its failures are the thread's."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from recipe_provider import Answer, Provider, anthropic_call, imported, openai_calls, openai_text, recorded, saved

from ownloop import App
from ownloop.testing import Drive, FakeClock, drive

DEPLOY = ("deploy", {"tag": "v1.4.0", "environment": "production"})
DONE = ("done", {"message": "v1.4.0 is on production"})
NAMES = ("openai", "anthropic", "baml_style", "openai_compatible")


def as_json(call: tuple[str, dict[str, Any]]) -> str:
    return json.dumps({"intent": call[0], "arguments": call[1]})


def chatty(call: tuple[str, dict[str, Any]]) -> str:
    """As models write that were not told to write JSON: prose around it, bare words, a comment, a comma too many."""
    fields = "".join(f"  {name}: '{value}',\n" for name, value in call[1].items())
    return f"The request {{is}} clear.\n```json\n{{ // next\n  intent: {call[0]},\n{fields}}}\n```\nShall I go on?"


SAYS: dict[str, Callable[[tuple[str, dict[str, Any]]], Answer]] = {
    "openai": openai_calls,
    "anthropic": lambda call: anthropic_call(*call),
    "baml_style": lambda call: openai_text(chatty(call)),
    "openai_compatible": lambda call: openai_text(as_json(call)),
}
LIMITED = recorded("other/azure_429_retry_after")
LIMITED["headers"] |= {"retry-after": "90"}


@asynccontextmanager
async def running(name: str, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Drive]:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
    recipe = imported(saved(name, folder))
    clock = FakeClock()
    app = App("memory://", clock=clock)
    app.add(recipe.deploybot)
    async with drive(app, clock) as d, recipe.client:
        yield d


@asynccontextmanager
async def replaying(name: str, answers: list[Answer], folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Drive, Provider]]:
    with Provider(answers).serving() as server:
        async with running(name, server.url, folder, monkeypatch) as d:
            yield d, server


async def started(d: Drive) -> str:
    thread = await d.start("deploybot", "deploy v1.4.0 to production")
    await d.settle()
    return thread


async def selections(d: Drive, thread: str) -> list[dict[str, Any]]:
    return [dict(event.data) for event in (await d.show(thread)).events if event.kind == "selected"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_recipe_waits_for_approval_and_ends(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with replaying(name, [SAYS[name](DEPLOY), SAYS[name](DONE)], tmp_path, monkeypatch) as (d, server):
        thread = await started(d)
        waiting = await d.interrupt()
        assert (waiting.name, waiting.intent) == DEPLOY
        await d.approve(waiting, by="ops")
        await d.settle()
        view = await d.show(thread)
        assert (view.status, view.result) == ("done", "v1.4.0 is on production")
        assert "deploy_result" in str(server.asked[1]), "the second request shows what became of the first choice"


@pytest.mark.parametrize("name", NAMES)
async def test_what_was_spent_is_in_the_selection(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = SAYS[name](DONE)
    usage = answer["body"]["usage"]
    async with replaying(name, [answer], tmp_path, monkeypatch) as (d, _):
        (selected,) = await selections(d, await started(d))
    spent = {"input_tokens": usage.get("prompt_tokens", usage.get("input_tokens"))}
    spent |= {"output_tokens": usage.get("completion_tokens", usage.get("output_tokens")), "requests": 1}
    assert (selected["usage"], selected["model"]) == (spent, answer["body"]["model"])


@pytest.mark.parametrize("name", NAMES)
async def test_a_rate_limit_is_a_timer_of_the_length_that_was_asked_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with replaying(name, [LIMITED, SAYS[name](DONE)], tmp_path, monkeypatch) as (d, server):
        thread = await started(d)
        await d.advance("89s")
        assert len(server.asked) == 1, "nobody asks before the 90 seconds of the Retry-After are over"
        await d.advance("2s")
        assert (await d.show(thread)).status == "done"


@pytest.mark.parametrize("name", NAMES)
async def test_a_provider_that_is_away_is_asked_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with running(name, f"http://127.0.0.1:{port}", tmp_path, monkeypatch) as d:
        view = await d.show(await started(d))
    assert view.status == "open"
    (failure,) = [event.data for event in view.events if event.kind == "model_failed"]
    assert failure["error"]["type"].endswith("ProviderDown")
    assert failure["retry_at"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_wrong_key_fails_the_thread_and_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denied = recorded("anthropic/error_401" if name == "anthropic" else "openai_chat/error_401")
    async with replaying(name, [denied], tmp_path, monkeypatch) as (d, _):
        view = await d.show(await started(d))
    assert view.status == "failed"
    assert "retry the thread" in view.error.message


async def test_two_calls_in_one_answer_are_two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = ("deploy", {"tag": "v1.4.0", "environment": "staging"})
    async with replaying("openai", [openai_calls(DEPLOY, staging), openai_calls(DONE)], tmp_path, monkeypatch) as (d, server):
        thread = await started(d)
        for _ in range(2):
            await d.approve((await d.interrupts(status="open"))[0], by="ops")
            await d.settle()
        assert (await d.show(thread)).status == "done"
        assert len(server.asked) == 2


@pytest.mark.parametrize("name", ["openai", "anthropic", "baml_style"])
async def test_an_answer_without_a_call_fails_and_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = recorded("anthropic/tool_use_roundtrip" if name == "anthropic" else "openai_chat/tool_call_roundtrip", 1)
    async with replaying(name, [text], tmp_path, monkeypatch) as (d, _):
        view = await d.show(await started(d))
    assert view.status == "failed"
    assert "gave no valid answer" in view.error.message


async def test_an_answer_that_does_not_fit_is_asked_for_again_with_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = openai_text(as_json(("deploy", {"tag": "v1.4.0", "environment": "moon"})))
    async with replaying("openai_compatible", [wrong, openai_text("no JSON"), openai_text(as_json(DONE))], tmp_path, monkeypatch) as (d, server):
        (selected,) = await selections(d, await started(d))
    assert "Input should be 'staging' or 'production'" in server.asked[1]["messages"][-1]["content"]
    assert (selected["intent"], selected["usage"]["requests"]) == ("done", 3)


@pytest.mark.parametrize(
    "text",
    [
        '{"intent": "deploy", "tag": "v1.4.0", "environment": "production"}',
        'I thought of {"intent": "done", "message": "x"} first, but: {"intent": "deploy", "tag": "v1.4.0", "environment": "production"}',
        "{intent: deploy, tag: 'v1.4.0', environment: production,}",
        '```json\n{ // see https://example.org\n "intent": "deploy",\n "tag": "v1.4.0", // the newest\n "environment": "production"\n}\n```',
    ],
)
def test_the_parser_forgives(text: str, tmp_path: Path) -> None:
    recipe = imported(saved("baml_style", tmp_path))
    assert recipe.parse(text) == {"intent": "deploy", "tag": "v1.4.0", "environment": "production"}


def test_the_parser_keeps_braces_inside_a_text(tmp_path: Path) -> None:
    recipe = imported(saved("baml_style", tmp_path))
    assert recipe.parse('{"intent": "done", "message": "{} is a \\"brace\\""}') == {"intent": "done", "message": '{} is a "brace"'}


def test_the_schema_in_the_prompt_reads_like_a_type(tmp_path: Path) -> None:
    recipe = imported(saved("baml_style", tmp_path))
    assert recipe.output_format(recipe.Deploy) == (
        "{ // Deploy the backend at a tag. A person is asked before it happens.\n"
        '  intent: "deploy"\n  tag: string\n  environment: "staging" or "production"\n}'
    )
