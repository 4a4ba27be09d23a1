"""`RateLimit` and `limited`: what the server sees, what a wait does to a thread, what headers and usage change."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ownloop
from ownloop import App, Intent, Thread, current_call, tool
from ownloop.errors import StoreBusy
from ownloop.llm import RateLimit, cached, limited
from ownloop.llm.bucket import MARGIN, SECOND, Ask, Bucket, Rate
from ownloop.llm.limits import LimitReached, NoStore, OverLimit
from ownloop.testing import CrashReport, Drive, FakeClock, ScriptedModel, crash_everywhere, drive
from ownloop.tools import annotate, promise_of

SOURCE = Path(ownloop.__file__).parents[1]


class Search(Intent):
    """Search for something."""

    query: str = "x"


class Done(Intent):
    """Nothing is left to do."""


def looping(decide: Any, fn: Callable[..., Any]) -> Callable[[Thread[Any]], Any]:
    """An agent that runs `fn` on every `Search`."""

    async def agent(thread: Thread[Any]) -> int:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Search():
                    outcome = await step.run(fn)
                    assert outcome.ok, outcome.error
                case Done():
                    return thread.count(Search)

    return agent


class Calls(list[str]):
    """A function that counts its calls, as a tool."""

    def function(self, **options: Any) -> Callable[[str], Any]:
        async def search(query: str) -> str:
            self.append(query)
            return f"found {query}"

        return tool(search, **options)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@asynccontextmanager
async def driven(clock: FakeClock, decide: Any, fn: Callable[..., Any], **options: Any) -> AsyncIterator[Drive]:
    app = App("memory://", clock=clock, **options)
    app.add(looping(decide, fn), name="agent", intents=[Search, Done])
    async with drive(app, clock) as d:
        yield d


async def timers(d: Drive) -> list[Any]:
    return await d.interrupts(kind="timer")


def searches(number: int) -> ScriptedModel:
    return ScriptedModel([*(Search(query=str(place)) for place in range(number)), Done()])


# ---- at the server's door --------------------------------------------------------------------------------------------------------


class Door:
    """A small HTTP server that writes down when each request comes.

    A client that the machine stops on its way counts as `travel` seconds late at most: that is what a limit's margin is for, and the rest is no
    limit's doing.
    """

    def __init__(self, travel: float) -> None:
        self.arrivals: list[tuple[float, str]] = []
        self.stopped = 0
        self._travel = travel

    async def __aenter__(self) -> Door:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, _, sent = (await reader.readline()).split()[1].decode().partition("?")
        arrived, latest = time.monotonic() - since_arrival(writer), float(sent) + self._travel
        self.stopped += arrived > latest
        self.arrivals.append((min(arrived, latest), name))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    def most_in(self, window: float) -> int:
        times = [at for at, _ in self.arrivals]
        return max(sum(1 for at in times if first <= at < first + window) for first in times)

    def waits(self) -> list[float]:
        """How long each thread was between two requests."""
        by_thread: dict[str, list[float]] = defaultdict(list)
        for at, name in self.arrivals:
            by_thread[name].append(at)
        return [later - earlier for times in by_thread.values() for earlier, later in pairwise(times)]


def since_arrival(writer: asyncio.StreamWriter) -> float:
    """Seconds since the kernel has had the request: this process may be late for it, and that is not the limit's doing."""
    if not hasattr(socket, "TCP_INFO"):
        return 0.0
    about = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56)
    return float(struct.unpack_from("I", about, 52)[0]) / 1000  # tcpi_last_data_recv


PROBE = """
import time
due = time.monotonic()
while True:
    due += 0.1
    time.sleep(max(0, due - time.monotonic()))
    enough = time.process_time() + 0.005
    while time.process_time() < enough:
        pass
    print(due, time.monotonic() - due - 0.005, flush=True)
"""
"""Does 5 ms of work every 100 ms and says how late it was: what a process of the machine can hope for, whatever our code does."""


