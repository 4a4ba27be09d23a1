"""`ownloop dev` in real processes: the banner, the login, the reload, Ctrl-C and kill -9."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from .programs import AGENT, GROUP, alive, browser, children, quick, running, said, wait


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one program, and with a file that is none."""
    place = tmp_path / "pro ject"
    place.mkdir()
    (place / "agent.py").write_text(AGENT)
    (place / "notes.py").write_text("raise SystemExit('nobody may run this to look for an App')\n")
    return place


def test_it_tells_where_everything_is_and_keeps_its_store(folder: Path) -> None:
    with running(folder, "dev", "-p", "0") as dev:
        inbox = dev.until(r"Inbox +(http://127\.0\.0\.1:\d+/login\?code=\S+)")[1]
        for line in (r"API +http://127\.0\.0\.1:\d+/v1", r"Store +sqlite \./\.ownloop/dev\.db +kept between runs", r"Agents +desk +from agent\.py"):
            dev.until(line)
        assert "Model" in dev.told
        page = browser(inbox).get("/")
        assert page.status_code == 200
        assert "text/html" in page.headers["content-type"]
        assert dev.stop() == 130
    assert (folder / ".ownloop" / ".gitignore").read_text() == "*\n"


def test_it_says_where_the_threads_are_that_the_program_keeps_elsewhere(folder: Path) -> None:
    assert quick(folder, "start", "desk", "deploy", "--app", "agent.py").returncode == 0
    with running(folder, "dev", "-p", "0", "--no-reload") as dev:
        dev.until(r"own store is not shown: --store sqlite:///desk\.db")
    with running(folder, "dev", "-p", "0", "--no-reload", "--store", "sqlite:///desk.db") as dev:
        dev.until("Ctrl-C stops")
        assert "1 open" in dev.told
        assert "is not shown" not in dev.told


def test_the_link_lets_in_one_browser_and_a_look_does_not_use_it_up(folder: Path) -> None:
    with running(folder, "dev", "-p", "0", "--no-reload", "--json") as dev:
        where = dev.where()
        import httpx

        for _ in range(3):
            assert httpx.get(where["login"]).status_code == 200
            assert httpx.head(where["login"]).status_code == 200
        assert httpx.get(where["url"] + "/v1/threads").status_code == 401
        assert browser(where["login"]).get("/v1/threads").json()["items"] == []
        assert httpx.get(where["login"]).status_code == 403


def test_commands_in_its_folder_act_on_its_store_and_it_runs_the_wakes(folder: Path) -> None:
    with running(folder, "dev", "-p", "0", "--no-reload"):
        thread = wait(lambda: quick(folder, "start", "desk", "deploy").stdout.strip())
        waiting = wait(lambda: quick(folder, "inbox", "--jsonl").stdout)
        assert thread.removeprefix("thr_") in waiting
        assert quick(folder, "decide", thread, "approve", "--group", GROUP).returncode == 0
        wait(lambda: '"status": "done"' in quick(folder, "show", thread, "--json").stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_waited_goes_on_after_it_was_stopped(folder: Path, number: int) -> None:
    with running(folder, "dev", "-p", "0", "--json") as first:
        first.where()
        child = children(first.process.pid)
        quick(folder, "start", "desk", "deploy", "--key", "k")
        wait(lambda: quick(folder, "inbox", "--jsonl").stdout)
        assert first.stop(number) == (130 if number == signal.SIGINT else -9)
        wait(lambda: not any(alive(one) for one in child))
    with running(folder, "dev", "-p", "0") as second:
        second.until(r"Threads +1 open go on where they were +1 wait for a person")
        assert quick(folder, "decide", "desk/k", "approve", "--group", GROUP).returncode == 0
        wait(lambda: '"status": "done"' in quick(folder, "show", "desk/k", "--json").stdout)


def test_a_change_starts_it_again_on_the_same_port_with_the_new_code_and_the_same_login(folder: Path) -> None:
    with running(folder, "dev", "-p", "0", "--json") as dev:
        where = dev.where()
        visitor = browser(where["login"])
        (folder / "agent.py").write_text(AGENT.replace(" is over", " is over, says the new code"))
        dev.until(r"agent\.py changed")
        dev.until("ready again")
        assert visitor.get("/v1/threads").status_code == 200
        quick(folder, "start", "desk", "anything", "--key", "k")
        wait(lambda: "says the new code" in quick(folder, "show", "desk/k", "--json").stdout)
        assert dev.told.count("/login?code=") == 1


def test_a_broken_file_is_told_and_mended_without_a_new_start(folder: Path) -> None:
    with running(folder, "dev", "-p", "0", "--json") as dev:
        url = dev.where()["url"]
        (folder / "agent.py").write_text(AGENT + "\nthis is no Python\n")
        dev.until("SyntaxError")
        dev.until("starts again when a file here changes")
        (folder / "agent.py").write_text(AGENT)
        dev.until("ready again")
        import httpx

        assert httpx.get(url + "/healthz").status_code == 200


def test_a_server_that_is_killed_is_started_again(folder: Path) -> None:
    with running(folder, "dev", "-p", "0", "--json") as dev:
        url, pid = dev.where()["url"], dev.where()["pid"]
        assert children(dev.process.pid) == [pid]
        import time

        time.sleep(2.1)  # one that dies at once would be left alone
        os.kill(pid, signal.SIGKILL)
        dev.until("ended by signal 9: starting again")
        dev.until("ready again")
        import httpx

        assert httpx.get(url + "/healthz").status_code == 200


def test_without_reload_there_is_one_process_and_sigterm_ends_it_with_0(folder: Path) -> None:
    with running(folder, "dev", "-p", "0", "--no-reload", "--json") as dev:
        assert dev.where()["pid"] == dev.process.pid
        assert dev.stop(signal.SIGTERM) == 0


def test_ephemeral_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    with running(folder, "dev", "-p", "0", "--ephemeral", TMPDIR=str(tmp_path / "tmp")) as dev:
        dev.until(r"Store +sqlite .* gone at the end")
        assert dev.stop() == 130
    assert not (folder / ".ownloop").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines"),
        (["nowhere.py"], "no file nowhere.py"),
        (["notes.py"], "notes.py"),
        (["--store", "mysql://x"], "names no store"),
    ],
)
def test_what_it_refuses(folder: Path, words: list[str], told: str) -> None:
    (folder / "notes.py").write_text("x = 1\n")
    done = said(folder, "dev", "-p", "0", *words)
    assert done.returncode == 2
    assert told in done.stderr


def test_it_names_the_files_where_several_make_an_app_or_none_does(folder: Path, tmp_path: Path) -> None:
    (folder / "second.py").write_text("from ownloop import App\napp = App('memory://')\n")
    done = said(folder, "dev", "-p", "0")
    assert done.returncode == 2
    assert "agent.py, second.py" in done.stderr
    assert "next:  ownloop dev agent.py" in done.stderr
    none = quick(tmp_path, "dev", "-p", "0")
    assert none.returncode == 2
    assert "ownloop init NAME" in none.stderr


def test_a_port_that_is_taken_is_told_with_the_way_out(folder: Path) -> None:
    with running(folder, "dev", "-p", "0", "--no-reload", "--json") as dev:
        port = dev.where()["url"].rpartition(":")[2]
        done = said(folder, "dev", "-p", port)
    assert done.returncode == 1
    assert "another program listens there; -p 0 takes a free port" in done.stderr
