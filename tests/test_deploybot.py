"""examples/deploybot.py on real git repositories: every way it can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ownloop import Actor, App
from ownloop.testing import Drive, FakeClock, ScriptedModel, crash_everywhere, drive

ROOT = Path(__file__).resolve().parent.parent
REQUEST = "deploy the backend to production"
MIA = Actor("mia", ["release-managers"])


def git(repository: Path, *arguments: str) -> None:
    identity = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        identity |= {f"GIT_{who}_NAME": "test", f"GIT_{who}_EMAIL": "test@example.org"}
    subprocess.run(["git", "-C", repository, *arguments], check=True, capture_output=True, env={"PATH": os.environ["PATH"], **identity})


def release(repository: Path, *tags: str) -> None:
    for tag in tags:
        (repository / "VERSION").write_text(tag)
        git(repository, "add", ".")
        git(repository, "commit", "-m", tag)
        git(repository, "tag", tag)


@pytest.fixture(scope="module")
def bot() -> ModuleType:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import deploybot
    finally:
        sys.path.pop(0)
    return deploybot


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "the backend"  # with a space in it
    path.mkdir()
    git(path, "init", "-b", "main")
    release(path, "v1.2.0", "v1.9.0", "v1.10.0", "v2.0.0-rc.1", "nightly")
    return path


@pytest.fixture
def at(bot: ModuleType, repository: Path, tmp_path: Path) -> Any:
    return bot.Repository(repository, tmp_path / "environments")


@asynccontextmanager
async def driven(bot: ModuleType, at: Any, decide: Any = None) -> AsyncIterator[Drive]:
    clock = FakeClock()
    async with drive(bot.make_app("memory://", at, decide, clock=clock), clock) as d:
        yield d


async def started(d: Drive, request: str = REQUEST) -> tuple[str, Any]:
    thread = await d.start("deploybot", request)
    await d.settle()
    return thread, await d.interrupt()


async def result(d: Drive, thread: str) -> str:
    await d.settle()
    view = await d.show(thread)
    assert view.status == "done", view
    return view.result


def live(at: Any, environment: str = "production") -> str | None:
    place = at.environments / environment / "VERSION"
    return place.read_text() if place.exists() else None


async def test_nothing_is_deployed_before_somebody_agrees(bot: ModuleType, at: Any) -> None:
    async with driven(bot, at) as d:
        thread, waiting = await started(d)
        assert (waiting.name, waiting.intent) == ("deploy_backend", {"tag": "v1.10.0", "environment": "production"})
        assert live(at) is None
        await d.approve(waiting, by=MIA)
        assert await result(d, thread) == "The backend on production stands at v1.10.0."
        assert live(at) == "v1.10.0"


async def test_without_an_environment_it_asks(bot: ModuleType, at: Any) -> None:
    async with driven(bot, at) as d:
        thread, waiting = await started(d, "deploy the backend")
        assert waiting.kind == "question"
        await d.answer(waiting, "to staging please, not the newest but 1.9.0", by="jo")
        await d.settle()
        await d.approve(await d.interrupt(), by=MIA)
        assert await result(d, thread) == "The backend on staging stands at v1.9.0."
        assert live(at, "staging") == "v1.9.0"


async def test_two_environments_in_one_request_are_not_guessed_between(bot: ModuleType, at: Any) -> None:
    async with driven(bot, at) as d:
        assert (await started(d, "deploy to staging, not to production"))[1].kind == "question"


async def test_a_tag_that_does_not_exist_is_asked_about(bot: ModuleType, at: Any) -> None:
    async with driven(bot, at) as d:
        _, waiting = await started(d, "deploy v9.9.9 to prod")
        assert waiting.question == "There is no tag v9.9.9. The newest are v2.0.0-rc.1, v1.10.0, v1.9.0, v1.2.0. Which one?"
        await d.answer(waiting, "v1.9.0", by="jo")
        await d.settle()
        assert (await d.interrupt()).intent["tag"] == "v1.9.0"


async def test_an_edit_deploys_what_the_person_wrote(bot: ModuleType, at: Any) -> None:
    async with driven(bot, at) as d:
        thread, waiting = await started(d)
        await d.edit(waiting, {"tag": "v1.9.0", "environment": "staging"}, by=MIA)
        assert await result(d, thread) == "The backend on staging stands at v1.9.0."
        assert (live(at), live(at, "staging")) == (None, "v1.9.0")


async def test_a_refusal_ends_it_and_its_words_are_kept(bot: ModuleType, at: Any) -> None:
    async with driven(bot, at) as d:
        thread, waiting = await started(d)
        await d.reject(waiting, by=MIA, note="freeze until Monday")
        assert await result(d, thread) == "Not deployed: mia refused v1.10.0 to production (freeze until Monday)."
        assert live(at) is None


async def test_a_refusal_that_names_another_version_is_followed(bot: ModuleType, at: Any) -> None:
    async with driven(bot, at) as d:
        thread, waiting = await started(d)
        await d.reject(waiting, by=MIA, note="too new, take v1.9.0")
        await d.settle()
        await d.approve(await d.interrupt(), by=MIA)
        assert await result(d, thread) == "The backend on production stands at v1.9.0."


async def test_a_response_is_the_end(bot: ModuleType, at: Any) -> None:
    async with driven(bot, at) as d:
        thread, waiting = await started(d)
        await d.respond(waiting, "done by hand", by=MIA)
        assert await result(d, thread) == "Not deployed; mia answered: done by hand"


async def test_who_is_no_release_manager_cannot_approve(bot: ModuleType, at: Any) -> None:
    from ownloop.errors import NotAllowed

    async with driven(bot, at) as d:
        _, waiting = await started(d)
        with pytest.raises(NotAllowed, match="jo may not decide"):
            await d.approve(waiting, by="jo")


async def test_three_failures_in_a_row_are_asked_about(bot: ModuleType, at: Any, repository: Path) -> None:
    async with driven(bot, at) as d:
        thread, _ = await started(d)
        git(repository, "tag", "-d", "v1.10.0")
        for _ in range(3):
            await d.approve(await d.interrupt(), by=MIA)
            await d.settle()
        waiting = await d.interrupt()
        assert waiting.question == "Deploying v1.10.0 to production failed 3 times in a row (there is no tag v1.10.0). Shall I try again?"
        await d.answer(waiting, "yes", by="jo")
        await d.settle()
        assert (await d.interrupt()).kind == "approval"
        for _ in range(3):
            await d.approve(await d.interrupt(), by=MIA)
            await d.settle()
        await d.answer(await d.interrupt(), "no, leave it", by="jo")
        assert await result(d, thread) == "I gave up deploying v1.10.0 to production: there is no tag v1.10.0"
        assert live(at) is None


async def test_a_folder_that_is_no_repository_is_given_up(bot: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    async with driven(bot, bot.Repository(tmp_path / "empty", tmp_path / "environments")) as d:
        thread = await d.start("deploybot", REQUEST)
        assert "not a git repository" in await result(d, thread)


async def test_the_next_turn_reads_only_its_own_words(bot: ModuleType, at: Any) -> None:
    async with driven(bot, at) as d:
        thread, waiting = await started(d, "deploy v1.9.0 to staging")
        await d.approve(waiting, by=MIA)
        await result(d, thread)
        await d.send(thread, "and now production")
        await d.settle()
        assert (await d.interrupt()).intent == {"tag": "v1.10.0", "environment": "production"}


async def test_any_decider_fits(bot: ModuleType, at: Any) -> None:
    script = [bot.DeployBackend(tag="v1.2.0", environment="staging"), bot.Done(message="by a model")]
    async with driven(bot, at, ScriptedModel(script)) as d:
        thread, waiting = await started(d, "whatever")
        await d.approve(waiting, by=MIA)
        assert await result(d, thread) == "by a model"
        assert live(at, "staging") == "v1.2.0"


async def test_a_death_at_any_append_deploys_once_and_asks_nobody(bot: ModuleType, repository: Path, tmp_path: Path) -> None:
    at = []

    async def scenario(d: Drive) -> None:
        thread, waiting = await started(d)
        await d.approve(waiting, by=MIA)
        await d.settle()
        made = len(list((at[-1].environments / "releases").glob("*.json")))
        assert ((await d.show(thread)).status, live(at[-1]), made) == ("done", "v1.10.0", 1)

    def make_app(url: Any, clock: FakeClock) -> App:
        if not at or url != at[-1].url:
            at.append(bot.Repository(repository, tmp_path / f"environments {len(at)}"))
            at[-1].url = url
        return bot.make_app(url, at[-1], clock=clock)

    report = await crash_everywhere(scenario, make_app, url="memory://")
    assert (report.lost, report.asked) == ([], [])
    assert report.starts["deploy"] <= 2  # a second start only after verify has found nothing
    assert report.runs > 15


DEPLOY = """
import asyncio, os, signal, sys, time
sys.path.insert(0, sys.argv[1])
import deploybot
from ownloop.tools import Call, running
at = deploybot.Repository(sys.argv[2], sys.argv[3])
switch = at._switch
def at_the_moment(release):
    if sys.argv[4] == "after":
        switch(release)
    os.kill(os.getpid(), signal.SIGKILL)
