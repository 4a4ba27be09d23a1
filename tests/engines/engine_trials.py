"""What the tests of engines on servers of their own share: agents that write down their effects, waiting, a worker in its own process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from temporal_server import free_port

import ownloop
from ownloop import App, Intent, Thread, engines
from ownloop.errors import StoreError
from ownloop.testing.engine_scene import Book

SECRET = "the-secret-of-4711"
"""Stands in everything that a thread may say."""


class Write(Intent):
    """Append a line to the file."""

    number: int
    why: str = SECRET


class Done(Intent):
    """Nothing is left to do."""


def add_line(path: Path, line: str) -> None:
    """One write, so that a kill leaves all of it or nothing."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, (line + "\n").encode())
    os.close(file)


def add_writer(app: App, path: Path, steps: int, nap: str = "20ms", takes: float = 0.0, blocks: float = 0.0) -> None:
    """An agent whose every step appends a line and then naps; its tool `takes` so many seconds, and then blocks its event loop for some more."""

    async def decide(thread: Thread) -> Write | Done:
        count = thread.count(Write)
        return Write(number=count) if count < steps else Done()

    async def append(thread_id: str, number: int) -> str:
        add_line(path.with_suffix(".began"), f"{thread_id} {number}")
        await asyncio.sleep(takes)
        time.sleep(blocks)
        add_line(path, f"{thread_id} {number}")
        return SECRET

    async def handle(thread: Thread) -> str:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Write(number=number):
                    (await step.run(append, thread.id, number)).value  # noqa: B018  # a failure fails the thread
                    await step.sleep(nap)
                case Done():
                    return SECRET

    app.add(handle, name="writer", intents=(Write, Done))


def effects(path: Path) -> Counter[tuple[str, int]]:
    """How often each step of each thread had its effect."""
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter((thread, int(number)) for thread, number in map(str.split, lines))


def once(threads: list[str], steps: int) -> dict[tuple[str, int], int]:
    return {(thread, number): 1 for thread in threads for number in range(steps)}


async def until(look: Callable[[], Any], what: str, seconds: float = 100) -> Any:
    """Look every few milliseconds until it is so (a function may be async)."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        found = look()
        found = await found if asyncio.iscoroutine(found) else found
        if found:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


async def all_done(app: App, threads: list[str]) -> bool:
    rows = [await app.store.thread(thread) for thread in threads]
    return all(row is not None and row.status == "done" and row.lease_until is None for row in rows)


async def done(app: App, threads: list[str], seconds: float = 100) -> None:
    await until(lambda: all_done(app, threads), f"{len(threads)} threads are done", seconds)


async def tell_everything(app: App) -> list[str]:
    """Threads that say the secret in every way there is: input, context, message, intent, result, errors, and the error of a store."""

    async def failing(thread: Thread) -> None:
        raise ValueError(SECRET)

    async def chatting(thread: Thread) -> str:
        await thread.step("wait").wait_for("word")
        return SECRET

    app.add(failing, name="failing")
    app.add(chatting, name="chatting")
    run_one, failed = app.run_one, set[str]()

    async def run_one_or_fail(thread_id: str) -> bool:
        if thread_id not in failed:
            failed.add(thread_id)
            raise StoreError(SECRET)
        return await run_one(thread_id)

    app.run_one = run_one_or_fail  # type: ignore[method-assign]  # what an engine is given
    said = {"input": {"secret": SECRET}, "context": {"of": SECRET}}
    async with app:
        threads = [await app.start(name, **said) for name in ("writer", "failing", "chatting")]
        await until(lambda: app.interrupts(agent="chatting", kind="event"), "it waits")
        await app.send(threads[2], SECRET)
        await app.emit("word", SECRET)
        await done(app, [threads[0], threads[2]])
        await until(lambda: app.threads(agent="failing", status="failed"), "it failed")
    return threads


def fail_once(app: App) -> list[str]:
    """The App's first wake meets a store that is away; the threads of all wakes. Before it opens."""
    run_one, tried = app.run_one, list[str]()

    async def failing(thread_id: str) -> bool:
        tried.append(thread_id)
        if len(tried) == 1:
            raise StoreError("the store is away")
        return await run_one(thread_id)

    app.run_one = failing  # type: ignore[method-assign]  # what an engine is given
    return tried


async def told_once(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """A wake that could not be run is tried again, and the log has one line of it, ours."""
    book = Book()
    app.add(book.reader, name="reader")
    tried = fail_once(app)
    async with app:
        await done(app, [thread := await app.start("reader")])
    assert tried[:2] == [thread, thread]
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == ["ownloop"]


@asynccontextmanager
async def overheard() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """A place that refuses every request, and the headers of those that came: HTTP/1.1, or 2 as gRPC speaks it."""
    heard, stop, port = list[dict[str, str]](), asyncio.Event(), free_port()

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            heard.append({name.decode(): value.decode("latin-1") for name, value in scope["headers"]})
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"not you"})

    config = hypercorn.config.Config()
    config.bind, config.loglevel = [f"127.0.0.1:{port}"], "CRITICAL"
    serving = asyncio.ensure_future(hypercorn.asyncio.serve(refuse, config, shutdown_trigger=stop.wait))
    try:
        yield f"127.0.0.1:{port}", heard
    finally:
        stop.set()
        await serving


# ---- a worker in a process of its own ------------------------------------------------------------------------------------------


@contextmanager
def worker(engine: str, options: dict[str, Any], **work: Any) -> Iterator[subprocess.Popen[str]]:
    """Serves the writer; killed at the end. `work`: url, path, lease, steps, takes; concurrency, if not the engine's own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(ownloop.__file__).parents[1])}
    command = [sys.executable, __file__, json.dumps({"engine": engine, "options": options, **work}, default=str)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


async def serve(work: dict[str, Any]) -> None:
    app = App(work["url"], engine=getattr(engines, work["engine"])(**work["options"]), lease=work["lease"], concurrency=work.get("concurrency", 100))
    add_writer(app, Path(work["path"]), work["steps"], takes=work["takes"])
    async with app:
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
