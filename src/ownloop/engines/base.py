"""Who wakes threads. A wake-up is only a hint: it may be lost, doubled or early; the thread's row decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Protocol

RunOne = Callable[[str], Awaitable[bool]]
"""Runs one wake of a thread if it is runnable; whether it is runnable again at once."""


class Engine(Protocol):
    """The clock and the courier. The log stays the truth and the fence."""

    async def wake(self, thread_id: str, *, at: datetime | None = None, tx: Any = None) -> None:
        """Say that the thread may be runnable, now or `at` a time; with `tx` in the caller's transaction."""
        ...

    async def serve(self, run_one: RunOne) -> None:
        """Run wakes until cancelled; then start nothing new, wait for what runs, and return."""
        ...
