"""What all measurements share: a scratch folder, the floor, medians, and how a result is shown."""

from __future__ import annotations

import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

FOUR = "import asyncio, sqlite3, yaml\nfrom pydantic import BaseModel\nclass Deploy(BaseModel):\n    tag: str\n"
"""What any program of this kind imports anyway."""
TEXT = "x" * 200


@dataclass(frozen=True)
class Result:
    """One promise: what was to be reached, what was measured, and against which floor of the same run."""

    promise: str
    target: str
    measured: str
    floor: str
    is_met: bool


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards. TMPDIR says where: it should be on a disk."""
    with tempfile.TemporaryDirectory(prefix="ownloop-bench-") as folder:
        yield Path(folder)


class Floor:
    """The standard library's sqlite3 without anything around it: WAL, synchronous=FULL, one table, one INSERT a commit."""

    SIZES = (100, 30, 215)
    """Bytes of JSON that a step writes: what was selected, that it was started, what came out."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE events (thread INTEGER, seq INTEGER, kind INTEGER, data TEXT, PRIMARY KEY (thread, seq)) WITHOUT ROWID")
        self._seq = 0

    def commit(self, size: int) -> None:
        """One row of about this size, on disk when it returns."""
        self._seq += 1
        data = json.dumps({"value": (TEXT * (size // len(TEXT) + 1))[: size - 12]})
        self._db.execute("INSERT INTO events VALUES (1, ?, 1, ?)", (self._seq, data))

    def step(self, commits: int = 3) -> None:
        """As many commits as a step of ours makes: 3 for a tool with effects, 2 for one that only reads."""
        for size in self.SIZES[:1] + self.SIZES[-commits + 1 :]:
            self.commit(size)

    def close(self) -> None:
        self._db.close()


def floor_seconds(commits: int, steps: int) -> float:
    """How long so many steps take on the floor."""
    with scratch() as folder, closing(Floor(folder / "floor.db")) as floor:
        for _ in range(5):
            floor.step(commits)
        began = time.perf_counter()
        for _ in range(steps):
            floor.step(commits)
        return time.perf_counter() - began


def alternate(rounds: int, floor: Callable[[], float], ours: Callable[[], float]) -> tuple[float, float, float]:
    """Measure both in turn; the medians of the floor, of ours, and of their ratios round by round."""
    pairs = [(floor(), ours()) if number % 2 else (ours(), floor())[::-1] for number in range(rounds)]
    return median([one for one, _ in pairs]), median([one for _, one in pairs]), median([own / base for base, own in pairs])


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def process_seconds(code: str, *arguments: str) -> float:
    """How long a new Python process takes for this program, from its start to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def file_bytes(path: Path) -> int:
    """The size of a database whose log has been moved into it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return path.stat().st_size


def show(results: Sequence[Result]) -> None:
    """A table for people; the process ends with 1 if a promise is not kept."""
    for result in results:
        mark = "ok  " if result.is_met else "MISS"
        print(f"{mark} {result.promise}\n       {result.measured}   target {result.target}   floor {result.floor}", flush=True)


def main(measure: Callable[[], Sequence[Result]]) -> None:
    results = measure()
    show(results)
    raise SystemExit(0 if all(result.is_met for result in results) else 1)
