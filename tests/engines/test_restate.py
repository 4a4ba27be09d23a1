"""The Restate engine keeps every promise of an engine, on a cluster of three nodes, and tells it nothing but ids and times."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "stores"))
import postgres_server
import restate_cluster
from engine_trials import SECRET, add_writer, done, effects, once, overheard, tell_everything, told_once, until, worker
from restate_cluster import Cluster
from temporal_server import free_port

from ownloop import App
from ownloop.engines import Restate, courier, restate
from ownloop.testing import EngineContract
from ownloop.testing.engine_scene import Book

_services = count()
# hypercorn 0.18 drops a coroutine when a connection closes while the server stops.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'TCPServer._idle_timeout' was never awaited")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    yield from restate_cluster.served()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/a.db"


@pytest.fixture
def options(cluster: Cluster) -> dict[str, Any]:
    """Of an engine with a service and a port of its own."""
    listen = f"127.0.0.1:{free_port()}"
    return {"ingress": cluster.ingress, "admin": cluster.admin, "listen": listen, "name": f"test{next(_services)}", "sweep": "1s"}


class TestRestateOnPostgres(EngineContract):
    @pytest.fixture(autouse=True)
    def _schema(self, options: dict[str, Any]) -> Iterator[None]:
        self.url, self.options = postgres_server.empty_url(), options
        yield
        postgres_server.done_with(self.url)

    def make_app(self, **options: Any) -> App:
        return App(self.url, engine=Restate(**self.options), **options)


@pytest.mark.soak
class TestRestateOnSqlite(EngineContract):
    @pytest.fixture(autouse=True)
    def _place(self, options: dict[str, Any], url: str) -> None:
        self.url, self.options = url, options

    def make_app(self, **options: Any) -> App:
        return App(self.url, engine=Restate(**self.options), **options)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ingress": "restate:8080"}, r"ingress='restate:8080' is no address; say http://host:port, or https://"),
        ({"ingress": ["http://one:8080", "two:8080"]}, "ingress='two:8080' is no address"),
        ({"ingress": []}, r"ingress=\[\] is no address"),
        ({"admin": "restate:9070"}, "admin='restate:9070' is no address"),
        ({"listen": "9080"}, "listen='9080' is no address; say host:port, as in 127.0.0.1:9080"),
        ({"listen": "127.0.0.1:0"}, "listen='127.0.0.1:0' is no address"),
        (
            {"listen": "0.0.0.0:9080"},
            r"listen='0\.0\.0\.0:9080' is every address of this machine; say also at which it is called: url='http://workers:9080'",
        ),
        ({"listen": "[::]:9080"}, "is every address of this machine"),
        ({"url": "workers:9080"}, "url='workers:9080' is no address"),
        ({"name": "our agents"}, "name='our agents': a service of Restate is named by a letter"),
        ({"identity_keys": ["nonsense"]}, "publickeyv1_"),
        ({"headers": {"Authorization": 4711}}, "Header value must be str"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_asked(given: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        Restate(**given)


def test_a_right_option_is_taken() -> None:
    Restate(listen="0.0.0.0:9080", url="http://workers:9080/ownloop")
    Restate("https://restate.internal", admin=None, listen="[::]:9080", name="our-agents.v2")


async def test_a_key_goes_with_every_request_and_a_refusal_is_told_in_the_servers_words(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with overheard() as (place, heard):
        engine = Restate(f"http://{place}", admin=f"http://{place}", listen=f"127.0.0.1:{free_port()}", headers={"Authorization": "Bearer 4711"})
        app, book = App(url, engine=engine), Book()
        app.add(book.reader, name="reader")
        async with app:
            await done(app, [await app.start("reader")])
            await until(lambda: len(heard) > 1, "both were asked")
    assert {one["authorization"] for one in heard} == {"Bearer 4711"}
    assert "takes no hints (HTTPStatusError: 403 not you)" in caplog.text and "could not be told of the workers" in caplog.text


# ---- what Restate is told ------------------------------------------------------------------------------------------------------


async def test_its_tables_hold_ids_and_times_and_nothing_of_what_threads_say(
    cluster: Cluster, options: dict[str, Any], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "PATIENCE", 20.0)  # every hint arrives
    monkeypatch.setattr(restate, "PATIENCE", 20.0)
    monkeypatch.setattr(restate, "RETRIES", replace(restate.RETRIES, initial_interval=timedelta(seconds=2)))  # time enough to look
    service, seen = options["name"], list[str]()
    app = App(url, engine=Restate(**options))
    await register(cluster, options, url)
    add_writer(app, tmp_path / "lines", 2, nap="600ms")
    looking = asyncio.ensure_future(look(cluster, service, seen))
    threads = await tell_everything(app)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    everything = "".join(seen)
    assert SECRET not in everything
    assert all(thread in everything for thread in threads)
    assert "could not be run; the worker's log says why" in everything, "errors were seen, and what they say"
    assert not cluster.query(f"SELECT * FROM state WHERE service_name = '{service}'")
    kept = cluster.query(f"SELECT id FROM sys_invocation WHERE target_service_name = '{service}' AND status = 'completed'")
    assert not kept, "nothing is kept of wakes that have ended"


async def look(cluster: Cluster, service: str, seen: list[str]) -> None:
    """Everything that Restate knows of this service while it runs: invocations with their errors, journals, and what waits."""
    while True:
        for query in (f"sys_invocation WHERE target_service_name = '{service}'", f"sys_inbox WHERE service_name = '{service}'", "sys_journal"):
            seen.append(json.dumps(await asyncio.to_thread(cluster.query, f"SELECT * FROM {query}")))
        await asyncio.sleep(0.1)


async def register(cluster: Cluster, options: dict[str, Any], url: str) -> None:
    """Have the service known, as it is after the first start of a worker."""
    async with App(url, engine=Restate(**options)):
        await until(lambda: cluster.query(f"SELECT * FROM sys_service WHERE name = '{options['name']}'"), "the service is registered")


# ---- what stays there ----------------------------------------------------------------------------------------------------------


async def test_a_thread_that_hears_much_while_it_sleeps_has_one_timer_there_and_not_one_for_each_wake(
    cluster: Cluster, options: dict[str, Any], url: str
) -> None:
    app, book = App(url, engine=Restate(**options)), Book()
    app.add(book.sleeper, name="sleeper")
    async with app:
        await until(lambda: cluster.query(f"SELECT * FROM sys_service WHERE name = '{options['name']}'"), "the service is registered")
        thread = await app.start("sleeper", "7d")
        for number in range(20):
            await app.send(thread, str(number))
            await until(lambda number=number: str(number) in book.seen.get(thread, ()), "it is read")
        query = f"SELECT id FROM sys_invocation WHERE target_service_name = '{options['name']}' AND status"
        await until(lambda: not cluster.query(f"{query} <> 'scheduled'"), "nothing runs")
        assert len(cluster.query(f"{query} = 'scheduled'")) <= 2, "one, or its neighbour a tenth of a second away"


async def test_the_server_follows_workers_that_move_and_settings_that_change(cluster: Cluster, options: dict[str, Any], url: str) -> None:
    """To another address, and back to the one that it knew; and what `longest` says at an address that it knows."""
    book, moved = Book(), {**options, "listen": f"127.0.0.1:{free_port()}"}
    for number, (place, longest) in enumerate([(options, "1d"), (options, "2h"), (moved, "2h"), (options, "2h")]):
        engine = Restate(**{**place, "sweep": "10s", "longest": longest})
        app = App(url, engine=engine)
        app.add(book.reader, name="reader")
        query = f"SELECT revision FROM sys_service WHERE name = '{options['name']}' AND revision > {number}"
        async with app:
            await until(lambda query=query: cluster.query(query), "it is registered")
            started = time.monotonic()
            await done(app, [await app.start("reader")])
            assert time.monotonic() - started < 5 and not engine.swept, "by the server"
        (known,) = cluster.query(
            f"SELECT endpoint FROM sys_deployment d JOIN sys_service s ON s.deployment_id = d.id WHERE s.name = '{options['name']}'"
        )
        assert str(place["listen"]) in str(known["endpoint"])
        with urllib.request.urlopen(f"{cluster.admin}/services/{options['name']}") as answer:
            assert json.load(answer)["abort_timeout"] == longest


async def test_a_server_that_has_lost_what_it_was_told_is_told_again(
    cluster: Cluster, options: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody took its deployments away, or its disk."""
    monkeypatch.setattr(courier, "RETRY", 0.2)
    monkeypatch.setattr(restate, "RETRY", 0.2)
    app, book = App(url, engine=(engine := Restate(**options))), Book()
    app.add(book.reader, name="reader")
    known = f"SELECT deployment_id FROM sys_service WHERE name = '{options['name']}'"
    async with app:
        (service,) = await until(lambda: cluster.query(known), "it is registered")
        request = urllib.request.Request(f"{cluster.admin}/deployments/{service['deployment_id']}?force=true", method="DELETE")
        await asyncio.to_thread(lambda: urllib.request.urlopen(request).close())
        await until(lambda: not cluster.query(known), "it is forgotten")
        await done(app, [await app.start("reader")])
        assert "takes no hints (HTTPStatusError: 404" in caplog.text and f"service '{options['name']}' not found" in caplog.text
        await until(lambda: cluster.query(known), "it is registered again")
        await until(lambda: takes_hints_again(app, caplog), "it takes hints again")
        swept = engine.swept
        await done(app, [await app.start("reader")])
        assert engine.swept == swept, "by the server"


