"""A place where threads live on, the processes that come and go on it, and a hand that may touch every call of the store."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))
import postgres_server

from ownloop import App, Intent, Thread
from ownloop.events import Event
from ownloop.interrupts import Interrupt
from ownloop.stores.memory import MemoryStore
from ownloop.stores.urls import open_store
from ownloop.testing import Drive, FakeClock, ScriptedModel
from ownloop.views import ThreadView

METHODS = ("claim", "load", "begin", "spawn", "fact", "settle", "finish", "release", "create", "message", "control", "decide", "emit", "events")
Hook = Callable[..., Any]


class Died(BaseException):
    """The process is gone: nothing of it writes any more."""


class Deploy(Intent):
    """Deploy the backend at a tag."""

    tag: str


class Look(Intent):
    """Look something up."""


class Note(Intent):
    """Write something down."""

    text: str


class Done(Intent):
    """Nothing is left to do."""

    message: str = "done"


INTENTS = Deploy | Look | Note | Done


class Door:
    """One process's way to the store: hooks stand in it, and it is shut once the process is dead."""

    def __init__(self, store: Any, world: World, process: int) -> None:
        self._store, self._world, self._process = store, world, process

    def __getattr__(self, name: str) -> Any:
        plain = getattr(self._store, name)
        if name not in METHODS:
            return plain

        async def call(*args: Any, **kwargs: Any) -> Any:
            world = self._world
            if self._process in world.dead:
                raise Died
            world.calls[name] += 1
            await world.hook(world.before, name, self._process, args)
            result = await plain(*args, **kwargs)
            if name == "load":
                world.loaded.append(len(result))
            await world.hook(world.after, name, self._process, args)
            return result

        return call


class World:
    """Threads on one store; `deploy` starts a process with a program, after the one before has stopped or died.

    `before` and `after` map names of store methods to hooks that get the method's arguments; a hook that raises `Died` kills the process.
    `calls` counts the calls of store methods; `loaded` the events that wakes have read.
    """

    def __init__(self, place: MemoryStore | str, clock: FakeClock) -> None:
        self.place, self.clock = place, clock
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}
        self.calls: dict[str, int] = dict.fromkeys(METHODS, 0)
        self.loaded: list[int] = []
        self.drives: list[Drive] = []
        self.dead: set[int] = set()

    @property
    def d(self) -> Drive:
        return self.drives[-1]

    @property
    def is_dead(self) -> bool:
        return len(self.drives) - 1 in self.dead

    async def deploy(self, handler: Any, *others: Any, interject: bool = False, intents: Any = (), beside: bool = False, **options: Any) -> Drive:
        """A process with `handler` as the agent "agent". With `beside` the one before keeps running."""
        if self.drives and not beside:
            await self.stop()
        store = open_store(self.place, self.clock)
        app = App(Door(store, self, len(self.drives)), clock=self.clock, **options)  # type: ignore[arg-type]  # it has all of a store's methods
        app.add(handler, name="agent", interject=interject, intents=intents)
        for other in others:
            app.add(other)
        self.drives.append(Drive(app, self.clock))
        return self.d

    async def stop(self) -> None:
        if not self.is_dead:
            await self.d.app.aclose()

    async def dies(self, work: Awaitable[Any] | None = None) -> None:
        """The process dies at a hook, or in a tool, while it settles; the leases of the dead run out."""
        await self.d.app._open()  # a store may have tasks of its own, which do not end
        others = asyncio.all_tasks()
        try:
            await (self.d.settle() if work is None else work)
        except Died:
            pass
        else:
            raise AssertionError("nothing died")
        self.dead.add(len(self.drives) - 1)
        while left := [task for task in asyncio.all_tasks() - others if not task.done()]:
            await asyncio.wait(left)
        self.before, self.after = {}, {}
        self.d.app._keeper.close()
        if not isinstance(self.place, MemoryStore):
            await self.d.app.store.close()
        self.clock.advance("31s")

    def at_every_write(self, hook: Hook) -> None:
        """Before and after all that a wake writes."""
        for method in ("begin", "fact", "settle", "spawn", "finish", "release", "claim"):
            self.before[method] = self.after[method] = hook

    async def hook(self, hooks: dict[str, Hook], name: str, process: int, args: Sequence[Any]) -> None:
        hook = hooks.get(name)
        if hook is None:
            return
        try:
            done = hook(*args)
            if inspect.isawaitable(done):
                await done
        except Died:
            self.dead.add(process)
            raise

    async def view(self, thread: str) -> ThreadView:
        return await self.d.show(thread)

    async def events(self, thread: str, *kinds: str) -> list[Event]:
        return [event for event in (await self.d.show(thread)).events if not kinds or event.kind in kinds]

    async def ended(self, thread: str, status: str = "done") -> ThreadView:
        """The thread, which has this status."""
        view = await self.d.show(thread)
        assert view.status == status, f"{view.status}: {view.error} {[(one.kind, one.name) for one in view.interrupts]}"
        return view

    async def failure(self, thread: str, *words: str) -> str:
        """The message of the error that the thread failed with; it holds all the words."""
        view = await self.ended(thread, "failed")
        assert view.error is not None
        text = f"{view.error.type}: {view.error.message}"
        for word in words:
            assert word in text, text
        return text


def once(hook: Hook) -> Hook:
    """The hook at its first call only."""
    fired: list[int] = []

    def first(*args: Any) -> Any:
        if not fired:
            fired.append(1)
            return hook(*args)
        return None

    return first


def on_draft(kind: str, hook: Hook, *, nth: int = 1) -> Hook:
    """For `begin` and `fact`: the hook at the n-th append of a draft of this kind."""
    seen: list[int] = []

    def look(*args: Any) -> Any:
        given = args[2] if isinstance(args[2], Sequence) else [args[2]]
        if any(draft.kind == kind for draft in given):
            seen.append(1)
            if len(seen) == nth:
                return hook(*args)
        return None

    return look


def die(*_: Any) -> None:
    raise Died


def script(*lines: Any) -> ScriptedModel:
    """A model that says these lines, whatever classes of this module they are."""
    return ScriptedModel(lines, intents=INTENTS)


def approving(model: Any, effect: Callable[[str], Any], **policy: Any) -> Callable[[Thread[Any]], Awaitable[str]]:
    """The loop of the README: a deployment needs a yes."""

    async def agent(thread: Thread[Any]) -> str:
        while True:
            step = await thread.next_step(model)
            match step.intent:
                case Deploy(tag=tag):
                    if await step.approved(**policy):
                        await step.run(effect, tag)
                case Done(message=message):
                    return message

    return agent


async def only(d: Drive, **which: Any) -> Interrupt:
    """The only open interrupt."""
    found = await d.interrupts(**which)
    assert len(found) == 1, [(one.kind, one.name, one.status) for one in found]
    return found[0]


async def settled(task: asyncio.Task[Any]) -> None:
    """Wait for a task that may fail."""
    with suppress(Exception):
        await task


Kind = Literal["memory", "sqlite", "postgres"]


def make_world(kind: str, folder: Path) -> World:
    clock = FakeClock()
    if kind == "postgres":
        return World(postgres_server.empty_url(), clock)
    return World(MemoryStore(clock) if kind == "memory" else f"sqlite:///{folder}/a.db?synchronous=normal", clock)
