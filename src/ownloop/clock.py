"""Time as the stores see it: the wall clock in UTC, and a counter that runs on while a process is frozen."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Clock(Protocol):
    """What a store measures by; `ownloop.testing.FakeClock` is the other one."""

    def now(self) -> datetime:
        """The time of day, aware, UTC."""
        ...

    def ticks(self) -> float:
        """Seconds since some moment; never goes back and does not stop while the process is stopped or the machine sleeps."""
        ...

    def on_move(self, moved: Callable[[], None]) -> Callable[[], None]:
        """Call `moved` whenever somebody sets the clock; returns how to stop. A real clock never calls."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def ticks(self) -> float:
        return time.clock_gettime(_BOOT) if _BOOT is not None else time.monotonic()

    def on_move(self, moved: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def duration(value: timedelta | str) -> timedelta:
    """A `timedelta`, or `"90s" "10m" "6h" "7d" "1h30m"` as one.

    Raises:
        ValueError: anything else, negative, or empty.
    """
    if isinstance(value, timedelta):
        parsed = value
    elif isinstance(value, str) and re.fullmatch(r"\s*(\d+(\.\d+)?\s*(ms|[smhdw])\s*)+", value):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])", value)
        parsed = sum((timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta())
    else:
        raise ValueError(f'{value!r} is not a duration: write a timedelta, or a number with a unit: "90s", "10m", "6h", "7d"')
    if parsed < timedelta():
        raise ValueError(f"{value!r} is negative; a duration goes forward")
    return parsed


def moment(value: datetime | timedelta | str) -> datetime | timedelta:
    """An aware time in UTC, or a duration; a naive time is an error.

    Raises:
        ValueError: for a naive `datetime`, or what `duration` refuses.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; write an aware datetime, for instance datetime(…, tzinfo=UTC)")
        return value.astimezone(UTC)
    return duration(value)


def micros(at: datetime) -> int:
    """Microseconds since 1970, exact."""
    return (at - _EPOCH) // timedelta.resolution


def from_micros(value: int) -> datetime:
    """The aware UTC time of `micros`."""
    return _EPOCH + timedelta(microseconds=value)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
