"""More than 200 changed programs are deployed onto parked threads: no wrong effect, every problem is said clearly, and the fix heals it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from changes import CHANGES, PARKS, Shape, Yard, waits_in
from worlds import World, only

from ownloop.testing import Drive

CLEAR = {"ProgramChanged", "CallNoLongerValid", "StepIgnored", "TypeError", "ValueError"}
WORD = ("tool only reads now", "doubt")
"""The new program gives its word that the call in doubt has no effects: it is run again unasked."""

SAID = {
    "case removed": "StepIgnored",
    "everything dropped": "StepIgnored",
    "field added": "CallNoLongerValid",
    "field removed": "CallNoLongerValid",
    "field renamed": "CallNoLongerValid",
    "field's type changed": "CallNoLongerValid",
    "class renamed": "CallNoLongerValid",
    "lock dropped": "ProgramChanged",
    "backwards": "ProgramChanged",
    "arguments changed": "ProgramChanged",
    "name given": "ProgramChanged",
    "raises": "ValueError",
}
"""What these changes are called by, wherever the thread was parked."""


async def park(world: World, yard: Yard, shape: Shape, at: str) -> str:
    """A thread of the old program, parked there."""
    if at == "doubt":
        yard.dies_in = "deploy"
    d = await world.deploy(yard.agent(shape))
    thread = await d.start("agent")
    await d.settle()
    if at in ("granted", "doubt"):
        await d.approve(await only(d), by="ann")
    elif at == "rejected":
        await d.reject(await only(d), by="ann")
    if at == "doubt":
        await world.dies()
    return thread


async def answered(d: Drive, yard: Yard, thread: str) -> str:
    await d.send(thread, "how is it going?")
    await d.settle()
    await yard.people(d)
    return (await d.show(thread)).status


def cases() -> Iterator[Any]:
    """Each change at each park. On stores that take long, `soak` but for each change at some parks, and each park with some changes."""
    for store, every in {"memory": 1, "sqlite": 2, "postgres": len(PARKS)}.items():
        for place, change in enumerate(CHANGES):
            for number, at in enumerate(PARKS):
                is_long = (place + number) % every != 0
                yield pytest.param(store, change, at, id=f"{store}-{change}-{at}", marks=[pytest.mark.soak] if is_long else [])


@pytest.mark.parametrize(("world", "change", "at"), list(cases()), indirect=["world"])
async def test_a_changed_program_does_nothing_wrong_says_what_is_wrong_and_heals(world: World, change: str, at: str) -> None:
    yard, shape = Yard(world), Shape(waits_in(at))
    thread = await park(world, yard, shape, at)

    d = await world.deploy(yard.agent(replace(shape, **CHANGES[change])))
    status = await answered(d, yard, thread)
    assert yard.complaints == []
    assert yard.ran["deploy"] == 2 if (change, at) == WORD else all(count == 1 for count in yard.ran.values()), yard.ran
    assert status in ("done", "failed"), [(one.kind, one.name) for one in await d.interrupts()]
    if change in SAID or status == "failed":
        error = (await d.show(thread)).error
        assert error is not None
        assert error.type == SAID.get(change, error.type)
        assert error.type in CLEAR
        assert len(error.message) > 20 or error.type == "ValueError"

    asked = len(await d.interrupts(kind="approval", status=None))
    d = await world.deploy(yard.agent(shape))
    if status == "failed":
        await d.retry(thread)
        assert await answered(d, yard, thread) == "done", (await d.show(thread)).error
        assert at == "rejected" or yard.ran == {"lock": 1, "deploy": 1, "unlock": 1}
        if at in ("granted", "rejected", "doubt"):
            assert len(await d.interrupts(kind="approval", status=None)) == asked, "the decision is kept"
    if at == "rejected" and "quorum" not in change and "people" not in change:
        assert "deploy" not in yard.ran, "a person said no"
    assert yard.complaints == []
    assert (change, at) == WORD or all(count == 1 for count in yard.ran.values()), yard.ran


def test_there_are_at_least_a_hundred_of_them() -> None:
    assert len(CHANGES) * len(PARKS) >= 200
