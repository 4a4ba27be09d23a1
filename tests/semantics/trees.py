"""Programs as trees of operations: run by ownloop, run by plain Python, and driven by a world that does things in any order."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st
from worlds import Died, World

from ownloop import Happened, Intent, NotHappened, Thread, current_call, tool
from ownloop.errors import AlreadyDecided, Expired, ThreadEnded
from ownloop.interrupts import Actor, Interrupt

Op = list[Any]
"""A kind, a number that names it in the whole program, and for some kinds lists of operations."""


class Work(Intent):
    """Do these operations."""

    plan: list[Any]
    note: str = "as chosen"


class Finish(Intent):
    """Nothing is left to do."""


# ---- making trees ------------------------------------------------------------------------------------------------------------

LEAVES = ("effect", "effect", "effect", "read", "sync", "fail", "again", "verify", "ask", "wait", "twice", "late", "sleep", "note")


def ops(depth: int) -> st.SearchStrategy[list[Op]]:
    leaf = st.sampled_from(LEAVES).map(lambda kind: [kind])
    if depth == 0:
        return st.lists(leaf, max_size=3)
    inner = ops(depth - 1)
    trees = st.one_of(
        leaf,
        st.tuples(st.sampled_from(["grant", "reject", "edit", "quorum", "soft"]), inner).map(lambda both: ["approve", *both]),
        st.lists(inner, min_size=1, max_size=3).map(lambda many: ["gather", *many]),
        st.tuples(inner, inner).map(lambda both: ["finally", *both]),
        inner.map(lambda one: ["named", one]),
        inner.map(lambda one: ["child", one]),
    )
    return st.lists(st.one_of(leaf, trees), max_size=4)


def numbered(tree: Any, numbers: Any) -> Any:
    """The same tree with a number after every kind."""
    if isinstance(tree, list) and tree and isinstance(tree[0], str):
        return [tree[0], next(numbers), *(numbered(part, numbers) for part in tree[1:])]
    return [numbered(part, numbers) for part in tree] if isinstance(tree, list) else tree


def programs() -> st.SearchStrategy[list[list[list[Op]]]]:
    """Answers of the model: each a list of plans, done side by side or one after another."""
    return st.lists(st.lists(ops(2), min_size=1, max_size=3), min_size=1, max_size=3).map(lambda tree: numbered(tree, iter(range(10_000))))


def approvals(plan: Any) -> int:
    if not isinstance(plan, list):
        return 0
    return (plan[:1] == ["approve"]) + sum(approvals(part) for part in plan)


def verdict(op: Op, plan: list[Op] | None) -> str:
    """How people decide this approval; an edit asks the step's other approvals anew, so it is tried where it is the only one.

    Children and named steps (plan None) have no arguments to edit.
    """
    return "grant" if op[2] == "edit" and (plan is None or approvals(plan) > 1) else str(op[2])


# ---- the reference: plain Python ---------------------------------------------------------------------------------------------


class Plain:
    """What a program does where nothing waits and nothing dies: its values, and its effects strand by strand."""

    def __init__(self) -> None:
        self.strands: dict[str, list[int]] = {}

    def all(self, plan: list[Op], strand: str, whole: list[Op] | None) -> list[Any]:
        return [self.one(op, strand, whole) for op in plan]

    def one(self, op: Op, strand: str, whole: list[Op] | None) -> Any:
        kind, number, *rest = op
        match kind:
            case "effect" | "verify":
                self.strands.setdefault(strand, []).append(number)
                return number
            case "gather":
                return [self.all(part, f"{strand}/{number}.{place}", whole) for place, part in enumerate(rest)]
            case "finally":
                return [self.all(rest[0], strand, whole), self.all(rest[1], strand, whole)]
            case "named" | "child":
                return self.all(rest[0], f"{kind} {number}", None)
            case "approve":
                return self.approve(op, strand, whole)
        return VALUES[kind](number)

    def approve(self, op: Op, strand: str, whole: list[Op] | None) -> Any:
        said = verdict(op, whole)
        return ["rejected"] if said == "reject" else [said == "edit", self.all(op[3], strand, whole)]


VALUES = {
    "read": lambda number: number,
    "sync": lambda number: number,
    "again": lambda number: number,
    "fail": lambda number: "ValueError",
    "ask": lambda number: f"answer {number}",
    "wait": lambda number: {"n": number},
    "twice": lambda number: [{"n": number}, {"n": -number}],
    "late": lambda number: None,
    "sleep": lambda number: None,
    "note": lambda number: None,
}


# ---- the same program on ownloop ---------------------------------------------------------------------------------------------


class Durable:
    """The program as agents, and what they really did."""

    def __init__(self, answers: list[list[list[Op]]], side_by_side: bool) -> None:
        self.answers, self.side_by_side = answers, side_by_side
        self.strands: dict[str, list[int]] = {}
        self.done: set[int] = set()
        self.asked: Counter[tuple[str, int]] = Counter()
        self.keys: dict[str, int] = {}

    async def decide(self, thread: Thread[Any]) -> list[Work] | Finish:
        place = thread._wake.history.counters.asked
        self.asked[thread.id, place] += 1
        await asyncio.sleep(0)
        return [Work(plan=plan) for plan in self.answers[place]] if place < len(self.answers) else Finish()

    async def agent(self, thread: Thread[Any]) -> Any:
        while True:
            over = await self.some(thread)
            if over:
                results = {event.step_id: event.data["result"] for event in thread.events if event.kind == "ended" and "result" in event.data}
                return [results[step.id] for step in thread.steps if step.id in results]

    async def some(self, thread: Thread[Any]) -> bool:
        async def branch(step: Any) -> bool:
            if isinstance(step.intent, Finish):
                step.close()
                return True
            value = await self.all(thread, step, step.intent.plan, step.id, step.intent.plan)
            step.close(result=value)
            return False

        if self.side_by_side:
            return any(await thread.each(self.decide, branch))
        return await branch(await thread.next_step(self.decide))

    async def child(self, thread: Thread[Any]) -> Any:
        number, plan = thread.input
        return await self.all(thread, thread.step("work"), plan, f"child {number}", None)

    async def all(self, thread: Any, step: Any, plan: list[Op], strand: str, whole: list[Op] | None) -> list[Any]:
        return [await self.one(thread, step, op, strand, whole) for op in plan]

    async def one(self, thread: Any, step: Any, op: Op, strand: str, whole: list[Op] | None) -> Any:
        kind, number, *rest = op
        match kind:
            case "gather":
                parts = [
                    self.all(thread, step.named(f"{number}.{place}"), part, f"{strand}/{number}.{place}", whole) for place, part in enumerate(rest)
                ]
                return await (asyncio.gather(*parts) if number % 2 else group(parts))
            case "finally":
                before: list[Any] = []
                try:
                    before = await self.all(thread, step, rest[0], strand, whole)
                finally:
                    after = await self.all(thread, step, rest[1], strand, whole)
                return [before, after]
            case "named":
                return await self.all(thread, thread.step(f"named {number}"), rest[0], f"named {number}", None)
            case "child":
                return (await step.join(await step.spawn("child", [number, rest[0]])))[0].value
            case "approve":
                return await self.approve(thread, step, op, strand, whole)
        return await self.leaf(thread, step, kind, number, strand)

    async def approve(self, thread: Any, step: Any, op: Op, strand: str, whole: list[Op] | None) -> Any:
        people = f"{op[1]} {verdict(op, whole)}"
        quorum = 2 if op[2] == "quorum" else 1
        if not await step.approved(by=people, quorum=quorum):
            return ["rejected"]
        edited = isinstance(step.intent, Work) and step.intent.note == f"edited {op[1]}"
        return [edited, await self.all(thread, step, op[3], strand, whole)]

    async def leaf(self, thread: Any, step: Any, kind: str, number: int, strand: str) -> Any:
        match kind:
            case "ask":
                return await step.ask(f"question {number}", choices=[f"answer {number}", "other"])
            case "wait":
                return await step.wait_for(f"event {number}", key=thread.id, timeout="3650d")
            case "twice":
                return [await step.wait_for("twice", key=f"{thread.id} {number}") for _ in range(2)]
            case "late":
                return await step.wait_for(f"never {number}", timeout="1h")
            case "sleep":
                return await step.sleep("2h")
            case "note":
                return await thread.append(f"note {number}", number)
        outcome = await step.run(self.tool(kind, number, strand))
        return outcome.value if outcome.ok else outcome.error.type

    def tool(self, kind: str, number: int, strand: str) -> Any:
        async def effect() -> int:
            self.strands.setdefault(strand, []).append(number)
            self.done.add(number)
            assert self.keys.setdefault(current_call().key, number) == number
            for _ in range(number % 4):
                await asyncio.sleep(0)
            return number

        async def fail() -> None:
            raise ValueError(f"failure {number}")

        async def harmless() -> int:
            return number

        def sync() -> int:
            return number

        def verify(key: str) -> Happened | NotHappened:
            return Happened(number) if number in self.done else NotHappened()

        name = f"{kind} {number}"
        match kind:
            case "effect":
                return tool(effect, name=name)
            case "verify":
                return tool(effect, name=name, in_doubt=verify)
            case "again":
                return tool(harmless, name=name, in_doubt="retry")
            case "fail":
                return tool(fail, name=name)
        return tool(sync if kind == "sync" else harmless, name=name, reads=True)


async def group(parts: list[Any]) -> list[Any]:
    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(part) for part in parts]
    return [task.result() for task in made]


# ---- the world around it -----------------------------------------------------------------------------------------------------


class Chaos:
    """Wakes, people, events, pauses, the clock and deaths, in an order that a seed decides."""

    def __init__(self, world: World, program: Durable, seed: int, deaths: list[int]) -> None:
        self.world, self.program, self.random = world, program, random.Random(seed)
        self.deaths = sorted(deaths)
        self.disturbed = 0
        self.calls = 0
        self.paused = False

    async def deploy(self) -> None:
        await self.world.deploy(self.program.agent, self.program.child)
        self.world.at_every_write(self.count)

    def count(self, *_: Any) -> None:
        self.calls += 1
        if self.deaths and self.calls >= self.deaths[0]:
            self.deaths.pop(0)
            self.disturbed += 1
            raise Died

    async def run(self) -> Any:
        await self.deploy()
        thread = await self.world.d.start("agent")
        for turn in range(1_500):
            view = await self.world.d.show(thread)
            if view.status in ("done", "failed"):
                return view
            await self.turn(thread, calm=turn > 300)
        raise AssertionError(f"it never ended: {view.status} {[(one.kind, one.name, one.status) for one in view.interrupts]}")

    async def turn(self, thread: str, calm: bool) -> None:
        store, d = self.world.d.app.store, self.world.d
        ready, _ = await store.runnable(d.app.agents, 100)
        chosen = self.random.sample(ready, min(len(ready), self.random.randint(0, 3)))
        wakes = [d.app.run_one(one) for one in chosen]
        outside = self.outside(thread, calm)
        results = await asyncio.gather(outside, *wakes, return_exceptions=True)
        if self.world.is_dead:
            await self.world.dies(reraised())
            await self.deploy()
            return
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def outside(self, thread: str, calm: bool) -> None:
        for _ in range(self.random.randint(0, 3)):
            await asyncio.sleep(0)
        d = self.world.d
        dice = self.random.random()
        if self.paused and (calm or dice < 0.3):
            self.paused = False
            await d.resume(thread)
        elif dice < 0.05 and not calm:
            self.disturbed += 1
            with suppress(ThreadEnded):  # it may just be done
                await d.pause(thread)
                self.paused = True
        elif dice < 0.1 and not calm:
            await d.send(thread, "chatter")
        elif dice < 0.3:
            jump = self.random.choice([1, 31, 3600])
            self.disturbed += jump > 1
            self.world.clock.advance(f"{jump}s")
        elif waiting := [one for one in await d.interrupts(limit=500) if one.kind not in ("timer", "child")]:
            await self.answer(self.random.choice(waiting))

    async def answer(self, one: Interrupt) -> None:
        with suppress(AlreadyDecided, Expired):  # a fact, the clock or the end of a turn was first
            await self._answer(one)

    async def _answer(self, one: Interrupt) -> None:
        d = self.world.d
        if one.kind == "question":
            await d.answer(one, one.choices[0], by="ann")  # type: ignore[index]  # all have choices
        elif one.kind == "in_doubt":
            kind, number = one.value["call"].removeprefix("run:").split("@")[0].split("#")[0].split(" ")
            happened = kind == "again" or int(number) in self.program.done
            await d.answer(one, Happened(int(number)) if happened else NotHappened(), by="ann")
        elif one.kind == "event":
            await self.emit(one.value["event"], one.value["key"])
        elif one.kind == "approval":
            await self.decide(one)

    async def emit(self, name: str, key: str | None) -> None:
        d = self.world.d
        if name.startswith("event"):
            number = int(name.split(" ")[1])
            await d.emit(name, {"n": number}, key=key, id=f"{key} {number}")
        elif name == "twice":
            number = int(str(key).split(" ")[1])
            await d.emit(name, {"n": number}, key=key, id=f"{key} first")
            await d.emit(name, {"n": -number}, key=key, id=f"{key} second")

    async def decide(self, one: Interrupt) -> None:
        d, people = self.world.d, one.policy.by[0]
        number, said = people.split(" ")
        person = Actor(self.random.choice(["ann", "bob"]), [people])
        if said == "reject":
            await d.reject(one, by=person, note="no")
        elif said == "edit":
            await d.edit(one, {**one.intent, "note": f"edited {number}"}, by=person)
        elif not (said == "quorum" and any(vote.by.id == person.id for vote in one.votes)):
            await d.approve(one, by=person)


async def reraised() -> None:
    raise Died
