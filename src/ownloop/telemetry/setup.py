"""OpenTelemetry by the environment alone: providers and OTLP exporters after the standard OTEL_* variables."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .pending import observe

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from ..app import App

Scrape = Callable[[], str]
"""Gives what is measured now, as Prometheus reads it."""

log = logging.getLogger("ownloop.telemetry")


def is_wanted() -> bool:
    """OWNLOOP_OTEL says it (1 or 0); without it a set OTEL_EXPORTER_OTLP_ENDPOINT does, also that of one signal."""
    said = os.environ.get("OWNLOOP_OTEL", "").lower()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
    return said not in ("0", "false", "no", "off") if said else any(os.environ.get(name) for name in endpoints)


@asynccontextmanager
async def from_environment(app: App) -> AsyncIterator[Scrape | None]:
    """While this block runs: traces and metrics of an App, if the environment wants them; what was gathered is sent at its end.

    Providers that the program has set stay as they are. Else spans and metrics go to OTLP over HTTP, unless OTEL_TRACES_EXPORTER or
    OTEL_METRICS_EXPORTER is "none"; OTEL_METRICS_EXPORTER=prometheus opens a port for scrapes instead (OTEL_EXPORTER_PROMETHEUS_PORT, default 9464).
    Gives what answers a scrape (`server.create(…, metrics=…)`), or None where nothing is measured here.

    Raises:
        ImportError: it is wanted, and the extra is not installed.
    """
    if not is_wanted():
        yield None
        return
    from . import instrument, uninstrument

    try:
        made, scrape = _set_tracers(), None
        if (measured := _set_meters()) is not None:
            scrape = measured[1]
            made.append(measured[0])
    except ImportError as error:
        raise ImportError(
            f"OWNLOOP_OTEL or OTEL_EXPORTER_OTLP_ENDPOINT asks for telemetry, which needs: pip install 'ownloop[otel]' ({error})"
        ) from None
    instrument()
    try:
        async with observe(app):
            yield scrape
    finally:
        uninstrument()
        for one in made:
            one.shutdown()


def _set_tracers() -> list[TracerProvider | MeterProvider]:
    """Set the global tracer provider, if nobody has."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    if not _is_unset(trace.get_tracer_provider()) or _exporter("TRACES") == "none":
        return []
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    tracers = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracers)
    return [tracers]


def _set_meters() -> tuple[MeterProvider, Scrape] | None:
    """Set the global meter provider, if nobody has; and what answers a scrape of it."""
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider

    from .prometheus import metrics_text, open_port, prometheus_reader

    if not _is_unset(metrics.get_meter_provider()):
        return None
    scraped, exporter = prometheus_reader(), _exporter("METRICS")
    if exporter == "prometheus":
        open_port(scraped)
    readers: list[MetricReader] = [scraped, *(_pushing() if exporter == "otlp" else [])]
    meters = MeterProvider(metric_readers=readers, resource=_resource(), shutdown_on_exit=False)
    metrics.set_meter_provider(meters)
    return meters, lambda: metrics_text(scraped)


def _pushing() -> list[MetricReader]:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    return [PeriodicExportingMetricReader(OTLPMetricExporter())]


def _is_unset(provider: object) -> bool:
    return type(provider).__name__ in ("ProxyTracerProvider", "_ProxyMeterProvider")


def _exporter(signal: str) -> str:
    if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf") != "http/protobuf":
        log.warning("OTEL_EXPORTER_OTLP_PROTOCOL=%s is not spoken here; http/protobuf is", os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"])
    return os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp")


def _resource() -> Resource:
    from opentelemetry.sdk.resources import Resource

    is_named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({} if is_named else {"service.name": "ownloop"})
