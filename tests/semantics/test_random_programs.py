"""Random programs, with people, events, pauses, clocks and deaths in any order, against the same programs in plain Python."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import Chaos, Durable, Plain, programs
from worlds import World, make_world

CALM = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}
GIVEN: dict[str, Any] = {
    "answers": programs(),
    "side_by_side": st.booleans(),
    "seed": st.integers(0, 1 << 32),
    "deaths": st.lists(st.integers(1, 120), max_size=3),
}


@pytest.fixture(autouse=True)
def quiet() -> Any:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def compare(world: World, answers: Any, side_by_side: bool, seed: int, deaths: list[int]) -> None:
    plain = Plain()
    values = [plain.all(plan, f"step {place}", plan) for place, plan in enumerate(plan for answer in answers for plan in answer)]

    program = Durable(answers, side_by_side)
    chaos = Chaos(world, program, seed, deaths)
    view = await chaos.run()

    assert view.status == "done", view.error
    assert view.result == values
    steps = {step.id: f"step {place}" for place, step in enumerate(step for step in view.steps if step.name == "work")}
    ran = {strand.replace(id, steps[id], 1): effects for strand, effects in program.strands.items() for id in (strand.split("/")[0],) if id in steps}
    rest = {strand: effects for strand, effects in program.strands.items() if strand.split("/")[0] not in steps}
    assert {**ran, **rest} == plain.strands, "every effect once, in its order"
    assert sum(program.asked.values()) - len(program.asked) <= chaos.disturbed, "the model was asked again for a recorded selection"
    await world.stop()


def try_on(kind: str, **case: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(make_world(kind, Path(folder)), **case))


@settings(max_examples=60, **CALM)
@given(**GIVEN)
def test_a_random_program_ends_as_plain_python_would_whatever_happens_around_it(**case: Any) -> None:
    try_on("memory", **case)


@settings(max_examples=12, **CALM)
@given(**GIVEN)
def test_a_random_program_ends_as_plain_python_would_on_sqlite(**case: Any) -> None:
    try_on("sqlite", **case)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_ten_thousand_random_programs(kind: str) -> None:
    settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))(given(**GIVEN)(lambda **case: try_on(kind, **case)))()
