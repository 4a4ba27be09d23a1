"""What a step takes on disk: results of 200 bytes, the file after its log was moved into it, less an empty store."""

from __future__ import annotations

from .agents import ToolLoop
from .measure import Floor, Result, file_bytes, main, scratch

LENGTHS = (100, 1_000, 10_000)


def empty_bytes() -> int:
    """A store in which one thread has taken one step."""
    return loop_bytes(1)


def loop_bytes(steps: int) -> int:
    with scratch() as folder:
        ToolLoop(f"sqlite:///{folder}/loop.db?synchronous=normal", steps).run()
        return file_bytes(folder / "loop.db")


def floor_bytes(steps: int) -> float:
    with scratch() as folder:
        floor = Floor(folder / "floor.db")
        for _ in range(steps):
            floor.step()
        floor.close()
        return file_bytes(folder / "floor.db") / steps


def measure() -> list[Result]:
    base, floor = empty_bytes(), floor_bytes(1_000)
    sizes = [(loop_bytes(steps) - base) / steps for steps in LENGTHS]
    each = ", ".join(f"{size:.0f} at {steps:,}" for steps, size in zip(LENGTHS, sizes, strict=True))
    return [
        Result(
            "bytes on disk per step",
            f"≤ 600, and the same at {' and '.join(f'{steps:,}' for steps in LENGTHS)} steps",
            f"{each} (an empty store: {base / 1024:.0f} KB)",
            f"{floor:.0f}",
            max(sizes) <= 600,
        )
    ]


if __name__ == "__main__":
    main(measure)
