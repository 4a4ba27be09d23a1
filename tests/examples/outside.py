"""What stands outside the agents: where the examples are, and in runs of crash_everywhere one folder a run, kept over the deaths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


class Folders:
    """The folder that belongs to a run, by the store of that run: a new process of the same run finds the same one."""

    def __init__(self, fresh: Callable[[], Path]) -> None:
        self._fresh, self._place, self.all = fresh, None, list[Path]()

    def of(self, place: Any) -> Path:
        if place is not self._place:
            self._place = place
            self.all.append(self._fresh())
        return self.all[-1]
