"""deploy/: the commands of the compose file and the container file, run here without containers."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from operated import BIN, DEPLOY, ROOT, Operator, database, until_it_answers
from postgres_server import server_folder  # lies beside the tests of the stores

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if name != "postgres"}
INSTRUCTIONS = [line.split(maxsplit=1) for line in (DEPLOY / "Containerfile").read_text().splitlines() if line.strip() and not line.startswith("#")]


def instructions(name: str) -> list[str]:
    return [rest for word, rest in INSTRUCTIONS if word == name]


# ---- the container file ------------------------------------------------------------------------------------------------------


def test_the_image_has_two_stages_and_runs_as_nobody_in_particular() -> None:
    stages = [place for place, (word, _) in enumerate(INSTRUCTIONS) if word == "FROM"]
    assert len(stages) == 2
    last = [word for word, _ in INSTRUCTIONS[stages[1] :]]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instructions("USER")[-1]), "a number: a runtime can see that it is not root"
    assert last.index("USER") < last.index("ENTRYPOINT")
    assert "RUN" not in last, "nothing is built in the stage that runs"


def test_no_command_goes_through_a_shell() -> None:
    for name in ("RUN", "ENTRYPOINT", "CMD"):
        assert all(isinstance(json.loads(command), list) for command in instructions(name))
    for service in SERVICES.values():
        assert isinstance(service.get("command", []), list)
        assert service.get("healthcheck", {"test": ["CMD"]})["test"][0] == "CMD"


def test_what_the_image_copies_exists() -> None:
    copied = {path for rest in instructions("COPY") if not rest.startswith("--from") for path in shlex.split(rest)[:-1]}
    assert [path for path in copied if not (ROOT / path).exists()] == []
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored and {line[1:] for line in ignored if line.startswith("!")} == copied, "and nothing else is sent to the engine"


def test_the_image_can_be_built_from_what_is_here(tmp_path: Path) -> None:
    """Its RUN lines, in another folder; pip is not to download anything here, so only the project itself is installed."""
    make, install = (json.loads(command) for command in instructions("RUN"))
    moved = {"/venv": str(tmp_path / "venv"), "/venv/bin/python": sys.executable}
    subprocess.run([sys.executable if word == "python" else moved.get(word, word) for word in [*make, "--without-pip"]], check=True)
    extras = install[-1].removeprefix("/build")
    command = [moved.get(word, word) for word in install[:-1]]
    offline = ["--dry-run", "--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed", "--report", "-", "--quiet"]
    done = subprocess.run([*command, *offline, f"{ROOT}{extras}"], capture_output=True, text=True, check=True, cwd=tmp_path)
    (built,) = json.loads(done.stdout)["install"]
    assert built["metadata"]["name"] == "ownloop"
    assert set(built["requested_extras"]) <= set(built["metadata"]["provides_extra"])


# ---- the compose file --------------------------------------------------------------------------------------------------------


def test_ours_may_write_nothing_and_become_nobody_else() -> None:
    for service in OURS.values():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
    assert all("healthcheck" in SERVICES[name] for name in ("postgres", "server", "worker"))


def test_what_waits_for_what_exists() -> None:
    for service in SERVICES.values():
        for name, condition in service.get("depends_on", {}).items():
            assert "healthcheck" in SERVICES[name] or condition["condition"] == "service_completed_successfully"


def test_a_database_that_is_still_being_made_is_not_healthy() -> None:
    """The image's first server answers on its socket and nowhere else, and stops again: who waits for a healthy one must not meet it."""
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "PGHOST": str(server_folder()), "PGPORT": "5432"}
    words = SERVICES["postgres"]["healthcheck"]["test"][1:]
    assert subprocess.run(["pg_isready"], env=environment, capture_output=True).returncode == 0, "it is there"
    with socket.socket() as free:  # where nobody listens
        free.bind(("127.0.0.1", 0))
        done = subprocess.run([*words, f"--port={free.getsockname()[1]}"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "127.0.0.1" in done.stdout


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with database("composed") as url:
        told = {name: value for name, value in OURS["worker"]["environment"].items() if name != "OWNLOOP_STORE"}
        yield Operator(tmp_path, {**told, "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1", "OWNLOOP_STORE": url, "OWNLOOP_APP": ""})


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def here(words: list[str], folder: Path, ports: dict[str, str]) -> list[str]:
    """A command of the compose file, with this machine's paths and free ports."""
    moved = {"/venv/bin/python": sys.executable, "/app/agents.py": str(folder / "agents.py"), "0.0.0.0": "127.0.0.1", **ports}
    return [re.sub(r"(?<=:)(8470|8471)\b", lambda port: ports[port[0]], moved.get(word, word)) for word in words]


def healthy(service: str, folder: Path, ports: dict[str, str]) -> bool:
    test = here(SERVICES[service]["healthcheck"]["test"][1:], folder, ports)
    return subprocess.run(test, capture_output=True, check=False, timeout=20).returncode == 0


def until_it_says(operator: Operator, line: str, what: str) -> None:
    end = time.monotonic() + 60
    while what not in operator.run(line).stdout:
        assert time.monotonic() < end, f"{line} does not say {what}: {operator.run(line)}"
        time.sleep(0.1)


def test_the_services_start_pass_their_health_checks_and_carry_a_thread_to_its_end(operator: Operator) -> None:
    folder = operator.folder
    with ExitStack() as stack:
        migrated = operator.run(shlex.join(["ownloop", *SERVICES["migrate"]["command"]]))
        assert migrated.returncode == 0, migrated.stderr
        server_ports = {"8470": free_port(), "8471": free_port()}
        assert not healthy("server", folder, server_ports), "nobody is there yet"
        words = here(SERVICES["server"]["command"], folder, server_ports)
        server = stack.enter_context(operator.serving(words, OTEL_EXPORTER_PROMETHEUS_PORT=free_port()))
        until_it_answers(f"http://127.0.0.1:{server_ports['8470']}/readyz", server)
        assert healthy("server", folder, server_ports)
        scrapes = []
        for _ in range(SERVICES["worker"]["deploy"]["replicas"]):
            ports, scrape = {"8470": free_port(), "8471": free_port()}, free_port()
            words = here(SERVICES["worker"]["command"], folder, ports)
            worker = stack.enter_context(operator.serving(words, OTEL_EXPORTER_PROMETHEUS_PORT=scrape))
            until_it_answers(f"http://127.0.0.1:{ports['8471']}/readyz", worker)
            assert healthy("worker", folder, ports)
            scrapes.append(f"http://127.0.0.1:{scrape}/metrics")
        started = operator.run("ownloop start deploybot 'deploy v1.4.0' --key monday")
        assert started.returncode == 0, started.stdout + started.stderr
        until_it_says(operator, "ownloop inbox --json", "approval")
        decided = operator.run("ownloop decide deploybot/monday approve --as ann --group ops")
        assert decided.returncode == 0, decided.stdout + decided.stderr
        until_it_says(operator, "ownloop show deploybot/monday --json", '"status": "done"')
        assert "v1.4.0 deployed" in operator.run("ownloop show deploybot/monday --events").stdout
        end, measured = time.monotonic() + 30, ""
        while "ownloop_wake_lag_seconds_count" not in measured:  # the log is written first, then it is measured
            assert time.monotonic() < end, measured
            time.sleep(0.1)
            measured = "".join(urllib.request.urlopen(url, timeout=5).read().decode() for url in scrapes)


def test_the_server_refuses_other_machines_before_somebody_could_be_known(operator: Operator) -> None:
    done = operator.run(shlex.join(["ownloop", *SERVICES["server"]["command"]]))
    assert done.returncode == 2
    assert "token create" in done.stderr