async def takes_hints_again(app: App, caplog: pytest.LogCaptureFixture) -> bool:
    await done(app, [await app.start("reader")])
    return "takes hints again" in caplog.text


async def test_two_stores_that_share_a_place_are_told_of_it(
    cluster: Cluster, options: dict[str, Any], url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel gives each of Restate's connections to one of them."""
    other = App(f"sqlite:///{tmp_path}/other.db", engine=Restate(**{**options, "name": "another"}))
    async with other:
        await until(lambda: cluster.query("SELECT * FROM sys_service WHERE name = 'another'"), "it is registered")
        engine = Restate(**{**options, "listen": f"127.0.0.1:{free_port()}", "url": f"http://{options['listen']}"})
        async with App(url, engine=engine):
            words = f"there is another, and not {options['name']}: two stores on one machine need a listen= each"
            await until(lambda: words in caplog.text, "it is said")


async def test_a_wake_that_could_not_be_run_is_told_once_in_the_log(
    options: dict[str, Any], cluster: Cluster, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await register(cluster, options, url)
    await told_once(App(url, engine=Restate(**{**options, "sweep": "10s"})), caplog)


async def test_addresses_may_end_with_a_slash(cluster: Cluster, options: dict[str, Any], url: str) -> None:
    engine = Restate(**{**options, "ingress": f"{cluster.ingress[0]}/", "admin": f"{cluster.admin}/", "sweep": "10s"})
    app, book = App(url, engine=engine), Book()
    app.add(book.reader, name="reader")
    async with app:
        await until(lambda: cluster.query(f"SELECT * FROM sys_service WHERE name = '{options['name']}'"), "the service is registered")
        await done(app, [await app.start("reader")], 5)
    assert not engine.swept


# ---- faults --------------------------------------------------------------------------------------------------------------------


async def test_a_handler_that_blocks_its_event_loop_is_not_taken_for_dead(
    cluster: Cluster, options: dict[str, Any], url: str, tmp_path: Path
) -> None:
    """The cluster of the tests gives a connection up after 3 s without an answer. A young one places its logs anew and calls again what it
    was calling, which the lease refuses: then this is tried once more."""
    await register(cluster, options, url)
    seen = []
    for attempt in range(6):
        engine, path = Restate(**options), tmp_path / f"lines{attempt}"
        app = App(f"{url}{attempt}", engine=engine)
        add_writer(app, path, 1, takes=1.0, blocks=4.5)  # the hint has been answered by then
        async with app:
            await until(lambda engine=engine: engine._is_known, "the server has been told of this worker")
            threads = [await app.start("writer")]
            await done(app, threads)
        assert effects(path) == effects(path.with_suffix(".began")) == once(threads, 1)
        seen.append((engine.refused, engine.swept))
        if seen[-1] == (0, 0):
            return
    raise AssertionError(f"overlaps refused, wakes by the sweep: {seen}")


async def test_an_overlap_that_restate_makes_is_refused_by_the_lease_and_counted(
    cluster: Cluster, options: dict[str, Any], url: str, tmp_path: Path
) -> None:
    """A wake takes longer than `longest`: Restate gives it up (after 5 s of its own) and tries it again while it runs."""
    await register(cluster, {**options, "longest": "200ms"}, url)
    engine = Restate(**options, longest="200ms")
    app = App(url, engine=engine)
    path = tmp_path / "lines"
    add_writer(app, path, 1, takes=8.0)
    async with app:
        threads = [await app.start("writer")]
        await done(app, threads)
    assert engine.refused
    assert effects(path) == effects(path.with_suffix(".began")) == once(threads, 1)


async def test_a_worker_that_dies_is_replaced_by_one_behind_the_same_address(options: dict[str, Any], url: str, tmp_path: Path) -> None:
    path, engine = tmp_path / "lines", Restate(**options)
    app = App(url, engine=engine, lease="2s")
    with worker("Restate", options, url=url, path=path, lease="2s", steps=3, takes=0) as first:
        threads = [await app.start("writer") for _ in range(5)]
        await until(lambda: effects(path), "it works")
        add_writer(app, path, 3)
        async with app:
            os.kill(first.pid, signal.SIGKILL)
            await until(lambda: in_doubt_or_done(app, threads), "all end or ask")
    assert all(times == 1 for times in effects(path).values())


async def in_doubt_or_done(app: App, threads: list[str]) -> bool:
    """A call that the kill cut off is asked about: here the file knows."""
    asked = {one.thread_id for one in await app.interrupts(kind="in_doubt")}
    rows = [await app.store.thread(thread) for thread in threads]
    return all(row is not None and (row.status == "done" or row.id in asked) for row in rows)


async def test_hints_that_restate_takes_and_never_delivers_are_a_delay(cluster: Cluster, options: dict[str, Any], url: str, tmp_path: Path) -> None:
    await register(cluster, options, url)
    engine = Restate(**{**options, "listen": f"127.0.0.1:{free_port()}", "admin": None, "sweep": "500ms"})
    app = App(url, engine=engine)
    add_writer(app, tmp_path / "lines", 1)
    async with app:
        threads = [await app.start("writer")]
        await done(app, threads)
    assert engine.swept
    assert effects(tmp_path / "lines") == once(threads, 1)


async def test_while_the_cluster_is_away_nobody_fails_and_threads_go_on(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    away = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    engine = Restate(away, admin=away[0], listen=f"127.0.0.1:{free_port()}", sweep="1s")
    app = App(url, engine=engine)
    add_writer(app, tmp_path / "lines", 3)
    with caplog.at_level(logging.WARNING, "ownloop"):
        async with app:
            threads = [await app.start("writer") for _ in range(3)]
            await app.send(threads[0], "hello")
            await done(app, threads)
    assert sum("takes no hints" in record.message for record in caplog.records) == 1
    assert sum("could not be told of the workers" in record.message for record in caplog.records) == 1
    assert engine.swept
    assert effects(tmp_path / "lines") == once(threads, 3)


async def test_a_node_is_killed_under_load_and_every_effect_happens_once(cluster: Cluster, options: dict[str, Any], url: str, tmp_path: Path) -> None:
    await killed(cluster, options, url, tmp_path, threads=15, steps=3, nodes=[1])


@pytest.mark.soak
async def test_every_node_is_killed_in_turn(cluster: Cluster, options: dict[str, Any], url: str, tmp_path: Path) -> None:
    await killed(cluster, options, url, tmp_path, threads=100, steps=10, nodes=[0, 1, 2, 0, 1, 2])


async def killed(cluster: Cluster, options: dict[str, Any], url: str, folder: Path, *, threads: int, steps: int, nodes: list[int]) -> None:
    app, path = App(url, engine=Restate(**options)), folder / "lines"
    add_writer(app, path, steps, nap="100ms")
    async with app:
        started = [await app.start("writer") for _ in range(threads)]
        for place, number in enumerate(nodes):
            share = threads * steps * (2 * place + 1) // (2 * len(nodes) + 1)
            await until(lambda share=share: effects(path).total() >= share, f"{share} effects", 120)
            cluster.nodes[number].kill()
            started.append(await app.start("writer"))
            await done(app, started[-1:], 60)
            cluster.nodes[number].start()
            await asyncio.to_thread(cluster.wait)
        await done(app, started, 120)
        ended = time.monotonic()
    assert time.monotonic() - ended < restate.LAST_WORDS + 10, "calls of nodes that are gone do not hold up the end"
    assert effects(path) == once(started, steps)
