"""Metrics as Prometheus reads them, through the OpenTelemetry exporter."""

from __future__ import annotations

import os

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, start_http_server
from prometheus_client import generate_latest as _generate

from .metrics import Metering
from .together import found

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def prometheus_reader() -> PrometheusMetricReader:
    """A metric reader with a registry of its own: `MeterProvider(metric_readers=[reader])`, then `metrics_text(reader)` at each scrape."""
    return PrometheusMetricReader(scope_info_enabled=False, registry=CollectorRegistry())


def metrics_text(reader: PrometheusMetricReader) -> str:
    """What a scrape is answered with, as `CONTENT_TYPE`. Callable from any thread."""
    if (metering := found(Metering)) is not None:
        metering.flush()
    return _generate(reader._registry).decode()


def open_port(reader: PrometheusMetricReader) -> None:
    """Answer scrapes on OTEL_EXPORTER_PROMETHEUS_HOST and _PORT, default localhost:9464, until the process ends."""
    host, port = os.environ.get("OTEL_EXPORTER_PROMETHEUS_HOST", "localhost"), os.environ.get("OTEL_EXPORTER_PROMETHEUS_PORT", "9464")
    start_http_server(int(port), host, reader._registry)
