"""`dev` while its files change: a parent that holds the socket and watches, and a child that serves and is replaced in order."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .paper import Paper
from .running import has_terminal
from .starting import Told, told_to_stop
from .trouble import Code

EVERY = 0.4
"""Seconds between two looks at the files."""
MOST_FILES = 5_000
SUFFIXES = (".py",)
NAMES = (".env", "ownloop.toml", "pyproject.toml")
SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "build", "dist"})
SHORT_LIFE = 2.0
"""Seconds: a child that dies sooner is not started again before something changes."""
READY = b"r"


# ---- files -----------------------------------------------------------------------------------------------------------------------


@dataclass
class Watcher:
    """The Python files of a folder, and the settings of this one."""

    folder: Path
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seen = self._look()

    def _look(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for path, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("."))
            for name in files:
                if name.endswith(SUFFIXES) or name in NAMES:
                    file = os.path.join(path, name)  # noqa: PTH118  # thousands of them
                    with suppress(OSError):  # it has just gone
                        state = os.stat(file)  # noqa: PTH116
                        found[file] = (state.st_mtime_ns, state.st_size)
            if len(found) > MOST_FILES:
                break
        return found

    def changes(self) -> list[str]:
        """Files that were changed, made or deleted since the last look, as they are called from here."""
        now, before = self._look(), self._seen
        self._seen = now
        changed = [file for file in {**before, **now} if before.get(file) != now.get(file)]
        return sorted(os.path.relpath(file) for file in changed)

    async def changed(self) -> list[str]:
        """Wait until something has changed, and nothing changes any more: editors write in several steps."""
        found: set[str] = set()
        while True:
            await asyncio.sleep(0.1 if found else EVERY)
            fresh = await asyncio.to_thread(self.changes)
            if found and not fresh:
                return sorted(found)
            found |= set(fresh)


# ---- the child -------------------------------------------------------------------------------------------------------------------


class Child:
    """A process that serves. The wire to it says two things: that it is ready, and, by its end, that it shall stop."""

    def __init__(self, process: asyncio.subprocess.Process, wire: socket.socket) -> None:
        self._process, self._wire = process, wire
        self._began = time.monotonic()
        self.is_ready = False
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def start(cls, command: Sequence[str], sock: socket.socket) -> Child:
        """In a process group of its own, so that Ctrl-C comes to the parent alone."""
        ours, its = socket.socketpair()
        ours.setblocking(False)
        with its:
            fds = (sock.fileno(), its.fileno())
            words = [*command, "--wired", ",".join(map(str, fds))]
            process = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.DEVNULL, pass_fds=fds, process_group=0)
        return cls(process, ours)

    async def _listen(self) -> None:
        with suppress(OSError):
            self.is_ready = await asyncio.get_running_loop().sock_recv(self._wire, 1) == READY

    async def ended(self) -> int:
        return await self._process.wait()

    @property
    def lived(self) -> float:
        return time.monotonic() - self._began

    async def stop(self, paper: Paper) -> None:
        """In order; what runs in it ends first."""
        self._listening.cancel()
        self._wire.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(3):
                await self._process.wait()
                return
        paper.note(("waiting for what runs to end; Ctrl-C kills it", "dim"))
        await self._process.wait()

    def kill(self) -> None:
        """At once, whatever it does."""
        self._listening.cancel()
        self._wire.close()
        with suppress(ProcessLookupError):
            self._process.kill()


class Wire:
    """The child's end."""

    def __init__(self, words: str) -> None:
        listening, wire = map(int, words.split(","))
        self.sock = socket.socket(fileno=listening)
        self._wire = socket.socket(fileno=wire)
        self._wire.setblocking(False)

    def watch(self, told: asyncio.Event) -> None:
        """Set `told` when the parent says so, or is no more."""
        asyncio.get_running_loop().add_reader(self._wire, self._heard, told)

    def _heard(self, told: asyncio.Event) -> None:
        with suppress(BlockingIOError):
            if not self._wire.recv(64):
                asyncio.get_running_loop().remove_reader(self._wire)
                told.set()

    def say_ready(self) -> None:
        with suppress(OSError):  # the parent is no more: the watch says so
            self._wire.send(READY)


# ---- the parent ------------------------------------------------------------------------------------------------------------------


@dataclass
class Parent:
    """Keeps one child serving: replaced when files change, started again when it died, ended when told."""

    command: Sequence[str]
    sock: socket.socket
    watcher: Watcher
    paper: Paper
    has_served: bool = False

    async def run(self) -> int:
        """Until SIGTERM or Ctrl-C; the exit code."""
        async with told_to_stop() as told:
            while True:
                child = await Child.start([*self.command, *(["--again"] if self.has_served else [])], self.sock)
                try:
                    cause, what = await _first({"told": told.wait(), "changed": self.watcher.changed(), "ended": child.ended()})
                    self.has_served = self.has_served or child.is_ready
                    if cause != "ended":
                        await child.stop(self.paper)
                    elif (code := await self._after_its_end(child, what, told)) is not None:
                        return code
                finally:
                    child.kill()
                if cause == "told":
                    return told.code
                if cause == "changed":
                    self.paper.note((f"{', '.join(what[:3])}{' …' if len(what) > 3 else ''} changed: starting again", "dim"))

    async def _after_its_end(self, child: Child, code: int, told: Told) -> int | None:
        """None: start again, at once where it served for a while, else when a file has changed."""
        why = f"by signal {-code}" if code < 0 else f"with {code}"
        if child.is_ready and child.lived > SHORT_LIFE:
            self.paper.note((f"the server ended {why}: starting again", "yellow"))
            return None
        if not self.has_served and not has_terminal():
            return code if code > 0 else Code.FAILURE
        self.paper.note((f"the server ended {why}; it starts again when a file here changes", "yellow"))
        cause, _ = await _first({"told": told.wait(), "changed": self.watcher.changed()})
        return told.code if cause == "told" else None


async def _first(waits: dict[Any, Any]) -> tuple[Any, Any]:
    """The name and the value of what came first."""
    tasks = {asyncio.ensure_future(work): name for name, work in waits.items()}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    first = min(done, key=lambda task: list(tasks).index(task))
    return tasks[first], first.result()
