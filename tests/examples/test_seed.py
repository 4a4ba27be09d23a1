"""examples/seed.py: the seed's listing, executed; people answer by HTTP, through another process."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import seed
import webhooks
from outside import ROOT

from ownloop import App
from ownloop.testing import FakeClock, drive

WISH = "login fails on Safari"


def tool_named(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


seed_diff = tool_named("seed_diff")


@pytest.fixture
def issues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "issues.json"
    path.write_text(json.dumps([{"id": 1, "title": "login page is slow", "description": ""}]))
    monkeypatch.setattr(seed.linear_client, "path", path)
    return path


def titles(issues: Path) -> list[str]:
    return [issue["title"] for issue in json.loads(issues.read_text())]


def kinds(events: Any) -> list[str]:
    return [event.kind + ":" + str(event.op).partition(":")[0] if event.op else event.kind for event in events]


# ---- the listing ---------------------------------------------------------------------------------------------------------------


def test_at_most_eight_lines_of_the_listing_are_changed() -> None:
    assert seed_diff.changed() <= 8


def test_the_listing_keeps_its_names_its_comments_and_its_breaks() -> None:
    ours, theirs = "\n".join(seed_diff.executed()), "\n".join(seed_diff.listing())
    assert ours.count("break\n") + ours.endswith("break") == theirs.count("break\n") + theirs.endswith("break") == 2
    for name in (
        "handle_next_step",
        "determine_next_step(thread_to_prompt(thread))",
        "'request_clarification'",
        "'fetch_open_issues'",
        "'create_issue'",
    ):
        assert name in ours
        assert name in theirs
    assert [line for line in seed_diff.executed() if "#" in line] == [line for line in seed_diff.listing() if "#" in line]


def test_the_count_is_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed_diff, "listing", lambda: ["a", "b", "c", "d"])
    monkeypatch.setattr(seed_diff, "executed", lambda: ["a", "B1", "B2", "c"])
    assert seed_diff.changed() == 3  # one became two, and one went


def test_the_readme_shows_this_diff() -> None:
    block = re.search(r"<!-- seed-diff -->(.*?)<!-- /seed-diff -->", (ROOT / "README.md").read_text(), re.DOTALL)
    if block is not None:
        assert block[1].strip().removeprefix("```diff\n").removesuffix("\n```") == seed_diff.diff()


async def bookkeeping_left_out() -> Any:
    """The listing without the lines that ownloop makes needless: what it appends to `thread.events`, and `db.save_thread`."""
    text = "\n".join(seed_diff.executed())
    text = re.sub(r"thread\.events\.append\(\{\n.*?\}\)\n", "\n", text, flags=re.DOTALL)
    text = text.replace("await db.save_thread(thread)\n", "\n")
    assert "thread.events" not in text and "save_thread" not in text
    made: dict[str, Any] = {**vars(seed)}
    exec(text, made)
    return made["handle_next_step"]


async def test_the_listings_own_bookkeeping_changes_nothing_in_the_log(issues: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = []
    for handler in (seed.handle_next_step, await bookkeeping_left_out()):
        issues.write_text("[]")
        monkeypatch.setattr(seed, "handle_next_step", handler)
        clock = FakeClock()
        async with drive(seed.make_app("memory://", clock), clock) as d:
            thread = await d.start("handle_next_step", WISH)
            await d.settle()
            await d.approve(await d.interrupt(), by=webhooks.TOKENS["ana-token"])
            await d.settle()
            logs.append([(event.kind, event.op, event.data.get("value")) for event in (await d.show(thread)).events])
    assert logs[0] == logs[1]


# ---- what it does --------------------------------------------------------------------------------------------------------------


async def test_the_loop_breaks_twice_and_goes_on_from_the_log(url: str, issues: Path) -> None:
    clock = FakeClock()
    async with drive(seed.make_app(url, clock), clock) as d:
        thread = await d.start("handle_next_step", WISH)
        await d.settle()
        question = await d.interrupt()
        assert (question.kind, question.question) == ("question", "'login page is slow' is open already. What is new in 'login fails on Safari'?")
        await d.answer(question, "the button does nothing", by="ana")
        await d.settle()
        approval = await d.interrupt()
        assert (approval.name, dict(approval.intent)) == ("create_issue", {"title": WISH, "description": "the button does nothing"})
        assert titles(issues) == ["login page is slow"]
        await d.approve(approval, by=webhooks.TOKENS["ana-token"])
        await d.settle()
        view = await d.show(thread)
    assert view.status == "done"
    assert titles(issues) == ["login page is slow", WISH]
    assert [step.name for step in view.steps] == ["fetch_open_issues", "request_clarification", "create_issue"]
    assert [step.name for step in view.steps if step.operations] == [step.name for step in view.steps]


async def test_a_refusal_is_read_by_the_model_which_asks_again(url: str, issues: Path) -> None:
    issues.write_text("[]")
    clock = FakeClock()
    async with drive(seed.make_app(url, clock), clock) as d:
        await d.start("handle_next_step", WISH)
        await d.settle()
        await d.reject(await d.interrupt(), by=webhooks.TOKENS["ana-token"], note="too short")
        await d.settle()
        question = await d.interrupt()
        assert question.question == "ana says: too short. What should the issue say?"
        await d.answer(question, "the button does nothing", by="mia")
        await d.settle()
        await d.approve(await d.interrupt(), by=webhooks.TOKENS["ana-token"])
        await d.settle()
    assert json.loads(issues.read_text()) == [{"id": 1, "title": WISH, "description": "the button does nothing"}]


# ---- through processes ---------------------------------------------------------------------------------------------------------


def agent(url: str, issues: Path) -> None:
    """An agent process, from its start to its end."""
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "examples" / "seed.py"), url, WISH]
    subprocess.run(command, check=True, timeout=30, env={**os.environ, "ISSUES": str(issues), "PYTHONPATH": path}, stdout=subprocess.DEVNULL)


async def test_an_http_request_to_another_process_wakes_an_agent_whose_process_has_ended(kept_url: str, issues: Path) -> None:
    url = kept_url
    with webhooks.serving(url) as webhook:
        agent(url, issues)
        app = App(url)
        (question,) = await app.interrupts()
        said = {"value": "the button does nothing"}
        assert webhooks.post(f"{webhook}/interrupts/{question.id}/answer", said, "nobody")[0] == 401
        assert webhooks.post(f"{webhook}/interrupts/{question.id}/answer", said, "ana-token") == (200, "ok")
        assert webhooks.post(f"{webhook}/interrupts/{question.id}/answer", said, "bob-token")[0] == 409
        assert titles(issues) == ["login page is slow"]
        agent(url, issues)
        (approval,) = await app.interrupts()
        status, why = webhooks.post(f"{webhook}/interrupts/{approval.id}/approve", {}, "bob-token")
        assert (status, "the policy asks for maintainers" in why) == (403, True)
        assert webhooks.post(f"{webhook}/interrupts/{approval.id}/approve", {}, "ana-token") == (200, "ok")
        assert titles(issues) == ["login page is slow"]  # no process is there that could create it
        agent(url, issues)
    view = await app.show(("handle_next_step", "wish-1"))
    await app.aclose()
    assert view.status == "done"
    assert titles(issues) == ["login page is slow", WISH]
    assert kinds(view.events).count("started:run") == 1
