"""A program with every kind of operation dies before and after every append; and the kit reports programs and stores that are bad."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from worlds import Deploy, Done, Look, Note, postgres_server, script

from ownloop import App, Happened, NotHappened, Thread, current_call, tool
from ownloop.testing import CrashReport, Drive, FakeClock, crash_everywhere


class Program:
    """One scenario: what it did, and how often the model was asked at each place of each thread."""

    def __init__(self, lines: Sequence[Any]) -> None:
        self.model = script(*lines)
        self.ran: Counter[str] = Counter()
        self.asked: Counter[tuple[str, int]] = Counter()
        self.keys: dict[str, str] = {}
        self.tools: dict[str, Callable[..., Any]] = {}

    def effect(self, name: str, **options: Any) -> Callable[..., Any]:
        if name in self.tools:
            return self.tools[name]

        async def work(*args: Any) -> Any:
            self.ran[name] += 1
            assert self.keys.setdefault(current_call().key, name) == name
            return name

        self.tools[name] = tool(work, name=name, **options)
        return self.tools[name]

    def verify(self, key: str) -> Happened | NotHappened:
        return Happened("paid") if self.ran["paid"] else NotHappened()

    async def decide(self, thread: Thread[Any]) -> Any:
        self.asked[thread.id, thread._wake.history.counters.asked] += 1
        return await self.model(thread)

    decide.intents = Look | Deploy | Note | Done  # type: ignore[attr-defined]

    async def agent(self, thread: Thread[Any]) -> str:
        await thread.step(f"prefetch:{thread.turn}").run(self.effect("prefetched"))
        await thread.append("began", {"turn": thread.turn})
        while True:
            await thread.compact(self.summarize, keep_last=3)
            ends = await thread.each(self.decide, self.branch)
            for end in ends:
                if end is not None:
                    return end

    async def summarize(self, steps: Any) -> str:
        return f"{len(steps)} things"

    async def branch(self, step: Any) -> str | None:
        match step.intent:
            case Look():
                await self.look(step)
            case Deploy(tag=tag):
                await self.deploy(step, tag)
            case Note(text=text):
                await getattr(self, text)(step)
            case Done(message=message):
                step.close("over", {"said": message})
                return str(message)
        return None

    async def look(self, step: Any) -> None:
        await step.run(self.effect("looked", reads=True, retry=1))
        await step.run(self.effect("paid", in_doubt=self.verify))
        await step.run(self.effect("repeated", in_doubt="retry"))
        assert await step.ask("which?", schema=int, choices=[1, 2]) == 2
        await step.run(self.effect("after the answer"))

    async def deploy(self, step: Any, tag: str) -> None:
        await step.run(self.effect("locked"))
        try:
            if await step.approved(quorum=2, expires="30d"):
                await step.run(self.effect(f"deployed {tag}"), tag)
        finally:
            await step.run(self.effect("unlocked"))

    async def approve(self, step: Any) -> None:
        decision = await step.request_approval(by="ann")
        if decision is not None and decision.granted:
            await step.run(self.effect("approved"))

    async def wait(self, step: Any) -> None:
        await step.named("before").run(self.effect("before the wait"))
        assert await step.wait_for("hook", key="k", timeout="30d") == {"n": 1}
        assert await step.wait_for("silence", timeout="1h") is None
        await step.named("after").run(self.effect("after the wait"))

    async def read(self, step: Any) -> None:
        await step.run(self.effect("read", reads=True))
        await step.run(self.effect("read and done"))

    async def review(self, step: Any) -> None:
        await step.run(self.effect("reviewed"))
        assert await step.result_approved()

    async def sleep(self, step: Any) -> None:
        await step.sleep("6h")
        await step.run(self.effect("slept"))

    async def children(self, step: Any) -> None:
        one, two = await step.spawn("child", 1), await step.named("two").spawn("child", 2)
        values = [outcome.value for outcome in await step.join(one, two)]
        assert values == [1, 2]
        await step.run(self.effect("joined"))

    async def again(self, step: Any) -> None:
        await step.run(self.effect("again"))

    async def child(self, thread: Thread[Any]) -> int:
        await thread.step("work").run(self.effect(f"child {thread.input}"))
        await thread.step("nap").sleep("1m")
        return int(thread.input)


# ---- its stories ------------------------------------------------------------------------------------------------------------------

PROGRAM: list[Program] = []


@dataclass(frozen=True)
class Story:
    """What the model says, what people do then, how often each effect happens, and which starts in doubt a person is asked about."""

    lines: Sequence[Any]
    people: Sequence[Callable[[Drive, str], Awaitable[None]]]
    once: Collection[str]
    turns: int
    asked: Collection[str]
    least: int
    """Runs of it, at least: two for each append, and the undisturbed one."""


async def answer_and_edit(d: Drive, thread: str) -> None:
    await d.answer(await d.interrupt(), 2, by="bob")
    await d.settle()
    await d.edit(await d.interrupt(), {"tag": "v2"}, by="ann")
    await d.settle()
    await d.approve(await d.interrupt(), by="bob")
    await d.settle()


async def agree_side_by_side(d: Drive, thread: str) -> None:
    await d.emit("hook", {"n": 1}, key="k")
    await d.settle()
    await d.advance("1h")
    for kind in ("result", "approval"):
        (interrupt,) = await d.interrupts(kind=kind)
        await d.approve(interrupt, by="ann")
        await d.settle()


async def wait_and_send(d: Drive, thread: str) -> None:
    for _ in range(3):
        await d.advance("6h")
    await d.send(thread, "once more")
    await d.settle()


ASKING = Story(
    (Look(), Deploy(tag="v1"), Done()),  # reads, retries, a question; an approval with an edit, a lock around it
    [answer_and_edit],
    ["paid", "after the answer", "locked", "deployed v2", "unlocked"],
    1,
    ["locked", "deployed v2", "unlocked", "after the answer"],
    50,
)
BESIDE = Story(
    ([Note(text="approve"), Note(text="wait"), Note(text="read"), Note(text="review")], Done()),
    [agree_side_by_side],
    ["approved", "before the wait", "after the wait", "read and done", "reviewed"],
    1,
    ["approved", "before the wait", "after the wait", "read and done", "reviewed"],
    50,
)
LATER = Story(
    (Note(text="sleep"), Note(text="children"), Done(message="first turn"), Note(text="again"), Done(message="second turn")),
    [wait_and_send],
    ["slept", "joined", "again", "child 1", "child 2"],
    2,
    ["slept", "joined", "again", "child 1", "child 2"],
    60,
)
WHOLE = Story(
    (*ASKING.lines[:-1], *BESIDE.lines[:-1], *LATER.lines),
    [*ASKING.people, *BESIDE.people, *LATER.people],
    [*ASKING.once, *BESIDE.once, *LATER.once],
    2,
    [*ASKING.asked, *BESIDE.asked, *LATER.asked],
    150,
)


def make_app(place: Any, clock: FakeClock) -> App:
    app = App(place, clock=clock)
    app.add(PROGRAM[-1].agent, name="agent")
    app.add(PROGRAM[-1].child, name="child")
    return app


async def run(story: Story, url: Any) -> CrashReport:
    async def scenario(d: Drive) -> None:
        program = PROGRAM[-1]
        thread = await d.start("agent", "go")
        await d.settle()
        for act in story.people:
            await act(d, thread)
        assert (await d.show(thread)).status == "done"
        assert max(program.asked.values()) <= 2
        assert sum(program.asked.values()) - len(program.asked) <= 1, "the model was asked again for a recorded selection"
        seen = {name: count for name, count in program.ran.items() if name in wanted}
        assert seen == wanted, "no truthful answer, and nobody's word, makes an effect happen twice"

    def make(place: Any, clock: FakeClock) -> App:
        if clock not in clocks:
            clocks.append(clock)
            PROGRAM.append(Program(story.lines))
        return make_app(place, clock)

    wanted = {**dict.fromkeys(story.once, 1), "prefetched": story.turns}
    clocks: list[FakeClock] = []
    return await crash_everywhere(scenario, make, url=url)


def place_of(kind: str) -> Any:
    return {"memory": "memory://", "sqlite": None}[kind] if kind != "postgres" else postgres_server.one_by_one()


@pytest.mark.parametrize(
    ("story", "kind"),
    [
        pytest.param(WHOLE, "memory", id="memory"),
        pytest.param(WHOLE, "sqlite", id="sqlite"),
        pytest.param(ASKING, "postgres", id="postgres-asking"),  # a run costs by its length, and each append two runs: in parts it takes a third
        pytest.param(BESIDE, "postgres", id="postgres-beside", marks=pytest.mark.soak),
        pytest.param(LATER, "postgres", id="postgres-later"),
        pytest.param(WHOLE, "postgres", id="postgres", marks=pytest.mark.soak),
    ],
)
async def test_a_death_anywhere_in_a_program_with_every_operation_loses_nothing_and_repeats_nothing_in_silence(story: Story, kind: str) -> None:
    report = await run(story, place_of(kind))
    assert (report.lost, report.silent) == ([], [])
    assert report.runs > story.least
    asked = {question.split(" at death ")[0].split("#")[0].split("@")[0] for question in report.asked}
    assert asked >= set(story.asked), "every start in doubt was asked about"
    assert not asked & {"paid", "repeated", "looked", "read"}, "nobody is asked where verify knows, or where it may repeat"
    assert report.starts.get("repeated") == (2 if "paid" in story.once else None)


# ---- the kit sees what is bad ---------------------------------------------------------------------------------------------------


async def small(d: Drive) -> None:
    await d.start("agent")
    await d.settle()


def small_app(handler: Any) -> Callable[[Any, FakeClock], App]:
    def make(place: Any, clock: FakeClock) -> App:
        app = App(place, clock=clock)
        app.add(handler, name="agent")
        return app

    return make


async def test_a_payment_wrongly_marked_as_repeatable_is_counted() -> None:
    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Look()))
        return str((await step.run(tool(lambda: "paid", name="pay", in_doubt="retry"))).value)

    report = await crash_everywhere(small, small_app(agent), url="memory://")
    assert report.starts == {"pay": 2}
    assert (report.asked, report.lost) == ([], [])


async def test_an_effect_outside_run_shows_as_an_end_that_differs() -> None:
    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Look()))
        bought.append(1)
        await step.run(lambda: None)
        return f"bought {len(bought)}"

    async def scenario(d: Drive) -> None:
        bought.clear()
        await small(d)

    bought: list[int] = []
    report = await crash_everywhere(scenario, small_app(agent), url="memory://")
    assert any("agent has result 'bought 2' instead of 'bought 1'" in line for line in report.lost), report.lost


async def test_a_store_that_forgets_what_was_started_is_reported_as_a_silent_repetition() -> None:
    async def agent(thread: Thread[Any]) -> str:
        step = await thread.next_step(script(Look()))
        return str((await step.run(tool(lambda: "paid", name="pay"))).value)

    def forgetful(place: Any, clock: FakeClock) -> App:
        app = small_app(agent)(place, clock)
        plain = app.store.load

        async def load(thread_id: str, upto: int) -> Any:
            return [event for event in await plain(thread_id, upto) if event.kind != "started"]

        app.store.load = load  # type: ignore[method-assign]
        return app

    report = await crash_everywhere(small, forgetful, url="memory://")
    assert any("pay was started 2 times instead of 1, and nobody was asked" in line for line in report.silent), report


async def test_a_program_that_forgets_a_step_after_a_death_is_reported_as_lost() -> None:
    async def agent(thread: Thread[Any]) -> str:
        lives.append(1)
        step = await thread.next_step(script(Look()))
        if len(lives) == 1:
            await step.run(tool(lambda: None, name="bill"))
        step.close()
        return "end"

    async def scenario(d: Drive) -> None:
        lives.clear()
        await small(d)

    lives: list[int] = []
    report = await crash_everywhere(scenario, small_app(agent), url="memory://")
    assert any("has done [] instead of ['run:bill']" in line for line in report.lost), report.lost
