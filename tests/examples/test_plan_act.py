"""examples/plan_act.py: two phases with different deciders in one short handler."""

from __future__ import annotations

import ast
from pathlib import Path

import plan_act
import pytest

from ownloop.testing import FakeClock, drive


@pytest.fixture
def untidy(tmp_path: Path) -> Path:
    folder = tmp_path / "untidy"
    folder.mkdir()
    for name in ("notes.txt", "photo.jpg", "README"):
        (folder / name).write_text(name)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_the_plan_is_made_once_and_carried_out_step_by_step_once_a_person_agreed(url: str, untidy: Path) -> None:
    clock = FakeClock()
    async with drive(plan_act.make_app(url, clock), clock) as d:
        thread = await d.start("tidy", str(untidy))
        await d.settle()
        (untidy / "late.txt").write_text("it is in no plan")
        await d.answer(await d.interrupt(), "yes", by="mia")
        await d.settle()
        view = await d.show(thread)
        assert view.result == "3 files moved"
        assert [event.op for event in view.events if event.kind == "outcome"] == ["run:plan", "run:move", "run:move", "run:move"]
    assert files(untidy) == ["jpg/photo.jpg", "late.txt", "other/README", "txt/notes.txt"]


async def test_without_a_yes_nothing_moves(url: str, untidy: Path) -> None:
    clock = FakeClock()
    async with drive(plan_act.make_app(url, clock), clock) as d:
        thread = await d.start("tidy", str(untidy))
        await d.settle()
        await d.answer(await d.interrupt(), "no", by="mia")
        await d.settle()
        assert (await d.show(thread)).result == "nothing moved"
    assert files(untidy) == ["README", "notes.txt", "photo.jpg"]


def test_the_handler_has_at_most_twenty_lines() -> None:
    tree = ast.parse(Path(plan_act.__file__).read_text())
    (handler,) = (node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef) and node.name == "tidy")
    assert handler.end_lineno is not None
    assert handler.end_lineno - handler.lineno + 1 <= 20
