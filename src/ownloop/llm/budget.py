"""`Budget`: how much a thread, its tree, a context or a day may spend, and what happens when it is spent."""

from __future__ import annotations

from typing import Any


async def check(thread: Any, budget: Any) -> None:
    """Park the thread while a budget that counts for it is spent."""
