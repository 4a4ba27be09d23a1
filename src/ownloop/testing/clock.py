"""A clock that only a test moves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ..clock import duration


class FakeClock:
    """Replaces a store's clock: it stands still until `advance`. Safe from any thread.

    Args:
        start: an aware time; by default 2026-01-01 00:00 UTC.
    """

    def __init__(self, start: datetime | None = None) -> None:
        if start is not None and start.tzinfo is None:
            raise ValueError(f"{start!r} has no time zone; write an aware datetime, for instance datetime(…, tzinfo=UTC)")
        self._now = (start or datetime(2026, 1, 1, tzinfo=UTC)).astimezone(UTC)
        self._gate = threading.Lock()
        self._moved: list[Callable[[], None]] = []

    def now(self) -> datetime:
        with self._gate:
            return self._now

    def ticks(self) -> float:
        return self.now().timestamp()

    def advance(self, by: timedelta | str) -> datetime:
        """Move on by a `timedelta` or "25h"; everybody who asked is told. Returns the new time."""
        with self._gate:
            self._now += duration(by)
            now, moved = self._now, list(self._moved)
        for callback in moved:
            callback()
        return now

    def on_move(self, moved: Callable[[], None]) -> Callable[[], None]:
        def stop() -> None:
            with self._gate:
                self._moved.remove(moved)

        with self._gate:
            self._moved.append(moved)
        return stop
