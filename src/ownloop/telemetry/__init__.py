"""OpenTelemetry traces and metrics, and structured logs. Off until `instrument()`; nothing of OpenTelemetry is imported before (extra `[otel]`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import names
from .pending import observe
from .setup import from_environment
from .together import drop, found, put

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["from_environment", "instrument", "observe", "uninstrument"]


def instrument(
    tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None, capture_content: bool | None = None
) -> None:
    """Trace and measure every App of this process from now on; calling it again replaces what it did.

    Args:
        tracer_provider, meter_provider: default the global ones.
        capture_content: whether spans hold arguments, results, messages, error texts and who decided;
            default what OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says, else no.

    Raises:
        ImportError: the extra is not installed.

    Source: OpenTelemetry's semantic conventions for generative AI; `names` has every name.
    """
    try:
        from opentelemetry import metrics, trace

        from .metrics import Metering
        from .spans import Tracing
    except ImportError as error:
        raise ImportError(f"telemetry needs OpenTelemetry ({error}): pip install 'ownloop[otel]'") from None
    captures = (
        os.environ.get(names.CAPTURE, "").lower() in ("1", "true", "span_only", "span_and_event") if capture_content is None else capture_content
    )
    tracer = trace.get_tracer(names.SCOPE, tracer_provider=tracer_provider)
    meter = metrics.get_meter(names.SCOPE, meter_provider=meter_provider)
    put(Tracing(tracer, captures=captures), Metering(meter))


def uninstrument() -> None:
    """Trace and measure nothing any more; logs stay as they are."""
    from .metrics import Metering
    from .spans import Tracing

    if (metering := found(Metering)) is not None:
        metering.flush()
    drop(Tracing, Metering)