@dataclass
class Measured:
    """What came to the door while it was measured.

    Attributes:
        load: requests in a window, as a part of the limit.
        in_time: part of the probe's work that was as punctual as a place in the queue asks for.
        latest: seconds by which the probe was late at worst.
    """

    load: float
    median_wait: float
    longest_wait: float
    in_time: float
    latest: float

    def lacks(self, least: float, most: float) -> str:
        """What the limit owes: this part of what the machine could have done, and nobody waits so many times as long as others; "" if nothing."""
        if self.load < least * self.in_time:
            return f"{self.load:.3f} of the limit went through, and the machine was in time for {self.in_time:.3f}"
        if self.longest_wait > most * self.median_wait + self.latest:
            return f"somebody waited {self.longest_wait:.2f} s, others {self.median_wait:.2f} s; the machine was never later than {self.latest:.2f} s"
        return ""


async def measured_at_the_door(store: str, number: int, window: float, seconds: float, max_wait: str) -> Measured:
    """Two processes as fast as one limit lets them. The promise is asserted whatever the machine did: in no window more than the limit."""
    grace = window * MARGIN / 2
    async with Door(travel=grace) as door:
        script = str(Path(__file__).with_name("limits_process.py"))
        command = [sys.executable, script, store, str(door.port), f"{number}/{window:g}s", max_wait, "6"]
        processes = [subprocess.Popen(command, env={"PYTHONPATH": str(SOURCE)}) for _ in range(2)]
        probe = subprocess.Popen([sys.executable, "-c", PROBE], stdout=subprocess.PIPE, text=True)
        try:
            while len(door.arrivals) < number:
                await asyncio.sleep(0.01)
                assert all(process.poll() is None for process in processes)
            began = time.monotonic()
            await asyncio.sleep(seconds)
            ended = time.monotonic()
        finally:
            for process in (*processes, probe):
                process.kill()
                process.wait()
    times = sorted(at for at, _ in door.arrivals)
    closest = min(later - earlier for earlier, later in zip(times, times[number:], strict=False))
    assert door.most_in(window) <= number, f"{number + 1} requests within {closest:.3f} s"
    assert probe.stdout is not None
    told = [tuple(map(float, line.split())) for line in probe.stdout.read().splitlines() if line.count(".") == 2]
    late = [by for due, by in told if began <= due < ended]
    under_load = [at for at in times if began <= at < ended]
    load = (len(under_load) - 1) / (under_load[-1] - under_load[0]) * window / number
    waits = door.waits()
    found = Measured(load, median(waits), max(waits), sum(by <= grace for by in late) / len(late), max(late))
    print(f"{number + 1} requests within {closest:.3f} s, {door.stopped} of {len(times)} stopped on their way; {found}")
    return found


@pytest.mark.parametrize("max_wait", ["5s", "300ms"], ids=["asleep", "parked"])
async def test_two_processes_share_one_limit_at_the_servers_door(kept_url: str, max_wait: str) -> None:
    """Never more than the limit, whatever the machine does. What goes through depends on the machine, too: the promise itself is in the soak."""
    found = await measured_at_the_door(kept_url, 20, 2.0, 7.0, max_wait)
    assert not found.lacks(0.75, 5), found.lacks(0.75, 5)


@pytest.mark.soak
@pytest.mark.parametrize("max_wait", ["5s", "300ms"], ids=["asleep", "parked"])
async def test_nearly_the_whole_limit_goes_through_and_nobody_waits_three_times_as_long_as_others(tmp_path: Path, max_wait: str) -> None:
    lacks = []
    for attempt in range(3):
        found = await measured_at_the_door(f"sqlite:///{tmp_path}/{attempt}.db?synchronous=normal", 20, 2.0, 15.0, max_wait)
        lacks.append(found.lacks(0.95, 3))
        if not lacks[-1]:
            return
        print(f"measured once more, because {lacks[-1]}")
    raise AssertionError(lacks)


