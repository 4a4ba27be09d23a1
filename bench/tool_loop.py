"""A tool loop: one thread, every step a selection, a tool with effects (or one that only reads) and a result of 200 bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ownloop import tool

from .agents import ToolLoop
from .measure import Result, alternate, floor_seconds, main, median, scratch

STEPS = 100
LONG = 10_000


def seconds_per_step(wrap: Callable[[Any], Any], steps: int = STEPS) -> float:
    """From the first call of the tool to the last one."""
    with scratch() as folder:
        loop = ToolLoop(f"sqlite:///{folder}/loop.db", steps, wrap)
        loop.run()
        return (loop.stamps[-1] - loop.stamps[0]) / (steps - 1)


def short(rounds: int, name: str, commits: int, wrap: Callable[[Any], Any]) -> Result:
    floor, ours, ratio = alternate(rounds, lambda: floor_seconds(commits, STEPS) / STEPS, lambda: seconds_per_step(wrap))
    over = (ours - floor) * 1e3
    return Result(
        f"tool loop, {STEPS} steps, {name}: {commits} commits a step",
        "≤ 1.5 × the floor or ≤ 0.25 ms over it",
        f"{ratio:.2f} × ({ours * 1e3:.2f} ms a step, {over:+.2f} ms)",
        f"{floor * 1e3:.2f} ms a step",
        ratio <= 1.5 or over <= 0.25,
    )


def long(rounds: int) -> list[Result]:
    """The median step among the first ten after a warm-up of ten, and among the last ten; and CPU time without syncs, which a busy disk
    neither hides nor makes, over a hundred steps after a warm-up of a hundred."""
    firsts, lasts, early, late = [], [], [], []
    for _ in range(rounds):
        with scratch() as folder:
            loop = ToolLoop(f"sqlite:///{folder}/long.db", LONG)
            loop.run()
        steps = [after - before for before, after in zip(loop.stamps, loop.stamps[1:], strict=False)]
        firsts.append(median(steps[10:20]))
        lasts.append(median(steps[-10:]))
        with scratch() as folder:
            loop = ToolLoop(f"sqlite:///{folder}/long.db?synchronous=normal", LONG)
            loop.run()
        early.append((loop.cpu[200] - loop.cpu[100]) / 100)
        late.append((loop.cpu[-1] - loop.cpu[-101]) / 100)
    return [
        compared(f"the last ten of {LONG:,} steps", "ten", firsts, lasts),
        compared(f"CPU time of the last hundred of {LONG:,} steps, synchronous=normal", "hundred", early, late),
    ]


def compared(name: str, count: str, first: list[float], last: list[float]) -> Result:
    ratio = median([after / before for before, after in zip(first, last, strict=True)])
    return Result(
        name,
        f"≤ 1.2 × the first {count} after a warm-up",
        f"{ratio:.2f} × ({median(last) * 1e3:.2f} ms a step)",
        f"the first {count}: {median(first) * 1e3:.2f} ms a step",
        ratio <= 1.2,
    )


def measure(rounds: int = 9) -> list[Result]:
    seconds_per_step(lambda fn: fn, 20)  # the process is warm
    return [
        short(rounds, "a tool with effects", 3, lambda fn: fn),
        short(rounds, "a tool that reads", 2, lambda fn: tool(fn, reads=True)),
        *long(max(1, rounds // 3)),
    ]


if __name__ == "__main__":
    main(measure)
