"""Random lives of threads: forks, summaries, batches side by side, superseding, edits, breakpoints, cancelled children, deaths, in any order.

Whatever happens, no call with effects is made twice without a word, what was granted runs once, a summary changes nothing that a program can see, and
every thread ends.
"""

from __future__ import annotations

import asyncio
import logging
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from worlds import Died, World, make_world

from ownloop import Happened, Intent, NotHappened, Thread, current_call
from ownloop.doctor import illegal
from ownloop.errors import OwnloopError
from ownloop.events import Event
from ownloop.history import History
from ownloop.interrupts import Actor, Interrupt
from ownloop.tools import annotate
from ownloop.views import Operation, StepView

STIRRED, CALM = 150, 900
"""Turns with surprises, and turns until everything must be over."""


class Do(Intent):
    """Do it."""

    tag: str


class Gate(Intent):
    """Do it if people agree."""

    tag: str


class Ask(Intent):
    """Ask somebody."""

    n: int


class Wait(Intent):
    """Wait for an event."""

    n: int


class Kid(Intent):
    """Have a child do something."""

    n: int


class Bad(Intent):
    """Try what fails."""

    n: int


class End(Intent):
    """End the turn."""


CHOICE = Do | Gate | Ask | Wait | Kid | Bad | End


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Program:
    """An agent whose model answers by a seed and its place in the log, and what it really did."""

    def __init__(self, seed: int, chance: random.Random) -> None:
        self.seed = seed
        self.length, self.keep_last = chance.randint(3, 9), chance.choice([None, 0, 1, 2])
        self.side_by_side, self.joins, self.interject = (chance.random() < share for share in (0.5, 0.7, 0.3))
        self.gates_from, self.one_gate, self.quorum = chance.randint(1, 4), chance.random() < 0.5, chance.choice([1, 1, 2])
        self.made: Counter[str] = Counter()

    async def effect(self, tag: str) -> str:
        self.made[current_call().key] += 1
        for _ in range(len(tag) % 3):
            await asyncio.sleep(0)
        return tag

    async def fails(self, n: int) -> None:
        self.made[current_call().key] += 1
        raise ValueError(f"failure {n}")

    async def summarize(self, steps: Any) -> str:
        annotate(usage={"input_tokens": 1000})
        return "so far, so good"

    async def decide(self, thread: Thread[Any]) -> list[Do | Gate | Ask | Wait | Kid | Bad | End]:
        await sees_what_the_whole_log_says(thread)
        counters = thread._wake.history.counters
        chance = random.Random(f"{self.seed} {counters.asked}")
        annotate(usage={"input_tokens": 10 + counters.asked, "cost_usd": 0.5}, prompt_tokens=counters.asked)
        if sum(counters.counts.values()) > self.length or chance.random() < 0.1:
            return [End()]
        kinds: list[Any] = [chance.choice([Do, Do, Gate, Gate, Ask, Wait, Kid, Bad]) for _ in range(chance.choice([1, 1, 2, 3]))]
        return [kind(tag=f"t{place}") if kind in (Do, Gate) else kind(n=place) for place, kind in enumerate(kinds, counters.steps)]

    async def agent(self, thread: Thread[Any]) -> str:
        setup = thread.step("setup")
        await asyncio.gather(*(setup.named(name).run(self.effect, name) for name in ("a", "b")))
        await self.gate(thread)
        while True:
            if self.keep_last is not None:
                await thread.compact(self.summarize, keep_last=self.keep_last)
            steps = [await self.branch(await thread.next_step(self.decide), thread)] if not self.side_by_side else await self.each(thread)
            if any(steps):
                return "end"

    async def each(self, thread: Thread[Any]) -> list[bool]:
        return await thread.each(self.decide, lambda step: self.branch(step, thread))

    async def gate(self, thread: Thread[Any]) -> None:
        """A gate in other people's code: it never stops the loop."""
        if thread.turn >= self.gates_from:
            step = thread.step("gate" if self.one_gate else f"gate:{thread.turn}", Gate(tag="soft"))
            decision = await step.request_approval(by="soft", quorum=self.quorum)
            if decision is not None and decision.granted:
                await step.run(self.effect, step.intent.tag)

    async def branch(self, step: Any, thread: Thread[Any]) -> bool:
        match step.intent:
            case Do(tag=tag):
                await step.run(self.effect, tag)
            case Gate():
                if await step.approved(by="people"):
                    await step.run(self.effect, step.intent.tag)
            case Ask(n=n):
                await step.ask(f"question {n}")
            case Wait(n=n):
                await step.wait_for(f"event {n % 3}", key=thread.id, timeout="3h")
            case Kid(n=n):
                child = await step.spawn("kid", n)
                if self.joins:
                    await step.join(child)
            case Bad(n=n):
                await step.run(self.fails, n)
            case End():
                step.close()
                return True
        return False

    async def kid(self, thread: Thread[Any]) -> Any:
        step = thread.step("work")
        await step.run(self.effect, f"kid {thread.input}")
        if await step.approved(by="people"):
            await step.named("after").run(self.effect, "after")
        return thread.input