def given_at(bucket: Bucket, now: int, owner: str) -> int:
    at = bucket.ask(now, Ask(owner, (1, 1), 0))
    assert at is not None
    return at


@settings(max_examples=150, deadline=None)
@given(amount=st.integers(1, 30), steps=st.lists(st.tuples(st.integers(0, 400_000), st.integers(0, 40_000)), min_size=5, max_size=120))
def test_no_window_holds_more_than_the_limit_however_the_grants_travel(amount: int, steps: list[tuple[int, int]]) -> None:
    rate, now, recorded, door = Rate(amount, 2 * SECOND), 10**15, None, []
    for place, (pause, travel) in enumerate(steps):
        now += pause
        bucket = Bucket((rate, None), recorded)
        door.append(given_at(bucket, now, str(place)) + travel)  # at most the margin less the grace
        recorded = bucket.to_json(now)
    assert max(sum(1 for at in door if first <= at < first + rate.window) for first in door) <= amount


def test_who_was_late_gets_a_place_at_the_moment_when_it_will_hear_of_it() -> None:
    rate, now = Rate(1, SECOND), 10**15
    bucket = Bucket((rate, None))
    assert given_at(bucket, now, "ann") == now
    late = now + rate.margin
    again = Ask("ann", (1, 1), 5 * SECOND, again=True, ahead=20_000)
    assert late <= (bucket.ask(late, again) or 0) - 20_000 <= late + 1
    assert given_at(bucket, late, "ben") >= late + 20_000 + rate.window, "what ann did not use is not used besides"


def test_a_short_window_leaves_the_way_to_the_server_a_larger_part() -> None:
    assert [Rate(1, round(seconds * SECOND)).margin for seconds in (0.1, 1, 2, 60, 3600)] == [5_000, 50_000, 60_000, 1_800_000, 2_000_000]


def test_thousands_of_slots_stay_a_small_record_and_keep_the_limit() -> None:
    rate, now, recorded, given = Rate(1_500, 60 * SECOND), 10**15, None, []
    for place in range(2_200):
        now += 42_000
        bucket = Bucket((rate, None), recorded)
        given.append(given_at(bucket, now, str(place)))
        recorded = bucket.to_json(now)
        if place % 1_000 == 0:
            assert max(sum(1 for at in given if first <= at < first + rate.window) for first in given[::100]) <= 1_500
    assert len(recorded["slots"]) < 1_000


def test_nobody_overtakes_and_a_late_owner_goes_next() -> None:
    bucket, now = Bucket((Rate(2, 10 * SECOND), None)), 10**15
    given = [given_at(bucket, now, name) for name in "abcdef"]
    assert given == sorted(given)
    late = bucket.of("c")
    assert late is not None
    now = late.at + 5 * SECOND
    again, newcomer = given_at(bucket, now, "c"), given_at(bucket, now, "g")
    waiting = [bucket.of(name) for name in "ef"]
    assert all(slot is not None and again < slot.at < newcomer for slot in waiting)


# ---- a wait and its thread -------------------------------------------------------------------------------------------------------


@pytest.mark.alone
async def test_a_long_wait_is_a_timer_of_the_thread_and_nothing_sleeps(clock: FakeClock) -> None:
    calls, limit = Calls(), RateLimit("2/min")
    async with driven(clock, searches(3), limited(calls.function(), limit)) as d:
        thread = await d.start("agent")
        began = time.monotonic()
        await d.settle()
        assert time.monotonic() - began < 0.5
        assert calls == ["0", "1"]
        (timer,) = await timers(d)
        assert timedelta(seconds=55) < timer.expires_at - clock.now() <= timedelta(seconds=60)
        assert not [event for event in (await d.show(thread)).events if event.kind == "started" and event.seq > timer.seq]
        await d.advance("20s")
        assert calls == ["0", "1"]
        await d.advance("42s")
        assert calls == ["0", "1", "2"]
        assert (await d.show(thread)).result == 3


