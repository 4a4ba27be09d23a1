"""`ownloop worker`: how many handlers at once, and what an orchestrator is told of it."""

from __future__ import annotations

import http.client
import json
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from ownloop.stores.postgres import connect

from .conftest import DESK, Run, Terminal

PROGRAM = """
import asyncio
from pathlib import Path
from ownloop import App, Thread

app = App("sqlite:///agents.db", concurrency=50)
running = 0

@app.agent
async def counted(thread: Thread) -> int:
    global running
    running += 1
    most = running
    for _ in range(10):
        await asyncio.sleep(0.02)
        most = max(most, running)
    running -= 1
    with Path("most").open("a") as file:
        file.write(f"{most}\\n")
"""


def port_of(worker: Terminal) -> int:
    _, line = worker.until("probes at port")
    return int(line.partition("probes at port ")[2].partition(";")[0])


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.mark.parametrize(("words", "most"), [(("--concurrency", "3"), 3), ((), 12)])
def test_it_runs_as_many_handlers_at_once_as_it_is_told(
    terminal: Callable[..., Terminal], run: Run, url: str, tmp_path: Path, words: tuple[str, ...], most: int
) -> None:
    (tmp_path / "counted.py").write_text(PROGRAM)
    for _ in range(12):
        run("start", "counted", "--store", url)
    terminal("worker", "counted.py", "--store", url, *words).until("serving counted")
    file = tmp_path / "most"
    until(lambda: file.exists() and len(file.read_text().split()) == 12, "all have run")
    assert max(map(int, file.read_text().split())) == most


def test_no_handler_at_all_is_no_worker(run: Run) -> None:
    said = run("worker", DESK, "--concurrency", "0")
    assert said.code == 2
    assert "Invalid value for '--concurrency'" in said.err


def test_it_says_that_it_lives_and_whether_it_takes_work(terminal: Callable[..., Terminal]) -> None:
    worker = terminal("worker", DESK, "--health", "0")
    port = port_of(worker)
    assert ask(port, "/healthz") == (200, '{"status": "ok"}')
    assert ask(port, "/readyz") == (200, '{"status": "ok"}')
    assert ask(port, "/readyz", "HEAD") == (200, "")
    assert ask(port, "/") == (404, '{"status": "only /healthz and /readyz are here"}')
    assert ask(port, "/readyz", "POST")[0] == 405
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(10) == 0


def test_a_worker_whose_store_is_gone_is_alive_and_not_ready(terminal: Callable[..., Terminal], url: str) -> None:
    worker = terminal("worker", DESK, "--health", "127.0.0.1:0")
    port = port_of(worker)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as db:
        db.execute("ALTER TABLE threads RENAME TO gone")
    status, said = ask(port, "/readyz")
    assert (status, json.loads(said)["status"]) == (503, "unavailable")
    assert ask(port, "/healthz")[0] == 200


@pytest.fixture
def later(postgres_url: str, tmp_path: Path) -> tuple[str, Callable[[], None]]:
    """The URL of a server that is not there yet, and what brings it."""
    place = connect.parse(postgres_url)
    options = psycopg.conninfo.conninfo_to_dict(place.conninfo)
    url = f"postgresql://{options['user']}@/{options['dbname']}?host={tmp_path}/s&schema={place.schema}"
    return url, lambda: (tmp_path / "s").symlink_to(str(options["host"]))


def test_a_worker_waits_for_a_server_that_is_not_there_yet(terminal: Callable[..., Terminal], later: tuple[str, Callable[[], None]]) -> None:
    url, bring = later
    worker = terminal("worker", DESK, "--health", "0", "--store", url)
    port = port_of(worker)
    assert "cannot be reached" in worker.lines[0][1]
    assert ask(port, "/healthz")[0] == 200
    status, said = ask(port, "/readyz")
    assert (status, json.loads(said)["why"]) == (503, "it has not reached its store yet")
    bring()
    worker.until("serving")
    until(lambda: ask(port, "/readyz")[0] == 200, "it takes work")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(10) == 0


@pytest.mark.parametrize("words", [("worker", DESK), ("serve", DESK, "--port", "0")])
def test_who_waits_for_a_server_can_be_told_to_stop(
    terminal: Callable[..., Terminal], later: tuple[str, Callable[[], None]], words: tuple[str, ...]
) -> None:
    waiting = terminal(*words, "--store", later[0])
    waiting.until("trying again for 60 s")
    waiting.process.send_signal(signal.SIGTERM)
    assert waiting.process.wait(10) == 0


def test_what_time_does_not_mend_is_not_waited_for(run: Run, postgres_url: str) -> None:
    said = run("worker", DESK, "--store", postgres_url.replace("/postgres?", "/nowhere?"))
    assert said.code == 1 and 'database "nowhere" does not exist' in said.err and "trying again for" not in said.err


@pytest.mark.parametrize("where", ["here", "host:", "70000"])
def test_a_place_that_is_none_is_refused_with_the_way_to_say_it(run: Run, where: str) -> None:
    said = run("worker", DESK, "--health", where)
    assert said.code == 2
    assert f"--health {where}: say PORT or HOST:PORT" in said.err
