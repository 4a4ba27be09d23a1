"""A read that was paid for is not paid again, and nothing else is ever given back for it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import ownloop
from ownloop import App, Thread, current_call, tool
from ownloop.errors import StoreBusy
from ownloop.llm import RateLimit, annotate, cached, limited, summarized
from ownloop.llm.cache import CLAIM, SPACE, is_cached
from ownloop.stores.memory import MemoryStore
from ownloop.testing import CrashReport, Drive, FakeClock, crash_everywhere, drive
from ownloop.tools import Outcome, promise_of, promised

SOURCE = str(Path(next(iter(ownloop.__path__))).parent)
Work = Callable[[Thread[Any]], Any]


class Page(BaseModel):
    url: str
    hits: int = 0


class Searches:
    """A search that counts its runs, and can be made to wait or fail."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.gate: asyncio.Event | None = None
        self.fails = 0

    @property
    def fn(self) -> Callable[..., Any]:
        @tool(reads=True)
        async def search(query: str, limit: int = 10) -> list[str]:
            self.ran.append(query)
            annotate(usage={"requests": 1, "input_tokens": 5})
            if self.gate is not None:
                await self.gate.wait()
            if self.fails:
                self.fails -= 1
                raise ConnectionError("the index is away")
            return [f"{query} found in run {len(self.ran)}"]

        return search


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[tuple[Drive, Callable[..., Any]]]:
    """A drive, and `ask(work, context=…)`: what the work came to in a thread of its own; with `thread=` in the same one again."""
    clock = FakeClock()
    app = App(MemoryStore(clock), clock=clock, **options)
    jobs: dict[str, Work] = {}

    @app.agent
    async def agent(thread: Thread[Any]) -> Any:
        return await jobs[str(thread.input)](thread)

    async with drive(app, clock) as d:

        async def ask(work: Work, **start: Any) -> Any:
            jobs[name := f"job {len(jobs)}"] = work
            thread = await d.start(agent, name, **start)
            await d.settle()
            view = await d.show(thread)
            assert view.status == "done", view.error
            return view

        yield d, ask


