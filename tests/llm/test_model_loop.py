"""A whole agent with a `Model`, its provider played over HTTP: what is in the log, what waits on a timer, what is paid when processes die."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from replay.server import Answer, Replay, Request, Tape, chat, chat_stream, failing, recorded

from ownloop import App, Intent, Thread, tool
from ownloop.events import Delta
from ownloop.llm import Model
from ownloop.testing import Drive, FakeClock, crash_everywhere, drive


class ListGitTags(Intent):
    """List the tags that can be deployed."""


class DeployBackend(Intent):
    """Deploy the backend at a tag. High stakes."""

    tag: str


class Done(Intent):
    """Nothing is left to do."""

    message: str


CHOICE = ListGitTags | DeployBackend | Done
SCRIPT = (("list_git_tags", "{}"), ("deploy_backend", '{"tag": "v2"}'), ("done", '{"message": "v2 is live"}'))


def by_the_log(request: Request) -> Answer:
    """A model that reads: what it chooses follows from the prompt alone, so a crash changes nothing."""
    prompt = request.body["messages"][-1]["content"]
    return chat(SCRIPT[("list_git_tags_result" in prompt) + ("deploy_backend_result" in prompt)])


def make(tape: Tape, place: Any, clock: FakeClock, **options: Any) -> App:
    decide = Model[CHOICE](f"openai:gpt-4o-mini@{tape.url}/v1", instructions="You deploy.", **options)
    app = App(place, clock=clock)

    @tool(reads=True)
    async def list_git_tags() -> list[str]:
        return ["v1", "v2"]

    async def deploy(tag: str) -> str:
        return f"{tag} deployed"

    @app.agent
    async def deploybot(thread: Thread) -> str:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case ListGitTags():
                    await step.run(list_git_tags)
                case DeployBackend():
                    if await step.approved():
                        await step.run(deploy)
                case Done(message=message):
                    return message

    return app


async def deployed(d: Drive) -> str:
    thread = await d.start("deploybot", "deploy the newest")
    await d.settle()
    await d.approve(await d.interrupt(), by="mia")
    await d.settle()
    return thread


def kinds(view: Any, kind: str) -> list[Any]:
    return [event.data for event in view.events if event.kind == kind]


async def test_a_model_drives_the_loop_to_its_end_and_the_log_says_what_each_choice_cost(replay: Replay) -> None:
    tape, clock = replay.play(by_the_log), FakeClock()
    async with drive(make(tape, "memory://", clock), clock) as d:
        view = await d.show(await deployed(d))
    assert (view.status, view.result) == ("done", "v2 is live")
    selected = kinds(view, "selected")
    assert [one["intent"] for one in selected] == ["list_git_tags", "deploy_backend", "done"]
    for one in selected:
        assert {name: one[name] for name in ("model", "provider", "finish_reason", "response_id", "prompt_tokens")} == {
            "model": "gpt-4o-mini",
            "provider": "openai",
            "finish_reason": "tool_call",
            "response_id": "chatcmpl-made-up",
            "prompt_tokens": 100,
        }
        assert one["usage"] == {"input_tokens": 100, "output_tokens": 10, "requests": 1, "cost_usd": 2.1e-05}
        assert "tries" not in one
    assert (view.usage.input_tokens, view.usage.output_tokens, view.usage.requests) == (300, 30, 3)
    assert view.usage.cost_usd == pytest.approx(6.3e-05)
    assert len(tape) == 3


async def test_a_batch_is_one_answer_and_its_cost_is_recorded_once(replay: Replay) -> None:
    tape, clock = replay.play([chat(SCRIPT[0], SCRIPT[2])]), FakeClock()
    async with drive(make(tape, "memory://", clock), clock) as d:
        thread = await d.start("deploybot")
        await d.settle()
        view = await d.show(thread)
    selected = kinds(view, "selected")
    assert [(one["intent"], "usage" in one) for one in selected] == [("list_git_tags", True), ("done", False)]
    assert (view.usage.requests, len(tape)) == (1, 1)


async def test_a_try_that_failed_is_in_the_selected_event_with_its_cost(replay: Replay) -> None:
    tape, clock = replay.play([chat(text="Let me think."), chat(SCRIPT[2])]), FakeClock()
    async with drive(make(tape, "memory://", clock), clock) as d:
        thread = await d.start("deploybot")
        await d.settle()
        view = await d.show(thread)
    (one,) = kinds(view, "selected")
    assert [attempt["usage"]["input_tokens"] for attempt in one["tries"]] == [100]
    assert "The answer was text" in one["tries"][0]["error"]
    assert (one["usage"]["requests"], view.usage.requests) == (2, 2)


async def test_a_429_becomes_the_threads_timer_and_blocks_no_process(replay: Replay) -> None:
    tape, clock = replay.play([failing(429, "slow down", {"retry-after": "30"}), chat(SCRIPT[2])]), FakeClock()
    async with drive(make(tape, "memory://", clock), clock) as d:
        thread = await d.start("deploybot")
        await d.settle()
        view = await d.show(thread)
        (failed,) = kinds(view, "model_failed")
        assert (view.status, len(tape)) == ("open", 1)
        assert failed["error"]["type"] == "RateLimited"
        assert failed["usage"] == {"requests": 1}
        assert (failed["model"], failed["provider"]) == ("gpt-4o-mini", "openai")
        await d.advance("29s")
        assert len(tape) == 1, "not before it may"
        await d.advance("1s")
        view = await d.show(thread)
    assert (view.status, len(tape)) == ("done", 2)


@pytest.mark.parametrize(("name", "seconds"), [("gemini/error_429_retryinfo", 48), ("other/azure_429_retry_after", 1)])
async def test_a_recorded_429_is_waited_for_as_long_as_it_says(replay: Replay, name: str, seconds: int) -> None:
    kind = "google:gemini-2.5-flash@{}" if name.startswith("gemini") else "openai:m@{}/v1"
    good = recorded("gemini/function_call_required")[0] if name.startswith("gemini") else chat(("get_weather", '{"city": "Paris"}'))
    tape, clock = replay.play([recorded(name)[0], good]), FakeClock()

    class GetWeather(Intent):
        """The weather."""

        city: str

    app = App("memory://", clock=clock)
    decide = Model[GetWeather](kind.format(tape.url))

    @app.agent
    async def agent(thread: Thread) -> str:
        step = await thread.next_step(decide)
        return step.intent.city

    async with drive(app, clock) as d:
        thread = await d.start("agent")
        await d.settle()
        await d.advance(f"{seconds * 1000 - 1}ms")
        assert len(tape) == 1
        await d.advance("1ms")
        assert (await d.show(thread)).result == "Paris"


async def test_a_provider_that_stays_down_is_asked_less_and_less_and_then_fails_the_thread(replay: Replay) -> None:
    tape, clock = replay.play([failing(529, "overloaded")]), FakeClock()
    async with drive(make(tape, "memory://", clock), clock) as d:
        thread = await d.start("deploybot")
        for _ in range(10):
            await d.advance("5m")
        view = await d.show(thread)
    assert (view.status, len(tape)) == ("failed", 8)
    assert "did not answer (HTTP 529): overloaded" in view.error.message


async def test_an_answer_that_never_fits_fails_the_thread_and_the_log_has_every_try(replay: Replay) -> None:
    tape, clock = replay.play([chat(text="Hm.")]), FakeClock()
    async with drive(make(tape, "memory://", clock), clock) as d:
        thread = await d.start("deploybot")
        await d.settle()
        view = await d.show(thread)
    (failed,) = kinds(view, "model_failed")
    assert (view.status, failed["error"]["type"], len(failed["tries"])) == ("failed", "InvalidAnswer", 3)
    assert (failed["usage"]["input_tokens"], failed["usage"]["requests"], len(tape)) == (300, 3, 3)
    assert (view.usage.input_tokens, view.usage.requests) == (300, 3)


async def test_who_follows_the_thread_hears_the_text_before_it_is_recorded(replay: Replay) -> None:
    tape, clock = replay.play([chat_stream("done", json.dumps({"message": "v2 is live"}))]), FakeClock()
    async with drive(make(tape, "memory://", clock, stream="message"), clock) as d:
        thread = await d.start("deploybot")
        heard: list[Any] = []

        async def follow() -> None:
            async for item in d.stream(thread):
                heard.append(item)

        following = asyncio.ensure_future(follow())
        await asyncio.sleep(0.05)
        await d.settle()
        await asyncio.sleep(0.05)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
    deltas = [place for place, item in enumerate(heard) if isinstance(item, Delta)]
    assert "".join(heard[place].text for place in deltas) == "v2 is live"
    recorded_at = next(place for place, item in enumerate(heard) if getattr(item, "kind", "") == "selected")
    assert max(deltas) < recorded_at


async def test_cancelling_the_thread_ends_the_request(replay: Replay) -> None:
    tape, clock = replay.play([Answer(chat(SCRIPT[2]).body, after=3)]), FakeClock()
    app = make(tape, "memory://", clock)
    async with drive(app, clock) as d:
        thread = await d.start("deploybot")
        running = asyncio.ensure_future(d.settle())
        while not len(tape):
            await asyncio.sleep(0.01)
        await d.cancel(thread, by="mia")
        for wake in list(app._runner.wakes):  # what the lease keeper would hear within a second
            wake.stop("cancelled")
        async with asyncio.timeout(1):
            await running
        assert (await d.show(thread)).status == "cancelled"
        assert kinds(await d.show(thread), "selected") == []


# ---- paid once -------------------------------------------------------------------------------------------------------------------


def counting(replay: Replay, tapes: list[Tape]) -> Callable[[Any, FakeClock], App]:
    """A tape for each run of the scenario, however many processes die in it."""
    clocks: list[FakeClock] = []

    def make_app(place: Any, clock: FakeClock) -> App:
        if clock not in clocks:
            clocks.append(clock)
            tapes.append(replay.play(by_the_log))
        return make(tapes[-1], place, clock)

    return make_app


async def test_wherever_a_process_dies_a_selection_is_paid_once(replay: Replay) -> None:
    """A death before a selection is on disk loses that answer, and only that one is asked for again; no other death costs a request."""
    tapes: list[Tape] = []

    async def scenario(d: Drive) -> None:
        await deployed(d)

    report = await crash_everywhere(scenario, counting(replay, tapes), url="memory://")
    assert (report.lost, report.silent) == ([], [])
    extra = [len(tape) - 3 for tape in tapes]
    assert extra[0] == 0, "undisturbed"
    assert len(tapes) == report.runs > 15
    assert sum(extra) == 3, "each of the three answers was lost in exactly one of all the deaths: the one before it was written"
    assert max(extra) == 1
    assert all(paid == 0 for paid in extra[2::2]), "a death after an append never costs a request"
