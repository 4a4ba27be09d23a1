"""docs/operations.md: every command in it is run against a real PostgreSQL, and every name in it exists."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import socket
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from operated import ROOT, Operator, database, until_it_answers
from prometheus_client.parser import text_string_to_metric_families

from ownloop import App, InDoubt, Thread, errors
from ownloop import engines as engine_names
from ownloop.doctor import FindingKind
from ownloop.telemetry.metrics import Metering
from ownloop.telemetry.prometheus import metrics_text, prometheus_reader

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?^( *)```sh\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, str]]:
    """(section, line) of every command that can be run here."""
    for match in BLOCK.finditer(PAGE):
        section = re.findall(r"^## (.*)$", PAGE[: match.start()], re.MULTILINE)[-1]
        if match[1] is None:
            yield from ((section, line) for line in textwrap.dedent(match[3]).splitlines())


def test_what_is_not_run_needs_a_container_engine_and_nothing_else_does() -> None:
    shown = [line.strip() for match in BLOCK.finditer(PAGE) if match[1] for line in match[3].splitlines()]
    assert shown and all(line.startswith("docker compose ") for line in shown)
    assert [line for _, line in commands() if not re.match(r"(ownloop|pg_dump|pg_restore|psql|sqlite3) ", line)] == []


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with database("operated") as url, database("restored") as restored:
        yield Operator(tmp_path_factory.mktemp("operations"), {"OWNLOOP_STORE": url, "RESTORED": restored})


async def with_trouble(url: str) -> None:
    """One thread that waits, one that failed, one with a call in doubt, as an earlier program left them."""

    def deploy(tag: str) -> str:
        raise InDoubt("the reply was lost")

    app = App(url)

    @app.agent
    async def deploybot(thread: Thread) -> str:
        if thread.key == "tuesday":
            raise ConnectionError("the registry is down")
        step = thread.step("deploy")
        if thread.key == "wednesday":
            await step.run(deploy, "v1")
        await step.approved(by="ops")
        return "done"

    async with app, asyncio.timeout(60):
        for key in ("monday", "tuesday", "wednesday"):
            await app.start(deploybot, "deploy v1", key=key)
        while len(await app.interrupts()) < 2 or not await app.threads(status="failed"):
            await asyncio.sleep(0.05)


def test_every_command_works_in_the_order_of_the_page(operator: Operator) -> None:
    troubled, ran = False, 0
    for section, line in commands():
        if section != "Starting" and not troubled:
            asyncio.run(with_trouble(operator.variables["OWNLOOP_STORE"]))
            prepared = operator.run("ownloop start deploybot 'deploy v2' --key file --wait --store sqlite:///agents.db")
            assert prepared.returncode == 10, prepared.stderr
            troubled = True
        check(operator, section, line)
        ran += 1
    assert ran > 20
    archived = [json.loads(line) for line in (operator.folder / "archive.ndjson").read_text().splitlines()]
    assert len({event["thread"] for event in archived}) == 3, "the archive has every thread"


def check(operator: Operator, section: str, line: str) -> None:
    words = shlex.split(line)
    if words[:2] in (["ownloop", "serve"], ["ownloop", "worker"]):
        return check_service(operator, words[1:])
    done = operator.run(line)
    finds = words[:2] == ["ownloop", "doctor"] and "sqlite" not in line
    assert done.returncode == (1 if finds else 0), f"{section}: {line}: {done.stdout}{done.stderr}"
    if finds:
        assert "ConnectionError: the registry is down" in done.stdout, "what was restored is what was saved"
    return None


def check_service(operator: Operator, words: list[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(port) if word == "8470" else word for word in words]
    with operator.serving(words if words[0] == "serve" else [*words, "--health", str(port)]) as process:
        until_it_answers(f"http://127.0.0.1:{port}/readyz", process)


# ---- names -----------------------------------------------------------------------------------------------------------------


def scraped() -> set[str]:
    """Every name that a scrape can show: all instruments, each used once."""
    reader = prometheus_reader()
    metering = Metering(MeterProvider(metric_readers=[reader], shutdown_on_exit=False).get_meter("test"))
    for instrument in vars(metering).values():
        for use in ("record", "add", "set"):
            if hasattr(instrument, use) and hasattr(instrument, "_measurement_consumer"):
                getattr(instrument, use)(1)
    assert any(isinstance(one, Histogram) for one in vars(metering).values())
    return {sample.name for family in text_string_to_metric_families(metrics_text(reader)) for sample in family.samples}


def test_what_to_alarm_on_is_measured() -> None:
    known = scraped()
    named = set(re.findall(r"\b(?:ownloop|gen_ai)_[a-z_]+\b", PAGE)) - {"ownloop_app", "ownloop_pgq"}
    assert len(named) >= 8
    assert [name for name in named if name not in known and f"{name}_bucket" not in known] == []
    assert "no_such_metric_total" not in known


def test_every_kind_of_finding_is_explained_and_no_other() -> None:
    table = PAGE.partition("| finding |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(typing.get_args(FindingKind))


def test_the_engines_of_the_page_are_those_that_exist() -> None:
    table = PAGE.partition("| engine |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)\(", table, re.MULTILINE)) == set(engine_names.__all__)
    program, _ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["app"].store.url.startswith("postgresql://")


def test_the_errors_and_the_files_that_it_names_exist() -> None:
    assert hasattr(errors, "NewerSchema") and "`NewerSchema`" in PAGE
    links = re.findall(r"\]\((?!http)([^)#]+)", PAGE)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert [name for name in ("deploy/agents.py", "deploy/compose.yaml") if not (ROOT / name).exists() or name not in PAGE] == []


def test_a_folder_can_be_restored_by_hand(tmp_path: Path) -> None:
    """The SQLite copy is whole: it holds what was only in the write-ahead log."""
    operator = Operator(tmp_path, {"OWNLOOP_STORE": "sqlite:///agents.db"})

    async def kept() -> str:
        app = App(f"sqlite:///{tmp_path}/agents.db")
        await app.start("deploybot", "deploy v1", key="open")
        done = operator.run('sqlite3 agents.db ".backup agents.backup.db"')
        assert done.returncode == 0, done.stderr
        await app.aclose()
        copy = App(f"sqlite:///{tmp_path}/agents.backup.db")
        (row,) = await copy.threads()
        await copy.aclose()
        return str(row.key)

    assert asyncio.run(kept()) == "open"
