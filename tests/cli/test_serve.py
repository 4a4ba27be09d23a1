"""`ownloop serve` in real processes: for others, stateless, and never by accident without a door."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook

from .conftest import SOURCE, environment
from .programs import AGENT, GROUP, browser, quick, running, said, wait

STORE = "sqlite:///t.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "agent.py").write_text(AGENT)
    return tmp_path


def token(folder: Path, *words: str) -> str:
    done = quick(folder, "token", "create", "ann", "--scope", "admin", "--group", GROUP, "--store", STORE, *words)
    return done.stdout.strip()


def test_the_store_alone_is_enough_to_decide_and_a_worker_elsewhere_goes_on(folder: Path) -> None:
    quick(folder, "start", "desk", "deploy", "--key", "k", "--store", STORE, "--app", "agent.py", "--wait")
    with running(folder, "serve", "-p", "0", "--store", STORE, "--json") as server, running(folder, "worker", "agent.py", "--store", STORE):
        client = httpx.Client(base_url=server.where()["url"], headers={"Authorization": f"Bearer {token(folder)}"})
        (waiting,) = client.get("/v1/interrupts").json()["items"]
        done = client.post(f"/v1/interrupts/{waiting['id']}/decision", json={"decision": "approve", "digest": waiting["digest"]})
        assert done.status_code == 200, done.text
        wait(lambda: '"status": "done"' in quick(folder, "show", "desk/k", "--json", "--store", STORE).stdout)
        assert server.where()["worker"] is False


def test_with_worker_it_runs_wakes_and_the_login_link_works_here(folder: Path) -> None:
    with running(folder, "serve", "agent.py", "-p", "0", "--store", STORE, "--worker", "--json") as server:
        visitor = browser(server.where()["login"])
        quick(folder, "start", "desk", "nothing", "--store", STORE)
        wait(lambda: [one["status"] for one in visitor.get("/v1/threads").json()["items"]] == ["done"])


def test_other_machines_are_let_in_only_where_somebody_can_be_known(folder: Path) -> None:
    public = ("serve", "--host", "0.0.0.0", "-p", "0", "--store", STORE)
    refused = said(folder, *public)
    assert refused.returncode == 2
    assert "can be reached from other machines" in refused.stderr
    assert "ownloop token create NAME" in refused.stderr
    secret = token(folder)
    with running(folder, *public, "--known-as", "inbox.example.com", "--json") as server:
        where = server.where()
        assert where["login"] is None
        port = where["url"].rpartition(":")[2]
        there = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{there}/v1/threads").status_code == 401
        bearer = {"Authorization": f"Bearer {secret}"}
        assert httpx.get(f"{there}/v1/threads", headers={**bearer, "Host": "inbox.example.com"}).status_code == 200
        assert httpx.get(f"{there}/v1/threads", headers={**bearer, "Host": "evil.example.com"}).status_code >= 400


def test_a_proxy_is_a_door_and_counts_from_its_network_alone(folder: Path) -> None:
    public = ("serve", "--host", "0.0.0.0", "-p", "0", "--store", STORE, "--json")
    said_by_proxy = {"X-Forwarded-User": "ann", "X-Forwarded-Groups": GROUP}
    with running(folder, *public, "--proxy", "127.0.0.0/8") as ours, running(folder, *public, "--proxy", "10.0.0.0/8") as other:
        urls = [f"http://127.0.0.1:{one.where()['url'].rpartition(':')[2]}" for one in (ours, other)]
        assert [httpx.get(f"{url}/v1/threads", headers=said_by_proxy).status_code for url in urls] == [200, 401]
        assert httpx.get(f"{urls[0]}/v1/threads").status_code == 401


def test_insecure_says_it_and_only_then_the_link_works_from_elsewhere(folder: Path) -> None:
    with running(folder, "serve", "--host", "0.0.0.0", "-p", "0", "--store", STORE, "--insecure", "--json") as server:
        assert "/login?code=" in server.where()["login"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_in_order_also_while_somebody_listens(folder: Path, number: int, code: int) -> None:
    quick(folder, "start", "desk", "deploy", "--key", "k", "--store", STORE)
    with running(folder, "serve", "agent.py", "--worker", "-p", "0", "--store", STORE, "--json") as server:
        headers = {"Authorization": f"Bearer {token(folder)}"}
        (thread,) = httpx.get(server.where()["url"] + "/v1/threads", headers=headers).json()["items"]
        with httpx.stream("GET", server.where()["url"] + f"/v1/threads/{thread['id']}/stream", headers=headers) as stream:
            assert stream.status_code == 200
            next(stream.iter_lines())
            assert server.stop(number) == code
    assert quick(folder, "doctor", "--store", STORE).returncode == 0


def test_what_runs_ends_first(folder: Path) -> None:
    with running(folder, "serve", "agent.py", "--worker", "-p", "0", "--store", STORE, "--json") as server:
        server.where()
        thread = quick(folder, "start", "desk", "train", "--store", STORE).stdout.strip()
        wait(lambda: "selected" in quick(folder, "show", thread, "--events", "--store", STORE).stdout)
        assert server.stop(signal.SIGTERM) == 0
    findings = json.loads(quick(folder, "doctor", "--store", STORE, "--json").stdout)["findings"]
    assert {one["kind"] for one in findings} <= {"unserved"}  # no lease is held, no call in doubt; it may have waited long for a worker


def test_logs_are_json_where_the_environment_says_so(folder: Path) -> None:
    with running(folder, "serve", "agent.py", "--worker", "-p", "0", "--store", STORE, "-q", OWNLOOP_LOG_FORMAT="json") as server:
        wait(lambda: (folder / "t.db").exists())
        quick(folder, "start", "desk", "nothing", "--store", STORE)
        server.until('"message"')
        lines = [json.loads(line) for line in server.told.splitlines()]
        assert {"time", "level", "logger", "message"} <= set(lines[0])


def test_a_worker_needs_agents(folder: Path) -> None:
    done = said(folder, "serve", "--worker", "--store", STORE)
    assert done.returncode == 2
    assert "name their App" in done.stderr


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "jinja2"])
@pytest.mark.parametrize("words", [["dev", "agent.py"], ["serve", "--store", STORE], ["demo"], ["token", "list", "--store", STORE]])
def test_without_the_extra_it_says_which_one_is_missing(folder: Path, name: str, words: list[str]) -> None:
    if name != "fastapi" and words[0] != "dev":
        return
    done = without(name, folder, *words)
    assert done.returncode == 2
    assert 'pip install "ownloop[server]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_driver_for_the_store_it_says_which_extra_brings_it(folder: Path) -> None:
    done = without("psycopg", folder, "threads", "--store", "postgresql://localhost/nowhere")
    assert done.returncode == 2
    assert "next:  pip install 'ownloop[postgres]'" in done.stderr
    assert "Traceback" not in done.stderr


def without(name: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command where a package is not installed."""
    block = folder / "block"
    block.mkdir()
    (block / "sitecustomize.py").write_text(
        "import sys\nclass Block:\n    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {name!r}:\n            raise ModuleNotFoundError(name, name=name)\nsys.meta_path.insert(0, Block())\n"
    )
    env = {**environment(STORE), "PYTHONPATH": f"{block}{os.pathsep}{SOURCE}"}
    return subprocess.run([sys.executable, "-m", "ownloop", *words], cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_hooks_that_stand_beside_the_app_are_served_and_metrics_when_it_is_measured(folder: Path) -> None:
    secret = "whsec_" + base64.b64encode(b"x" * 32).decode()
    hook = f"""
from ownloop.server.webhooks import Emit, Hooks
hooks = Hooks()
@hooks.on("shop", secrets={secret!r})
def shop(request):
    return Emit("paid", request.body)
"""
    (folder / "agent.py").write_text(AGENT + hook)
    with running(folder, "serve", "agent.py", "-p", "0", "--store", STORE, "--json", OWNLOOP_OTEL="1", OTEL_METRICS_EXPORTER="none") as server:
        there, now = server.where()["url"], datetime.now(UTC)
        headers = {"webhook-id": "1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": Webhook(secret).sign("1", now, "{}")}
        taken = httpx.post(f"{there}/v1/hooks/shop", content=b"{}", headers=headers)
        assert (taken.status_code, taken.json()) == (200, {"is_new": True}), taken.text
        assert httpx.post(f"{there}/v1/hooks/shop", content=b"{} ", headers=headers).status_code == 401