async def test_a_function_with_effects_parks_before_it_is_recorded_as_started(clock: FakeClock) -> None:
    calls = Calls()
    async with driven(clock, searches(2), limited(calls.function(), RateLimit("1/min"))) as d:
        thread = await d.start("agent")
        await d.settle()
        events = (await d.show(thread)).events
        assert [event.kind for event in events if event.op and "search" in event.op] == ["started", "outcome", "request"]
        assert events[-1].data["limit"] == "1/min"


@pytest.mark.alone
async def test_a_short_wait_sleeps_and_pause_cuts_it() -> None:
    calls, app = Calls(), App("memory://")
    app.add(looping(searches(2), limited(calls.function(), RateLimit("1/4s"))), name="agent", intents=[Search, Done])
    async with app:
        thread = await app.start("agent")
        while len(calls) < 1:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await app.pause(thread)
        while (await app.store.thread(thread)).lease_until is not None:  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
        assert time.monotonic() - began < 1
        assert calls == ["0"]
        assert not await app.interrupts(kind="in_doubt")


async def test_each_tenant_has_its_own_limit(clock: FakeClock) -> None:
    calls = Calls()
    per_tenant = RateLimit("1/min", key=lambda who, arguments: who.context["tenant"])
    async with driven(clock, searches(2), limited(calls.function(), per_tenant)) as d:
        for tenant in ("acme", "acme", "other"):
            await d.start("agent", context={"tenant": tenant})
        await d.settle()
        assert len(calls) == 2
        parked = [one.thread_id for one in await timers(d)]
        assert len(parked) == 3
        for _ in range(6):
            await d.advance("63s")
        assert len(calls) == 6


async def test_a_limit_can_be_keyed_by_an_argument(clock: FakeClock) -> None:
    calls = Calls()
    by_query = RateLimit("1/min", key=lambda who, arguments: f"{who.agent} {who.name} {arguments['query']}")
    async with driven(clock, searches(5), limited(calls.function(), by_query)) as d:
        await d.start("agent")
        await d.settle()
        assert calls == ["0", "1", "2", "3", "4"]


async def test_a_key_that_is_no_text_is_a_clear_error(clock: FakeClock) -> None:
    wrong: Any = lambda who, arguments: 7  # noqa: E731
    async with driven(clock, searches(1), limited(Calls().function(), RateLimit("1/min", key=wrong))) as d:
        thread = await d.start("agent")
        await d.settle()
        assert "gave 7; it gives a text" in (await d.show(thread)).error.message  # type: ignore[union-attr]


async def test_every_try_counts(clock: FakeClock) -> None:
    tries = []

    @tool(reads=True, retry=2)
    async def search(query: str) -> str:
        tries.append(current_call().key)
        if len(tries) < 3:
            raise ConnectionError("again")
        return query

    async with driven(clock, searches(1), limited(search, RateLimit("5/2s"))) as d:
        await d.start("agent")
        await d.settle()
        assert len(tries) == 3
        (record,) = (await d.app.store.records("limit")).values()
        assert len(record.value["slots"]) == 3


# ---- wrapping --------------------------------------------------------------------------------------------------------------------


def test_the_promise_the_name_and_the_signature_stay() -> None:
    @tool(reads=True, retry=3, timeout="7s")
    async def search(query: str, *, deep: bool = False) -> list[str]:
        """Look."""
        return [query]

    wrapped = limited(limited(search, RateLimit("5/s")), RateLimit("9/min"))
    promise = promise_of(wrapped)
    assert (promise.name, promise.reads, promise.retry, promise.timeout) == ("search", True, 3, timedelta(seconds=7))
    assert len(promise.gates) == 2
    assert wrapped.__doc__ == "Look."
    assert wrapped.__annotations__ == search.__annotations__


