"""Whether a thread is at rest: at its end, or waiting for somebody."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Literal

from ..app import App
from ..errors import NotFound
from ..interrupts import DECIDABLE
from .trouble import Code

Standing = Literal["busy", "waiting", "done", "failed", "cancelled", "closed"]
CODES: dict[Standing, Code] = {
    "busy": Code.OK,
    "done": Code.OK,
    "closed": Code.OK,
    "waiting": Code.WAITING,
    "failed": Code.FAILED,
    "cancelled": Code.CANCELLED,
}
LOOK_AGAIN = 0.5


async def standing(app: App, thread_id: str) -> Standing:
    """How it stands now. "waiting": for a person, an event or a `resume`, its own or a child's; a clock alone is not waited for by anybody."""
    row = await app.store.thread(thread_id)
    if row is None:
        raise NotFound("thread", thread_id)
    if row.status == "paused":
        return "waiting"
    if row.status != "open":
        return row.status
    is_due = row.due is not None and row.due <= app.store.clock.now()
    if row.lease_until is not None or row.woken > row.seen or is_due:
        return "busy"
    waits = await app.interrupts(thread=thread_id, limit=1000)
    if any(one.kind in DECIDABLE or one.kind == "event" for one in waits):
        return "waiting"
    children = [one.value["child"] if isinstance(one.value, dict) else str(one.value) for one in waits if one.kind == "child"]
    below = [await standing(app, child) for child in children]
    return "waiting" if "waiting" in below and "busy" not in below else "busy"


async def at_rest(app: App, thread_id: str, *, stays: bool = False) -> Standing:
    """Wait until it is not busy; with `stays` also while it waits for somebody."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def heard(ids: Collection[str] | None) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(changed.set)

    unlisten = app.store.listen(heard)
    try:
        while True:
            changed.clear()
            now = await standing(app, thread_id)
            if now not in ("busy", "waiting") or (now == "waiting" and not stays):
                return now
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN):
                    await changed.wait()
    finally:
        unlisten()
