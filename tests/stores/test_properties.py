"""Random programs of every verb: the stores against a plain list and against each other."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import postgres_server

from ownloop import ids
from ownloop.events import Draft, Event
from ownloop.stores.base import Fenced, NewThread, Refused, Store
from ownloop.stores.memory import MemoryStore
from ownloop.stores.sqlite import SqliteStore
from ownloop.testing import FakeClock
from ownloop.testing.store_scene import TTL, Scene

Make = Callable[[Path, FakeClock], Store]
STORES: dict[str, Make] = {
    "memory": lambda folder, clock: MemoryStore(clock),
    "sqlite": lambda folder, clock: SqliteStore(f"sqlite:///{folder}/a.db?synchronous=normal", clock),
    "postgres": lambda folder, clock: postgres_server.Borrowed(clock),
}
VERBS = ("pause", "resume", "retry", "cancel", "close")
threads = st.integers(0, 2)
steps = st.sampled_from([1, 2, "gate"])
ops = st.sampled_from(["run:f", "run:g"])
names = st.sampled_from(["tick", "paid"])
action = st.one_of(
    st.tuples(st.just("create")),
    st.tuples(st.just("claim"), threads),
    st.tuples(st.just("claim_any"), threads),
    st.tuples(st.just("select"), threads, steps),
    st.tuples(st.just("start"), threads, steps, ops),
    st.tuples(st.just("request"), threads, steps, st.sampled_from(["approval", "in_doubt"])),
    st.tuples(st.just("wait"), threads, steps, names),
    st.tuples(st.just("spawn"), threads, steps),
    st.tuples(st.just("fact"), threads, steps, ops),
    st.tuples(st.just("settle"), threads),
    st.tuples(st.just("release"), threads, st.booleans()),
    st.tuples(st.just("finish"), threads, st.sampled_from(["done", "failed"]), steps),
    st.tuples(st.just("message"), threads, st.sampled_from([None, "t1"]), st.booleans()),
    st.tuples(st.just("control"), threads, st.sampled_from(VERBS)),
    st.tuples(st.just("decide"), threads, st.integers(0, 2)),
    st.tuples(st.just("vote"), threads, st.integers(0, 2)),
    st.tuples(st.just("emit"), names, st.sampled_from([None, "e1"])),
    st.tuples(st.just("renew"), threads),
    st.tuples(st.just("advance"), st.sampled_from([1, 29, 30, 3600])),
)
start: list[tuple[Any, ...]] = [("create",), ("claim", 0), ("create",)]
programs = st.lists(action, min_size=10, max_size=40).map(lambda program: start + program)


@dataclass
class Run:
    """A program on one store. `told` is the plain list: what each call said it wrote, in order, by thread."""

    scene: Scene
    threads: list[str] = field(default_factory=list)
    epochs: dict[str, int] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)
    requests: dict[str, list[int]] = field(default_factory=dict)
    told: dict[str, dict[int, Event]] = field(default_factory=dict)

    async def do(self, name: str, *args: Any) -> Any:
        """One action; what it answered, or how it was refused."""
        if name == "advance":
            self.scene.clock.advance(timedelta(seconds=args[0]))
            return None
        if name == "emit":
            return await self.scene.store.emit(args[0], None, args[1], 1)
        if name == "create":
            self.threads.append(await self.scene.thread())
            return None
        if args[0] >= len(self.threads):
            return None
        try:
            return await getattr(self, f"do_{name}")(self.threads[args[0]], *args[1:])
        except (Fenced, Refused) as refused:
            return type(refused).__name__, refused.why

    def keep(self, thread: str, events: list[Event]) -> list[str]:
        log = self.told.setdefault(thread, {})
        for event in events:
            assert event.seq not in log, "two calls were told the same position"
            log[event.seq] = event
            if event.kind == "request":
                self.requests.setdefault(thread, []).append(event.seq)
        return [f"{event.seq}:{event.kind}" for event in events]

    async def do_claim(self, thread: str, agents: tuple[str, ...] | None = ("bot",)) -> Any:
        claim = await self.scene.store.claim(thread, agents, TTL)
        if claim is None:
            return None
        self.epochs[thread], self.heads[thread] = claim.row.epoch, claim.row.head
        return claim.row.epoch, claim.row.head, claim.crashes

    async def do_claim_any(self, thread: str) -> Any:
        return await self.do_claim(thread, None)

    async def begin(self, thread: str, *drafts: Draft, selecting: bool = False) -> list[str]:
        epoch, known = self.epochs.get(thread, 0), self.heads.get(thread, 0)
        return self.keep(thread, (await self.scene.store.begin(thread, epoch, drafts, known=known, selecting=selecting)).events)

    async def do_select(self, thread: str, step: int | str) -> Any:
        return await self.begin(thread, Draft("selected", {"intent": "x"}, ids.step_id(thread, step)), selecting=True)

    async def do_start(self, thread: str, step: int | str, op: str) -> Any:
        return await self.begin(thread, Draft("started", {"after": self.heads.get(thread, 0)}, ids.step_id(thread, step), op))

    async def do_request(self, thread: str, step: int | str, kind: str) -> Any:
        draft = Draft("request", {"kind": kind, "call": "run:f"}, ids.step_id(thread, step), "ask", expires=timedelta(minutes=1))
        return await self.begin(thread, draft)

    async def do_wait(self, thread: str, step: int | str, name: str) -> Any:
        return await self.begin(thread, Draft("request", {"kind": "event", "event": name, "key": None}, ids.step_id(thread, step), "wait"))

    async def do_spawn(self, thread: str, step: int | str) -> Any:
        draft = Draft("request", {"kind": "child"}, ids.step_id(thread, step), "spawn")
        child = NewThread("bot", [Draft("input", {"input": 1})])
        epoch, known = self.epochs.get(thread, 0), self.heads.get(thread, 0)
        event = await self.scene.store.spawn(thread, epoch, draft, child, known=known)
        self.threads.append(event.data["child"])
        return self.keep(thread, [event])

    async def do_fact(self, thread: str, step: int | str, op: str) -> Any:
        draft = Draft("outcome", {"value": 1}, ids.step_id(thread, step), op)
        return self.keep(thread, [await self.scene.store.fact(thread, self.epochs.get(thread, 0), draft)])

    async def do_settle(self, thread: str) -> Any:
        drafts = [Draft("decision", {"request": seq, "kind": "expired"}) for seq in self.requests.get(thread, [])]
        return self.keep(thread, await self.scene.store.settle(thread, self.epochs.get(thread, 0), drafts))

    async def do_release(self, thread: str, timer: bool) -> Any:
        due = self.scene.clock.now() + timedelta(minutes=10) if timer else None
        return await self.scene.store.release(thread, self.epochs.get(thread, 0), seen=self.heads.get(thread, 0), due=due)

    async def do_finish(self, thread: str, status: Any, aside: int | str) -> Any:
        row, seen = await self.scene.row(thread), self.heads.get(thread, 0)
        last = Draft("turn_ended", {"read": seen}) if status == "done" else Draft("failed", {"error": {}})
        drafts = [Draft("ended", {}, ids.step_id(thread, 1)), last]
        tell = None if row.parent is None else Draft("outcome", {"request": row.parent[1], "value": 1})
        return await self.scene.store.finish(
            thread, self.epochs.get(thread, 0), drafts, status=status, seen=seen, due=None, aside=[ids.step_id(thread, aside)], tell=tell
        )

    async def do_message(self, thread: str, dedupe: str | None, supersede: bool) -> Any:
        at_head = (await self.scene.row(thread)).head if supersede else None
        event, is_new = await self.scene.message(thread, dedupe=dedupe, at_head=at_head)
        return self.keep(thread, [event]) if is_new else event.seq

    async def do_control(self, thread: str, verb: Any) -> Any:
        return await self.scene.control(thread, verb)

    async def do_decide(self, thread: str, which: int) -> Any:
        seq = [0, 0, 0, *self.requests.get(thread, [])][-1 - which]
        return self.keep(thread, [await self.scene.decide(thread, seq)])

    async def do_vote(self, thread: str, which: int) -> Any:
        seq = [0, 0, 0, *self.requests.get(thread, [])][-1 - which]
        return self.keep(thread, [await self.scene.vote(thread, seq, by="ann", votes=0)])

    async def do_renew(self, thread: str) -> Any:
        pulse = self.scene.store.renew({thread: self.epochs.get(thread, 0)}, TTL)[thread]
        return None if pulse is None else (pulse.status, pulse.woken)

    # ---- what everybody can see --------------------------------------------------------------------------------------------------

    def alias(self, value: Any) -> Any:
        """Ids by number, so that two stores can be compared."""
        text = repr(value)
        for number, thread in enumerate(self.threads):
            text = text.replace(thread, f"thr#{number}").replace(thread[4:], f"#{number}")
        return text

    async def state(self) -> list[str]:
        store, found = self.scene.store, []
        for thread in self.threads:
            row = await self.scene.row(thread)
            log = [replace(event, data=dict(sorted({**event.data, "digest": ""}.items()))) for event in await store.events(thread)]
            listed = await store.interrupts(thread=thread, status=None)
            items = [(item.request.seq, item.status, len(item.votes), item.closing and item.closing.seq) for item in listed]
            found.append(self.alias((replace(row, last_end=None), row.last_end and row.last_end.seq, log, items)))
        ready, soonest = await store.runnable(["bot"], 100)
        found.append(self.alias((sorted(map(self.threads.index, ready)), soonest)))
        return found

    async def check(self) -> None:
        """Against the plain list: positions without gaps, and everything that somebody was told stands there unchanged."""
        store = self.scene.store
        for thread in self.threads:
            log = await store.events(thread)
            row = await self.scene.row(thread)
            assert [event.seq for event in log] == list(range(1, row.head + 1))
            told = self.told.get(thread, {})
            assert {seq: event for seq, event in told.items() if log[seq - 1] != event} == {}
            assert await store.load(thread, row.head) == log
            assert await store.recall(thread, ids.step_id(thread, "gate"), row.head) == [e for e in log if e.step_id == ids.step_id(thread, "gate")]
            outcomes = [(event.step_id, event.op) for event in log if event.kind == "outcome" and "request" not in event.data]
            assert len(outcomes) == len(set(outcomes)), "an operation has two outcomes"
            for item in await store.interrupts(thread=thread, status=None):
                closing = [e for e in log if e.kind in ("decision", "delivered", "outcome") and e.data.get("request") == item.request.seq]
                assert len(closing) == (item.closing is not None)
                assert (item.status == "open") <= (not closing and row.status not in ("cancelled", "closed"))
        assert await store.check() == []


async def with_store(make: Make, body: Callable[[Run], Awaitable[Any]]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        clock = FakeClock()
        store = make(Path(folder), clock)
        await store.open()
        try:
            return await body(Run(Scene(store, clock)))
        finally:
            await store.close()


quick = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
"""The same programs on every run; `make soak` draws others."""


@pytest.mark.parametrize(("name", "examples"), [("memory", 80), ("sqlite", 50), ("postgres", 25)])
def test_every_event_that_somebody_was_told_stands_once_at_its_place(name: str, examples: int) -> None:
    async def body(run: Run, program: list[tuple[Any, ...]]) -> None:
        for one in program:
            await run.do(*one)
        await run.check()

    @settings(quick, max_examples=examples)
    @given(program=programs)
    def check(program: list[tuple[Any, ...]]) -> None:
        asyncio.run(with_store(STORES[name], lambda run: body(run, program)))

    check()


def compare(name: str, program: list[tuple[Any, ...]]) -> None:
    """A store with the memory store, after every action."""

    async def body(run: Run) -> list[Any]:
        found = []
        for one in program:
            found.append((one, run.alias(await run.do(*one)), await run.state()))
        return found

    expected, found = (asyncio.run(with_store(STORES[one], body)) for one in ("memory", name))
    for wanted, got in zip(expected, found, strict=True):
        assert got == wanted


@settings(quick, max_examples=50)
@given(program=programs)
def test_sqlite_does_what_memory_does(program: list[tuple[Any, ...]]) -> None:
    compare("sqlite", program)


@settings(quick, max_examples=20)
@given(program=programs)
def test_postgres_does_what_memory_does(program: list[tuple[Any, ...]]) -> None:
    compare("postgres", program)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["sqlite", "postgres"])
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
@given(program=st.lists(action, min_size=20, max_size=100).map(lambda program: start + program))
def test_a_store_does_what_memory_does_for_long(name: str, program: list[tuple[Any, ...]]) -> None:
    compare(name, program)