async def test_outside_a_step_there_is_no_store_and_the_error_says_so() -> None:
    with pytest.raises(NoStore, match=r"search was called outside a step.*step\.run\(limited"):
        await limited(Calls().function(), RateLimit("1/s"))("x")
    with pytest.raises(NoStore, match="a limited model was called outside a step"):
        await RateLimit("1/s").admit(None, requests=1, tokens=1)


@pytest.mark.parametrize("is_async", [True, False])
async def test_inside_another_wrapper_the_call_itself_is_limited(clock: FakeClock, is_async: bool) -> None:
    calls: list[str] = []

    async def search(query: str) -> str:
        calls.append(query)
        return query

    def sync_search(query: str) -> str:
        calls.append(query)
        return query

    inner: Any = limited(search if is_async else sync_search, RateLimit("100/min", "1k/min"), tokens=10)

    @tool(reads=True)
    async def outer(query: str) -> str:
        return await inner(query) if query == "0" else "known"

    @tool(reads=True)
    def sync_outer(query: str) -> str:
        return str(inner(query)) if query == "0" else "known"

    async with driven(clock, searches(3), outer if is_async else sync_outer) as d:
        thread = await d.start("agent")
        await d.settle()
        assert ((await d.show(thread)).result, calls) == (3, ["0"])
        (record,) = (await d.app.store.records("limit")).values()
        assert [slot[1] for slot in record.value["slots"]] == [[1, 10]]


async def test_a_sync_function_is_limited_by_its_gate(clock: FakeClock) -> None:
    calls: list[str] = []

    def search(query: str) -> str:
        calls.append(query)
        return query

    async with driven(clock, searches(3), limited(search, RateLimit("2/min", "100/min"), tokens=lambda query: 10)) as d:
        await d.start("agent")
        await d.settle()
        assert calls == ["0", "1"]
        await d.advance("63s")
        assert calls == ["0", "1", "2"]


@pytest.mark.parametrize("is_outside", [False, True], ids=["cache inside", "cache outside"])
async def test_what_a_cache_has_is_not_counted(clock: FakeClock, is_outside: bool) -> None:
    calls, limit = Calls(), RateLimit("2/min")
    search = calls.function(reads=True)
    fn = cached(limited(search, limit), "1h", scope="app") if is_outside else limited(cached(search, "1h", scope="app"), limit)
    script = ScriptedModel([Search(query=query) for query in "aaabbbcc"] + [Done()])
    async with driven(clock, script, fn) as d:
        thread = await d.start("agent")
        await d.settle()
        assert calls == ["a", "b"]
        assert len(await timers(d)) == 1
        await d.advance("63s")
        assert calls == ["a", "b", "c"]
        assert (await d.show(thread)).result == 8


@pytest.mark.parametrize("order", [1, -1])
async def test_two_limits_that_both_park_let_the_thread_through(clock: FakeClock, order: int) -> None:
    calls, rates = Calls(), [RateLimit("1/min"), RateLimit("1/50s", key="other")][::order]
    async with driven(clock, searches(2), limited(limited(calls.function(), rates[0]), rates[1])) as d:
        threads = [await d.start("agent") for _ in range(3)]
        for _ in range(30):
            await d.settle()
            await d.advance("32s")
        assert [(await d.show(thread)).result for thread in threads] == [2, 2, 2]


# ---- a model's side --------------------------------------------------------------------------------------------------------------


class Limited:
    """A decider that asks a limit first, as `Model(limits=…)` does."""

    def __init__(self, script: ScriptedModel, *limits: RateLimit, tokens: int = 10, used: int = 10, headers: dict[str, str] | None = None) -> None:
        self.script, self.limits, self.tokens, self.used, self.headers = script, limits, tokens, used, headers or {}
        self.intents = script.intents

    async def __call__(self, thread: Thread[Any]) -> Any:
        tickets = [(limit, await limit.admit(thread, requests=1, tokens=self.tokens)) for limit in self.limits]
        answer = await self.script(thread)
        for limit, ticket in tickets:
            await limit.correct(ticket, tokens=self.used, headers=self.headers)
        return answer


