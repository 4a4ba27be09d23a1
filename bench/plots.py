"""Two kinds of plot as SVG, written by hand: readable on white and on black, no dependency. Both axes of values are logarithmic."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

OURS, FLOOR = "ownloop", "floor"
WIDTH = 860
STYLE = """<style>
  text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-size: 17px; font-weight: 600 } .small { font-size: 11px; fill: #57606a }
  .grid { stroke: #d0d7de } .line { fill: none; stroke: currentColor; stroke-width: 1.6 } .line.dashed { stroke-dasharray: 9 3 }
  .lead { fill: none; stroke: currentColor; stroke-width: .7; opacity: .6 } .line.ours { stroke-width: 3 } .line.floor { stroke-dasharray: 3 3 }
  text.name { fill: currentColor } text.ours { fill: #0969da; font-weight: 700 }
  .first { fill: #8c959f } .second { fill: #57606a } .first.ours { fill: #54aeff } .second.ours { fill: #0969da }
  .ours { color: #0969da } .floor { color: #57606a } .peer0 { color: #8250df } .peer1 { color: #bf3989 } .peer2 { color: #cf222e }
  .peer3 { color: #bc4c00 } .peer4 { color: #9a6700 } .peer5 { color: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #30363d } text.ours { fill: #4493f8 }
    .first { fill: #6e7681 } .second { fill: #b1bac4 } .first.ours { fill: #1f6feb } .second.ours { fill: #79c0ff }
    .ours { color: #4493f8 } .floor { color: #9198a1 } .peer0 { color: #ab7df8 } .peer1 { color: #db61a2 } .peer2 { color: #f85149 }
    .peer3 { color: #db6d28 } .peer4 { color: #d29922 } .peer5 { color: #3fb950 }
  }
</style>"""
SMALL = 'class="small" text-anchor'


class Plot(Protocol):
    """A picture with a title, the unit of its values, and when and where they were measured."""

    @property
    def title(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def known(self) -> list[float]: ...
    @abstractmethod
    def svg(self) -> str: ...


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis: values low to high, places `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        part = (math.log10(max(value, self.low)) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return round(self.start + part * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        return [tick for power in range(first, last + 1) if self.low <= (tick := 10.0**power) <= self.high]


def scale(values: Sequence[float], start: float, end: float) -> Scale:
    """From the power of ten below the least value to the one above the greatest."""
    low, high = min(values), max(values)
    return Scale(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high * 1.0001)), start, end)


def frame(title: str, unit: str, when: str, height: float, body: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" role="img">'
    texts = [
        f"<title>{escape(title)}: {escape(unit)}</title>",
        f'<text class="title" x="16" y="28">{escape(title)}</text>',
        f'<text class="small" x="16" y="46">{escape(unit)} · logarithmic</text>',
        f'<text class="small" x="16" y="{height - 12:.0f}">{escape(when)}</text>',
    ]
    return "\n".join([head, STYLE, *texts, *body, "</svg>"]) + "\n"


def style(name: str, place: int) -> str:
    return "ours" if name == OURS else "floor" if name.startswith(FLOOR) else f"peer{place % 6}" + (" dashed" if place >= 6 else "")


def every(across: float) -> int:
    """Four to eight marks along the axis of steps."""
    power = 10 ** int(math.log10(across))
    return max(1, next(int(power * part) for part in (0.2, 0.5, 1, 2) if across / (power * part) <= 8))


def words(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


@dataclass(frozen=True)
class Lines:
    """One line a name, its points (step, value); the names stand at the right ends."""

    title: str
    unit: str
    when: str
    lines: Mapping[str, Sequence[tuple[float, float]]]

    @property
    def known(self) -> list[float]:
        return [point[1] for line in self.lines.values() for point in line]

    def svg(self) -> str:
        top, bottom, left, right = 66.0, 440.0, 64.0, 620.0
        across = max(point[0] for line in self.lines.values() for point in line)
        up = scale(self.known, bottom, top)

        def along(step: float) -> float:
            return round(left + (right - left) * step / across, 1)

        body = []
        for tick in up.ticks:
            body.append(
                f'<path class="grid" d="M{left} {up(tick)}H{right}"/><text {SMALL}="end" x="{left - 8}" y="{up(tick) + 4}">{words(tick)}</text>'
            )
        for step in range(0, int(across) + 1, every(across)):
            body.append(f'<text {SMALL}="middle" x="{along(step)}" y="{bottom + 18}">{step:,}</text>')
        body.append(f'<text {SMALL}="middle" x="{(left + right) / 2}" y="{bottom + 34}">step</text>')
        names = sorted(self.lines, key=lambda name: self.lines[name][-1][1])
        for place, (name, y) in enumerate(zip(names, spread([up(self.lines[name][-1][1]) for name in names], 17, bottom), strict=True)):
            points, kind = self.lines[name], style(name, place)
            path = "L".join(f"{along(step)} {up(value)}" for step, value in points)
            end = points[-1]
            body.append(
                f'<path class="line {kind}" d="M{path}"/><path class="lead {kind}" d="M{along(end[0])} {up(end[1])}L{right + 10} {y}H{right + 14}"/>'
            )
            body.append(f'<text class="name {kind}" x="{right + 18}" y="{y + 4}">{escape(name)} · {words(end[1])}</text>')
        return frame(self.title, self.unit, self.when, bottom + 68, body)


def spread(places: Sequence[float], gap: float, bottom: float) -> list[float]:
    """The same order from the bottom up, none nearer to the next than the gap."""
    found: list[float] = []
    for place in places:
        found.append(round(min(place, (found[-1] - gap) if found else bottom), 1))
    return found


@dataclass(frozen=True)
class Bars:
    """Two bars a name, one above the other; a missing value is said."""

    title: str
    unit: str
    when: str
    kinds: tuple[str, str]
    values: Mapping[str, Sequence[float | None]]

    @property
    def known(self) -> list[float]:
        return [one for pair in self.values.values() for one in pair if one]

    def svg(self) -> str:
        left, right, top, row = 230.0, 770.0, 92.0, 36.0
        along = scale(self.known, left, right)
        bottom = top + row * len(self.values)
        body = [self._legend(left)]
        for tick in along.ticks:
            at = along(tick)
            body.append(f'<path class="grid" d="M{at} {top - 8}V{bottom}"/><text {SMALL}="middle" x="{at}" y="{bottom + 16}">{words(tick)}</text>')
        for place, (name, pair) in enumerate(self.values.items()):
            y, ours = top + row * place, "ours" if name == OURS else ""
            body.append(f'<text class="{ours}" text-anchor="end" x="{left - 10}" y="{y + 19}">{escape(name)}</text>')
            for number, (value, kind) in enumerate(zip(pair, ("first", "second"), strict=True)):
                end = along(value) if value else left
                bar = f'<rect class="{kind} {ours}" x="{left}" y="{y + 2 + 14 * number}" width="{max(0.0, end - left):.1f}" height="12" rx="2"/>'
                said = words(value) if value else "not measured"
                body.append(f'{bar}<text class="small" x="{end + 5}" y="{y + 12 + 14 * number}">{said}</text>')
        return frame(self.title, self.unit, self.when, bottom + 52, body)

    def _legend(self, left: float) -> str:
        marks = [
            f'<rect class="{kind}" x="{at}" y="58" width="12" height="12" rx="2"/><text class="small" x="{at + 17}" y="68">{escape(name)}</text>'
            for kind, name, at in zip(("first", "second"), self.kinds, (left, left + 130), strict=True)
        ]
        return "".join(marks)
