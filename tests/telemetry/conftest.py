"""Telemetry into a real receiver, for one test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from ownloop import telemetry, watch
from ownloop.telemetry import logs

from .collector import Collector, collecting


@pytest.fixture(autouse=True)
def nobody_watches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith(("OTEL_", "OWNLOOP_"))]:
        monkeypatch.delenv(name)
    yield
    logs.unconfigure()
    watch.use(None)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store's URL; on SQLite, unless a test asks for another."""
    match getattr(request, "param", "sqlite"):
        case "postgres":
            return str(request.getfixturevalue("postgres_url"))
        case "memory":
            return "memory://"
        case _:
            return f"sqlite:///{tmp_path}/robot.db"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as one:
        yield one


@pytest.fixture
def tracers(collector: Collector) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{collector.url}/v1/traces")))
    yield provider
    provider.shutdown()


@pytest.fixture
def meters(collector: Collector) -> Iterator[MeterProvider]:
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{collector.url}/v1/metrics"), export_interval_millis=3_600_000)
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


@pytest.fixture
def instrument(tracers: TracerProvider, meters: MeterProvider) -> Callable[..., None]:
    """`instrument(capture_content=True)` into this test's receiver."""
    return lambda **more: telemetry.instrument(tracers, meters, **more)


@pytest.fixture(autouse=True)
def quick_exporters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