at._switch = at_the_moment
running.set(Call("the key", "thr", "stp", lambda: False, print))
at.deploy("v1.9.0", "production")
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_verify_knows_on_which_side_of_the_switch_a_process_was_killed(bot: ModuleType, at: Any, repository: Path, moment: str) -> None:
    call = [sys.executable, "-c", DEPLOY, ROOT / "examples", repository, at.environments, moment]
    assert subprocess.run(call, check=False).returncode == -signal.SIGKILL
    if moment == "before":
        assert at.verify("the key") == bot.NotHappened()
        assert live(at) is None
    else:
        assert at.verify("the key") == bot.Happened(str(at.standing("production")))
        assert live(at) == "v1.9.0"
        replace(bot, at, "v1.10.0", "another key")
        assert at.verify("the key").value.startswith("v1.9.0 ")  # it did happen, though another stands there now


def replace(bot: ModuleType, at: Any, tag: str, key: str) -> None:
    from ownloop.tools import Call, running

    before = running.set(Call(key, "thr", "stp", lambda: False, print))
    try:
        at.deploy(tag, "production")
    finally:
        running.reset(before)
    assert at.standing("production").tag == tag


def test_the_same_key_deploys_once_more_after_a_half_done_check_out(bot: ModuleType, at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(at, "_switch", unable)
        with pytest.raises(OSError, match="no space"):
            replace(bot, at, "v1.9.0", "k")
    replace(bot, at, "v1.9.0", "k")
    replace(bot, at, "v1.9.0", "k")
    assert len(list((at.environments / "releases").iterdir())) == 2  # the folder and its record


def unable(release: Any) -> None:
    raise OSError("no space left on device")


def test_versions_are_ordered_as_semantic_versioning_says(bot: ModuleType) -> None:
    rising = ["nightly", "0.9.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1"]
    rising += ["v1.0.0", "1.9.0", "v1.10.0"]
    assert sorted(["v1.10.0", *rising[:-1]], key=bot.precedence) == rising
    assert bot.newest(["v1.9.0", "v2.0.0-rc.1"]) == "v1.9.0"
    assert bot.newest(["v2.0.0-rc.1"]) == "v2.0.0-rc.1"


async def test_it_runs_as_a_program_and_anybody_with_the_store_can_answer(bot: ModuleType, at: Any, repository: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{str(tmp_path / 'deploys.db').replace(' ', '%20')}"
    command = [sys.executable, ROOT / "examples" / "deploybot.py", repository, REQUEST]
    environment = {**os.environ, "DEPLOYBOT_STORE": store, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        id = next(word for line in program.stdout for word in line.split() if word.startswith("int_"))
        elsewhere = App(store)
        await elsewhere.approve(id, by=MIA)
        await elsewhere.aclose()
        said = program.stdout.read()
    assert program.returncode == 0
    assert said.endswith("The backend on production stands at v1.10.0.\n")
    assert live(at) == "v1.10.0"
