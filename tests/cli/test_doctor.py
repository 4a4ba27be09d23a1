"""The doctor names what is wrong or stuck, since when, and what heals it; and is silent about what is well."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ownloop import App, InDoubt, Intent, Thread
from ownloop.doctor import Finding, examine, illegal
from ownloop.errors import CallNoLongerValid, ProgramChanged
from ownloop.events import Event
from ownloop.history import History
from ownloop.testing import FakeClock, drive
from ownloop.testing.driving import Drive

from .conftest import Run


class Act(Intent):
    """Do something."""

    what: str


class Stop(Intent):
    """The end."""


async def decide(thread: Thread) -> Act | Stop:
    return Stop() if thread.count(Act) else Act(what=str(thread.input))


async def lose() -> str:
    raise InDoubt("no reply")


async def refuse() -> str:
    raise ValueError("not on Sundays")


async def go() -> str:
    return "gone"


def make(app: App, *, knows_act: bool = True) -> None:
    async def agent(thread: Thread) -> None:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Act(what=what) if knows_act:
                    await act(step, what)
                case Stop():
                    return

    app.add(agent, name="agent")


async def act(step: Any, what: str) -> None:
    match what:
        case "fail":
            raise RuntimeError("out of luck")
        case "changed":
            raise ProgramChanged(step.id, "another branch")
        case "invalid":
            raise CallNoLongerValid(step.id, "act", "a field is missing")
        case "refuse":
            assert (await step.run(refuse)).value
        case "lose":
            await step.run(lose)
        case "approve":
            if await step.approved(expires="1h"):
                await step.run(go)
        case "sleep":
            await step.sleep("1h")
        case _:
            await step.run(go)


@pytest.fixture
async def d() -> AsyncIterator[Drive]:
    clock = FakeClock()
    app = App("memory://", clock=clock)
    make(app)
    async with drive(app, clock) as driven:
        yield driven


async def started(d: Drive, what: str) -> str:
    thread = await d.start("agent", what)
    await d.settle()
    return thread


async def only(d: Drive, **more: Any) -> Finding:
    found = await examine(d.app, **more)
    assert len(found) == 1, found
    return found[0]


async def test_nothing_is_said_about_what_is_well(d: Drive) -> None:
    for what in ("go", "approve", "sleep"):
        await started(d, what)
    approval = next(one for one in await d.interrupts() if one.kind == "approval")
    await d.approve(approval, by="ann")
    await d.advance("2h")
    assert await examine(d.app) == []


async def test_a_failed_thread_with_its_error_and_the_next_step(d: Drive) -> None:
    thread = await started(d, "fail")
    found = await only(d)
    assert (found.thread_id, found.kind) == (thread, "failed")
    assert "RuntimeError: out of luck" in found.what
    assert f"ownloop retry {thread}" in found.next_step
    assert found.since is not None


async def test_a_failed_call_stays_in_the_log_and_a_copy_makes_it_again(d: Drive) -> None:
    thread = await started(d, "refuse")
    found = await only(d)
    step = (await d.app.show(thread)).steps[0].id
    assert (found.kind, "StepFailed: ValueError: not on Sundays" in found.what) == ("failed", True)
    assert found.next_step.endswith(
        f"goes on after `ownloop retry {thread}`, or make the call again in a copy: `ownloop fork {thread} --before {step}`"
    )


@pytest.mark.parametrize("what", ["changed", "invalid"])
async def test_a_changed_program_is_named_so_with_what_heals_it(d: Drive, what: str) -> None:
    thread = await started(d, what)
    found = await only(d)
    assert found.kind == "program_changed"
    assert "program changed" in found.what
    assert f"then `ownloop retry {thread}`" in found.next_step


async def test_a_case_that_was_removed_is_a_changed_program_and_is_healed_by_retry(d: Drive) -> None:
    thread = await started(d, "approve")
    d.app.agents.clear()
    make(d.app, knows_act=False)
    await d.approve(await d.interrupt(), by="ann")
    await d.settle()
    assert (await only(d)).kind == "program_changed"
    d.app.agents.clear()
    make(d.app)
    await d.retry(thread)
    await d.settle()
    assert await examine(d.app) == []


async def test_a_call_in_doubt_with_the_interrupt_that_asks(d: Drive) -> None:
    await started(d, "lose")
    found = await only(d)
    assert found.kind == "in_doubt"
    assert (await d.interrupt()).id in found.next_step


async def test_a_call_in_doubt_that_was_answered_and_not_read_yet(d: Drive) -> None:
    await started(d, "lose")
    await d.app.answer(await d.interrupt(), {"happened": False}, by="ann")
    (found,) = [one for one in await examine(d.app) if one.kind == "in_doubt"]
    assert "somebody has answered, and no worker has read it yet" in found.what
    assert found.next_step.startswith("start a worker for agent")


async def test_a_call_in_doubt_after_cancel_where_nobody_is_asked(d: Drive) -> None:
    thread = await started(d, "lose")
    await d.cancel(thread)
    found = await only(d)
    assert (found.kind, "nobody is asked any more" in found.what) == ("in_doubt", True)


async def begun(d: Drive, thread: str, kind: str) -> None:
    """A wake that has begun something and does not end."""
    from ownloop.events import Draft

    claim = await d.app.store.claim(thread, ["agent"], timedelta(hours=1))
    assert claim is not None
    step = f"stp_{thread[4:]}_1"
    selected = Draft("selected", {"intent": "act", "arguments": {"what": "go"}, "read": 1}, step)
    await d.app.store.begin(thread, claim.row.epoch, [selected], known=1, selecting=True)
    if kind == "started":
        await d.app.store.begin(thread, claim.row.epoch, [Draft("started", {}, step, "run:go")], known=2)


async def test_a_call_that_runs_long_and_then_a_wake_that_died_in_it(d: Drive) -> None:
    thread = await d.start("agent", "go")
    await begun(d, thread, "started")
    assert await examine(d.app) == []
    d.clock.advance("30m")
    found = await only(d)
    assert (found.kind, "running since" in found.what) == ("running", True)
    d.clock.advance("31m")
    assert {one.kind for one in await examine(d.app)} == {"in_doubt", "lease"}
    await d.settle()  # a worker takes it: now somebody is asked
    assert [one.kind for one in await examine(d.app)] == ["in_doubt"]


async def test_a_lease_that_ran_out_and_nobody_took(d: Drive) -> None:
    thread = await d.start("agent", "go")
    await begun(d, thread, "selected")
    d.clock.advance("61m")
    found = await only(d)
    assert found.kind == "lease"
    assert found.since == d.clock.now() - timedelta(minutes=1)


async def test_a_timer_that_nobody_served(d: Drive) -> None:
    await started(d, "sleep")
    d.clock.advance("90m")
    found = await only(d)
    assert (found.kind, found.since) == ("due", d.clock.now() - timedelta(minutes=30))


async def test_an_open_interrupt_past_its_deadline(d: Drive) -> None:
    thread = await started(d, "approve")
    await d.pause(thread)
    d.clock.advance("2h")
    found = await only(d)
    assert found.kind == "deadline"
    assert f"ownloop resume {thread}" in found.next_step


async def test_news_that_no_worker_took(d: Drive) -> None:
    await d.start("agent", "go")
    assert await examine(d.app) == []  # a worker may need a moment
    d.clock.advance("2s")
    assert (await only(d)).kind == "unserved"


async def test_a_thread_of_an_agent_that_this_app_does_not_have(d: Drive) -> None:
    from ownloop.events import Draft
    from ownloop.stores.base import NewThread

    await d.app.store.create(NewThread("ghost", [Draft("input", {"input": None})]))
    d.clock.advance("2s")
    assert (await only(d)).kind == "no_agent"


def test_a_gap_in_the_file_is_named_and_the_exit_code_is_1(run: Run, settled: Callable[..., list[str]], tmp_path: Path) -> None:
    thread = settled("deploy")[0]
    assert run("doctor").code == 0
    with sqlite3.connect(tmp_path / "t.db") as db:
        db.execute("DELETE FROM events WHERE seq = 2")
    said = run("doctor")
    assert said.code == 1
    assert f"✗ {thread}  store" in said.out
    assert "position 2 is missing" in said.out


# ---- legal transitions -------------------------------------------------------------------------------------------------------------

THREAD = "thr_0000000000001"
STEP = "stp_0000000000001_1"
SELECTED = ("selected", {"intent": "act", "arguments": {}, "read": 1}, STEP, None)
STARTED = ("started", {}, STEP, "run:go")
ASKED = ("request", {"kind": "approval", "name": "act", "arguments": {}, "expires_at": 5_000_000}, STEP, "approval:1")
DOUBT = ("request", {"kind": "in_doubt", "call": "run:go", "question": "?", "name": "act"}, STEP, "doubt:1")
GRANTED = ("decision", {"request": 3, "kind": "approved"}, STEP, None)
DONE = ("outcome", {"value": 1}, STEP, "run:go")
ENDED = ("ended", {}, STEP, None)


def control(verb: str) -> tuple[str, dict[str, Any], None, None]:
    return ("control", {"verb": verb}, None, None)


def log(*drafts: Any) -> list[Event]:
    first = Event(1, "input", datetime.fromtimestamp(0, UTC), data={"input": None})
    rest = [
        Event(seq, kind, datetime.fromtimestamp(seq, UTC), step, op, "ann" if kind == "decision" else None, data)
        for seq, (kind, data, step, op) in enumerate(drafts, 2)
    ]
    return [first, *rest]


@pytest.mark.parametrize(
    ("drafts", "rule"),
    [
        ([SELECTED, STARTED, STARTED], "nobody said that its start"),
        ([SELECTED, STARTED, DOUBT, ("started", {"after": 3}, STEP, "run:go")], "a person is asked whether it happened"),
        ([SELECTED, STARTED, DONE, STARTED], "although its outcome is recorded"),
        ([SELECTED, STARTED, DONE, DONE], "a second one is `late`"),
        ([SELECTED, ENDED, STARTED], "the step had ended"),
        ([SELECTED, SELECTED], "selected before"),
        ([SELECTED, GRANTED], "there is none"),
        ([SELECTED, ASKED, GRANTED, GRANTED], "was decided already"),
        ([SELECTED, ASKED, control("hold"), GRANTED], "had expired"),
        ([SELECTED, control("pause"), STARTED], "the thread was paused"),
        ([SELECTED, control("cancel"), STARTED], "cancelled already"),
        ([("failed", {"error": {}}, None, None), SELECTED], "nobody retried it"),
    ],
)
def test_what_the_protocol_forbids_is_found_in_a_log(drafts: list[Any], rule: str) -> None:
    found = list(illegal(THREAD, log(*drafts), History(THREAD, [])))
    assert len(found) == 1, found
    assert rule in found[0][1]


@pytest.mark.parametrize(
    "drafts",
    [
        [SELECTED, ASKED, GRANTED, STARTED, DONE, ENDED, ("turn_ended", {"value": 1, "read": 1}, None, None)],
        [SELECTED, STARTED, control("cancel"), DONE],
        [SELECTED, STARTED, ("not_started", {"started": 3}, STEP, "run:go"), STARTED, DONE, ("late", {"value": 2}, STEP, "run:go")],
        [SELECTED, STARTED, ("started", {"in_doubt": "retry", "after": 3}, STEP, "run:go"), DONE],
        [
            SELECTED,
            STARTED,
            DOUBT,
            ("decision", {"request": 4, "kind": "answered", "value": {"happened": False}}, STEP, None),
            ("started", {"after": 3}, STEP, "run:go"),
        ],
        [SELECTED, ("failed", {"error": {}}, None, None), control("retry"), STARTED, DONE],
    ],
)
def test_what_the_protocol_allows_is_not(drafts: list[Any]) -> None:
    assert list(illegal(THREAD, log(*drafts), History(THREAD, []))) == []


def test_a_log_with_a_hole() -> None:
    events = log(SELECTED, ENDED)
    assert "position 2 is missing" in next(iter(illegal(THREAD, [events[0], events[2]], History(THREAD, []))))[1]
