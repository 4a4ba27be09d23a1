"""Spans as a receiver gets them: names and attributes of the conventions, nothing open across a wait, links on resume."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.semconv._incubating.attributes import error_attributes, gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from ownloop import App, Thread, telemetry, watch
from ownloop.interrupts import Actor
from ownloop.telemetry import names
from ownloop.testing import Drive, FakeClock, drive

from .collector import Collector
from .robot import SECRET, Done, robot_on

Instrument = Callable[..., None]
MANAGER = Actor("ana", ("managers",))
HERE = Path(__file__).resolve().parent


async def started(d: Drive, input: str = "") -> str:
    thread = await d.start("robot", input)
    await d.settle()
    return thread


async def run_through(clock: FakeClock, input: str = "", by: Actor = MANAGER, url: str = "memory://") -> str:
    """One thread: a wait for an approval, and its end."""
    async with drive(robot_on(App(url, clock=clock)), clock) as d:
        thread = await started(d, input)
        if input == "":
            clock.advance("90s")
            await d.approve(await d.interrupt(thread), by=by, note=SECRET)
            await d.settle()
        return thread


@pytest.mark.parametrize("store", ["memory", "postgres"], indirect=True)
async def test_wakes_requests_and_calls_are_spans_with_the_names_of_the_conventions(instrument: Instrument, collector: Collector, store: str) -> None:
    instrument()
    thread = await run_through(FakeClock(), url=store)
    about = {"gen_ai.conversation.id": thread, "gen_ai.agent.name": "robot"}
    first, second = collector.named("invoke_agent robot")
    assert first.kind == "INTERNAL" and first.about.items() >= {**about, "gen_ai.agent.id": "robot", "gen_ai.operation.name": "invoke_agent"}.items()
    chat = collector.named("chat gpt-5-mini")[0]
    assert chat.kind == "CLIENT" and chat.parent == first.id and chat.trace == first.trace
    assert chat.about == {
        **about,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.response.model": "gpt-5-mini-2026-01-01",
        "gen_ai.response.id": "resp_1",
        "gen_ai.response.finish_reasons": ["tool_call"],
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cache_read.input_tokens": 100,
        "gen_ai.usage.reasoning.output_tokens": 7,
    }
    call = collector.one("execute_tool deploy")
    assert call.kind == "INTERNAL" and call.parent == second.id and call.status == "UNSET"
    step = f"stp_{thread[4:]}_1"
    own = {"ownloop.step.id": step, "ownloop.step.name": "deploy"}
    tool = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "deploy",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": f"{step}/run:deploy",
    }
    assert call.about == {**about, **tool, **own}


def test_the_names_are_those_of_the_installed_conventions() -> None:
    known = {value for package in (gen_ai_attributes, gen_ai_metrics, error_attributes) for value in vars(package).values() if isinstance(value, str)}
    used = {value for value in vars(names).values() if isinstance(value, str) and value.startswith(("gen_ai.", "error."))}
    assert used - known == {names.AGENT_DURATION, names.TOOL_DURATION}  # of the conventions' own repository
    operations = {one.value for one in gen_ai_attributes.GenAiOperationNameValues}
    assert {names.INVOKE_AGENT, names.CHAT, names.EXECUTE_TOOL} <= operations
    assert set(names.PROVIDERS.values()) <= {one.value for one in gen_ai_attributes.GenAiProviderNameValues}


async def test_no_span_is_open_across_a_wait_and_a_pause_is_no_error(instrument: Instrument, tracers: TracerProvider, collector: Collector) -> None:
    open_spans: set[int] = set()

    class Counting(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            open_spans.add(span.context.span_id)

        def on_end(self, span: ReadableSpan) -> None:
            open_spans.discard(span.context.span_id)

    tracers.add_span_processor(Counting())
    instrument()
    clock = FakeClock()
    async with drive(robot_on(App("memory://", clock=clock)), clock) as d:
        thread = await started(d)
        assert open_spans == set()
        (waiting,) = collector.named("invoke_agent robot")
        assert (waiting.status, waiting.about["ownloop.wake.end"]) == ("UNSET", "waiting") and "error.type" not in waiting.about
        decided = time.time_ns()
        await d.approve(await d.interrupt(thread), by=MANAGER)
        await d.settle()
    assert open_spans == set()
    assert all(span.end < decided or span.begin > decided for span in collector.spans)
    assert collector.named("invoke_agent robot")[1].about["ownloop.wake.end"] == "turn"


async def test_a_wake_after_a_wait_is_a_trace_of_its_own_linked_to_the_one_before(instrument: Instrument, collector: Collector) -> None:
    instrument()
    thread = await run_through(FakeClock())
    first, second = collector.named("invoke_agent robot")
    assert first.parent == second.parent == "" and first.trace != second.trace
    assert first.links == [] and second.links == [(first.trace, first.id, {"gen_ai.conversation.id": thread})]


async def test_interrupts_and_decisions_are_events_of_the_span_without_who_decided(instrument: Instrument, collector: Collector) -> None:
    instrument()
    thread = await run_through(FakeClock())
    first, second = collector.named("invoke_agent robot")
    opened, decision = dict(first.events)["ownloop.interrupt.opened"], dict(second.events)["ownloop.decision"]
    assert opened["ownloop.interrupt.reason"] == "approval" and opened["ownloop.interrupt.name"] == "deploy"
    assert decision["ownloop.interrupt.id"] == opened["ownloop.interrupt.id"] == f"int_{thread[4:]}_3"
    assert (decision["ownloop.interrupt.decision"], decision["ownloop.interrupt.wait_s"]) == ("approved", 90.0)
    assert "ownloop.interrupt.by" not in decision
    assert [len(first.events), len(second.events)] == [1, 1]


@pytest.mark.parametrize("input", ["", "broken", "crash", "down"])
async def test_no_content_leaves_by_default(instrument: Instrument, collector: Collector, input: str) -> None:
    instrument()
    await run_through(FakeClock(), input)
    assert collector.spans and not [body for body in collector.raw if SECRET.encode() in body or b"ana" in body]


async def test_content_leaves_when_it_is_asked_for_after_the_apps_redact(
    instrument: Instrument, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(names.CAPTURE, "true")
    instrument()
    clock = FakeClock()

    def redact(value: Any) -> Any:
        return json.loads(json.dumps(value).replace("deployed", "[hidden]"))

    async with drive(robot_on(App("memory://", clock=clock, redact=redact)), clock) as d:
        thread = await started(d)
        await d.approve(await d.interrupt(thread), by=MANAGER)
        await d.settle()
    call, chat = collector.one("execute_tool deploy"), collector.named("chat gpt-5-mini")[0]
    assert json.loads(call.about["gen_ai.tool.call.arguments"]) == {"tag": SECRET}
    assert json.loads(call.about["gen_ai.tool.call.result"]) == f"[hidden] {SECRET}"
    assert json.loads(chat.about["gen_ai.system_instructions"]) == [{"type": "text", "content": "You deploy."}]
    assert json.loads(chat.about["gen_ai.input.messages"]) == [{"role": "user", "parts": [{"type": "text", "content": f"Deploy {SECRET}"}]}]
    parts = [{"type": "text", "content": f"I say {SECRET}"}, {"type": "tool_call", "id": "call_1", "name": "deploy", "arguments": {"tag": SECRET}}]
    assert json.loads(chat.about["gen_ai.output.messages"]) == [{"role": "assistant", "parts": parts, "finish_reason": "tool_call"}]
    assert dict(collector.named("invoke_agent robot")[1].events)["ownloop.decision"]["ownloop.interrupt.by"] == "ana"


@pytest.mark.parametrize(
    ("input", "name", "kind"),
    [
        ("broken", "execute_tool broken", "RuntimeError"),
        ("crash", "invoke_agent robot", "ValueError"),
        ("doubtful", "execute_tool doubtful", "InDoubt"),
    ],
)
async def test_what_fails_is_an_error_by_its_type(instrument: Instrument, collector: Collector, input: str, name: str, kind: str) -> None:
    instrument()
    await run_through(FakeClock(), input)
    failed = collector.one(name)
    assert (failed.status, failed.about["error.type"], failed.message) == ("ERROR", kind, "")


async def test_a_model_that_fails_for_a_moment_is_an_error_of_its_request_only(instrument: Instrument, collector: Collector) -> None:
    instrument()
    clock = FakeClock()
    async with drive(robot_on(App("memory://", clock=clock)), clock) as d:
        thread = await started(d, "down")
        await d.approve(await d.interrupt(thread), by=MANAGER)
        await d.settle()
    assert [chat.about.get("error.type") for chat in collector.named("chat gpt-5-mini")] == [None, "TimeoutError"]
    assert collector.named("invoke_agent robot")[-1].about["ownloop.wake.end"] == "waiting"


async def test_a_call_that_was_let_go_ends_its_span_when_it_ends(instrument: Instrument, collector: Collector) -> None:
    instrument()
    clock = FakeClock()
    async with drive(robot_on(App("memory://", clock=clock)), clock) as d:
        await started(d, "slow")
        assert collector.named("execute_tool slow") == []
        (wake,) = collector.named("invoke_agent robot")
        await asyncio.sleep(0.5)
        late = collector.one("execute_tool slow")
        assert late.parent == wake.id and late.end > wake.end and late.end - late.begin > 0.25e9


async def test_a_call_cut_by_a_pause_is_stopped_and_no_error(instrument: Instrument, collector: Collector) -> None:
    instrument()
    began = asyncio.Event()
    app = App("memory://")

    async def look() -> None:
        began.set()
        await asyncio.sleep(30)

    @app.agent
    async def reader(thread: Any) -> None:
        from ownloop import tool

        await thread.step("look").run(tool(look, reads=True))

    async with app:
        thread = await app.start(reader)
        await began.wait()
        await app.pause(thread)
        while not collector.named("invoke_agent reader"):
            await asyncio.sleep(0.01)
    call = collector.one("execute_tool look")
    assert (call.status, call.about["ownloop.stopped"]) == ("UNSET", "paused")
    assert collector.one("invoke_agent reader").about["ownloop.wake.end"] == "paused"


async def test_spans_of_others_nest_under_the_handler_and_the_call(instrument: Instrument, tracers: TracerProvider, collector: Collector) -> None:
    instrument()
    other = tracers.get_tracer("somebody")

    def inside() -> None:
        with other.start_as_current_span("foreign"):
            pass

    clock = FakeClock()
    with other.start_as_current_span("around everything"):  # a wake does not hang under what happened to be current
        async with drive(robot_on(App("memory://", clock=clock), inside), clock) as d:
            await started(d, "read")
    wake, foreign = collector.one("invoke_agent robot"), collector.one("foreign")
    assert (wake.parent, foreign.parent, foreign.trace) == ("", wake.id, wake.trace)


async def test_a_sync_function_in_its_thread_sees_the_span_of_its_call(instrument: Instrument, collector: Collector) -> None:
    instrument()
    found: list[str] = []
    app = App("memory://")

    def look() -> None:
        found.append(f"{trace.get_current_span().get_span_context().span_id:016x}")

    @app.agent
    async def reader(thread: Any) -> None:
        await thread.step("look").run(look)

    clock = FakeClock()
    app = App("memory://", clock=clock)
    app.add(reader)
    async with drive(app, clock) as d:
        await d.start("reader")
        await d.settle()
    assert found == [collector.one("execute_tool look").id]


async def test_the_link_holds_when_another_process_goes_on(instrument: Instrument, collector: Collector, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/robot.db"
    environment = {"ROBOT_STORE": url, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "elsewhere", "PATH": "/usr/bin:/bin"}
    program = (
        "import asyncio\n"
        "from ownloop.telemetry import from_environment\n"
        "from tests.telemetry.robot import app\n"
        "async def main():\n"
        "    async with from_environment(app):\n"
        "        thread = await app.start('robot')\n"
        "        await app.run_one(thread)\n"
        "        await app.aclose()\n"
        "    print(thread)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, cwd=HERE.parent.parent, capture_output=True, text=True, check=True)
    thread = done.stdout.strip()
    (first,) = collector.named("invoke_agent robot")
    assert first.service == "elsewhere" and first.about["gen_ai.conversation.id"] == thread
    instrument()
    app = robot_on(App(url))
    (interrupt,) = await app.interrupts()
    await app.approve(interrupt, by=MANAGER)
    await app.run_one(thread)
    await app.aclose()
    second = collector.named("invoke_agent robot")[1]
    assert second.links == [(first.trace, first.id, {"gen_ai.conversation.id": thread})]
    assert second.about["ownloop.wake.end"] == "turn"


async def test_without_instrument_nothing_is_stamped_and_after_uninstrument_nothing_is_sent(instrument: Instrument, collector: Collector) -> None:
    instrument()
    telemetry.uninstrument()
    assert type(watch.current) is watch.Watch
    clock = FakeClock()
    async with drive(robot_on(App("memory://", clock=clock)), clock) as d:
        thread = await started(d)
        assert [event for event in await d.app.store.events(thread) if "trace" in event.data] == []
    assert collector.spans == []


async def test_instrumenting_twice_makes_no_span_twice(instrument: Instrument, collector: Collector) -> None:
    instrument()
    instrument()
    await run_through(FakeClock(), "read")
    assert len(collector.named("invoke_agent robot")) == 1


async def test_a_watch_that_fails_does_not_reach_the_program(instrument: Instrument, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    from ownloop.telemetry import spans

    def fail(*args: Any) -> Any:
        raise RuntimeError("a bug of telemetry")

    for name in ("response", "_last_trace"):
        monkeypatch.setattr(spans, name, fail)
    monkeypatch.setattr(spans.Tracing, "wrote", fail)
    monkeypatch.setattr(spans.Tracing, "beginning", fail)
    instrument()
    clock = FakeClock()
    async with drive(robot_on(App("memory://", clock=clock)), clock) as d:
        thread = await started(d, "read")
        assert (await d.show(thread)).status == "done"


def test_nothing_of_opentelemetry_is_imported_until_it_is_asked_for() -> None:
    program = (
        "import sys, ownloop, ownloop.telemetry, ownloop.telemetry.logs; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_model_of_ours_is_traced_with_what_it_answered(instrument: Instrument, collector: Collector) -> None:
    from pydantic_ai.messages import ModelResponse, ToolCallPart
    from pydantic_ai.models.function import FunctionModel

    from ownloop.llm import Model

    def answer(messages: Any, info: Any) -> ModelResponse:
        return ModelResponse([ToolCallPart("done", {})], provider_response_id="resp_7", finish_reason="tool_call")

    clock = FakeClock()
    app = App("memory://", clock=clock)
    decide = Model[Done](FunctionModel(answer, model_name="small"))

    @app.agent
    async def asker(thread: Thread) -> str:
        await thread.next_step(decide)
        return "done"

    instrument()
    async with drive(app, clock) as d:
        thread = await d.start(asker)
        await d.settle()
        assert (await d.show(thread)).result == "done"
    chat, wake = collector.one("chat small"), collector.one("invoke_agent asker")
    assert (chat.parent, chat.about["gen_ai.conversation.id"], chat.about["gen_ai.response.id"]) == (wake.id, thread, "resp_7")
    assert chat.about["gen_ai.usage.input_tokens"] > 0
