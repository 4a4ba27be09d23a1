"""OpenTelemetry by the environment alone: providers and OTLP exporters after the standard OTEL_* variables."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .pending import observe

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource

    from ..app import App

log = logging.getLogger("ownloop.telemetry")


def is_wanted() -> bool:
    """OWNLOOP_OTEL says it (1 or 0); without it a set OTEL_EXPORTER_OTLP_ENDPOINT does, also that of one signal."""
    said = os.environ.get("OWNLOOP_OTEL", "").lower()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
    return said not in ("0", "false", "no", "off") if said else any(os.environ.get(name) for name in endpoints)


@asynccontextmanager
async def from_environment(app: App) -> AsyncIterator[None]:
    """While this block runs: traces and metrics of an App, if the environment wants them; what was gathered is sent at its end.

    Providers that the program has set stay as they are. Else spans and metrics go to OTLP over HTTP, unless OTEL_TRACES_EXPORTER or
    OTEL_METRICS_EXPORTER is "none"; OTEL_METRICS_EXPORTER=prometheus opens a port for scrapes (OTEL_EXPORTER_PROMETHEUS_PORT, default 9464).

    Raises:
        ImportError: it is wanted, and the extra is not installed.
    """
    if not is_wanted():
        yield
        return
    from . import instrument, uninstrument

    try:
        close = _make_providers()
    except ImportError as error:
        raise ImportError(
            f"OWNLOOP_OTEL or OTEL_EXPORTER_OTLP_ENDPOINT asks for telemetry, which needs: pip install 'ownloop[otel]' ({error})"
        ) from None
    instrument()
    try:
        async with observe(app):
            yield
    finally:
        uninstrument()
        close()


def _make_providers() -> Callable[[], None]:
    """Set the global providers that nobody has set; returns how to flush and close them."""
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    made: list[TracerProvider | MeterProvider] = []
    resource = _resource()
    if _is_unset(trace.get_tracer_provider()) and _exporter("TRACES") != "none":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(tracers)
        made.append(tracers)
    if _is_unset(metrics.get_meter_provider()) and _exporter("METRICS") != "none":
        meters = MeterProvider(metric_readers=[_metric_reader()], resource=resource, shutdown_on_exit=False)
        metrics.set_meter_provider(meters)
        made.append(meters)

    def close() -> None:
        for one in made:
            one.shutdown()

    return close


def _is_unset(provider: object) -> bool:
    return type(provider).__name__ in ("ProxyTracerProvider", "_ProxyMeterProvider")


def _exporter(signal: str) -> str:
    if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf") != "http/protobuf":
        log.warning("OTEL_EXPORTER_OTLP_PROTOCOL=%s is not spoken here; http/protobuf is", os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"])
    return os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp")


def _metric_reader() -> MetricReader:
    if _exporter("METRICS") == "prometheus":
        from prometheus_client import start_http_server

        from .prometheus import prometheus_reader

        reader = prometheus_reader()
        host, port = os.environ.get("OTEL_EXPORTER_PROMETHEUS_HOST", "localhost"), os.environ.get("OTEL_EXPORTER_PROMETHEUS_PORT", "9464")
        start_http_server(int(port), host, reader._registry)
        return reader
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    return PeriodicExportingMetricReader(OTLPMetricExporter())


def _resource() -> Resource:
    from opentelemetry.sdk.resources import Resource

    is_named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({} if is_named else {"service.name": "ownloop"})