def once(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Work:
    async def work(thread: Thread[Any]) -> Any:
        outcome: Outcome[Any] = await thread.step("once").run(fn, *args, **kwargs)
        return outcome.value if outcome.ok else f"{outcome.error.type}: {outcome.error.message}"  # type: ignore[union-attr]

    return work


def outcome(view: Any) -> dict[str, Any]:
    return dict(next(event.data for event in view.events if event.kind == "outcome"))


# ---- what may be cached ------------------------------------------------------------------------------------------------------------


def charge(amount: int) -> str:
    return f"charged {amount}"


def test_what_has_effects_is_refused_before_anything_runs() -> None:
    for fn in (charge, tool(charge, in_doubt="retry")):
        with pytest.raises(
            ValueError, match=r"cached\(charge\): what has effects is never cached; if it only reads, say so: cached\(tool\(charge, reads=True"
        ):
            cached(fn, "10m")


def test_options_that_make_no_sense_are_refused() -> None:
    fn = tool(charge, reads=True)
    with pytest.raises(ValueError, match="scope='world'"):
        cached(fn, "10m", scope="world")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no time"):
        cached(fn, "0s")
    with pytest.raises(ValueError, match="is not a duration"):
        cached(fn, "soon")
    with pytest.raises(ValueError, match="two of them cannot be told apart"):
        cached(tool(lambda query: query, reads=True), "10m")


def test_a_method_of_something_that_cannot_be_part_of_the_key_is_refused() -> None:
    class Client:
        def __init__(self, tenant: str) -> None:
            self.tenant, self.lock = tenant, threading.Lock()

        @tool(reads=True)
        def search(self, query: str) -> str:
            return f"{query} of {self.tenant}"

    with pytest.raises(TypeError, match=r"cached\(search\): it holds a Client without a JSON form.* async def search"):
        cached(Client("a").search, "10m")


def test_the_wrapper_is_called_and_annotated_as_the_function() -> None:
    fn = cached(tool(charge, reads=True, name="price", timeout="5s", retry=2), "10m")
    assert promise_of(fn) == promise_of(tool(charge, reads=True, name="price", timeout="5s", retry=2))
    assert fn.__name__ == "charge"
    assert fn(3) == "charged 3", "outside a step it is the plain function"


# ---- what is equal -----------------------------------------------------------------------------------------------------------------


async def test_the_second_call_is_given_the_first_ones_result_and_its_event_says_so() -> None:
    searches = Searches()
    async with world() as (_, ask):
        first = await ask(once(cached(searches.fn, "10m", scope="app"), "berlin"))
        second = await ask(once(cached(searches.fn, "10m", scope="app"), "berlin"))
    assert first.result == second.result == ["berlin found in run 1"]
    assert searches.ran == ["berlin"]
    assert "cached" not in outcome(first) and outcome(first)["usage"]["input_tokens"] == 5
    assert outcome(second)["cached"] is True and "usage" not in outcome(second), "nothing was paid for it"
    assert second.usage.requests == 0


async def test_arguments_are_equal_however_they_are_passed_and_different_if_they_differ() -> None:
    searches = Searches()
    fn = cached(searches.fn, "10m", scope="app")
    async with world() as (_, ask):
        for call in (once(fn, "a", 5), once(fn, query="a", limit=5), once(fn, "a", limit=5)):
            await ask(call)
        assert searches.ran == ["a"]
        for call in (once(fn, "b", 5), once(fn, "a", 6), once(fn, "A", 5), once(fn, "a", True)):
            await ask(call)
    assert searches.ran == ["a", "b", "a", "A", "a"]


async def test_another_version_or_function_is_another_result() -> None:
    searches, others = Searches(), Searches()

    @tool(reads=True, name="search")
    async def other(query: str) -> list[str]:
        others.ran.append(query)
        return ["other"]

    async with world() as (_, ask):
        for fn, version in ((searches.fn, "1"), (searches.fn, "2"), (other, "1"), (searches.fn, "2")):
            await ask(once(cached(fn, "10m", scope="app", version=version), "a"))
    assert (searches.ran, others.ran) == (["a", "a"], ["a"])


async def test_a_partial_and_a_method_count_what_they_hold() -> None:
    ran: list[str] = []

    class Client(BaseModel):
        tenant: str

        @tool(reads=True)
        def search(self, query: str) -> str:
            ran.append(f"{self.tenant} {query}")
            return f"{query} of {self.tenant}"

    def find(tenant: str, query: str) -> str:
        ran.append(f"{tenant} {query}")
        return f"{query} of {tenant}"

    async with world() as (_, ask):
        for tenant in ("a", "b", "a"):
            by_method = await ask(once(cached(Client(tenant=tenant).search, "10m", scope="app"), "x"))
            by_partial = await ask(once(cached(tool(partial(find, tenant), name="find", reads=True), "10m", scope="app"), "x"))
            assert by_method.result == by_partial.result == f"x of {tenant}"
    assert ran == ["a x", "a x", "b x", "b x"]


async def test_an_argument_without_a_json_form_is_an_error_and_nothing_is_looked_up() -> None:
    searches = Searches()
    async with world() as (_, ask):
        view = await ask(once(cached(searches.fn, "10m"), threading.Lock()))
    assert view.result.startswith("TypeError: cached search: the argument query is a lock, which has no JSON form")
    assert searches.ran == []


async def test_a_scope_is_a_thread_an_equal_context_or_the_app() -> None:
    searches = Searches()

    def twice(scope: Any) -> Work:
        async def work(thread: Thread[Any]) -> Any:
            fn = cached(searches.fn, "10m", scope=scope)
            return [(await thread.step(name).run(fn, scope)).value for name in ("one", "two")]

        return work

    ran: dict[str, int] = {}
    async with world() as (_, ask):
        for scope in ("thread", "context", "app"):
            before = len(searches.ran)
            for context in ({"tenant": "a"}, {"tenant": "a"}, {"tenant": "b"}):
                await ask(twice(scope), context=context)
            ran[scope] = len(searches.ran) - before
    assert ran == {"thread": 3, "context": 2, "app": 1}


async def test_a_result_is_used_until_its_time_is_up_by_the_stores_clock() -> None:
    searches = Searches()
    fn = cached(searches.fn, "10m", scope="app")
    async with world() as (d, ask):
        await ask(once(fn, "a"))
        d.clock.advance("9m 59s")
        assert (await ask(once(fn, "a"))).result == ["a found in run 1"]
        d.clock.advance("1s")
        assert (await ask(once(fn, "a"))).result == ["a found in run 2"]


async def test_a_failure_is_not_kept() -> None:
    searches = Searches()
    searches.fails = 1
    fn = cached(searches.fn, "10m", scope="app")
    async with world() as (_, ask):
        failed = await ask(once(fn, "a"))
        assert failed.result == "ConnectionError: the index is away"
        assert failed.usage.requests == 1, "it was paid all the same"
        assert (await ask(once(fn, "a"))).result == ["a found in run 2"]


async def test_results_come_back_as_their_type_and_one_of_another_type_is_no_result() -> None:
    ran: list[int] = []
    kinds: list[type] = []

    @tool(reads=True)
    def load(number: int) -> Page:  # a sync one
        ran.append(number)
        return Page(url=f"/{number}")

    async def work(thread: Thread[Any]) -> Any:
        value = (await thread.step("load").run(cached(load, "10m", scope="app"), 1)).value
        kinds.append(type(value))
        return value

    async with world() as (d, ask):
        assert [(await ask(work)).result for _ in range(2)] == [{"url": "/1", "hits": 0}] * 2
        (key,) = await d.app.store.records(SPACE)
        await d.app.store.put(SPACE, key, {"value": {"address": "/1"}, "notes": {}}, ttl=CLAIM)
        assert (await ask(work)).result == {"url": "/1", "hits": 0}
    assert kinds == [Page] * 3
    assert ran == [1, 1]


async def test_none_is_a_result_and_what_cannot_be_written_is_given_but_not_kept() -> None:
    ran: list[str] = []

    @tool(reads=True)
    def nothing() -> None:
        ran.append("nothing")

    @tool(reads=True)
    def lock() -> Any:
        ran.append("lock")
        return threading.Lock()

    async with world() as (_, ask):
        for _n in range(2):
            assert (await ask(once(cached(nothing, "10m", scope="app")))).result is None
            assert outcome(await ask(once(cached(lock, "10m", scope="app"))))["unwritable"] == "lock"
    assert ran == ["nothing", "lock", "lock"]


async def test_what_the_app_redacts_does_not_stand_in_the_cache() -> None:
    def hide(value: Any) -> Any:
        return [hide(one) for one in value] if isinstance(value, list) else value.replace("s3cr3t", "***") if isinstance(value, str) else value

    searches = Searches()
    async with world(redact=hide) as (d, ask):
        results = [(await ask(once(cached(searches.fn, "10m", scope="app"), "s3cr3t"))).result for _ in range(2)]
        records = await d.app.store.records(SPACE)
    assert results == [["*** found in run 1"]] * 2
    assert "s3cr3t" not in str([record.value for record in records.values()])


# ---- at the same time --------------------------------------------------------------------------------------------------------------


async def test_of_a_hundred_callers_at_once_one_runs_it_and_one_pays() -> None:
    searches = Searches()
    searches.gate = asyncio.Event()
    fn = cached(searches.fn, "10m", scope="app")
    flights: list[dict[str, Any]] = []

    async def work(thread: Thread[Any]) -> Any:
        flights.append(thread._wake.setting.flights)
        return await once(fn, "a")(thread)

    async with world() as (_, ask):
        asking = [asyncio.ensure_future(ask(work)) for _ in range(100)]
        while len(flights) < 100 or not flights[0] or next(iter(flights[0].values())).callers < 100:
            await asyncio.sleep(0.001)
        searches.gate.set()
        views = await asyncio.gather(*asking)
    assert flights[0] == {}, "nothing is left of it"
    assert searches.ran == ["a"]
    assert {str(view.result) for view in views} == {"['a found in run 1']"}
    assert sum(view.usage.requests for view in views) == 1
    assert sum(outcome(view).get("cached", False) for view in views) == 99


async def test_those_who_waited_for_a_failure_get_it_and_the_next_one_tries_again() -> None:
    searches = Searches()
    searches.gate, searches.fails = asyncio.Event(), 1
    fn = cached(searches.fn, "10m", scope="app")
    async with world() as (_, ask):
        asking = [asyncio.ensure_future(ask(once(fn, "a"))) for _ in range(5)]
        while not searches.ran:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        searches.gate.set()
        assert {(await one).result for one in asking} == {"ConnectionError: the index is away"}
        assert searches.ran == ["a"]
        assert (await ask(once(fn, "a"))).result == ["a found in run 2"]


async def test_a_caller_that_is_stopped_does_not_stop_it_for_the_others_and_the_last_one_does() -> None:
    searches = Searches()
    searches.gate = asyncio.Event()
    fn = cached(searches.fn, "10m", scope="app")
    stopped: list[bool] = []

    @tool(reads=True)
    async def slow(query: str) -> str:
        searches.ran.append(query)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.append(True)
            raise
        return "never"

    clock = FakeClock()
    app = App("memory://", clock=clock)

    @app.agent
    async def agent(thread: Thread[Any]) -> Any:
        chosen = fn if thread.input == "shared" else cached(slow, "10m", scope="app")
        return (await thread.step("s").run(chosen, str(thread.input))).value

    async with app:
        first, second, alone = [await app.start(agent, name) for name in ("shared", "shared", "alone")]
        while len(searches.ran) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await app.pause(first)
        await app.pause(alone)
        while not stopped:
            await asyncio.sleep(0.01)
        searches.gate.set()
        while (view := await app.show(second)).status != "done":
            await asyncio.sleep(0.01)
        assert view.result == ["shared found in run 2"] or view.result == ["shared found in run 1"]
        await app.resume(first)
        while (await app.show(first)).status != "done":
            await asyncio.sleep(0.01)
    assert searches.ran.count("shared") == 1, "the one that was stopped got the others' result"


async def test_a_claim_of_a_process_that_died_runs_out_and_is_no_busy_wait() -> None:
    searches = Searches()
    fn = cached(searches.fn, "10m", scope="app")
    looks = 0
    async with world() as (d, ask):
        await ask(once(fn, "a"))
        store = d.app.store
        (key,) = await store.records(SPACE)
        await store.drop(SPACE, key)
        await store.put(SPACE, key, {"claimed": "by the dead"}, ttl=CLAIM)
        put = store.put

        async def counted(*args: Any, **kwargs: Any) -> bool:
            nonlocal looks
            looks += 1
            return await put(*args, **kwargs)

        store.put = counted  # type: ignore[method-assign]
        asking = asyncio.ensure_future(ask(once(fn, "a")))
        await asyncio.sleep(0.6)
        assert not asking.done() and searches.ran == ["a"] and looks < 10
        d.clock.advance(CLAIM)
        assert (await asking).result == ["a found in run 2"]


async def test_a_result_that_another_process_writes_meanwhile_is_taken() -> None:
    searches = Searches()
    fn = cached(searches.fn, "10m", scope="app")
    async with world() as (d, ask):
        await ask(once(fn, "a"))
        store = d.app.store
        (key,) = await store.records(SPACE)
        await store.put(SPACE, key, {"claimed": "by another one"}, ttl=CLAIM)
        asking = asyncio.ensure_future(ask(once(fn, "a")))
        await asyncio.sleep(0.05)
        await store.put(SPACE, key, {"value": ["theirs"], "notes": {"summary": "short"}}, ttl=CLAIM)
        view = await asking
    assert view.result == ["theirs"] and searches.ran == ["a"]
    assert outcome(view)["cached"] is True and outcome(view)["summary"] == "short"


async def test_a_cache_that_is_away_is_no_reason_not_to_run() -> None:
    searches = Searches()
    async with world() as (d, ask):

        async def away(*args: Any, **kwargs: Any) -> Any:
            raise StoreBusy("store.db", 1.0)

        d.app.store.get = d.app.store.put = away  # type: ignore[method-assign, assignment]
        assert (await ask(once(cached(searches.fn, "10m"), "a"))).result == ["a found in run 1"]


PROGRAM = """
import asyncio, sys, time
from ownloop import App, tool
from ownloop.llm import cached

@tool(reads=True)
def search(query: str) -> str:
    with open(sys.argv[2], "a") as file:
        file.write(query + "\\n")
    time.sleep(0.5)
    return f"found {query}"

app = App(sys.argv[1])

@app.agent(name=sys.argv[3])
async def agent(thread):
    return (await thread.step("s").run(cached(search, "10m", scope="app"), "a")).value

async def main():
    async with app:
        threads = [await app.start(agent) for _ in range(3)]
        print("ready", flush=True)
        for thread in threads:
            while (await app.show(thread)).status != "done":
                await asyncio.sleep(0.02)
            print((await app.show(thread)).result)

asyncio.run(main())
"""


def test_two_processes_on_one_store_run_it_once(tmp_path: Path, kept_url: str) -> None:
    program, ran = tmp_path / "program.py", tmp_path / "ran"
    program.write_text(PROGRAM)
    url, env = kept_url, {**os.environ, "PYTHONPATH": SOURCE}
    commands = [[sys.executable, str(program), url, str(ran), name] for name in ("one", "two")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for command in commands]
    told = [process.communicate(timeout=60)[0].split("\n", 1) for process in processes]
    assert told == [["ready", "found a\n" * 3]] * 2
    assert ran.read_text() == "a\n"


# ---- together with the rest --------------------------------------------------------------------------------------------------------


async def test_who_limits_calls_can_ask_whether_one_will_be_answered_from_the_cache() -> None:
    searches, asked = Searches(), []

    async def gate(run: Any, may_park: bool) -> None:
        asked.append(await is_cached(run))

    async with world() as (_, ask):
        for _n in range(2):
            fn = cached(searches.fn, "10m", scope="app")
            await ask(once(promised(fn, replace(promise_of(fn), gates=(gate,))), "a"))
            await ask(once(promised(charge, replace(promise_of(charge), gates=(gate,))), 1))
    assert asked == [False, False, True, False]


@pytest.mark.parametrize("is_sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("order", ["limit cache", "cache limit", "limit cache summary", "cache summary limit"])
async def test_wrappers_compose_in_any_order_and_what_the_cache_answers_is_not_limited(order: str, is_sync: bool) -> None:
    ran: list[str] = []

    @tool(reads=True)
    def search(query: str) -> str:
        ran.append(query)
        return "found " * 1_000

    @tool(reads=True)
    async def search_later(query: str) -> str:
        return search(query)

    limit = RateLimit(requests="1/hour", max_wait="1s")
    wrappers: dict[str, Callable[[Any], Any]] = {
        "limit": lambda fn: limited(fn, limit),
        "cache": lambda fn: cached(fn, "10m", scope="app"),
        "summary": lambda fn: summarized(fn, lambda text: f"{len(text)} characters"),
    }
    fn: Any = search if is_sync else search_later
    for name in reversed(order.split()):
        fn = wrappers[name](fn)
    async with world() as (_, ask):
        views = [await ask(once(fn, "a")) for _n in range(3)]
    assert {view.result for view in views} == {"found " * 1_000} and ran == ["a"]
    assert [outcome(view).get("cached") for view in views] == [None, True, True]
    assert [outcome(view).get("summary") for view in views] == (["6000 characters"] * 3 if "summary" in order else [None] * 3)


async def test_inside_another_function_the_event_is_not_said_to_be_cached() -> None:
    searches = Searches()

    @tool(reads=True)
    async def report(query: str) -> str:
        found = [await cached(searches.fn, "10m", scope="app")(query) for _ in range(2)]
        return f"{current_call().key.rsplit(':', 1)[1]} of {found[1][0]}"

    async with world() as (_, ask):
        view = await ask(once(report, "a"))
    assert view.result == "report of a found in run 1"
    assert "cached" not in outcome(view) and outcome(view)["usage"]["requests"] == 1
    assert searches.ran == ["a"]


async def test_it_is_run_once_wherever_the_process_dies() -> None:
    """A death between the result and its record is the only one after which it is run again, and a cached result is recorded twice."""
    ran: list[int] = []

    def make(url: Any, clock: FakeClock) -> App:
        app = App(url, clock=clock)
        ran.append(0)

        @tool(reads=True)
        async def search(query: str) -> str:
            ran[-1] += 1
            return f"found {query}"

        @app.agent
        async def agent(thread: Thread[Any]) -> Any:
            step = thread.step("s")
            found = [(await step.run(cached(search, "10m"), "a")).value for _ in range(2)]
            await step.ask("good?")
            return found

        return app

    async def scenario(d: Drive) -> None:
        await d.start("agent")
        await d.settle()
        await d.answer(await d.interrupt(), "yes", by="ann")

    report: CrashReport = await crash_everywhere(scenario, make, url="memory://")
    assert report.lost == report.silent == []
    assert sum(ran) == report.runs, "once a run, whatever died"
