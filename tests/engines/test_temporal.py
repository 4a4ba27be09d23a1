"""The Temporal engine keeps every promise of an engine, on a real server, and tells it nothing but ids and times."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "stores"))
import postgres_server
import temporal_server
from engine_trials import SECRET, add_writer, done, effects, once, overheard, tell_everything, told_once, until, worker
from temporal_server import TemporalServer

from ownloop import App, engines
from ownloop.engines import Temporal, courier, temporal
from ownloop.testing import EngineContract
from ownloop.testing.engine_scene import Book

_queues = count()


@pytest.fixture(scope="module")
def server() -> Iterator[TemporalServer]:
    yield from temporal_server.served()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/a.db"


@pytest.fixture
def engine(server: TemporalServer) -> Temporal:
    return Temporal(server.target, task_queue=f"test{next(_queues)}", heartbeat="1s", sweep="1s")


class TestTemporalOnPostgres(EngineContract):
    @pytest.fixture(autouse=True)
    def _schema(self, server: TemporalServer) -> Iterator[None]:
        self.url, self.target = postgres_server.empty_url(), server.target
        yield
        postgres_server.done_with(self.url)

    def make_app(self, **options: Any) -> App:
        return App(self.url, engine=Temporal(self.target, task_queue="contract", heartbeat="3s", sweep="1s"), **options)


@pytest.mark.soak
class TestTemporalOnSqlite(EngineContract):
    @pytest.fixture(autouse=True)
    def _place(self, server: TemporalServer, url: str) -> None:
        self.url, self.target = url, server.target

    def make_app(self, **options: Any) -> App:
        return App(self.url, engine=Temporal(self.target, task_queue="contract", heartbeat="3s", sweep="1s"), **options)


def test_another_file_than_the_one_that_is_known_is_not_run(tmp_path: Path) -> None:
    file = tmp_path / "temporal"
    file.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(temporal_server.WrongFile, match="look at what was installed"):
        temporal_server.checked(file)


def test_without_its_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "temporalio", None)
    monkeypatch.delitem(sys.modules, "ownloop.engines.temporal")
    with pytest.raises(ImportError, match=r"pip install 'ownloop\[temporal\]'"):
        engines.Temporal  # noqa: B018  # it is imported when it is named


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"target": "https://temporal:7233"},
            r"target='https://temporal:7233' is no address; say host:port, as in temporal\.internal:7233; tls=True",
        ),
        ({"target": "temporal"}, "target='temporal' is no address; say host:port"),
        ({"tsl": True}, r"Temporal\(…, tsl=…\) goes to temporalio\.client\.Client\.connect, which takes api_key, .*, tls"),
        ({"lazy": True}, "lazy=…"),
        ({"target_host": "temporal:7233"}, "target_host=…"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_asked(given: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        Temporal(**given)


async def test_a_key_goes_with_every_request(url: str) -> None:
    async with overheard() as (place, heard):
        app, book = App(url, engine=Temporal(place, api_key="4711", tls=False, rpc_metadata={"x-ours": "1"})), Book()
        app.add(book.reader, name="reader")
        async with app:
            await done(app, [await app.start("reader")])
            await until(lambda: len(heard) > 1, "for hints and for wakes")
    assert {(one["authorization"], one["x-ours"]) for one in heard} == {("Bearer 4711", "1")}


def test_what_its_core_has_to_say_does_not_stand_among_what_a_program_prints(server: TemporalServer, url: str) -> None:
    """It complains of a namespace that is not there. A process of its own, because the first client makes what all share."""
    lines = ["import asyncio", "from ownloop import App", "from ownloop.engines import Temporal", "async def main():"]
    lines += [
        f" async with App({url!r}, engine=Temporal({server.target!r}, namespace='nowhere')):",
        "  await asyncio.sleep(1.5)",
        "asyncio.run(main())",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "") and "Namespace nowhere was not found" in done.stderr


# ---- what Temporal is told -----------------------------------------------------------------------------------------------------


async def test_its_history_holds_ids_and_times_and_nothing_of_what_threads_say(
    server: TemporalServer, engine: Temporal, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "PATIENCE", 20.0)  # every hint arrives
    app = App(url, engine=engine)
    add_writer(app, tmp_path / "lines", 2)
    threads = await tell_everything(app)
    client = await Client.connect(server.target)
    kept = [await client.get_workflow_handle(f"{engine._queue}/{thread}").fetch_history() for thread in threads]
    for thread, history in zip(threads, kept, strict=True):
        assert SECRET.encode() not in b"".join(event.SerializeToString() for event in history.events)
        values = list(payloads(history.to_json_dict()))
        assert thread in values
        assert all(value is None or isinstance(value, float | int) or value == thread for value in values), values


async def test_thousands_of_hints_during_one_wake_leave_a_bounded_history_and_the_server_is_not_taken_for_away(
    server: TemporalServer, engine: Temporal, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    book, app = Book(), App(url, engine=engine)
    for name in ("reader", "waiter"):
        app.add(getattr(book, name), name=name)
    texts = {str(number) for number in range(temporal_server.SIGNALS + 50)}
    async with app:
        thread = await app.start("waiter")
        await until(lambda: book.wakes, "it runs")
        for text in sorted(texts):
            await app.send(thread, text)
        history = await (await Client.connect(server.target)).get_workflow_handle(f"{engine._queue}/{thread}").fetch_history()
        book.gate.set()
        await until(lambda: book.seen.get(thread) == texts, "all is read")
        await done(app, [thread])
    assert 100 < sum(event.HasField("workflow_execution_signaled_event_attributes") for event in history.events) <= temporal_server.SIGNALS
    assert not [record for record in caplog.records if "takes no hints" in record.message]
    assert len(book.wakes) == 2 and not book.overlaps


def payloads(part: Any) -> Iterator[Any]:
    """Every payload in a history, decoded."""
    if isinstance(part, dict) and "metadata" in part and set(part) <= {"metadata", "data"}:
        yield json.loads(base64.b64decode(part.get("data", "")) or "null")
    elif isinstance(part, dict | list):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from payloads(inner)


async def test_a_long_history_goes_on_in_a_new_one(
    server: TemporalServer, engine: Temporal, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporal, "LONG", 30)
    app = App(url, engine=engine)
    add_writer(app, tmp_path / "lines", 8, nap="1ms")
    async with app:
        threads = [await app.start("writer")]
        await done(app, threads)
    runs = [run async for run in (await Client.connect(server.target)).list_workflows(f"WorkflowId = '{engine._queue}/{threads[0]}'")]
    first = (await (await Client.connect(server.target)).get_workflow_handle(runs[-1].id, run_id=runs[-1].run_id).fetch_history()).events
    assert any(event.HasField("workflow_execution_continued_as_new_event_attributes") for event in first)
    assert all(run.history_length <= 60 for run in runs)
    assert effects(tmp_path / "lines") == once(threads, 8)


# ---- faults --------------------------------------------------------------------------------------------------------------------


async def test_a_handler_that_blocks_its_event_loop_is_not_taken_for_dead(server: TemporalServer, engine: Temporal, url: str, tmp_path: Path) -> None:
    app = App(url, engine=engine)
    add_writer(app, tmp_path / "lines", 1, blocks=3.5)
    async with app:
        threads = [await app.start("writer")]
        await done(app, threads)
    assert await attempts(server, engine, threads[0]) == {1}, (
        "Temporal tries nothing again; a hint that the sweep takes for lost is refused by the lease"
    )
    assert effects(tmp_path / "lines") == once(threads, 1)


async def test_a_wake_that_could_not_be_run_is_told_once_in_the_log(engine: Temporal, url: str, caplog: pytest.LogCaptureFixture) -> None:
    await told_once(App(url, engine=engine), caplog)


async def test_workers_that_were_told_another_heartbeat_are_not_taken_for_dead(server: TemporalServer, engine: Temporal, url: str) -> None:
    """The workflow was begun by somebody with a shorter one."""
    book, app = Book(), App(url, engine=Temporal(server.target, task_queue=engine._queue, heartbeat="1m", sweep="10s"))
    app.add(book.waiter, name="waiter")
    teller = App(url, engine=engine)
    thread = await teller.start("waiter")
    async with app:
        await until(lambda: book.wakes, "it runs")
        await asyncio.sleep(2.5)
        book.gate.set()
        await done(app, [thread])
    await teller.aclose()
    assert await attempts(server, engine, thread) == {1}


async def attempts(server: TemporalServer, engine: Temporal, thread: str) -> set[int]:
    """How often Temporal tried a wake."""
    history = await (await Client.connect(server.target)).get_workflow_handle(f"{engine._queue}/{thread}").fetch_history()
    started = [event.activity_task_started_event_attributes for event in history.events if event.HasField("activity_task_started_event_attributes")]
    return {one.attempt for one in started}


async def test_an_overlap_that_temporal_makes_is_refused_by_the_lease_and_counted(
    engine: Temporal, server: TemporalServer, url: str, tmp_path: Path
) -> None:
    """A worker freezes in a tool for longer than its heartbeat may be late: Temporal gives the wake to the other one.

    It has room for one wake, so that it waits for no other while it freezes: Temporal would give it one try after the other.
    """
    options = {"target": server.target, "task_queue": engine._queue, "heartbeat": "1s"}
    path = tmp_path / "lines"
    app = App(url, engine=engine)
    with worker("Temporal", options, url=url, path=path, lease="10m", steps=1, takes=1.0, concurrency=1) as frozen:
        threads = [await app.start("writer")]
        await until(lambda: effects(path.with_suffix(".began")), "the tool runs")
        os.kill(frozen.pid, signal.SIGSTOP)
        add_writer(app, path, 1)
        async with app:
            await until(lambda: engine.refused, "Temporal tries the wake here")
            assert not effects(path)
            os.kill(frozen.pid, signal.SIGCONT)
            await done(app, threads)
    assert effects(path) == effects(path.with_suffix(".began")) == once(threads, 1)


async def test_while_the_server_is_away_nobody_fails_and_threads_go_on(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = Temporal(f"127.0.0.1:{temporal_server.free_port()}", sweep="1s")
    app = App(url, engine=engine)
    add_writer(app, tmp_path / "lines", 3)
    with caplog.at_level(logging.WARNING, "ownloop"):
        async with app:
            threads = [await app.start("writer") for _ in range(3)]
            await app.send(threads[0], "hello")
            await done(app, threads)
    assert sum("takes no hints" in record.message for record in caplog.records) == 1
    assert sum("nothing comes from" in record.message for record in caplog.records) == 1
    assert engine.swept
    assert effects(tmp_path / "lines") == once(threads, 3)


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_server_that_does_not_answer_holds_up_no_end(
    server: TemporalServer, engine: Temporal, url: str, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """It is frozen while a wake runs; or takes connections, and never says a word."""
    monkeypatch.setattr(courier, "LAST_WORDS", 0.5)
    book = Book()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        app = App(url, engine=engine if is_there else Temporal("{}:{}".format(*mute.getsockname()), sweep="250ms"))
        app.add(book.waiter, name="waiter")
        async with app:
            thread = await app.start("waiter")
            await until(lambda: book.wakes, "it runs")
            if is_there:
                server.send_signal(signal.SIGSTOP)
            try:
                closing = asyncio.ensure_future(app.aclose())
                await asyncio.sleep(0.5)
                assert not closing.done(), "it waits for what runs"
                book.gate.set()
                async with asyncio.timeout(10):
                    await closing
            finally:
                server.send_signal(signal.SIGCONT)
    later = App(url)
    assert (await later.show(thread)).status == "done"
    await later.aclose()


async def test_the_server_is_killed_under_load_and_every_effect_happens_once(
    engine: Temporal, server: TemporalServer, url: str, tmp_path: Path
) -> None:
    await killed(engine, server, url, tmp_path, threads=10, steps=3, times=1)


@pytest.mark.soak
async def test_the_server_is_killed_again_and_again(engine: Temporal, server: TemporalServer, url: str, tmp_path: Path) -> None:
    await killed(engine, server, url, tmp_path, threads=100, steps=10, times=5)


async def killed(engine: Temporal, server: TemporalServer, url: str, folder: Path, *, threads: int, steps: int, times: int) -> None:
    app, path = App(url, engine=engine), folder / "lines"
    add_writer(app, path, steps, nap="200ms")
    async with app:
        started = [await app.start("writer") for _ in range(threads)]
        for time in range(times):
            share = threads * steps * (2 * time + 1) // (2 * times + 1)
            await until(lambda share=share: effects(path).total() >= share, f"{share} effects", 120)
            server.kill()
            started.append(await app.start("writer"))
            server.start()
        await done(app, started, 120)
        await until(lambda: hinted_again(app, engine, server, started), "a thread is woken by Temporal again")
        await done(app, started, 120)
    assert effects(path) == once(started, steps)


async def hinted_again(app: App, engine: Temporal, server: TemporalServer, started: list[str]) -> bool:
    started.append(await app.start("writer"))
    await done(app, started[-1:])
    client = await Client.connect(server.target)
    return any([run.id.endswith(started[-1]) async for run in client.list_workflows(f"TaskQueue = '{engine._queue}'")])
