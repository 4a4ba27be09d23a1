"""Many threads at once: their commits share one sync, so that they beat a loop that makes them one by one."""

from __future__ import annotations

from .agents import ToolLoop
from .measure import Result, alternate, floor_seconds, main, scratch

THREADS, STEPS = 200, 20


def ours_seconds() -> float:
    with scratch() as folder:
        return ToolLoop(f"sqlite:///{folder}/together.db", STEPS, concurrency=THREADS).run(THREADS)


def measure(rounds: int = 3) -> list[Result]:
    total = THREADS * STEPS
    floor, ours, ratio = alternate(rounds, lambda: floor_seconds(3, total), ours_seconds)
    return [
        Result(
            f"{THREADS} threads × {STEPS} steps at once",
            "quicker than the floor one by one",
            f"{1 / ratio:.2f} × as fast ({total / ours:,.0f} steps a second)",
            f"{total / floor:,.0f} steps a second",
            ratio < 1,
        )
    ]


if __name__ == "__main__":
    main(measure)
