"""A thread as it goes on: its lines as they are committed by any process, and bars for what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..app import App
from ..clock import Clock
from ..events import Delta, Event, Progress
from ..inert import inert
from .brief import span
from .paper import Paper, Span, plain
from .showing import INDENT, write
from .story import Teller

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

BAR = 24
PAGE = 500
"""Events asked for at once: a server gives no more."""
RESTING = ("done", "failed", "cancelled", "closed")


class Follower:
    """Prints a thread while it grows: its story, or, with `raw`, what that makes of each event."""

    def __init__(self, app: App, paper: Paper, thread_id: str, *, after: int = 0, raw: Callable[[Event], None] | None = None) -> None:
        self._app, self._paper, self.thread_id = app, paper, thread_id
        self._teller = Teller(thread_id)
        self._group: str | None = None
        self._bars = Bars(paper, app.store.clock)
        self.seen = after
        self._raw = raw

    async def follow(self, *, until_it_rests: bool) -> None:
        """Until cancelled; with `until_it_rests` also until a turn has ended, or the thread has."""
        try:
            async for item in self._app.stream(self.thread_id):
                if isinstance(item, Event):
                    self.event(item)
                    if until_it_rests and await self._rests(item):
                        return
                elif self._raw is None:
                    self._streamed(item)
        finally:
            self._bars.clear()

    async def _rests(self, event: Event) -> bool:
        if event.kind not in ("turn_ended", "failed", "control"):
            return False
        row = await self._app.store.thread(self.thread_id)
        return row is not None and row.status in RESTING and row.head <= event.seq

    def event(self, event: Event) -> None:
        """Print what one event adds, once."""
        lines = self._teller.tell(event) if event.seq > self._teller.history.head else []
        if event.seq <= self.seen:
            return
        self.seen = event.seq
        if event.kind in ("outcome", "delivered", "turn_ended", "failed"):
            self._bars.clear()
        if self._raw is not None:
            self._raw(event)
            return
        if not self._paper.is_plain:
            self._paper.json({"thread": self.thread_id, **plain(event)})
            return
        for line in lines:
            if line.group is not None and line.group != self._group and not line.is_heading:
                self._remind(line.group)
            self._group = line.group
            write(self._paper, line)

    def _remind(self, group: str) -> None:
        """The step that goes on, where another one spoke in between."""
        step = self._teller.history.steps[group]
        name = f"@{step.name}" if step.is_named else f"{step.number} {step.name}"
        self._paper.line(" " * INDENT, (f"{name} …", "dim"))

    async def catch_up(self) -> None:
        """Print what is on disk and was not printed yet."""
        while page := await self._app.store.events(self.thread_id, after=self._teller.history.head, limit=PAGE):
            for event in page:
                self.event(event)

    def _streamed(self, item: Progress | Delta) -> None:
        if self._paper.form == "jsonl" or self._paper.form == "json":
            name = "progress" if isinstance(item, Progress) else "delta"
            self._paper.json({"thread": self.thread_id, name: plain(item)})
        elif isinstance(item, Progress):
            self._bars.show(item)

    def stop(self) -> None:
        self._bars.clear()


class Bars:
    """The latest progress of what runs: bars under the log on a terminal, lines elsewhere."""

    def __init__(self, paper: Paper, clock: Clock) -> None:
        self._paper, self._clock = paper, clock
        self._latest: dict[datetime | None, Progress] = {}
        self._live: Live | None = None

    def show(self, item: Progress) -> None:
        if not self._paper.is_wide:
            self._paper.line(" " * INDENT, "  ", *self._line(item))
            return
        self._latest[item.started_at] = item
        if self._live is None:
            from rich.live import Live

            self._live = Live(get_renderable=self._render, console=self._paper.out, refresh_per_second=4, transient=True)
            self._live.start()
        self._live.refresh()

    def clear(self) -> None:
        self._latest.clear()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _render(self) -> RenderableType:
        from rich.console import Group

        lines = [self._paper.text(" " * INDENT, "  ", *self._line(item)) for item in list(self._latest.values())]
        for line in lines:
            line.truncate(self._paper.out.width, overflow="ellipsis")
        return Group(*lines)

    def _line(self, item: Progress) -> list[Span]:
        return list(progress(item, self._clock.now()))


def progress(item: Progress, now: datetime) -> Iterator[Span]:
    """`━━━━────  42%  420/1,000  text  12 s, about 17 s left`."""
    if item.total:
        share = min(1.0, max(0.0, item.done / item.total))
        full = round(share * BAR)
        yield ("━" * full, "cyan")
        yield ("─" * (BAR - full), "dim")
        yield f" {share:4.0%}"
        yield (f"  {_number(item.done)}/{_number(item.total)}", "dim")
    else:
        yield ("▸ ", "cyan")
        yield _number(item.done)
    if item.text:
        yield f"  {inert(item.text)[:80]}"
    if item.started_at is not None:
        yield (f"  {span(now - item.started_at)}{_left(item, now - item.started_at)}", "dim")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def _left(item: Progress, elapsed: timedelta) -> str:
    """An estimate, once some of it is done."""
    if not item.total or not 0 < item.done < item.total or elapsed <= timedelta():
        return ""
    return f", about {span(elapsed / item.done * (item.total - item.done))} left"


async def stopped(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it is over."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
