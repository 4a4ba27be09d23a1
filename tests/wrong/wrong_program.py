"""One page of this folder – a title, what is wrong, a program, what ownloop says – and what it really says."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownloop import Suspend
from ownloop.doctor import examine
from ownloop.stores import leases
from ownloop.telemetry.logs import Telling
from ownloop.telemetry.together import drop, put
from ownloop.testing import Drive, FakeClock, drive

FOLDER = Path(__file__).parent
PRELUDE = FOLDER / "prelude.md"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path != PRELUDE)
PROGRAM = re.compile(r"```python\n(.*?)```\n", re.DOTALL)
SAID = re.compile(r"```text\n(.*?)```\n", re.DOTALL)
THE_SAME_AS_AN_ERROR = {"failed", "program_changed"}


@dataclass(frozen=True)
class Page:
    """`said`: one line for each thing that ownloop says."""

    name: str
    title: str
    program: str
    said: str


def read(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    return Page(path.stem, text.splitlines()[0].removeprefix("# "), PROGRAM.findall(text)[0], SAID.findall(text)[0].strip())


def answer(page: Page) -> str:
    """What the program's author gets to see: errors, failed threads, log lines and warnings of Python; if there is none of these, what
    `ownloop doctor` finds."""
    with modules_as_they_were(), listening() as lines, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            names: dict[str, Any] = {"__name__": "program"}
            exec(compile(PROGRAM.findall(PRELUDE.read_text(encoding="utf-8"))[0], "prelude.py", "exec"), names)
            exec(compile(page.program, f"{page.name}.py", "exec"), names)
            said = asyncio.run(played(names))
        except (Exception, Suspend) as error:
            said = [f"{type(error).__name__}: {error}"]
        gc.collect()
    told = [f"Python warns: {one.message}" for one in caught if "never awaited" in str(one.message)]
    return "\n".join(neutral(line) for line in [*said, *lines, *told])


async def played(names: dict[str, Any]) -> list[str]:
    """`main(d)` if there is one; else the program's last agent is started and driven until nothing moves."""
    app, clock = names["app"], names["clock"]
    async with drive(app, clock) as d:
        if "main" in names:
            await names["main"](d)
        else:
            await d.start(list(app.agents)[-1], "deploy v1.4.0")
            await d.settle()
        return await seen(d, clock)


async def seen(d: Drive, clock: FakeClock) -> list[str]:
    views = [await d.show(row.id) for row in await d.threads()]
    failed = [f"the thread failed: {view.error.type}: {view.error.message}" for view in views if view.status == "failed" and view.error]
    clock.advance("1h")
    found = [f"ownloop doctor: {one.what}; {one.next_step}" for one in await examine(d.app) if one.kind not in THE_SAME_AS_AN_ERROR]
    return failed or found


@contextmanager
def modules_as_they_were() -> Iterator[None]:
    """A program may take modules away; stores and their drivers are imported anew for it, and what was there is put back."""
    before = dict(sys.modules)
    for name in [name for name in before if name.startswith("ownloop.stores.postgres")]:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in set(sys.modules) - set(before):
            if name.startswith(("ownloop.stores.postgres", "psycopg")):
                del sys.modules[name]
        sys.modules.update(before)


@contextmanager
def listening() -> Iterator[list[str]]:
    """The warnings that `ownloop dev`, `serve` and `worker` write; those of failed threads and refused decisions are
    left out, because the error says the same."""
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not any(said in record.msg for said in (" failed: %s: %s", "was refused")):
                lines.append(f"log: {record.getMessage()}")

    log, listener, look = logging.getLogger("ownloop"), Listener(logging.WARNING), leases.LOOK
    log.addHandler(listener)
    log.propagate = False  # pytest keeps what it captures, and with a traceback the coroutine that nobody awaited
    put(Telling())
    leases.LOOK = 0.1  # seconds: a program that blocks must not block the tests
    try:
        yield lines
    finally:
        leases.LOOK = look
        drop(Telling)
        log.propagate = True
        log.removeHandler(listener)


def neutral(text: str) -> str:
    """The text without what differs from run to run: ids, addresses, times."""
    for pattern, instead in (
        (r"\b(thr|stp|int)_[0-9A-Z]{13}(_\d+)?", r"\1_…"),
        (r"0x[0-9a-f]+", "0x…"),
        (r"(?<=waits has )[0-9a-f]{12}", "3f5ad3bc81a0"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?Z", "2026-11-22 12:00:00Z"),
    ):
        text = re.sub(pattern, instead, text)
    return text.strip()
