"""docs/recipes with a model of one's own: SmolLM2-135M in this process, and behind an OpenAI-compatible server. What it chooses is its affair."""

from __future__ import annotations

from pathlib import Path

import pytest
import xllamacpp
from recipe_provider import imported, saved, weights

from ownloop import App, Event
from ownloop.testing import Drive, FakeClock, drive

GGUF = weights()


async def driven(app: App, clock: FakeClock) -> tuple[str, list[Event]]:
    """Whatever asks is approved; how it ended, and the log."""
    async with drive(app, clock) as d:
        thread = await d.start("deploybot", "deploy v1.4.0 to production")
        for _ in range(10):
            await d.settle()
            if (view := await d.show(thread)).status != "open":
                return view.status, list(view.events)
            await approve_all(d)
        raise AssertionError(f"it did not come to an end: {view.events}")


async def approve_all(d: Drive) -> None:
    for waiting in await d.interrupts():
        await d.approve(waiting, by="ops")


def came_to_an_end(status: str, events: list[Event]) -> None:
    chosen = [event.data for event in events if event.kind == "selected"]
    assert (status, chosen[-1]["intent"]) == ("done", "done")
    assert len(chosen) <= 4
    assert all(one["usage"]["output_tokens"] > 0 and one["model"].endswith(".gguf") for one in chosen)


async def test_the_model_in_this_process_comes_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGUF", str(GGUF))
    recipe = imported(saved("llama_cpp", tmp_path))
    clock = FakeClock()
    app = App("memory://", clock=clock)
    app.add(recipe.deploybot)
    came_to_an_end(*await driven(app, clock))


async def test_a_prompt_that_is_too_long_fails_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGUF", str(GGUF))
    recipe = imported(saved("llama_cpp", tmp_path))
    with pytest.raises(recipe.ContextTooLong, match="5\\d\\d\\d tokens"):
        await recipe.choose("", "no " * 5000, {"const": "no"})


async def test_a_text_without_a_bound_is_cut_off_and_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGUF", str(GGUF))
    recipe = imported(saved("llama_cpp", tmp_path))
    with pytest.raises(recipe.CutOff, match="max_length"):
        await recipe.choose("", "write", {"type": "string", "minLength": 5000})


async def test_the_model_behind_an_openai_compatible_server_comes_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = str(GGUF)
    params.n_ctx = 4096
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = -1
    server = xllamacpp.Server(params)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.listening_address}/v1")
    recipe = imported(saved("openai_compatible", tmp_path))
    clock = FakeClock()
    app = App("memory://", clock=clock)
    app.add(recipe.deploybot)
    async with recipe.client:
        came_to_an_end(*await driven(app, clock))
