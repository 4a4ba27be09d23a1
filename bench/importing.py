"""What `import ownloop` costs a program, over what such a program imports anyway."""

from __future__ import annotations

from .measure import FOUR, Result, alternate, main, process_seconds

OURS = "from ownloop import App, Intent, Thread\nclass Deploy(Intent):\n    tag: str\n"


def measure(rounds: int = 21) -> list[Result]:
    process_seconds(FOUR), process_seconds(OURS)  # byte code is written
    floor, ours, _ = alternate(rounds, lambda: process_seconds(FOUR), lambda: process_seconds(OURS))
    ratio = ours / floor
    return [
        Result(
            "from ownloop import App, Intent, Thread, with one Intent",
            "≤ 1.25 × importing asyncio, sqlite3, yaml and pydantic with one model",
            f"{ratio:.2f} × ({ours * 1e3:.0f} ms a process)",
            f"{floor * 1e3:.0f} ms",
            ratio <= 1.25,
        )
    ]


if __name__ == "__main__":
    main(measure)
