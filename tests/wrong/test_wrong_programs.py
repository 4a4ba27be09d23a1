"""Programs with the mistakes that people really make: each is told so in the words of its page, which docs/errors.md shows."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from wrong_program import FOLDER, PAGES, answer, read

from ownloop import App, Thread
from ownloop.testing import FakeClock, drive

ROOT = FOLDER.parent.parent


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("errors_page", ROOT / "tools" / "errors_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_wrong_program_is_told_what_its_page_says(path: Path) -> None:
    page = read(path)
    assert answer(page) == page.said


def test_there_are_at_least_forty_and_none_is_met_with_silence() -> None:
    assert len(PAGES) >= 40
    assert [path.stem for path in PAGES if not read(path).said] == []


async def test_an_approval_that_is_awaited_after_a_call_beside_it_has_begun_is_no_mistake() -> None:
    clock = FakeClock()
    app, done = App("memory://", clock=clock), []

    def build() -> None:
        done.append("built")

    @app.agent
    async def bot(thread: Thread) -> str:
        step = thread.step("release")
        await asyncio.gather(step.run(build), step.approved(by="ops"))
        return "released"

    async with drive(app, clock) as d:
        thread = await d.start(bot)
        await d.settle()
        await d.approve(await d.interrupt(), by="ops")
        await d.settle()
        assert ((await d.show(thread)).result, done) == ("released", ["built"])


def test_docs_errors_md_is_made_of_these_pages() -> None:
    shown = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert shown == tool().page(), "run: python tools/errors_page.py > docs/errors.md"
