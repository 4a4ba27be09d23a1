"""A worker that the environment tells to trace, measure and log; in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ownloop.interrupts import Actor

from .collector import Collector
from .robot import App, robot_on

ROOT = Path(__file__).resolve().parent.parent.parent


class Worker:
    """`ownloop worker` with an environment; what it wrote to stderr."""

    def __init__(self, store: str, environment: dict[str, str]) -> None:
        path = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        command = [sys.executable, "-m", "ownloop", "worker", "tests.telemetry.robot:app", "--store", store]
        both = {**path, **environment}
        self._process = subprocess.Popen(command, env=both, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def stop(self) -> list[str]:
        self._process.send_signal(signal.SIGTERM)
        _, said = self._process.communicate(timeout=20)
        assert self._process.returncode == 0, said
        return said.splitlines()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def worker(store: str) -> Iterator[Callable[..., Worker]]:
    running: list[Worker] = []

    def start(**environment: str) -> Worker:
        running.append(Worker(store, environment))
        return running[-1]

    yield start
    for one in running:
        one.kill()


async def worked(store: str) -> str:
    """A thread that a worker elsewhere takes to its approval; its id."""
    app = robot_on(App(store))
    thread = await app.start("robot")
    end = time.monotonic() + 60
    while not (waiting := await app.interrupts()):
        assert time.monotonic() < end
        await_a_moment()
    await app.approve(waiting[0], by=Actor("ana", ("managers",)))
    while (await app.show(thread)).status != "done":
        assert time.monotonic() < end
        await_a_moment()
    await app.aclose()
    return thread


def await_a_moment() -> None:
    time.sleep(0.05)


@pytest.mark.parametrize("store", ["sqlite", "postgres"], indirect=True)
async def test_an_endpoint_makes_a_worker_send_spans_and_metrics(worker: Callable[..., Worker], collector: Collector, store: str) -> None:
    running = worker(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    thread = await worked(store)
    running.stop()
    assert {span.name for span in collector.spans} == {"invoke_agent robot", "chat gpt-5-mini", "execute_tool deploy"}
    assert {span.about["gen_ai.conversation.id"] for span in collector.spans} == {thread}
    assert {span.service for span in collector.spans} == {"ownloop"}
    assert collector.metric("ownloop.llm.tokens", model="gpt-5-mini", type="input")[-1].as_int == 240


@pytest.mark.parametrize("environment", [{}, {"OWNLOOP_OTEL": "0", "OTEL_EXPORTER_OTLP_ENDPOINT": "URL"}])
async def test_otherwise_nothing_is_sent(worker: Callable[..., Worker], collector: Collector, store: str, environment: dict[str, str]) -> None:
    running = worker(**{name: value.replace("URL", collector.url) for name, value in environment.items()})
    await worked(store)
    running.stop()
    assert collector.raw == []


async def test_a_worker_can_be_scraped(worker: Callable[..., Worker], store: str) -> None:
    port = str(20_000 + os.getpid() % 20_000)
    running = worker(OWNLOOP_OTEL="1", OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="prometheus", OTEL_EXPORTER_PROMETHEUS_PORT=port)
    await worked(store)
    text, end = "", time.monotonic() + 5
    while "ownloop_interrupt_opened_total" not in text and time.monotonic() < end:
        text = urllib.request.urlopen(f"http://localhost:{port}/metrics").read().decode()
        await_a_moment()
    assert 'ownloop_interrupt_opened_total{agent="robot",kind="approval"} 1.0' in text
    assert 'service_name="ownloop"' in text
    running.stop()


async def test_a_worker_logs_json_if_it_is_told(worker: Callable[..., Worker], store: str) -> None:
    running = worker(OWNLOOP_LOG_FORMAT="json", OWNLOOP_LOG_LEVEL="info")
    thread = await worked(store)
    lines = [json.loads(line) for line in running.stop() if line.startswith("{")]
    (line,) = [line for line in lines if "deploying" in line["message"]]
    assert line["message"] == "deploying with password=***" and line["thread"] == thread
    assert any("selected: deploy" in line["message"] for line in lines)


def test_a_server_gets_what_answers_its_scrapes(tmp_path: Path) -> None:
    program = """
import asyncio
from ownloop.telemetry import from_environment
from tests.telemetry.robot import app
async def main():
    async with from_environment(app) as metrics:
        await app.run_one(await app.start('robot'))
        print(metrics())
        await app.aclose()
asyncio.run(main())
"""
    environment = {"PATH": os.environ["PATH"], "OWNLOOP_OTEL": "1", "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'ownloop_llm_tokens_total{model="gpt-5-mini",type="input"} 120.0' in done.stdout and done.stderr == ""


def test_a_log_form_that_there_is_not_is_a_usage_error() -> None:
    command = [sys.executable, "-m", "ownloop", "threads", "--store", "memory://"]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"], "OWNLOOP_LOG_FORMAT": "xml"}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "OWNLOOP_LOG_FORMAT=xml is none of console, json" in done.stderr
