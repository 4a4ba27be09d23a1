"""A stretch of a thread's log as lanes of bars over time: what was chosen, what ran, who was waited for. Pure: events in, a picture out."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from ... import ids
from ...events import Event, Json
from ...history import Usage
from ...interrupts import DECIDABLE
from .words import span

BarKind = Literal["model", "run", "person", "event", "timer", "child"]
WIDTH = 1000
NARROWEST = 4
_UNIT = 0.4
"""Seconds up to which the axis is about linear; longer stretches grow with their logarithm."""
_MARKS = ("input", "message", "turn_ended", "failed", "control", "model_failed", "appended", "compacted")


@dataclass
class Bar:
    """Something that took time. `end` is None while it goes on. `x` and `width` are set by `placed`, in thousandths of the picture."""

    kind: BarKind
    label: str
    start: datetime
    end: datetime | None = None
    is_bad: bool = False
    x: int = 0
    width: int = 0

    def told(self, now: datetime) -> str:
        """In words: `waited 2 h 5 min for ana`."""
        took = span((self.end or now) - self.start)
        verb = {"model": "model", "run": "ran"}.get(self.kind, "waited")
        what = (
            f"{verb} {took}" if self.kind == "model" else f"{self.label} {verb} {took}" if self.kind == "run" else f"{verb} {took} for {self.label}"
        )
        return what + (", still open" if self.end is None else "")


@dataclass
class Lane:
    """A step, or (without `step_id`) something that happened to the thread."""

    at: datetime
    name: str
    kind: str = "step"
    step_id: str | None = None
    number: str = ""
    arguments: Mapping[str, Json] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)
    status: str = "open"
    usage: Usage = field(default_factory=Usage)
    latency: timedelta | None = None
    model: str = ""
    is_cached: bool = False
    summary: str = ""
    error: str = ""
    event: Event | None = None
    children: list[tuple[str, str]] = field(default_factory=list)
    x: int = 0

    def told(self, now: datetime) -> str:
        return " · ".join(bar.told(now) for bar in self.bars)


@dataclass(frozen=True)
class Picture:
    """Lanes in the order of their beginning, on one axis."""

    lanes: list[Lane]
    start: datetime
    end: datetime
    usage: Usage

    @property
    def has_people(self) -> bool:
        return any(bar.kind == "person" for lane in self.lanes for bar in lane.bars)


def picture(events: Sequence[Event], now: datetime) -> Picture:
    """The picture of a stretch of the log; what goes on still reaches to `now`."""
    drawing = _Drawing()
    for event in events:
        drawing.take(event)
    lanes = drawing.lanes
    times = [time for lane in lanes for bar in lane.bars for time in (bar.start, bar.end or now)] + [lane.at for lane in lanes]
    axis = Axis(times or [now])
    for lane in lanes:
        lane.x = axis.place(lane.at)
        for bar in lane.bars:
            bar.x = axis.place(bar.start)
            bar.width = max(NARROWEST, axis.place(bar.end or now) - bar.x)
            bar.x = min(bar.x, WIDTH - bar.width)
    return Picture(lanes, axis.times[0], axis.times[-1], drawing.usage)


class Axis:
    """Time from left to right, longer stretches drawn shorter than they were: a second and a week are seen on one picture."""

    def __init__(self, times: Iterable[datetime]) -> None:
        self.times = sorted(set(times))
        widths = [math.log1p((after - before).total_seconds() / _UNIT) for before, after in zip(self.times, self.times[1:], strict=False)]
        total, self._places, place = sum(widths) or 1.0, [0], 0.0
        for width in widths:
            place += width
            self._places.append(round(place / total * WIDTH))

    def place(self, at: datetime) -> int:
        """Of a time that the axis was made with."""
        return self._places[min(bisect_left(self.times, at), len(self.times) - 1)]


class _Drawing:
    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.usage = Usage()
        self._steps: dict[str, Lane] = {}
        self._runs: dict[tuple[str, str], Bar] = {}
        self._waits: dict[int, Bar] = {}
        self._last: dict[str, datetime] = {}

    def take(self, event: Event) -> None:
        self.usage = self.usage.plus(event.data.get("usage"))
        if event.step_id is not None:
            self._of_step(event, event.step_id)
            self._last[event.step_id] = event.at
        elif event.kind in _MARKS:
            self._mark(event)

    def _mark(self, event: Event) -> None:
        if event.kind == "control" and event.data["verb"] in ("cancel", "close"):
            for bar in [*self._runs.values(), *self._waits.values()]:
                bar.end = bar.end or event.at
        self.lanes.append(Lane(event.at, event.kind, kind="mark", event=event))

    def _lane(self, event: Event, step_id: str) -> Lane:
        lane = self._steps.get(step_id)
        if lane is None:
            number = ids.step_of(step_id)
            is_named = ids.is_named(step_id)
            lane = Lane(event.at, str(number) if is_named else "step", step_id=step_id, number="" if is_named else str(number))
            self._steps[step_id] = lane
            self.lanes.append(lane)
        return lane

    def _of_step(self, event: Event, step_id: str) -> None:
        lane, data = self._lane(event, step_id), event.data
        if event.kind == "selected":
            self._selected(lane, event)
        elif "request" in data:
            self._closed(lane, event)
        elif event.kind == "started":
            bar = self._runs[step_id, event.op or ""] = Bar("run", _call(event.op), event.at)
            lane.bars.append(bar)
        elif event.kind in ("outcome", "not_started"):
            self._outcome(lane, event, step_id)
        elif event.kind == "request":
            self._asked(lane, event)
        elif event.kind == "ended":
            self._ended(lane, event, step_id)

    def _selected(self, lane: Lane, event: Event) -> None:
        data = event.data
        lane.name, lane.arguments, lane.event = str(data["intent"]), data["arguments"], event
        lane.usage = lane.usage.plus(data.get("usage"))
        lane.model, lane.summary = str(data.get("model") or ""), str(data.get("summary") or "")
        lane.is_cached = bool(data.get("cached"))
        if data.get("latency_ms"):
            lane.latency = timedelta(milliseconds=float(data["latency_ms"]))
            lane.bars.append(Bar("model", lane.model or "the model", event.at - lane.latency, event.at))

    def _asked(self, lane: Lane, event: Event) -> None:
        data = event.data
        kind: BarKind = "person" if data["kind"] in DECIDABLE else data["kind"]
        by = ", ".join(map(str, data.get("policy", {}).get("by", ())))
        label = {"person": by or "a person", "event": str(data.get("event")), "timer": "the clock", "child": str(data.get("agent") or "a child")}[
            kind
        ]
        if data["kind"] == "in_doubt" and (run := self._runs.get((event.step_id or "", str(data.get("call"))))) is not None:
            run.end, run.is_bad, run.label = run.end or event.at, True, f"{run.label} (outcome unknown)"
        bar = self._waits[event.seq] = Bar(kind, label, event.at)
        lane.bars.append(bar)
        if data["kind"] == "child" and data.get("child"):
            lane.children.append((str(data["child"]), str(data.get("agent") or "")))

    def _closed(self, lane: Lane, event: Event) -> None:
        bar = self._waits.get(event.data["request"])
        if bar is None or event.kind == "vote":
            return
        bar.end = event.at
        bar.is_bad = event.data.get("kind") in ("rejected", "expired") or "error" in event.data
        if event.by and bar.kind == "person":
            bar.label = event.by

    def _outcome(self, lane: Lane, event: Event, step_id: str) -> None:
        bar = self._runs.get((step_id, event.op or ""))
        if bar is None:  # a function that only reads: its start was not recorded
            bar = Bar("run", _call(event.op), self._last.get(step_id, event.at))
            lane.bars.append(bar)
        bar.end, bar.is_bad = bar.end or event.at, "error" in event.data
        lane.usage = lane.usage.plus(event.data.get("usage"))
        lane.is_cached = lane.is_cached or bool(event.data.get("cached"))
        error = event.data.get("error")
        lane.error = f"{error.get('type')}: {error.get('message')}" if isinstance(error, Mapping) else ""

    def _ended(self, lane: Lane, event: Event, step_id: str) -> None:
        lane.status = str(event.data.get("status", "ended"))
        for bar in lane.bars:
            if bar.kind != "child":
                bar.end = bar.end or event.at


def _call(op: str | None) -> str:
    return (op or "").removeprefix("run:")
