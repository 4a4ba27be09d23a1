"""examples/training.py: a job in a process of its own, a thread that waits for it without one, and an agent without a model."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import training
import webhooks

from ownloop import App, current_call
from ownloop.testing import FakeClock, crash_everywhere, drive

LEAD = webhooks.TOKENS["ana-token"]


class FakeCluster:
    """Jobs that the test ends itself."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.deployed: list[str] = []

    def submit(self, learning_rate: float) -> str:
        self.jobs.append(f"job@{current_call().key}")
        return self.jobs[-1]

    def deploy(self, job: str) -> str:
        self.deployed.append(job)
        return job


async def end(d: Any, accuracy: float) -> None:
    (waiting,) = await d.interrupts(kind="event")
    job = waiting.value["key"]
    await d.emit("training", {"job": job, "accuracy": accuracy}, key=job, id=f"{job} ended")
    await d.settle()


async def test_a_poor_model_is_trained_again_and_a_good_one_is_deployed_once_a_person_agreed(url: str) -> None:
    clock, cluster = FakeClock(), FakeCluster()
    async with drive(training.make_app(url, clock, cluster=cluster), clock) as d:
        thread = await d.start("trainer")
        await d.settle()
        await end(d, 0.6)
        await end(d, 0.95)
        approval = await d.interrupt()
        assert dict(approval.intent) == {"job": cluster.jobs[1], "accuracy": 0.95}
        assert cluster.deployed == []
        await d.approve(approval, by=LEAD)
        await d.settle()
        assert (await d.show(thread)).result == "deployed"
    assert cluster.deployed == [cluster.jobs[1]]
    assert len(set(cluster.jobs)) == 2


async def test_a_job_that_never_reports_ends_by_its_timeout_and_the_model_goes_on(url: str) -> None:
    clock, cluster = FakeClock(), FakeCluster()
    async with drive(training.make_app(url, clock, cluster=cluster), clock) as d:
        thread = await d.start("trainer")
        await d.settle()
        for _ in range(3):
            await d.advance("12h")
        assert (await d.show(thread)).result == "no good model in 3 trainings"


async def test_a_refused_model_is_not_deployed(url: str) -> None:
    clock, cluster = FakeClock(), FakeCluster()
    async with drive(training.make_app(url, clock, cluster=cluster), clock) as d:
        thread = await d.start("trainer")
        await d.settle()
        await end(d, 0.95)
        await d.reject(await d.interrupt(), by=LEAD)
        await d.settle()
        assert (await d.show(thread)).result == "not deployed"
    assert cluster.deployed == []


async def test_no_death_submits_a_job_or_deploys_a_model_in_silence(place: Any) -> None:
    async def scenario(d: Any) -> None:
        await d.start("trainer", key="one")
        await d.settle()
        await end(d, 0.95)
        await d.approve(await d.interrupt(), by=LEAD)
        await d.settle()

    report = await crash_everywhere(scenario, lambda at, clock: training.make_app(at, clock, cluster=FakeCluster()), url=place)
    assert (report.lost, report.silent) == ([], [])
    assert {question.split(" at ")[0] for question in report.asked} == {"submit", "deploy"}


# ---- through processes ---------------------------------------------------------------------------------------------------------


async def until(what: Callable[[], Any]) -> Any:
    for _ in range(200):
        if found := await what():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to that within 10 s")


async def test_a_real_job_ends_by_webhook_while_no_agent_runs_and_a_later_agent_reads_its_metrics(tmp_path: Path, kept_url: str) -> None:
    url = kept_url
    with webhooks.serving(url) as webhook:
        cluster = training.Cluster(tmp_path, webhook)
        async with training.make_app(url, cluster=cluster) as app:
            thread = await app.start("trainer")
            (waiting,) = await until(lambda: app.interrupts(kind="event"))
        job = waiting.value["key"]  # the agent has ended; the job runs
        onlooker = App(url)
        await until(lambda: ended(onlooker, waiting.id))
        record = await onlooker.store.get("progress", f"event:training:{job}")
        assert record is not None
        assert (record.value["done"], record.value["total"]) == (30, 30)
        assert len(json.loads((tmp_path / f"{job}.json").read_text())) == 3
        await onlooker.aclose()
        async with training.make_app(url, cluster=cluster) as app:
            (approval,) = await until(lambda: app.interrupts(kind="approval"))
            assert approval.intent["accuracy"] > 0.9
            assert webhooks.post(f"{webhook}/interrupts/{approval.id}/approve", {}, "ana-token") == (200, "ok")
            view = await until(lambda: done(app, thread))
        assert view.result == "deployed"
        assert (tmp_path / "production.json").read_text() == (tmp_path / f"{approval.intent['job']}.json").read_text()


async def ended(app: App, interrupt: str) -> bool:
    return (await app.interrupt(interrupt)).status != "open"


async def done(app: App, thread: str) -> Any:
    view = await app.show(thread)
    return view if view.status == "done" else None


# ---- without a model -----------------------------------------------------------------------------------------------------------


async def test_the_nightly_report_tries_again_sleeps_until_the_morning_and_counts_what_it_read_at_night(url: str, tmp_path: Path) -> None:
    sales, clock = tmp_path / "sales.json", FakeClock()
    async with drive(training.make_app(url, clock, cluster=FakeCluster()), clock) as d:
        thread = await d.start("nightly_report", str(sales))
        started = time.monotonic()
        settled = asyncio.ensure_future(d.settle())
        await asyncio.sleep(0.1)
        sales.write_text('{"north": 1.5, "south": 2}')
        await settled
        assert time.monotonic() - started < 5
        view = await d.show(thread)
        assert [event.kind for event in view.events if event.step_id] == ["tried", "outcome", "request"]
        sales.write_text('{"north": 9}')
        await d.advance("359m")
        assert not sales.with_suffix(".md").exists()
        await d.advance("1m")
        assert (await d.show(thread)).result == str(sales.with_suffix(".md"))
    assert sales.with_suffix(".md").read_text() == "- north: 1.50\n- south: 2.00\n- all: 3.50\n"
