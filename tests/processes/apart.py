"""Programs that the tests run in processes of their own, and how they are started, told and watched."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import ownloop
from ownloop import App, Intent, Thread, current_call, tool
from ownloop.errors import AlreadyDecided, Expired
from ownloop.events import Draft

SOURCE = Path(ownloop.__file__).parents[1]


# ---- from the test's side ------------------------------------------------------------------------------------------------------


class Process(subprocess.Popen[str]):
    """A program in a process of its own; it says what it does on its standard output, line by line."""

    def __init__(self, name: str, *args: object, before: tuple[str, ...] = ()) -> None:
        command = [*before, sys.executable, __file__, name, *map(str, args)]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"}
        super().__init__(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment)

    def says(self, word: str) -> str:
        """Wait for a line that begins so; the rest of it."""
        assert self.stdout is not None
        for line in self.stdout:
            if line.startswith(word):
                return line.removeprefix(word).strip()
        raise AssertionError(f"the process ended ({self.wait()}) without saying {word!r}")

    def tell(self, line: str) -> None:
        assert self.stdin is not None
        self.stdin.write(line + "\n")
        self.stdin.flush()

    def end(self) -> None:
        if self.poll() is None:
            self.send_signal(signal.SIGCONT)
            self.kill()
        self.communicate()


@contextmanager
def process(name: str, *args: object, before: tuple[str, ...] = ()) -> Iterator[Process]:
    started = Process(name, *args, before=before)
    try:
        yield started
    finally:
        started.end()


async def until(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Look every few milliseconds until something is so (a function may be async)."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        found = condition()
        found = await found if asyncio.iscoroutine(found) else found
        if found:
            return found
        await asyncio.sleep(0.005)
    raise AssertionError(f"not within {seconds} s: {what}")


def lines(path: str | Path) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


# ---- the agents ----------------------------------------------------------------------------------------------------------------


class Write(Intent):
    """Append a line to the file."""

    number: int


class Deploy(Intent):
    """Needs a person."""


class Done(Intent):
    """Nothing is left to do."""


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def add_line(path: str, line: str) -> None:
    """One write, so that a kill leaves all of it or nothing."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, (line + "\n").encode())
    os.close(file)


def writer(app: App, path: str, steps: int, pause: float = 0.0, result: int = 1) -> None:
    """An agent that appends `steps` lines, one a step, each with so long a result."""

    async def decide(thread: Thread) -> Write | Done:
        count = thread.count(Write)
        return Write(number=count) if count < steps else Done()

    async def append(thread_id: str, number: int) -> str:
        await asyncio.sleep(pause)
        add_line(path, f"{thread_id} {number} {os.getpid()}")
        await asyncio.sleep(pause)
        return "x" * result

    @app.agent(name="writer")
    async def handle(thread: Thread) -> int:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Write(number=number):
                    (await step.run(append, thread.id, number)).value  # noqa: B018  # a failure fails the thread
                case Done():
                    return thread.count(Write)


def deployer(app: App, path: str, gate: str = "", approval: bool = True, expires: str | None = None) -> None:
    """An agent that deploys once; with a gate the deployment says "began" and ends when that file is there."""

    async def decide(thread: Thread) -> Deploy | Done:
        return Done() if thread.count(Deploy) else Deploy()

    async def deploy() -> str:
        say("began", time.monotonic())
        while gate and not Path(gate).exists():  # another process makes it
            await asyncio.sleep(0.01)
        add_line(path, f"{current_call().key.partition('/')[0]} {os.getpid()} {time.monotonic()}")
        say("deployed")
        return "live"

    @app.agent(name="deployer")
    async def handle(thread: Thread) -> str:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Deploy():
                    if not approval or await step.approved(expires=expires):
                        await step.run(deploy)
                case Done():
                    return "done"


def stoppable(app: App) -> None:
    """Three agents that take a minute and say when they are told to stop: in the model, in a read, in a tool with effects."""

    async def minute(what: str) -> None:
        say("began", what)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            say("stopped", what, time.monotonic())
            raise

    async def slow(thread: Thread) -> Deploy | Done:
        await minute("model")
        return Done()

    async def quick(thread: Thread) -> Deploy | Done:
        return Deploy()

    @tool(reads=True)
    async def read() -> None:
        await minute("read")

    async def effect() -> str:
        say("began", "effect")
        while not current_call().stop_requested:  # what a tool can look at
            await asyncio.sleep(0.01)
        say("stopped", "effect", time.monotonic())
        return "finished all the same"

    for name, decide, work in (("model", slow, read), ("read", quick, read), ("effect", quick, effect)):

        async def handle(thread: Thread, decide: Any = decide, work: Any = work) -> None:
            step = await thread.next_step(decide)
            await step.run(work)

        app.add(handle, name=name, intents=(Deploy, Done))


