"""What waits for people, looked at now and then: the gauges by age."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from .. import ids
from ..app import App
from ..clock import duration
from ..interrupts import DECIDABLE
from ..stores.base import InterruptRow, Store
from . import names
from .together import found

if TYPE_CHECKING:
    from .metrics import Metering

log = logging.getLogger("ownloop.telemetry")

PAGE, MOST = 500, 10_000
"""Rows read at once, and of one kind at most: beyond that the count says "so many or more"."""


@asynccontextmanager
async def observe(app: App, *, every: timedelta | str = "15s") -> AsyncIterator[None]:
    """Keep the gauges of what waits on an App's store fresh, while this block runs and the App is open.

    The block may begin before the App is opened and end after it is closed; without `instrument()` nothing is read. Processes on one store all
    show the same numbers: take the maximum of them, not the sum.
    """
    task = asyncio.ensure_future(_sample(app, duration(every).total_seconds()))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _sample(app: App, seconds: float) -> None:
    was_open = False
    while True:
        metering, is_open = _metering(), app._runner is not None
        if metering is not None and is_open:
            await _look(app.store, metering)
        elif metering is not None and was_open:
            metering.pending({}, {})
        was_open = is_open
        await asyncio.sleep(seconds if is_open else min(seconds, 0.2))


def _metering() -> Metering | None:
    try:
        from .metrics import Metering
    except ImportError:
        return None
    return found(Metering)


async def _look(store: Store, metering: Metering) -> None:
    try:
        now = store.clock.now()
        rows = [row for kind in sorted(DECIDABLE) for row in await _open(store, kind)]
    except Exception as error:  # it is closed, or away: the next look tells
        log.debug("what waits could not be counted: %s", error)
        return
    waiting, oldest = Counter[tuple[str, str, str, str]](), dict[tuple[str, str], float]()
    for row in rows:
        age, kind = (now - row.request.at).total_seconds(), row.request.data["kind"]
        waiting[row.agent, kind, _tool(row), next(name for name, limit in names.AGES.items() if age < limit)] += 1
        oldest[row.agent, kind] = max(oldest.get((row.agent, kind), 0.0), age)
    metering.pending(waiting, oldest)


async def _open(store: Store, kind: str) -> list[InterruptRow]:
    rows: list[InterruptRow] = []
    while len(rows) < MOST:
        after = (rows[-1].thread_id, rows[-1].request.seq) if rows else None
        page = await store.interrupts(kind=kind, limit=PAGE, after=after)
        rows += page
        if len(page) < PAGE:
            break
    return rows


def _tool(row: InterruptRow) -> str:
    """The intent's name. Names of named steps may hold ids."""
    is_named = row.request.step_id is not None and ids.is_named(row.request.step_id)
    return "named step" if is_named else str(row.request.data.get("name") or "none")
