"""`Budget`: what counts, who is asked, what an answer does, and what dies in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from ownloop import App, Intent, Interrupt, Thread, tool
from ownloop.errors import InvalidEdit
from ownloop.llm import Budget, annotate
from ownloop.llm.budget import ANSWER
from ownloop.prompt import thread_to_prompt
from ownloop.testing import CrashReport, Drive, FakeClock, crash_everywhere, drive

COST = {"input_tokens": 80, "output_tokens": 20, "cost_usd": 0.25}


class Work(Intent):
    """One more piece of work."""


class Done(Intent):
    """Nothing is left to do."""


def paid(pieces: int, usage: Any = COST, **fields: Any) -> Callable[[Thread[Any]], Any]:
    """A model that works so many times; each answer costs 100 tokens and 25 cents."""

    async def decide(thread: Thread[Any]) -> Work | Done:
        annotate(usage=usage, **fields)
        return Work() if thread.count(Work) < pieces else Done()

    return decide


@tool(reads=True)
async def work() -> str:
    return "worked"


def worker(decide: Any) -> Callable[[Thread[Any]], Any]:
    async def agent(thread: Thread[Any]) -> int:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Work():
                    await step.run(work)
                case Done():
                    return thread.count(Work)

    return agent


def parent_of(children: Sequence[Any], decide: Any, agent: str = "child") -> Callable[[Thread[Any]], Any]:
    """Spawns a child with each of these budgets, and joins them."""

    async def agent_(thread: Thread[Any]) -> list[Any]:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Work():
                    started = [await step.named(str(place)).spawn(agent, budget=budget) for place, budget in enumerate(children)]
                    return [outcome.value if outcome.ok else outcome.error.type for outcome in await step.join(*started)]  # type: ignore[union-attr]

    return agent_


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 1, 1, 12, tzinfo=UTC))


def app_with(clock: FakeClock, budget: Any, decide: Any, url: Any = "memory://") -> App:
    app = App(url, clock=clock)
    app.add(worker(decide), name="agent", intents=[Work, Done], budget=budget)
    return app


async def asked(d: Drive) -> list[Interrupt]:
    return await d.interrupts(kind="budget")


async def result(d: Drive, thread: str) -> Any:
    view = await d.show(thread)
    return view.result if view.error is None else view.error.type


# ---- one thread ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "worked", "words"),
    [
        (Budget(steps=3), 3, "3 of 3 steps"),
        (Budget(tokens=250), 3, "300 of 250 tokens"),
        (Budget(usd=0.5), 2, "$0.50 of $0.50"),
        (Budget(usd=0.5, steps=100), 2, "$0.50 of $0.50, 2 of 100 steps"),
    ],
    ids=["steps", "tokens", "usd", "the first to run out"],
)
async def test_spent_is_a_question_before_the_model_is_asked(clock: FakeClock, budget: Budget, worked: int, words: str) -> None:
    async with drive(app_with(clock, budget, paid(9)), clock) as d:
        thread = await d.start("agent")
        await d.settle()
        view = await d.show(thread)
        assert len([event for event in view.events if event.kind == "selected"]) == worked
        (question,) = await asked(d)
        assert words in question.question
        assert question.schema == ANSWER
        assert (view.status, question.step_id is not None and question.step_id.endswith("@budget")) == ("open", True)


@pytest.mark.parametrize(("answer", "more"), [(0.5, 2), ({"usd": 0.75}, 3), ({"usd": 1, "steps": 5}, 4)])
async def test_an_answer_gives_so_much_more(clock: FakeClock, answer: Any, more: int) -> None:
    async with drive(app_with(clock, Budget(usd=0.6), paid(20)), clock) as d:
        thread = await d.start("agent")
        await d.settle()
        before = (await d.show(thread)).usage.requests
        await d.answer((await asked(d))[0], answer, by="ana")
        await d.settle()
        assert (await d.show(thread)).usage.requests == before + more
        (again,) = await asked(d)
        await d.answer(again, 100, by="ana")
        await d.settle()
        assert await result(d, thread) == 20


@pytest.mark.parametrize("no", [0, "no", False, None, "reject"])
async def test_a_no_fails_the_thread_and_retry_asks_again(clock: FakeClock, no: Any) -> None:
    async with drive(app_with(clock, Budget(steps=1), paid(2)), clock) as d:
        thread = await d.start("agent")
        await d.settle()
        question = (await asked(d))[0]
        await (d.reject(question, by="ana", note="enough") if no == "reject" else d.answer(question, no, by="ana"))
        await d.settle()
        view = await d.show(thread)
        assert (view.status, view.error and view.error.type) == ("failed", "BudgetSpent")
        assert "took 1 of 1 steps, and ana gave no more; retry the thread to ask again" in (view.error.message if view.error else "")
        await d.retry(thread)
        await d.settle()
        await d.answer((await asked(d))[0], {"steps": 9}, by="bo")
        await d.settle()
        assert await result(d, thread) == 2


async def test_an_answer_that_gives_nothing_clear_is_refused_by_the_schema(clock: FakeClock) -> None:
    async with drive(app_with(clock, Budget(steps=1), paid(2)), clock) as d:
        await d.start("agent")
        await d.settle()
        for wrong in ("lots", -1, {"euro": 5}, {}, {"usd": "5"}):
            with pytest.raises(InvalidEdit):
                await d.answer((await asked(d))[0], wrong, by="ana")


async def test_the_model_is_not_told_of_the_budget(clock: FakeClock) -> None:
    async with drive(app_with(clock, Budget(steps=1), paid(2)), clock) as d:
        thread = await d.start("agent")
        await d.settle()
        await d.answer((await asked(d))[0], 5, by="ana")
        await d.settle()
        assert "budget" not in thread_to_prompt(await d.show(thread))


async def test_a_pause_and_a_compaction_forget_nothing(clock: FakeClock) -> None:
    decide = paid(9)

    async def agent(thread: Thread[Any]) -> int:
        while True:
            await thread.compact(summarize, keep_last=1)
            step = await thread.next_step(decide)
            if isinstance(step.intent, Done):
                return thread.count(Work)
            await step.run(work)

    async def summarize(views: Any) -> str:
        return "worked"

    app = App("memory://", clock=clock)
    app.add(agent, intents=[Work, Done], budget=Budget(usd=1, prices={"own": (1e6, 0)}))
    async with drive(app, clock) as d:
        thread = await d.start("agent")
        await d.pause(thread)
        await d.settle()
        await d.resume(thread)
        for _ in range(3):
            await d.settle()
            question = (await asked(d))[0]
            assert "$1.00 of $1.00" in question.question or "of $1.50" in question.question or "of $2.00" in question.question
            await d.answer(question, 0.5, by="ana")
        await d.settle()
        assert (await d.show(thread)).usage.requests == 10


# ---- prices ----------------------------------------------------------------------------------------------------------------------

UNPRICED = {"input_tokens": 100_000, "output_tokens": 50_000}


async def test_a_model_without_a_price_is_a_clear_error(clock: FakeClock) -> None:
    async with drive(app_with(clock, Budget(usd=5), paid(9, UNPRICED, model="house-model-7")), clock) as d:
        thread = await d.start("agent")
        await d.settle()
        error = (await d.show(thread)).error
        assert error is not None
        assert error.type == "UnknownPrice"
        assert 'prices={"house-model-7": (INPUT, OUTPUT)}' in error.message


async def test_prices_that_the_budget_gives_count(clock: FakeClock) -> None:
    budget = Budget(usd=0.5, prices={"own:house-model-7": (1, 4)})  # $0.30 an answer
    async with drive(app_with(clock, budget, paid(9, UNPRICED, model="house-model-7")), clock) as d:
        await d.start("agent")
        await d.settle()
        assert "$0.60 of $0.50" in (await asked(d))[0].question


async def test_a_known_model_is_priced_by_the_list(clock: FakeClock) -> None:
    async with drive(app_with(clock, Budget(usd=0.5), paid(9, UNPRICED, model="gpt-4o-mini", provider="openai")), clock) as d:
        thread = await d.start("agent")
        await d.settle()
        assert (await d.show(thread)).status in ("done", "open")
        assert not (await d.show(thread)).error


# ---- several threads -------------------------------------------------------------------------------------------------------------


async def test_children_draw_on_the_trees_budget_and_one_answer_lets_all_go_on(clock: FakeClock) -> None:
    app = App("memory://", clock=clock)
    app.add(parent_of([None, None], paid(1)), name="parent", intents=[Work, Done], budget=Budget(usd=1, per="tree"))
    app.add(worker(paid(2)), name="child", intents=[Work, Done])
    async with drive(app, clock) as d:
        parent = await d.start("parent")
        await d.settle()
        questions = await asked(d)
        assert len(questions) == 2
        spent = sum([(await d.show(one.id)).usage.cost_usd for one in await d.threads()])
        assert 1 <= spent <= 1.25  # one answer for each thread at work comes on top
        await d.answer(questions[1], 5, by="ana")
        await d.settle()
        assert await result(d, parent) == [2, 2]
        closed = [await d.interrupt(one.id) for one in questions]
        assert [one.decision and (one.decision.by, one.decision.value) for one in closed] == [("ana", {"extended_by": questions[1].id}), ("ana", 5)]


async def test_a_parents_own_budget_does_not_hold_its_children(clock: FakeClock) -> None:
    app = App("memory://", clock=clock)
    app.add(parent_of([None], paid(1)), name="parent", intents=[Work, Done], budget=Budget(steps=1))
    app.add(worker(paid(5)), name="child", intents=[Work, Done])
    async with drive(app, clock) as d:
        parent = await d.start("parent")
        await d.settle()
        assert await result(d, parent) == [5]


async def test_a_budget_given_at_the_spawn_holds_the_child_and_its_descendants(clock: FakeClock) -> None:
    app = App("memory://", clock=clock)
    app.add(parent_of([Budget(steps=3)], paid(1), "middle"), name="parent", intents=[Work, Done])
    app.add(parent_of([None], paid(1)), name="middle", intents=[Work, Done])
    app.add(worker(paid(5)), name="child", intents=[Work, Done])
    async with drive(app, clock) as d:
        parent = await d.start("parent")
        await d.settle()
        (question,) = await asked(d)
        assert question.agent == "child"
        assert "middle" in question.question
        assert "3 of 3 steps" in question.question
        await d.answer(question, "no", by="ana")
        await d.settle()
        assert (await d.show(parent)).status == "open"  # its child waits for a child that failed: retry heals it
        failed = await d.threads(status="failed")
        await d.retry(failed[0].id)
        await d.settle()
        await d.answer((await asked(d))[0], 100, by="ana")
        await d.settle()
        assert await result(d, parent) == [[5]]


async def test_threads_of_one_context_share(clock: FakeClock) -> None:
    async with drive(app_with(clock, Budget(steps=4, per="context:tenant"), paid(3)), clock) as d:
        first = await d.start("agent", context={"tenant": "acme", "user": "a"})
        await d.settle()
        assert await result(d, first) == 3  # three pieces and the end: four steps
        second = await d.start("agent", context={"tenant": "acme", "user": "b"})
        other = await d.start("agent", context={"tenant": "other"})
        nobody = await d.start("agent")
        await d.settle()
        (question,) = await asked(d)
        assert (question.thread_id, await result(d, other)) == (second, 3)
        assert "all threads of tenant acme took 4 of 4 steps" in question.question
        assert await result(d, nobody) == "NoSuchContext"


async def test_a_day_begins_anew_at_midnight_utc_by_the_stores_clock(clock: FakeClock) -> None:
    async with drive(app_with(clock, Budget(steps=4, per="day"), paid(3)), clock) as d:
        first = await d.start("agent")
        await d.settle()
        second = await d.start("agent")
        await d.settle()
        (question,) = await asked(d)
        assert question.expires_at == datetime(2026, 1, 2, tzinfo=UTC)
        await d.advance("11h")
        assert await asked(d)
        await d.advance("1h")
        assert (await result(d, first), await result(d, second)) == (3, 3)
        assert not await asked(d)
        await d.start("agent")
        await d.settle()
        assert "4 of 4 steps" in (await asked(d))[0].question


async def test_what_a_thread_spent_yesterday_does_not_count_today(clock: FakeClock) -> None:
    async with drive(app_with(clock, Budget(steps=5, per="day"), paid(3)), clock) as d:
        thread = await d.start("agent")
        await d.settle()
        await d.advance("12h")
        await d.send(thread, "again")
        await d.settle()
        assert await result(d, thread) == 3
        assert not await asked(d)


async def test_an_extension_of_a_day_ends_with_it(clock: FakeClock) -> None:
    async with drive(app_with(clock, Budget(steps=1, per="day"), paid(2)), clock) as d:
        thread = await d.start("agent")
        await d.settle()
        await d.answer((await asked(d))[0], 1, by="ana")
        await d.settle()
        assert "2 of 2 steps" in (await asked(d))[0].question
        await d.advance("12h")
        assert await result(d, thread) == 2
        await d.send(thread, "again")
        await d.settle()
        assert "1 of 1 steps" in (await asked(d))[0].question


# ---- people and processes --------------------------------------------------------------------------------------------------------


async def test_a_restart_between_question_and_answer_changes_nothing(clock: FakeClock, kept_url: str) -> None:
    url = kept_url
    async with drive(app_with(clock, Budget(usd=0.5), paid(3), url), clock) as d:
        thread = await d.start("agent")
        await d.settle()
    desk = App(url, clock=clock)
    (question,) = await desk.interrupts(kind="budget")
    assert "How much more USD?" in question.question
    await desk.answer(question.id, {"usd": 5}, by="ana")
    await desk.aclose()
    async with drive(app_with(clock, Budget(usd=0.5), paid(3), url), clock) as d:
        await d.settle()
        assert await result(d, thread) == 3


async def test_two_threads_of_one_budget_are_never_both_lost(clock: FakeClock, kept_url: str) -> None:
    """The one that was answered is cancelled before it can tell the other: that one still asks."""
    async with drive(app_with(clock, Budget(steps=2, per="context"), paid(3), kept_url), clock) as d:
        threads = [await d.start("agent") for _ in range(2)]
        await d.settle()
        first, second = await asked(d)
        await d.answer(first, 100, by="ana")
        await d.cancel(first.thread_id)
        await d.settle()
        assert (await d.interrupt(second.id)).status == "open"
        await d.answer(second, 100, by="ana")
        await d.settle()
        assert await result(d, second.thread_id) == 3
        assert {first.thread_id, second.thread_id} == set(threads)


async def test_a_crash_anywhere_around_a_budget_changes_nothing() -> None:
    def make_app(url: Any, clock: FakeClock) -> App:
        app = App(url, clock=clock)
        app.add(parent_of([Budget(steps=2), None], paid(1)), name="parent", intents=[Work, Done], budget=Budget(usd=1, per="tree"))
        app.add(worker(paid(2)), name="child", intents=[Work, Done])
        return app

    async def scenario(d: Drive) -> None:
        await d.start("parent", key="one")
        await d.settle()
        while questions := await asked(d):
            await d.answer(questions[0], 10, by="ana")
            await d.settle()

    report: CrashReport = await crash_everywhere(scenario, make_app, url="memory://")
    lost = [what for what in report.lost if "has done" not in what]  # how often it had to be asked depends on who came first
    assert (lost, report.silent) == ([], [])
    assert report.runs > 20


# ---- the value -------------------------------------------------------------------------------------------------------------------


def test_a_budget_is_plain_data() -> None:
    budget = Budget(usd=2.5, per="tree", prices={"m": (1, 2)})
    assert Budget.of({"usd": 2.5, "per": "tree", "prices": {"m": (1, 2)}}) == budget
    assert Budget.of(budget) is budget


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "give an amount"),
        ({"steps": -1}, "not negative"),
        ({"steps": 1, "per": "week"}, '"context:KEY"'),
        ({"steps": 1, "per": "context:"}, "choose"),
    ],
)
def test_a_budget_of_nothing_is_refused(fields: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Budget(**fields)


async def test_a_budget_that_is_none_is_a_clear_error(clock: FakeClock) -> None:
    async with drive(app_with(clock, 5, paid(1)), clock) as d:
        thread = await d.start("agent")
        await d.settle()
        assert "give a Budget, for instance Budget(usd=5)" in (await d.show(thread)).error.message  # type: ignore[union-attr]
