"""What telemetry costs a step: a selection with a request to a model, a tool with effects, its result; off, and on with traces and metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from ownloop import Thread, telemetry, watch
from ownloop.telemetry.prometheus import prometheus_reader
from ownloop.tools import annotate
from ownloop.watch import Watch

from .agents import Done, ToolLoop, Work
from .measure import Result, main, median, scratch

STEPS = 200


@dataclass
class Usage:
    input_tokens: int = 1200
    output_tokens: int = 80
    details: dict[str, int] = field(default_factory=dict)


@dataclass
class Answer:
    """As much of a response as telemetry reads."""

    usage: Usage = field(default_factory=Usage)
    model_name: str = "gpt-5-mini"
    provider_response_id: str = "resp_1"
    finish_reason: str = "tool_call"


class Gpt:
    name, provider = "gpt-5-mini", "openai"


class Asking(ToolLoop):
    """The tool loop, whose choice asks a model that answers at once. `own`: CPU seconds of the loop's OS thread at the tool's calls."""

    def __init__(self, url: str, steps: int) -> None:
        self.own: list[float] = []
        super().__init__(url, steps)

    async def work(self, number: int) -> str:
        self.own.append(time.thread_time())
        return await super().work(number)

    async def decide(self, thread: Thread) -> Work | Done:
        with watch.current.asking(Gpt, thread) as heard:
            heard.answered(Answer())
        annotate(usage={"input_tokens": 1200, "output_tokens": 80, "requests": 1}, model="gpt-5-mini")
        return await super().decide(thread)


class Dropping(SpanExporter):
    """Encodes spans as OTLP does, and sends them nowhere."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


@contextmanager
def instrumented() -> Iterator[None]:
    tracers, meters = TracerProvider(shutdown_on_exit=False), MeterProvider(metric_readers=[prometheus_reader()], shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(Dropping(), max_queue_size=16 * STEPS, max_export_batch_size=64))
    telemetry.instrument(tracers, meters)
    try:
        yield
    finally:
        telemetry.uninstrument()
        tracers.shutdown()
        meters.shutdown()


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a step: in the loop's own OS thread, and in the whole process, where other threads add up and encode what is exported."""

    own: float
    process: float


def cost_of_a_step() -> Cost:
    """From the first call of the tool to the last one, without syncs, which telemetry does not change."""
    with scratch() as folder:
        loop = Asking(f"sqlite:///{folder}/loop.db?synchronous=normal", STEPS)
        loop.run()
        return Cost(*((stamps[-1] - stamps[0]) / (STEPS - 1) for stamps in (loop.own, loop.cpu)))


class Counting(Watch):
    """How often each hook is called."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def asking(self, model: Any, thread: Any, messages: Sequence[Any] = ()) -> Any:
        self.calls["asking"] += 1
        return super().asking(model, thread, messages)

    def calling(self, run: Any) -> Any:
        self.calls["calling"] += 1
        return super().calling(run)

    def beginning(self, wake: Any, drafts: Any) -> Any:
        self.calls["beginning"] += 1
        return super().beginning(wake, drafts)

    def wrote(self, wake: Any, events: Any) -> None:
        self.calls["wrote"] += 1


def hooks_per_step() -> dict[str, float]:
    counting = Counting()
    watch.use(counting)
    try:
        cost_of_a_step()
    finally:
        watch.use(None)
    return {name: count / STEPS for name, count in counting.calls.items()}


def seconds_per_hook(name: str, times: int = 100_000) -> float:
    """One call of a hook that nobody hears, with the `with` around it and what it enters told."""
    began = time.perf_counter()
    if name in ("asking", "calling"):
        arguments = (None, None) if name == "asking" else (None,)
        for _ in range(times):
            with getattr(watch.current, name)(*arguments) as heard:
                heard.answered(None)
    else:
        for _ in range(times):
            tuple(getattr(watch.current, name)(None, ()) or ())
    return (time.perf_counter() - began) / times


def off() -> Result:
    spent = sum(often * seconds_per_hook(name) for name, often in hooks_per_step().items())
    step = min(cost_of_a_step().own for _ in range(3))
    share = spent / step
    return Result(
        "telemetry off: all its hooks in a step, over its CPU time without syncs",
        "≤ 1 %",
        f"{share:.2%} ({spent * 1e6:.2f} µs a step)",
        f"{step * 1e6:.0f} µs a step",
        share <= 0.01,
    )


def on(rounds: int) -> Result:
    pairs: list[tuple[Cost, Cost]] = []
    for number in range(rounds):
        plain = cost_of_a_step() if number % 2 else None
        with instrumented():
            told = cost_of_a_step()
        pairs.append((plain or cost_of_a_step(), told))
    over, whole = (median([getattr(told, name) - getattr(plain, name) for plain, told in pairs]) for name in ("own", "process"))
    return Result(
        "telemetry on: 2 spans and 6 measurements in a step, CPU time of the loop's thread over a step without",
        "≤ 0.3 ms",
        f"{over * 1e3:+.2f} ms ({whole * 1e3:+.2f} ms with the threads that add up and encode)",
        f"off: {median([plain.own for plain, _ in pairs]) * 1e3:.2f} ms a step",
        over <= 0.0003,
    )


def measure(rounds: int = 15) -> list[Result]:
    cost_of_a_step()  # the process is warm
    return [off(), on(rounds)]


if __name__ == "__main__":
    main(measure)
