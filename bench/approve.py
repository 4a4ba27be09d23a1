"""From a person's approval to the call: in a process that serves, and in a new one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from ownloop import Actor

from .agents import Gate
from .measure import FOUR, Floor, Result, alternate, main, median, process_seconds, scratch

THREADS = 40
COMMITS = 3
"""The decision, the claim of the thread, and that the call was started."""


async def warm(path: Path) -> tuple[list[float], list[float], list[float]]:
    """Seconds from the call of `approve` to the tool, from its return to the tool, and the floor's for as many commits."""
    gate, floor = Gate(f"sqlite:///{path}"), Floor(path.with_name("floor.db"))
    called, returned, base = [], [], []
    await gate.park(THREADS)
    gate = Gate(f"sqlite:///{path}")
    async with gate.app:
        for interrupt in await gate.app.interrupts(limit=THREADS):
            began = time.perf_counter()
            for _ in range(COMMITS):
                floor.commit(100)
            base.append(time.perf_counter() - began)
            gate.deployed.clear()
            began = time.perf_counter()
            await gate.app.approve(interrupt, by=Actor("ana", ("release-managers",)))
            over = time.perf_counter()
            await gate.deployed.wait()
            called.append(gate.at - began)
            returned.append(max(0.0, gate.at - over))
            await asyncio.sleep(0.02)
    floor.close()
    return called, returned, base


COLD = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from bench.agents import approve_one
asyncio.run(approve_one(sys.argv[1]))
"""


def measure(rounds: int = 15) -> list[Result]:
    root = str(Path(__file__).parent.parent)
    with scratch() as folder:
        called, returned, base = asyncio.run(warm(folder / "warm.db"))
        asyncio.run(Gate(f"sqlite:///{folder}/cold.db").park(rounds + 1))
        cold = str(folder / "cold.db")
        process_seconds(COLD, cold, root)
        alone, ours, _ = alternate(rounds, lambda: process_seconds(FOUR), lambda: process_seconds(COLD, cold, root))
    return [
        Result(
            "warm approve → tool, in a serving process, from the call of app.approve",
            "≤ 2 ms",
            f"{median(called[5:]) * 1e3:.2f} ms ({median(returned[5:]) * 1e3:.2f} ms from its return)",
            f"{median(base[5:]) * 1e3:.2f} ms for {COMMITS} commits",
            median(called[5:]) <= 0.002,
        ),
        Result(
            "cold approve → tool: a new process opens the file, approves, runs the tool, stops in order",
            "≤ 0.2 s over importing asyncio, sqlite3, yaml and pydantic",
            f"{ours - alone:+.3f} s ({ours:.3f} s)",
            f"{alone:.3f} s",
            ours - alone <= 0.2,
        ),
    ]


if __name__ == "__main__":
    main(measure)
