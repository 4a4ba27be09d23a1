"""One run of one fault: the world's folder, the store, the processes of one framework, and what harms them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .. import environments

HERE = Path(__file__).parent
SETTINGS: dict[str, Any] = {"amounts": [100], "limit": 10**9, "slow": 0.0, "fill": None, "timeout": None, "gap": False}
MARK = "# v2: "
RUN_SECONDS = 150.0
"""A run that has not ended by then is named so; the next one begins."""


class NotRun(Exception):
    """This machine cannot make the fault."""


@dataclass(frozen=True)
class Peer:
    """One column of the table: the name people know, the adapter and the environment it runs in."""

    name: str
    module: Path
    environment: str
    disk_mb: int = 32
    old_code_stays: bool = False
    """Its documentation says to let the old code run beside the changed one until the old threads have ended."""

    @property
    def python(self) -> Path:
        return Path(sys.executable) if self.environment == "ownloop" else environments.python(self.environment)


@dataclass
class Run:
    """A context: a fresh world and store, and afterwards nothing is left of them, no process either."""

    peer: Peer
    small_disk: bool = False
    clock: bool = False
    _children: list[subprocess.Popen[str]] = field(default_factory=list)
    _mounted: bool = False

    def __enter__(self) -> Self:
        self._give_up = time.monotonic() + RUN_SECONDS
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self.world, self.store = self.folder / "world", self.folder / "store"
        self.world.mkdir()
        self.store.mkdir()
        self._settings = dict(SETTINGS)
        self.set()
        try:
            if self.small_disk:
                self._mount()
            if self.clock:
                self._own_clock()
            if self.peer.environment == "restate":
                self._start_restate()
        except BaseException:
            self._tidy()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._tidy()

    def _tidy(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.communicate()
        if self._mounted:
            subprocess.run(["umount", "-l", self.store], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- the world -------------------------------------------------------------------------------------------------------------

    def set(self, **settings: Any) -> None:
        self._settings.update(settings)
        draft = self.world / "draft"
        draft.write_text(json.dumps(self._settings))
        draft.replace(self.world / "settings.json")

    def lines(self, book: str) -> list[dict[str, Any]]:
        path = self.world / f"{book}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def paid(self) -> list[Any]:
        return [line["amount"] for line in self.lines("ledger")]

    # ---- processes -------------------------------------------------------------------------------------------------------------

    def begin(self, verb: str, *args: Any, changed: bool = False, worker: int = 0) -> subprocess.Popen[str]:
        """Start a process; `changed` runs the program with its marked lines put in."""
        command = [self.peer.python, HERE / "child.py", self._program(changed), self.store, verb, json.dumps(args)]
        child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self._environment(worker),
        )
        self._children.append(child)
        return child

    def _environment(self, worker: int) -> dict[str, str]:
        source = f"{HERE}{os.pathsep}{environments.ROOT / 'src'}" if self.peer.environment == "ownloop" else str(HERE)
        found = {**os.environ, "PYTHONPATH": source, "FAULTS_WORLD": str(self.world), "PYTHONDONTWRITEBYTECODE": "1"}
        if worker:
            found["FAULTS_WORKER"] = str(worker)
        return {**found, **self._moved_clock()}

    def _moved_clock(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.folder / "clock.so"), "FAULTS_CLOCK": str(self.folder / "clock")} if self.clock else {}

    def _program(self, changed: bool) -> Path:
        """The adapter, and beside it the others of its folder; a changed program is a real other file."""
        folder = self.folder / ("changed" if changed else "program")
        if not folder.exists():
            shutil.copytree(self.peer.module.parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
            if changed:
                self._put_in_the_marked_lines(folder)
        return folder / self.peer.module.name

    def _put_in_the_marked_lines(self, folder: Path) -> None:
        changes = 0
        for file in folder.glob("*.py"):
            program = file.read_text(encoding="utf-8")
            changes += program.count(MARK)
            file.write_text(program.replace(MARK, ""), encoding="utf-8")
        if not changes:
            raise NotRun(f"no line of {self.peer.module.name} is marked {MARK!r}: write there what the changed program does")

    def end(self, child: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for what a process says; one that says nothing in time is killed, and an AssertionError tells it."""
        try:
            out, err = child.communicate(timeout=max(1.0, self._give_up - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill(child)
            raise AssertionError(f"no word within the {RUN_SECONDS:.0f} s of a run") from None
        for line in reversed(out.splitlines()):
            if line.startswith("@@"):
                answer: dict[str, Any] = json.loads(line[2:])
                return answer
        last = err.strip().splitlines()[-1:] or ["no word"]
        return {"status": f"died ({child.returncode}): {last[0][:300]}", "waiting": [], "questions": []}

    def ask(self, verb: str, *args: Any, changed: bool = False) -> dict[str, Any]:
        return self.end(self.begin(verb, *args, changed=changed))

    def until(self, condition: Callable[[], Any], child: subprocess.Popen[str], what: str) -> None:
        while not condition():
            if time.monotonic() > self._give_up or (child.poll() is not None and not condition()):
                said = self.end(child)["status"] if child.poll() is not None else "still at work"
                raise AssertionError(f"never came so far: {what}: {said}")
            time.sleep(0.01)

    @staticmethod
    def kill(child: subprocess.Popen[str]) -> None:
        """SIGKILL, and wait until it is gone."""
        child.kill()
        child.communicate()

    # ---- the machine -----------------------------------------------------------------------------------------------------------

    def _mount(self) -> None:
        size = f"size={self.peer.disk_mb}m"
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", self.store], check=False, capture_output=True).returncode:
            raise NotRun("a small disk can only be mounted by root")
        self._mounted = True

    def _own_clock(self) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            raise NotRun("the clock is moved by a few lines of C, and there is no cc on PATH")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", self.folder / "clock.so", HERE / "clock.c"], check=True)
        self.set_clock(0)

    def set_clock(self, seconds: int) -> None:
        """How far the time of day is ahead for all processes of this run; the counters of ticks go on."""
        draft = self.folder / "draft"
        draft.write_text(f"{seconds}\n")
        draft.replace(self.folder / "clock")

    def _start_restate(self) -> None:
        config = self.folder / "restate.toml"
        config.write_text(
            'bind-address = "127.0.0.1:25122"\nadvertised-address = "http://127.0.0.1:25122"\ndisable-telemetry = true\nlisten-mode = "tcp"\n'
            '[admin]\nbind-address = "127.0.0.1:29070"\n[ingress]\nbind-address = "127.0.0.1:28080"\n'
        )
        command = [environments.restate_server(), "--config-file", config, "--base-dir", self.store, "--no-logo"]
        with (self.folder / "server.log").open("w") as log:
            environment = {**os.environ, "DO_NOT_TRACK": "1", **self._moved_clock()}
            server = subprocess.Popen([str(one) for one in command], cwd=self.folder, stdout=log, stderr=log, text=True, env=environment)
        self._children.append(server)
        for url in ("http://127.0.0.1:29070/health", "http://127.0.0.1:28080/restate/health"):
            self._wait_for_url(url, server)

    def _wait_for_url(self, url: str, server: subprocess.Popen[str]) -> None:
        give_up = time.monotonic() + 40
        while time.monotonic() < give_up and server.poll() is None:
            with suppress(OSError), urllib.request.urlopen(url, timeout=1):
                return
            time.sleep(0.1)
        words = (self.folder / "server.log").read_text().strip().splitlines()[-1:]
        raise NotRun(f"its server did not start: {words}")

    def heal_server(self) -> None:
        """Start the server again if the fault ended it."""
        if self.peer.environment == "restate" and self._children[0].poll() is not None:
            self._start_restate()
