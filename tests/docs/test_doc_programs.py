"""Every block of every page is run, in order, in an empty folder, and prints what the page shows; what is only shown says why."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from page_blocks import DOCS, ROOT, blocks_of
from page_runs import PageRun, Zygote

ELSEWHERE = {
    "recipes/": "tests/recipes",
    "patterns/": "tests/llm",
    "gate/": "tests/docs/test_gates.py",
    "coming-from-langgraph.md": "tests/docs/test_from_langgraph.py",
    "errors.md": "tests/wrong",
    "operations.md": "tests/deploy",
}
"""Pages whose blocks other tests run."""
PAGES = [
    path for path in sorted(DOCS.rglob("*.md")) if not any(str(path.relative_to(DOCS)).startswith(start) for start in ELSEWHERE) and blocks_of(path)
]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


def empty_database(name: str) -> str:
    """A database of its own, as a reader would make one."""
    sys.path.insert(0, str(ROOT / "tests" / "stores"))
    from postgres_server import server_url

    with psycopg.connect(server_url(), autocommit=True) as db:
        db.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        db.execute(f"CREATE DATABASE {name}".encode())
    return urlsplit(server_url())._replace(path=f"/{name}").geturl()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS).with_suffix("")))
def test_a_page_does_what_it_says(page: Path, zygote: Zygote, tmp_path: Path) -> None:
    needs_postgres = "DATABASE_URL" in page.read_text(encoding="utf-8")
    read_through(page, zygote, tmp_path, **({"DATABASE_URL": empty_database("docs_page")} if needs_postgres else {}))


def read_through(page: Path, zygote: Zygote, tmp_path: Path, **environment: str) -> None:
    """Do what the page says, in an empty folder."""
    folder = tmp_path / "reader"
    folder.mkdir()
    run = PageRun(zygote, folder, **environment)
    for number, block in enumerate(blocks_of(page)):
        if block.mark is None and not block.language.startswith("{"):
            assert block.name or block.language in ("python", "console"), f"line {block.line}: run it, or say why not: <!-- not run: reason -->"
            run.run(number, block)


@pytest.mark.parametrize("pages", ELSEWHERE)
def test_pages_that_other_tests_run_have_such_tests(pages: str) -> None:
    if (DOCS / pages).exists():
        tests = ROOT / ELSEWHERE[pages]
        sources = [tests] if tests.is_file() else [*tests.glob("*.py")]
        assert any(pages.rstrip("/").removesuffix(".md") in source.read_text(encoding="utf-8") for source in sources)


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```python\nprint('a')\n```\n\n```text\nb\n```\n", "prints\na"),
        ("```python\nprint('a')\n```\n", "prints\na"),
        ("```python\nraise LookupError('x')\n```\n", "ended with 1"),
        ("```console\n$ echo a\nb\n```\n", "prints\na"),
        ("```console\n$ python -c 'import sys; sys.exit(3)'\n$ echo b\nb\n```\n", "ended with 3; the page does not show it"),
        ("```console\n$ cat missing.txt\n```\n", "missing.txt"),
        ("```json\n{}\n```\n", "run it, or say why not"),
    ],
)
def test_a_page_that_says_something_else_is_found(page: str, complaint: str, zygote: Zygote, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(page)
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        read_through(tmp_path / "page.md", zygote, tmp_path)


def test_what_a_page_may_leave_open(zygote: Zygote, tmp_path: Path) -> None:
    program = "print('thr_3ABC took 3.1 s')\nprint('one')\nprint('two')\nprint('end')\n"
    said = "thr_7XYZ took 12 ms\n…\ne…d\n"
    (tmp_path / "page.md").write_text(f"<!-- not run: shown -->\n```json\n{{}}\n```\n\n```python\n{program}```\n\n```text\n{said}```\n")
    read_through(tmp_path / "page.md", zygote, tmp_path)