async def test_a_limited_model_parks_its_thread_and_is_no_failure(clock: FakeClock) -> None:
    model = Limited(searches(2), RateLimit("1/min", key="openai"))
    async with driven(clock, model, Calls().function()) as d:
        first, second = await d.start("agent"), await d.start("agent")
        await d.settle()
        failures = [event for thread in (first, second) for event in (await d.show(thread)).events if event.kind == "model_failed"]
        assert [failure.data["limited"] for failure in failures] == ["1/min of openai"] * 2
        for _ in range(5):
            await d.advance("63s")
        assert [(await d.show(thread)).result for thread in (first, second)] == [2, 2]
        asked = [event for event in (await d.show(second)).events if event.kind == "model_failed"]
        assert {failure.data["attempt"] for failure in asked} == {0}


async def test_two_limits_of_a_model_that_both_park_let_the_thread_through(clock: FakeClock) -> None:
    model = Limited(searches(1), RateLimit("1/min"), RateLimit("1/50s", key="other"))
    async with driven(clock, model, Calls().function()) as d:
        threads = [await d.start("agent") for _ in range(3)]
        for _ in range(30):
            await d.settle()
            await d.advance("32s")
        assert [(await d.show(thread)).result for thread in threads] == [1, 1, 1]


async def test_real_usage_replaces_the_estimate(clock: FakeClock) -> None:
    for used, expected in ((10, 4), (400, 2)):
        script = searches(4)
        async with driven(clock, Limited(script, RateLimit(tokens="1k/min", key=str(used)), tokens=250, used=used), Calls().function()) as d:
            await d.start("agent")
            await d.settle()
            assert len(script.calls) >= expected
            assert (len(script.calls) == 5) == (used == 10)


async def test_usage_that_a_limited_function_annotates_is_counted(clock: FakeClock) -> None:
    @tool(reads=True)
    async def summarize(query: str) -> str:
        annotate(usage={"input_tokens": 300, "output_tokens": 100})
        return query

    async with driven(clock, searches(3), limited(summarize, RateLimit(tokens="1k/min"), tokens=1)) as d:
        await d.start("agent")
        await d.settle()
        (record,) = (await d.app.store.records("limit")).values()
        assert [slot[1][1] for slot in record.value["slots"]] == [400, 400, 400]
        assert not await timers(d)


async def test_an_estimate_over_the_limit_is_refused_at_once(clock: FakeClock) -> None:
    async with driven(clock, Limited(searches(1), RateLimit(tokens="1k/min"), tokens=1_001), Calls().function()) as d:
        thread = await d.start("agent")
        await d.settle()
        error = (await d.show(thread)).error
        assert error is not None
        assert error.type == OverLimit.__name__
        assert "1,001 tokens in one call" in error.message


async def test_a_correction_that_cannot_be_written_does_not_make_the_call_fail(clock: FakeClock) -> None:
    async with driven(clock, searches(1), Calls().function()) as d:
        failing = limited(breaking_the_store(d), RateLimit(tokens="1k/min"), tokens=1)
        d.app.add(looping(searches(1), failing), name="other", intents=[Search, Done])
        thread = await d.start("other")
        await d.settle()
        assert (await d.show(thread)).result == 1


