"""Metrics as a receiver and a scrape get them."""

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client.parser import text_string_to_metric_families

from ownloop import App, Thread, telemetry, tool, watch
from ownloop.errors import AlreadyDecided, NotAllowed
from ownloop.interrupts import Actor
from ownloop.telemetry.metrics import DISTINCT
from ownloop.telemetry.pending import observe
from ownloop.telemetry.prometheus import metrics_text, prometheus_reader
from ownloop.testing import Drive, FakeClock, drive

from .collector import Collector
from .robot import robot_on

Instrument = Callable[..., None]
MANAGER = Actor("ana", ("managers",))


class Scrape:
    """Telemetry into a Prometheus reader, and what it shows."""

    def __init__(self) -> None:
        self._reader = prometheus_reader()
        telemetry.instrument(meter_provider=MeterProvider(metric_readers=[self._reader], shutdown_on_exit=False))

    @property
    def text(self) -> str:
        return metrics_text(self._reader)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with these labels."""
        samples = [sample for family in text_string_to_metric_families(self.text) for sample in family.samples]
        return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


@pytest.fixture
def scrape() -> Scrape:
    return Scrape()


@pytest.fixture
async def robot() -> Any:
    clock = FakeClock()
    async with drive(robot_on(App("memory://", clock=clock)), clock) as d:
        yield d


async def started(d: Drive, input: str = "") -> str:
    thread = await d.start("robot", input)
    await d.settle()
    return thread


async def test_the_client_metrics_of_the_conventions_arrive_over_otlp(
    instrument: Instrument, collector: Collector, meters: MeterProvider, robot: Drive
) -> None:
    instrument()
    await started(robot, "down")
    await robot.approve(await robot.interrupt(), by=MANAGER)
    await robot.settle()
    telemetry.uninstrument()  # which keeps nothing back
    meters.force_flush()
    chat = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai", "gen_ai_request_model": "gpt-5-mini"}
    (read,) = collector.metric("gen_ai.client.token.usage", **chat, gen_ai_token_type="input", gen_ai_response_model="gpt-5-mini-2026-01-01")
    assert (read.count, read.sum) == (1, 120)
    assert list(read.explicit_bounds)[:4] == [1, 4, 16, 64]
    (failed,) = collector.metric("gen_ai.client.operation.duration", **chat, error_type="TimeoutError")
    assert failed.count == 1
    (tool,) = collector.metric("gen_ai.execute_tool.duration", gen_ai_tool_name="deploy", gen_ai_agent_name="robot")
    assert tool.count == 1
    (wakes,) = collector.metric("gen_ai.invoke_agent.duration", gen_ai_agent_name="robot")
    assert wakes.count == 2


async def test_decision_latency_votes_and_refused_double_decisions(scrape: Scrape, robot: Drive) -> None:
    await started(robot)
    waiting = await robot.interrupt()
    robot.clock.advance("90s")
    with pytest.raises(NotAllowed):
        await robot.approve(waiting, by="eve")
    await robot.approve(waiting, by=MANAGER)
    for _ in range(2):
        with pytest.raises(AlreadyDecided):
            await robot.reject(waiting, by=MANAGER)
    about = {"agent": "robot", "kind": "approval"}
    assert scrape.value("ownloop_interrupt_opened_total", **about) == 1
    assert scrape.value("ownloop_interrupt_decisions_total", **about, decision="approved") == 1
    assert scrape.value("ownloop_interrupt_wait_seconds_sum", **about, decision="approved") == 90
    assert scrape.value("ownloop_interrupt_wait_seconds_bucket", **about, le="60") == 0
    assert scrape.value("ownloop_interrupt_wait_seconds_bucket", **about, le="300") == 1
    assert scrape.value("ownloop_interrupt_refused_total", **about, reason="already_decided") == 2
    assert scrape.value("ownloop_interrupt_refused_total", **about, reason="not_allowed") == 1


async def test_expired_interrupts_and_late_timers(scrape: Scrape, robot: Drive) -> None:
    await started(robot, "short")
    await started(robot, "sleep")
    robot.clock.advance(timedelta(hours=1, minutes=2))
    await robot.settle()
    assert scrape.value("ownloop_interrupt_decisions_total", decision="expired", kind="approval") == 1
    assert scrape.value("ownloop_timers_lag_seconds_count", agent="robot") == 2
    assert 239 <= scrape.value("ownloop_timers_lag_seconds_sum", agent="robot") <= 241


async def test_calls_in_doubt_by_their_tool(scrape: Scrape, robot: Drive) -> None:
    await started(robot, "doubtful")
    assert scrape.value("ownloop_calls_in_doubt_total", agent="robot", tool="doubtful") == 1


async def test_a_label_of_a_call_is_no_label_of_a_metric(scrape: Scrape) -> None:
    clock = FakeClock()
    app = App("memory://", clock=clock)

    async def restart(host: str) -> None:
        raise TimeoutError

    @app.agent
    async def restarter(thread: Thread) -> None:
        await thread.step("all").named("web-4711").run(tool(restart, unknown_on=(TimeoutError,)), "web-4711")

    async with drive(app, clock) as d:
        await d.start(restarter)
        await d.settle()
    assert scrape.value("ownloop_calls_in_doubt_total", tool="restart") == 1 and "4711" not in scrape.text


async def test_wake_lag_is_from_the_event_to_the_claim(scrape: Scrape, robot: Drive) -> None:
    thread = await robot.start("robot")
    robot.clock.advance("3s")
    await robot.settle()
    assert scrape.value("ownloop_wake_lag_seconds_sum", agent="robot") == 3
    await robot.approve(await robot.interrupt(thread), by=MANAGER)
    robot.clock.advance("7s")
    await robot.settle()
    assert scrape.value("ownloop_wake_lag_seconds_count", agent="robot") == 2
    assert scrape.value("ownloop_wake_lag_seconds_sum", agent="robot") == 10


async def test_tokens_and_cost_are_those_of_the_log(scrape: Scrape, robot: Drive) -> None:
    await started(robot, "read")
    assert scrape.value("ownloop_llm_tokens_total", model="gpt-5-mini", type="input") == 240
    assert scrape.value("ownloop_llm_tokens_total", model="gpt-5-mini", type="output") == 60
    assert scrape.value("ownloop_llm_cost_usd_total", model="gpt-5-mini") == pytest.approx(0.025)


def test_limiter_waits(scrape: Scrape) -> None:
    watch.current.limited("openai", 1.5)
    watch.current.limited("openai of acme", 0.5)
    assert scrape.value("ownloop_limiter_wait_seconds_sum", limit="openai") == 2


def test_a_label_that_the_program_names_takes_few_values(scrape: Scrape) -> None:
    for number in range(DISTINCT + 20):
        watch.current.limited(f"tenant-{number}", 1)
    assert scrape.value("ownloop_limiter_wait_seconds_count", limit="other") == 20


async def test_pending_approvals_by_age(scrape: Scrape, robot: Drive) -> None:
    async with observe(robot.app, every="10ms"):
        await started(robot)
        robot.clock.advance(timedelta(hours=2))
        await started(robot)
        await until(lambda: scrape.value("ownloop_interrupts_pending", agent="robot") == 2)
        about = {"agent": "robot", "kind": "approval"}
        assert scrape.value("ownloop_interrupts_pending", **about, tool="deploy", age="under 1m") == 1
        assert scrape.value("ownloop_interrupts_pending", **about, tool="deploy", age="under 1d") == 1
        assert scrape.value("ownloop_interrupts_oldest_seconds", **about) == pytest.approx(7200)
        for waiting in await robot.interrupts():
            await robot.approve(waiting, by=MANAGER)
        await until(lambda: scrape.value("ownloop_interrupts_pending") == 0)
        assert scrape.value("ownloop_interrupts_oldest_seconds") == 0


async def test_what_waits_is_counted_over_all_pages(scrape: Scrape, robot: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownloop.telemetry.pending.PAGE", 2)
    for _ in range(5):
        await started(robot)
    async with observe(robot.app, every="10ms"):
        await until(lambda: scrape.value("ownloop_interrupts_pending", agent="robot") == 5)


async def test_observing_survives_a_closed_store_and_does_not_open_it(scrape: Scrape, tmp_path: Path) -> None:
    app = robot_on(App(f"sqlite:///{tmp_path}/robot.db"))
    async with observe(app, every="10ms"):
        await asyncio.sleep(0.05)
        assert not (tmp_path / "robot.db").exists()
        async with app:
            await app.start("robot")
            await until(lambda: scrape.value("ownloop_interrupts_pending") == 1)
        await asyncio.sleep(0.3)
        assert app._runner is None and scrape.value("ownloop_interrupts_pending") == 0


async def test_no_label_holds_an_id(scrape: Scrape, robot: Drive) -> None:
    async with observe(robot.app, every="10ms"):
        for input in ("", "broken", "doubtful", "slow", "short", "sleep", "crash"):
            await started(robot, input)
        await until(lambda: scrape.value("ownloop_interrupts_pending") >= 3)
    text = scrape.text
    assert "ownloop_interrupt_opened_total" in text
    assert not re.search(r"(thr|stp|int)_[0-9A-Z]{13}", text) and "ana" not in text


async def until(held: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not held():
            await asyncio.sleep(0.01)