async def sees_what_the_whole_log_says(thread: Thread[Any]) -> None:
    """What a program reads, the same as if there were no summaries."""
    wake, store = thread._wake, thread._wake.store
    known = [event for event in await store.events(thread.id) if event.seq <= wake.history.head or event.seq in wake.history.own]
    whole = History(thread.id, [event for event in known if event.kind != "compacted"])
    for event in known:
        if event.kind == "compacted":
            whole.counters.usage = whole.counters.usage.plus(event.data.get("usage"))
    assert seen(wake.history, known) == seen(whole, known)


def seen(history: History, known: list[Event]) -> dict[str, Any]:
    counters = history.counters
    is_in_order = not any(event.data.get("status") == "superseded" for event in known)  # else a newer step may be covered before an older one
    return {
        "counters": (counters.steps, counters.turns, counters.batch, counters.read, counters.asked, counters.prompt_tokens, counters.usage),
        "counts": {name: count for name, count in counters.counts.items() if count},
        "errors": history.errors_in_a_row() if is_in_order else None,
        "unread": [message.seq for message in history.unread()],
        "open": [step.id for step in history.open_steps()],
        "requests": sorted(seq for seq, request in history.requests.items() if request.is_open and request.kind != "in_doubt"),
    }


class Life:
    """One thread, its forks and its children, and what people, the clock and death do to them."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.chance = world, random.Random(seed)
        self.program = Program(seed, self.chance)
        self.deaths = sorted(self.chance.sample(range(1, 250), self.chance.choice([0, 0, 1, 2, 3])))
        self.calls = self.forks = 0
        self.threads: list[str] = []
        self.paused: set[str] = set()

    async def deploy(self) -> None:
        await self.world.deploy(self.program.agent, self.program.kid, interject=self.program.interject, intents=CHOICE)
        await self.world.d.app._open()
        self.world.at_every_write(self.count)

    def count(self, *_: Any) -> None:
        self.calls += 1
        if self.deaths and self.calls >= self.deaths[0]:
            self.deaths.pop(0)
            raise Died

    async def run(self) -> None:
        await self.deploy()
        self.threads = [await self.world.d.start("agent")]
        for turn in range(CALM):
            if turn == STIRRED:
                self.deaths = []
            await self.turn(is_calm=turn >= STIRRED)
            if turn > STIRRED and turn % 5 == 0 and await self.is_over():
                await self.verify()
                return
        raise AssertionError(f"not all ended: {[(one.id, one.status) for one in await self.world.d.threads(limit=1000)]}")

    async def is_over(self) -> bool:
        app = self.world.d.app
        ready, _ = await app.store.runnable(app.agents, 100)
        return not ready and all(one.status not in ("open", "paused") for one in await app.threads(limit=1000))

    async def turn(self, *, is_calm: bool) -> None:
        app = self.world.d.app
        ready, _ = await app.store.runnable(app.agents, 100)
        wakes = [app.run_one(one) for one in self.chance.sample(ready, min(len(ready), self.chance.randint(0, 3)))]
        results = await asyncio.gather(self.outside(is_calm), *wakes, return_exceptions=True)
        if self.world.is_dead:
            await self.world.dies(_died())
            await self.deploy()
            return
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def outside(self, is_calm: bool) -> None:
        for _ in range(self.chance.randint(0, 4)):
            await asyncio.sleep(0)
        with suppress(OwnloopError):
            if self.paused and (is_calm or self.chance.random() < 0.3):
                await self.world.d.resume(self.paused.pop())
            elif is_calm or self.chance.random() < 0.6:
                await self.calmly()
            else:
                await self.stir()

    async def calmly(self) -> None:
        d = self.world.d
        if self.chance.random() < 0.2:
            self.world.clock.advance(f"{self.chance.choice([1, 31, 3600])}s")
        elif waiting := [one for one in await d.interrupts(limit=500) if one.kind not in ("timer", "child")]:
            await self.answer(self.chance.choice(waiting))
        if self.chance.random() < 0.1:
            await d.release_hold(self.chance.choice(self.threads))

    async def stir(self) -> None:
        d, thread = self.world.d, self.chance.choice(self.threads)
        match self.chance.choice(["pause", "send", "supersede", "supersede", "fork", "cancel a child", "hold", "cancel"]):
            case "pause":
                await d.pause(thread)
                self.paused.add(thread)
            case "send":
                await d.send(thread, "hello")
            case "supersede":
                await d.send(thread, "stop that", supersede=True)
            case "fork" if self.forks < 2:
                self.forks += 1
                before = [event.step_id for event in (await d.show(thread)).events if event.kind == "selected"]
                self.threads.append(await d.fork(thread, before=self.chance.choice([None, *before])))
            case "cancel a child":
                for kid in (await d.threads(agent="kid", limit=100))[:1]:
                    await d.cancel(kid.id)
            case "hold":
                await d.hold(thread, on=self.chance.choice([None, Gate, Do]))
            case "cancel" if self.chance.random() < 0.1:
                await d.cancel(thread)

    async def answer(self, one: Interrupt) -> None:
        d, dice = self.world.d, self.chance.random()
        by = Actor(self.chance.choice(["ann", "bob"]), ["people", "soft"])
        if one.kind == "question":
            await d.answer(one, "yes", by=by)
        elif one.kind == "event":
            await d.emit(one.value["event"], {"x": 1}, key=one.value["key"])
        elif one.kind == "in_doubt":
            happened = self.program.made[f"{one.step_id}/{one.value['call']}"] > 0
            await d.answer(one, Happened("known") if happened else NotHappened(), by=by)
        elif dice < 0.55:
            await d.approve(one, by=by)
        elif dice < 0.75 and "tag" in one.intent:
            await d.edit(one, {**one.intent, "tag": f"e{self.chance.randint(0, 99)}"}, by=by)
        elif dice < 0.9:
            await d.reject(one, by=by)
        else:
            await d.respond(one, "instead", by=by)

    async def verify(self) -> None:
        assert not [key for key, times in self.program.made.items() if times > 1], "made twice, and nobody said that it may be"
        for row in await self.world.d.threads(limit=1000):
            view = await self.world.d.show(row.id)
            assert view.status != "failed", view.error
            assert not [(event.seq, why) for event, why in illegal(view.id, list(view.events), History(view.id, []))]
            for step in view.steps if view.status == "done" else ():
                if step.status == "ended" and step.name in ("do", "gate") and "@" not in step.id:
                    assert runs(step) == ("run" if is_granted(step) else None), step
        assert not await self.world.d.app.store.check()


def runs(step: StepView) -> str | None:
    """ "run" if the step has run once, None if it never did."""
    ran = [one.kind for one in step.operations if one.kind == "run"]
    assert len(ran) <= 1, step
    return ran[0] if ran else None


def is_granted(step: StepView) -> bool:
    return not any(_said(one) in ("rejected", "responded") for one in step.operations if one.kind in ("approval", "hold"))


def _said(one: Operation) -> str | None:
    return one.value["kind"] if isinstance(one.value, dict) else None


async def _died() -> None:
    raise Died


def live(kind: Any, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(Life(make_world(kind, Path(folder)), seed).run())


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_nothing_is_lost_and_nothing_made_twice(seed: int) -> None:
    live("memory", seed)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
def test_a_thousand_lives(kind: str) -> None:
    for seed in range(1000, 2000 if kind == "memory" else 1200):
        live(kind, seed)
