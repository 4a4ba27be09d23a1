"""The site is built without a warning and needs no network; its links lead somewhere; every public name is in the reference."""

from __future__ import annotations

import fcntl
import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from page_blocks import DOCS, ROOT
from sphinx.util.inventory import InventoryFile

MODULES = ["ownloop", *(f"ownloop.{name}" for name in ("llm", "testing", "server", "server.webhooks", "telemetry", "engines", "prompt", "errors"))]
VERBS = """start send emit approve edit reject respond answer hold release_hold pause resume cancel retry close fork show threads interrupts stream
    open on agent add run aclose"""
THREAD = "next_step each step append compact turn input events steps unread errors_in_a_row prompt_tokens usage count"
STEP = "intent proposed decision approved request_approval ask request_answer run result_approved wait_for sleep spawn join named close"
CONTRACT = {
    *(f"ownloop.App.{name}" for name in VERBS.split()),
    *(f"ownloop.Thread.{name}" for name in THREAD.split()),
    *(f"ownloop.Step.{name}" for name in STEP.split()),
    *(f"ownloop.events.{name}" for name in ("Delta", "Progress")),
    *(f"ownloop.views.{name}" for name in ("ThreadView", "StepView", "Operation")),
    *(f"ownloop.prompt.{name}" for name in ("thread_to_prompt", "hide_resolved_errors", "keep_last_results", "token_budget", "redact", "View")),
    *(f"ownloop.testing.Drive.{name}" for name in ("settle", "advance", "interrupt")),
    *("ownloop.intents.UnknownIntent", "ownloop.step.Child", "ownloop.history.Usage", "ownloop.interrupts.Vote", "ownloop.tools.ErrorInfo"),
    *("ownloop.testing.FakeClock.advance", "ownloop.Decision.granted", "ownloop.client.Client", "ownloop.tools.Call"),
    *(f"ownloop.errors.{name}" for name in importlib.import_module("ownloop.errors").__dict__ if name[0].isupper() and name.isidentifier()),
}
"""What ownloop's contract names beside the `__all__` of its modules."""
NOT_OURS = {"ownloop.errors.Any", "ownloop.errors.Iterable", "ownloop.errors.Sequence", "ownloop.errors.TYPE_CHECKING"}


class Page(HTMLParser):
    """What a page loads, what it points at, and the places in it that can be pointed at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places.add(given.get("id", ""))
        if tag == "a":
            self.links.append(given.get("href", ""))
        elif not (tag == "link" and given.get("rel") in ("next", "prev", "index", "search", "canonical")):
            self.loads += [given[name] for name in ("src", "href", "srcset", "data", "poster") if name in given]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once, also where several processes share the tests."""
    is_shared = "PYTEST_XDIST_WORKER" in os.environ
    folder = tmp_path_factory.getbasetemp().parent / "site" if is_shared else tmp_path_factory.mktemp("site")
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = folder / "said.txt"
        if not said.exists():
            ours = [sys.executable, "-m", "sphinx", "-j2", "-W", "--keep-going", "-q", "-d", folder / "trees", DOCS, folder / "html"]
            done = subprocess.run(ours, capture_output=True, text=True, check=False, cwd=ROOT)
            said.write_text(f"{done.stdout}{done.stderr}" if done.returncode else "", encoding="utf-8")
    assert said.read_text(encoding="utf-8") == ""
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_is_in_the_site(site: Path) -> None:
    assert [page for page in DOCS.rglob("*.md") if not (site / page.relative_to(DOCS)).with_suffix(".html").exists()] == []


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    foreign = re.compile(r"^([a-z]+:)?//")
    assert [(path.name, what) for path, page in pages.items() for what in page.loads if foreign.match(what)] == []
    styled = re.compile(r"""(?:url\(|@import)\s*["']?\s*(?:https?:)?//""")
    assert [path.name for path in site.rglob("*.css") if styled.search(path.read_text(encoding="utf-8"))] == []
    fetched = re.compile(r"""(?:fetch|import|importScripts|XMLHttpRequest)\s*\(\s*["'`](?:https?:)?//""")
    assert [path.name for path in site.rglob("*.js") if fetched.search(path.read_text(encoding="utf-8"))] == []


def test_links_inside_lead_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    lost = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            file, _, place = unquote(link).partition("#")
            if re.match(r"^[a-z]+:", link) or not link:
                continue
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            if not target.is_file() or (place and target in pages and place not in pages[target].places):
                lost.append((path.relative_to(site), link))
    assert lost == []


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    there = {name for kind in inventory.data if kind.startswith("py:") for name in inventory.data[kind]}
    public = {f"{module}.{name}" for module in MODULES for name in getattr(importlib.import_module(module), "__all__", ())}
    assert sorted((public | CONTRACT) - NOT_OURS - there) == []


@pytest.mark.parametrize("name", ["Event", "ThreadView", "StepView", "Interrupt", "Decision", "ApprovalPolicy", "Usage"])
def test_the_fields_of_values_are_in_the_reference(site: Path, name: str) -> None:
    from dataclasses import fields

    from ownloop import history, views

    text = "".join((site / "reference" / f"{page}.html").read_text(encoding="utf-8") for page in ("values", "people"))
    holder = next(module for module in (importlib.import_module("ownloop"), views, history) if hasattr(module, name))
    assert [field.name for field in fields(getattr(holder, name)) if not re.search(rf">{field.name}<", text)] == []


def test_the_reference_of_routes_and_commands_is_generated(site: Path) -> None:
    routes, commands = (re.sub(r"<[^>]+>", "", (site / "reference" / f"{page}.html").read_text(encoding="utf-8")) for page in ("http", "cli"))
    assert "POST /v1/interrupts/{id}/decision" in routes
    assert all(f"ownloop {name}" in commands for name in ("start", "decide", "token create"))


TOPICS = """approval questions time in-doubt chat children plan-then-act own-prompt judge-and-compaction limits-and-budgets testing fastapi
    postgres-and-engines security telemetry"""


@pytest.mark.parametrize("topic", TOPICS.split())
def test_a_guide_says_what_happens_when_and_what_it_does_not_do(topic: str) -> None:
    page = (DOCS / "guide" / f"{topic}.md").read_text(encoding="utf-8")
    assert re.search(r"^## What (happens when|is in doubt)", page, re.MULTILINE)
    assert "## What it does not do" in page
    assert len(page.splitlines()) <= 190
