"""The first page of the tutorial asks its reader to learn at most ten public names."""

from __future__ import annotations

import ast
import re

from page_blocks import DOCS, blocks_of

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
