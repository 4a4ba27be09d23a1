"""The first page of the tutorial asks its reader to learn at most ten public names, and names that the pages tell are there."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
from page_blocks import DOCS, ROOT, blocks_of

from ownloop import App, Intent, Interrupt, Outcome, Step, Thread

HOLDERS = (App, Thread, Step, Outcome, Interrupt, Intent)
ATTRIBUTES = {name for holder in HOLDERS for name in dir(holder) if not name.startswith("_")} | {"id", "name", "key", "context", "deps"}


def names_of(program: str) -> set[str]:
    """The public names of ownloop that a program uses: what it imports from there, attributes that are ours, and keywords it gives to ours."""
    tree = ast.parse(program)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "ownloop" for alias in node.names}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES}
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in imported | used
    ]
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    given = {word.arg for node in calls if getattr(node.func, "id", "") not in own for word in node.keywords if word.arg}
    return imported | used | given


def test_page_one_uses_at_most_ten_public_names() -> None:
    page = DOCS / "tutorial" / "first.md"
    names = set.union(*(names_of(block.text) for block in blocks_of(page) if block.language == "python"))
    assert {"App", "Intent", "Thread", "agent", "next_step", "intent", "approved", "run"} <= names
    assert len(names) <= 10, sorted(names)
    told = re.search(r"## What you know now\n\n(.*?names)", page.read_text(encoding="utf-8"), re.DOTALL)
    assert told is not None
    said = {name.rpartition(".")[2] for name in re.findall(r"`@?([\w.]+)`", told[1])}
    assert said | {"by"} == names


def test_what_counts_as_a_name() -> None:
    program = "import os\nfrom ownloop import App\napp = App('x', lease='1s')\nos.getpid()\napp.start('a')\nprint('a', end='')\n"
    assert names_of(program) == {"App", "lease", "start"}


FILES = {"ownloop.toml", "ownloop.json"}
SQL = {"ownloop.append", "ownloop.emit", "ownloop.send"}
"""Functions in Postgres."""
TOLD = re.compile(r"`(ownloop(?:\.\w+)+)")


def missing(page: str) -> list[str]:
    """The dotted names of ours in a page's inline code that cannot be had."""
    return sorted(name for name in set(TOLD.findall(page)) - FILES - SQL if not is_there(name))


def is_there(name: str) -> bool:
    """Whether it is a module, or an attribute of what is before its last dot."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        place, _, last = name.rpartition(".")
        return bool(place) and is_there(place) and hasattr(importlib.import_module(place), last)
    return True


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.name)
def test_a_name_that_a_page_tells_is_there(page: Path) -> None:
    assert missing(page.read_text(encoding="utf-8")) == []


def test_a_name_that_is_not_there_is_found() -> None:
    assert missing("`ownloop.server.webhooks.Hooks`, `ownloop.toml`, `ownloop.testing.drive(app)`, `ownloop.server.Hooks`") == [
        "ownloop.server.Hooks"
    ]
