"""How to reach Temporal: with options that its client takes, and with the words of its core in the log."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from inspect import signature
from typing import Any

from temporalio.client import Client
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

TAKES = sorted(signature(Client.connect).parameters.keys() - {"target_host", "namespace", "lazy"})


def check_options(names: Collection[str]) -> None:
    """Raises TypeError: the client takes no such option, or it is not for others to choose."""
    if unknown := [name for name in names if name not in TAKES]:
        raise TypeError(f"Temporal(…, {unknown[0]}=…) goes to temporalio.client.Client.connect, which takes {', '.join(TAKES)}")


async def connect(**options: Any) -> Client:
    """A client of this event loop. It shares the process's `Runtime`, unless `runtime=` is another one."""
    if options.get("runtime") is None:
        _make_runtime()
    return await Client.connect(**options)


@cache
def _make_runtime() -> None:
    """The process's own, unless the program has made it. By default its core writes to stdout, many lines a second while its server is away."""
    errors = TelemetryFilter(core_level="ERROR", other_level="ERROR")
    forwarding = LogForwardingConfig(logger=logging.getLogger("temporalio.core"))
    with suppress(RuntimeError):
        Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(filter=errors, forwarding=forwarding))))
