"""docs/recipes/instructor.md, in the environment that `make test` makes for it: instructor and pydantic-ai want different versions of jiter."""

from __future__ import annotations

import asyncio
import json
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from recipe_provider import ROOT, Answer, Provider, openai_calls, recorded, saved

PYTHON = ROOT / ".venv" / "apart" / "instructor" / "bin" / "python"
DEPLOY = {"intent": "deploy", "arguments": {"tag": "v1.4.0", "environment": "production"}}
DONE = {"intent": "done", "arguments": {"message": "v1.4.0 is on production"}}

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="no .venv/apart/instructor; make it with: python tools/venv.py --apart instructor")


def chosen(call: dict[str, Any]) -> Answer:
    return openai_calls(("NextStep", {"call": call}))


async def outcome(answers: list[Answer], folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What became of a thread, and the requests that the provider got."""
    with Provider(answers).serving() as server:
        command = [PYTHON, ROOT / "tests" / "recipes" / "instructor_apart.py", saved("instructor", folder)]
        environment = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": f"{server.url}/v1"}
        done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), server.asked


async def test_it_waits_for_approval_and_ends(tmp_path: Path) -> None:
    thread, asked = await outcome([chosen(DEPLOY), chosen(DONE)], tmp_path)
    assert (thread["status"], thread["result"]) == ("done", "v1.4.0 is on production")
    assert thread["asked"] == [DEPLOY["arguments"]]
    assert "deploy_result" in str(asked[1]), "the second request shows what became of the first choice"


async def test_an_answer_that_does_not_fit_is_asked_for_again_and_every_try_is_counted(tmp_path: Path) -> None:
    wrong = chosen({"intent": "deploy", "arguments": {"tag": "v1.4.0", "environment": "moon"}})
    usage = wrong["body"]["usage"]
    thread, asked = await outcome([wrong, chosen(DONE)], tmp_path)
    (selected,) = [event for event in thread["events"] if event["kind"] == "selected"]
    assert (selected["intent"], len(asked)) == ("done", 2)
    assert selected["usage"]["input_tokens"] == 2 * usage["prompt_tokens"]
    assert "moon" in str(asked[1])


async def test_a_rate_limit_is_a_timer_of_the_length_that_was_asked_for(tmp_path: Path) -> None:
    limited = recorded("other/azure_429_retry_after")
    limited["headers"] |= {"retry-after": "90"}
    thread, _ = await outcome([limited], tmp_path)
    (failure,) = [event for event in thread["events"] if event["kind"] == "model_failed"]
    assert thread["status"] == "open"
    assert failure["retry_at"] / 1e6 - datetime.fromisoformat(failure["at"]).timestamp() == 90


async def test_answers_that_never_fit_fail_the_thread(tmp_path: Path) -> None:
    wrong = chosen({"intent": "land", "arguments": {}})
    thread, asked = await outcome([wrong] * 5, tmp_path)
    assert (thread["status"], len(asked)) == ("failed", 3)