def breaking_the_store(d: Drive) -> Callable[[str], Any]:
    @tool(reads=True)
    async def search(query: str) -> str:
        annotate(usage={"input_tokens": 9})
        put = d.app.store.put

        async def refuse(*args: Any, **kwargs: Any) -> bool:
            d.app.store.put = put  # type: ignore[method-assign]
            raise StoreBusy("the store", 5)

        d.app.store.put = refuse  # type: ignore[method-assign]
        return query

    return search


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"},
        {"X-RateLimit-Remaining-Tokens": "0", "X-RateLimit-Reset-Tokens": "90s"},
        {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "2026-01-01T00:01:30Z", "date": "2026-01-01T00:00:00Z"},
        {"retry-after": "90"},
    ],
    ids=["openai requests", "openai tokens", "anthropic", "retry-after"],
)
async def test_what_the_provider_says_closes_the_bucket_for_everybody(clock: FakeClock, headers: dict[str, str]) -> None:
    script, limit = searches(1), RateLimit("1000/min", "1M/min")
    async with driven(clock, Limited(script, limit, headers=headers), Calls().function()) as d:
        await d.start("agent")
        await d.settle()
        assert len(script.calls) == 1
        await d.start("agent")
        await d.advance("80s")
        assert len(script.calls) == 1
        await d.advance("10s")
        assert len(script.calls) == 3


async def test_who_sleeps_when_the_bucket_is_closed_goes_later() -> None:
    limit, app, went = RateLimit("1/1s", max_wait="30s"), App("memory://"), []

    async def ask(app: App) -> None:
        async with app.open(f"key{len(went)}{time.monotonic_ns()}") as thread:
            ticket = await limit.admit(thread, requests=1, tokens=0)
            went.append(time.monotonic())
            if len(went) == 1:
                await limit.correct(ticket, tokens=0, headers={"retry-after": "2"})

    await asyncio.gather(*(ask(app) for _ in range(3)))
    await app.aclose()
    assert went[1] - went[0] >= 1.9
    assert went[2] - went[1] >= 0.9


async def test_the_error_of_a_refused_model_says_when() -> None:
    error = LimitReached("1/min of openai", 12.34)
    assert (error.transient, error.limited, error.retry_after) == (True, "1/min of openai", 12.34)
    assert "in 12.3 s" in str(error)


# ---- dying -----------------------------------------------------------------------------------------------------------------------


async def test_a_crash_anywhere_loses_no_place_beyond_a_window() -> None:
    calls = Calls()

    def make_app(url: Any, clock: FakeClock) -> App:
        app = App(url, clock=clock)
        model = Limited(searches(3), RateLimit("2/min", key="model"))
        app.add(looping(model, limited(calls.function(in_doubt="retry"), RateLimit("1/min"))), name="agent", intents=[Search, Done])
        return app

    async def scenario(d: Drive) -> None:
        await d.start("agent", key="one")
        await d.settle()
        for _ in range(10):
            await d.advance("63s")

    report: CrashReport = await crash_everywhere(scenario, make_app, url="memory://")
    lost = [what for what in report.lost if "has done" not in what]  # how many timers that took is another matter
    assert (lost, report.silent) == ([], [])


# ---- reading ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "amount", "seconds"),
    [
        ("500/min", 500, 60),
        ("90k/min", 90_000, 60),
        ("1.5k / hour", 1_500, 3600),
        ("2M/day", 2_000_000, 86_400),
        ("10/s", 10, 1),
        ("10/sec", 10, 1),
        ("100/2s", 100, 2),
        ("5/500ms", 5, 0.5),
        ("3/2 minutes", 3, 120),
    ],
)
def test_a_rate_is_a_number_and_a_window(text: str, amount: int, seconds: float) -> None:
    assert Rate.parse(text) == Rate(amount, int(seconds * SECOND))


@pytest.mark.parametrize("text", ["500", "500/fortnight", "k/min", "-1/s", "0/s", "0.5/s", "10/0s", "10 per second", "", 5])
def test_what_is_no_rate_is_refused_with_an_example(text: Any) -> None:
    with pytest.raises(ValueError, match=r'".*/(min|2s)"'):
        Rate.parse(text)


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="limits nothing"):
        RateLimit()
