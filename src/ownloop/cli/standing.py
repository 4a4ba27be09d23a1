"""Whether a thread is at rest: at its end, or waiting for somebody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Literal

from .. import ids
from ..app import App
from ..doctor import failed_call
from ..errors import NotFound, StoreError
from ..interrupts import DECIDABLE
from ..stores.base import ThreadRow
from ..views import ThreadView
from .session import Session
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
PATIENCE = 5.0
"""Seconds in which a worker takes up what is ready, or there is none."""


async def standing(app: App, thread_id: str) -> Standing:
    """How it stands now. "waiting": for a person, an event or a `resume`, its own or a child's; a clock alone is not waited for by anybody."""
    row = await app.store.thread(thread_id)
    if row is None:
        raise NotFound("thread", thread_id)
    if row.status == "paused":
        return "waiting"
    if row.status != "open":
        return row.status
    if row.lease_until is not None or _is_ready(app, row):
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


def made_again(view: ThreadView) -> tuple[str, Sequence[str]] | None:
    """If a call of a failed thread's last step failed: its name, and the command that makes it once more."""
    failed = failed_call(view.steps) if view.status == "failed" else None
    if failed is None:
        return None
    step, name = failed
    return name, ("start", view.agent, "INPUT", "--key", "KEY") if ids.is_named(step) else ("fork", view.id, "--before", step)


def _is_ready(app: App, row: ThreadRow) -> bool:
    """Whether a worker would take an open thread that nobody holds."""
    return row.woken > row.seen or (row.due is not None and row.due <= app.store.clock.now())


@asynccontextmanager
async def told_if_unserved(session: Session, app: App, thread_id: str) -> AsyncIterator[None]:
    """Beside what waits for a thread: say once, if it is so, that nobody takes it up. A server does not show that."""
    looking = asyncio.ensure_future(_unserved(session, app, thread_id)) if session.server is None else None
    try:
        yield
    finally:
        if looking is not None:
            looking.cancel()
            with suppress(asyncio.CancelledError, StoreError):
                await looking


async def _unserved(session: Session, app: App, thread_id: str) -> None:
    before: int | None = None
    while (row := await app.store.thread(thread_id)) is not None:
        is_left = row.status == "open" and row.lease_until is None and _is_ready(app, row)
        if is_left and row.epoch == before:
            serve = session.again("worker", session.app_place or "FILE.py")
            session.paper.note((f"no worker has taken it up for {PATIENCE:g} s; is one for {row.agent} running? ", "yellow"), (serve, "cyan"))
            return
        before = row.epoch if is_left else None
        await asyncio.sleep(PATIENCE)
