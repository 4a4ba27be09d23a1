"""Random programs with named gates, played twice: whatever a summary covers, the program sees what it sees without one."""

from __future__ import annotations

import random
from typing import Any

import pytest
from worlds import Deploy, Done, Look, Note, script

from ownloop import App, Intent, Thread, tool
from ownloop.errors import OwnloopError
from ownloop.stores.memory import MemoryStore
from ownloop.testing import Drive, FakeClock

GATES = ("approve", "approve each turn's own", "two must agree", "ask", "run")
ROUNDS = 40


async def summarize(steps: Any) -> str:
    return "so far, so good"


def lines_of(chance: random.Random) -> list[Intent]:
    """Three turns."""
    lines: list[Intent] = []
    for _ in range(3):
        lines += [chance.choice([Look(), Look(), Note(text=f"w{number}"), Deploy(tag="x")]) for number in range(chance.randint(2, 7))]
        lines.append(Done())
    return lines


async def passed(thread: Thread[Any], kind: str, name: str) -> Any:
    """What a gate says, softly: nobody is waited for."""
    if kind == "ask":
        return await thread.step(name).request_answer("go?")
    if kind == "run":
        return (await thread.step(name).run(tool(lambda: 7, name="seven"))).value
    intent = Deploy(tag=f"v{thread.turn}") if kind == "approve each turn's own" else Deploy(tag="v0")
    terms: Any = {"quorum": 2} if kind == "two must agree" else {"expires": "3h", "on_expiry": "ask_again"}
    decision = await thread.step(name, intent).request_approval(**terms)
    return None if decision is None else (decision.kind, [vote.by.id for vote in decision.votes])


def program(seed: int, compacts: bool, trace: list[Any]) -> Any:
    chance = random.Random(seed)
    model = script(*lines_of(chance))
    gates = [(chance.choice(GATES), chance.randint(1, 3), chance.random() < 0.5) for _ in range(3)]
    keep_last = chance.randint(0, 3)

    async def agent(thread: Thread[Any]) -> str:
        for number, (kind, turn, each_turn) in enumerate(gates):
            if thread.turn >= turn:
                name = f"gate {number}" + (f":{thread.turn}" if each_turn else "")
                trace.append((thread.turn, name, await passed(thread, kind, name)))
        while True:
            if compacts:
                await thread.compact(summarize, keep_last=keep_last)
            trace.append((thread.count(Look), thread.errors_in_a_row, [message.data["text"] for message in thread.unread]))
            step = await thread.next_step(model)
            match step.intent:
                case Look():
                    await step.run(tool(lambda: 1, name="look"))
                case Note(text=text):
                    trace.append(await step.wait_for(text, timeout="2h"))
                case Deploy():
                    trace.append(await step.approved())
                case Done():
                    return "end"

    return agent


async def act(d: Drive, thread: str, chance: random.Random, number: int) -> Any:
    """One thing that people, events or the clock do; what they were told if it was refused."""
    view, choice = await d.show(thread), chance.random()
    asked = sorted((one for one in view.interrupts if one.kind in ("approval", "question")), key=lambda one: (one.name, one.kind, len(one.votes)))
    waits = [one.value["event"] for one in view.interrupts if one.kind == "event"]
    if choice < 0.45 and asked:
        return await answered(d, chance.choice(asked), chance, number)
    if choice < 0.7 and waits:
        await d.emit(waits[0], number)
    elif choice < 0.85:
        await d.send(thread, f"message {number}")
    else:
        await d.advance("61m")
    return None


async def answered(d: Drive, one: Any, chance: random.Random, number: int) -> str | None:
    verb, by = chance.choice(["approve", "approve", "reject", "edit"]), chance.choice(["ann", "bob"])
    try:
        if one.kind == "question":
            await d.answer(one, f"answer {number}", by=by)
        elif verb == "edit":
            await d.edit(one, {"tag": f"e{number}"}, by=by)
        else:
            await getattr(d, verb)(one, by=by)
    except OwnloopError as refusal:
        return type(refusal).__name__
    return None


async def play(seed: int, compacts: bool) -> tuple[list[Any], int]:
    """What the program saw, and how often its log was covered."""
    trace: list[Any] = []
    clock, chance = FakeClock(), random.Random(seed + 1)
    app = App(MemoryStore(clock), clock=clock)
    app.add(program(seed, compacts, trace), name="agent")
    d = Drive(app, clock)
    thread = await d.start("agent", "in")
    for number in range(ROUNDS):
        await d.settle()
        view = await d.show(thread)
        assert view.status in ("open", "done"), view.error
        if view.status == "open":
            trace.append(await act(d, thread, chance, number))
        elif view.turn < 3:
            await d.send(thread, "again")
    covered = sum(event.kind == "compacted" for event in (await d.show(thread)).events)
    await app.aclose()
    return trace, covered


@pytest.mark.parametrize("seeds", [range(25), pytest.param(range(25, 500), marks=pytest.mark.soak)], ids=["some", "many"])
async def test_a_program_sees_the_same_with_summaries_and_without(seeds: range) -> None:
    covered = 0
    for seed in seeds:
        plain, _ = await play(seed, compacts=False)
        short, summaries = await play(seed, compacts=True)
        assert short == plain, f"seed {seed}"
        covered += summaries
    assert covered > 4 * len(seeds)