class FileClock:
    """A clock that stands in a file, for several processes: microseconds since 1970."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def set(self, at: datetime) -> None:
        self._path.with_suffix(".new").write_text(str(int(at.timestamp() * 1_000_000)))
        self._path.with_suffix(".new").replace(self._path)

    def now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(self._path.read_text()))

    def ticks(self) -> float:
        return time.monotonic()

    def on_move(self, moved: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


# ---- the programs --------------------------------------------------------------------------------------------------------------


async def _serve(app: App) -> None:
    async with app:
        say("ready", os.getpid())
        await asyncio.Event().wait()


def write(url: str, path: str, steps: str, pause: str, lease: str, concurrency: str) -> None:
    """Serve the writer until killed."""
    app = App(url, lease=lease, concurrency=int(concurrency))
    writer(app, path, int(steps), float(pause))
    asyncio.run(_serve(app))


def deploy(url: str, path: str, gate: str, approval: str, lease: str) -> None:
    """Serve the deployer until killed."""
    app = App(url, lease=lease)
    deployer(app, path, gate, approval == "approval")
    asyncio.run(_serve(app))


def freeze(url: str, path: str, lease: str) -> None:
    """Serve the deployer; the process freezes right after `started` is on disk, before the function is called."""
    app = App(url, lease=lease)
    deployer(app, path, approval=False)
    begin = app.store.begin
    frozen: list[str] = []

    async def freezing(thread_id: str, epoch: int, drafts: list[Draft], **options: Any) -> Any:
        begun = await begin(thread_id, epoch, drafts, **options)
        if drafts[0].kind == "started" and not frozen:
            frozen.append(thread_id)
            say("frozen")
            os.kill(os.getpid(), signal.SIGSTOP)
            say("thawed")
        return begun

    app.store.begin = freezing  # type: ignore[method-assign,assignment]  # the moment cannot be hit otherwise
    asyncio.run(_serve(app))


def run(url: str, path: str, gate: str) -> None:
    """What a user's program does: app.run()."""
    app = App(url, lease="60s")
    deployer(app, path, gate, approval=False)
    writer(app, path, 40, 0.01)
    app.run()
    say("left")


def stop(url: str) -> None:
    """Serve the agents that take a minute."""
    app = App(url)
    stoppable(app)
    asyncio.run(_serve(app))


def decide(url: str, by: str, clock: str = "") -> None:
    """Decide what the ids on standard input say, a few at once, from the moment of the line "go MOMENT" on; print what came of each."""

    async def main() -> None:
        app = App(url, clock=FileClock(clock) if clock else None)

        async def one(id: str) -> tuple[str, str, str]:
            try:
                decided = await app.approve(id, by=by)
            except AlreadyDecided as error:
                winner = error.interrupt.decision
                return id, "lost", winner.by.id if winner and winner.by else "?"
            except Expired:
                return id, "expired", ""
            return id, "won", decided.decision.by.id if decided.decision and decided.decision.by else "?"

        await app.threads(limit=1)
        ids: list[str] = []
        say("ready")
        for line in sys.stdin:
            if line.startswith("go"):
                time.sleep(max(0.0, float(line.split()[1]) - time.monotonic()))
                results: list[tuple[str, str, str]] = []
                for place in range(0, len(ids), 4):
                    results += await asyncio.gather(*map(one, ids[place : place + 4]))
                say("results", json.dumps(results))
                ids.clear()
            else:
                ids.append(line.strip())
        await app.aclose()

    asyncio.run(main())


def park(url: str, path: str, count: str) -> None:
    """Serve `count` threads that wait for a person; say how many tasks and how much memory that takes."""

    async def main() -> None:
        app = App(url)
        deployer(app, path)
        async with app:
            await app.start("deployer", key="first")
            await until(lambda: app.interrupts(limit=1), "the first thread waits")
            gc.collect()
            before, began = resident(), time.monotonic()
            for place in range(0, int(count), 500):
                await asyncio.gather(*(app.start("deployer", key=str(place + more)) for more in range(min(500, int(count) - place))))

            async def all_wait() -> bool:
                await asyncio.sleep(0.05)  # the last wakes end
                return not (await app.store.runnable(["deployer"], 1))[0] and len(asyncio.all_tasks()) <= 50

            await until(all_wait, "all threads wait", 120)
            gc.collect()
            say("parked", json.dumps([len(asyncio.all_tasks()), resident() - before, time.monotonic() - began]))
            await asyncio.Event().wait()

    asyncio.run(main())


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def finish(url: str, path: str, threads: str, steps: str) -> None:
    """Run so many threads to their end; say how many events they wrote."""

    async def main() -> None:
        app = App(url, concurrency=int(threads))
        writer(app, path, int(steps))
        async with app:
            ids = await asyncio.gather(*(app.start("writer") for _ in range(int(threads))))

            async def all_done() -> bool:
                return len(await app.threads(status="done", limit=int(threads))) == int(threads)

            await until(all_done, "every thread is done", 120)
            say("events", sum([len(await app.store.events(id)) for id in ids]))

    asyncio.run(main())


def nursery() -> None:
    """Fork a program whenever a line names one: a new process without the cost of a new interpreter."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    say("nursing")
    for line in sys.stdin:
        name, *args = json.loads(line)
        if os.fork() == 0:
            PROGRAMS[name](*args)
            os._exit(0)


PROGRAMS: dict[str, Callable[..., None]] = {one.__name__: one for one in (write, deploy, freeze, run, stop, decide, park, finish, nursery)}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
