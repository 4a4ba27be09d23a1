"""Measurements taken now and handed over within a second, many at once; what is only added up is added up before.

A record costs OpenTelemetry's SDK about as much as everything else that a hook does. It gets no context: exemplars would double that.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from opentelemetry.context import Context
from opentelemetry.metrics import Counter, Histogram

MOST, SOON = 256, 1.0
"""How many measurements are kept at most, and for how many seconds."""
_NOWHERE = Context()


class Later:
    """Keeps measurements back for a moment."""

    def __init__(self) -> None:
        self._values: list[tuple[Histogram, float, dict[str, Any]]] = []
        self._sums: dict[tuple[Any, ...], float] = {}
        self._lock = threading.Lock()
        self._is_due = False

    def record(self, histogram: Histogram, value: float, labels: dict[str, Any]) -> None:
        """One value of a histogram."""
        with self._lock:
            self._values.append((histogram, value, labels))
        self._see_to_it()

    def add(self, counter: Counter, amount: float, labels: dict[str, Any]) -> None:
        """So much more of a counter."""
        place = (counter, *labels.items())
        with self._lock:
            self._sums[place] = self._sums.get(place, 0) + amount
        self._see_to_it()

    def _see_to_it(self) -> None:
        if len(self._values) == MOST:
            self._flush_beside()
        elif not self._is_due:
            try:
                asyncio.get_running_loop().call_later(SOON, self._flush_beside)
                self._is_due = True
            except RuntimeError:  # no loop runs here
                self.flush()

    def _flush_beside(self) -> None:
        """In a thread of its own: the loop has better things to do."""
        threading.Thread(target=self.flush, name="ownloop-metrics", daemon=True).start()

    def flush(self) -> None:
        """Hand over what is kept. Callable from any thread."""
        with self._lock:
            values, self._values, sums, self._sums, self._is_due = self._values, [], self._sums, {}, False
        for histogram, value, labels in values:
            histogram.record(value, labels, _NOWHERE)
        for (counter, *items), amount in sums.items():
            counter.add(amount, dict(items), _NOWHERE)
