"""An agent that deploys tags of a real git repository, and asks before it does.

    python examples/deploybot.py REPOSITORY "deploy the backend to production"
    ownloop --app examples/deploybot.py …        # DEPLOYBOT_REPOSITORY, _ENVIRONMENTS, _STORE say where

There is no model here: `rules` decides, by reading the log. Put another `decide` into `make_app` and nothing else changes.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ownloop import App, Event, Happened, Intent, NotHappened, Thread, current_call, tool
from ownloop.views import Operation, StepView

Environment = Literal["staging", "production"]
GIVE_UP_AFTER = 3
"""Deployments that fail in a row before a person is asked whether to go on."""


# ---- what can be chosen --------------------------------------------------------------------------------------------------------


class RequestClarification(Intent):
    """Ask the person for whatever is missing."""

    question: str


class ListGitTags(Intent):
    """List the tags that can be deployed."""


class DeployBackend(Intent):
    """Deploy the backend at a tag. High stakes."""

    tag: str
    environment: Environment


class Done(Intent):
    """Nothing is left to do."""

    message: str


Choice = RequestClarification | ListGitTags | DeployBackend | Done


# ---- the loop ------------------------------------------------------------------------------------------------------------------


def make_app(store: str, repository: Repository, decide: Any = None, **options: Any) -> App:
    """The agent `deploybot` over a store and a repository. `decide`: any function of the thread, a model for instance; default `rules`."""
    app = App(store, **options)
    determine_next_step = decide or rules

    @app.agent
    async def deploybot(thread: Thread) -> str:
        while True:
            step = await thread.next_step(determine_next_step)  # on disk before you see it
            match step.intent:
                case RequestClarification(question=question):
                    await step.ask(question)  # parks here: the answer comes back later
                case ListGitTags():
                    await step.run(repository.list_git_tags)  # straight back to the decider
                case DeployBackend():
                    if await step.approved(by="release-managers"):  # parks here: between selection and invocation
                        await step.run(repository.deploy)  # deploy(tag=…, environment=…), as approved
                case Done(message=message):
                    return message  # the turn is over

    return app


# ---- the tools: a real repository ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Release:
    """A checked-out tag. `key` is that of the call that made it, `replaced` the folder of the release that stood there before."""

    tag: str
    commit: str
    environment: Environment
    key: str
    folder: str
    replaced: str | None = None

    def __str__(self) -> str:
        return f"{self.tag} ({self.commit[:7]}) is on {self.environment}"


class Repository:
    """A git repository, and the folder in which `staging` and `production` are links to checked-out releases."""

    def __init__(self, path: Path | str, environments: Path | str = "environments") -> None:
        self.path = Path(path).resolve()
        self.environments = Path(environments).resolve()
        self.list_git_tags = tool(self._list_git_tags, name="list_git_tags", reads=True)
        self.deploy = tool(self._deploy, name="deploy", in_doubt=self.verify)

    def _list_git_tags(self) -> list[str]:
        """The tags, newest version first; those that are no version come last."""
        return sorted(self._git("tag", "--list").split(), key=precedence, reverse=True)

    def _deploy(self, tag: str, environment: Environment) -> str:
        """Check a tag out and let the environment's link point at it. Until the link moves, in one rename, nothing has happened."""
        key = current_call().key
        commit = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"refs/tags/{tag}^{{commit}}", missing=f"there is no tag {tag}")
        with self._alone():
            before = self.standing(environment)
            if before is not None and before.key == key:
                return str(before)
            folder = re.sub(r"[^\w.-]", "_", tag) + "-" + hashlib.sha256(key.encode()).hexdigest()[:8]
            release = Release(tag, commit, environment, key, folder, before.folder if before else None)
            self._check_out(release)
            self._switch(release)
            return str(release)

    def verify(self, key: str) -> Happened | NotHappened:
        """What became of a deployment whose process died: is its release standing, or one that replaced it?"""
        with self._alone():
            for environment in get_args(Environment):
                release = self.standing(environment)
                while release is not None:
                    if release.key == key:
                        return Happened(str(release))
                    release = self._release(release.replaced) if release.replaced else None
        return NotHappened()

    def standing(self, environment: str) -> Release | None:
        """What the environment stands at."""
        link = self.environments / environment
        return self._release(link.readlink().name) if link.is_symlink() else None

    def _release(self, folder: str) -> Release:
        return Release(**json.loads((self.environments / "releases" / f"{folder}.json").read_text()))

    def _check_out(self, release: Release) -> None:
        final = self.environments / "releases" / release.folder
        fresh, index = final.with_name(f"{final.name}.new"), final.with_name(f"{final.name}.index")
        for left in (final, fresh):  # of a process that died here
            shutil.rmtree(left, ignore_errors=True)
        index.unlink(missing_ok=True)
        self._git("read-tree", release.commit, GIT_INDEX_FILE=str(index))
        fresh.mkdir()
        self._git("--work-tree", str(fresh), "checkout-index", "--all", f"--prefix={fresh}/", GIT_INDEX_FILE=str(index))
        index.unlink()
        fresh.rename(final)
        final.with_name(f"{final.name}.json").write_text(json.dumps(asdict(release), indent=2))

    def _switch(self, release: Release) -> None:
        fresh = self.environments / f".{release.environment}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path("releases") / release.folder)
        fresh.replace(self.environments / release.environment)

    @contextmanager
    def _alone(self, seconds: float = 30) -> Iterator[None]:
        """One deployment at a time, in all processes; the kernel gives the lock back when its holder dies."""
        (self.environments / "releases").mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + seconds
        with (self.environments / ".lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise TimeoutError(f"another deployment has held {lock.name} for {seconds:g} s") from None
                    time.sleep(0.05)
            yield

    def _git(self, *arguments: str, missing: str = "", **environment: str) -> str:
        inherited = {name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
        command = ["git", "-C", str(self.path), *arguments]
        done = subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise GitError(done.stderr.strip() or missing or f"git {arguments[0]} ended with {done.returncode}")
        return done.stdout.strip()


class GitError(Exception):
    """git refused; its own words are the message."""


VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]*[0-9A-Za-z])?")


def precedence(tag: str) -> tuple[Any, ...]:
    """Semantic Versioning 2.0.0, item 11: 1.10.0 is above 1.9.0, and 1.9.0 above 1.9.0-rc.2."""
    version = VERSION.fullmatch(tag)
    if version is None:
        return (False, tag)
    *numbers, pre = version.groups()
    parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in (pre or "").split(".")]
    return (True, [int(number) for number in numbers], pre is None, parts)


# ---- the decider: no model here, rules -----------------------------------------------------------------------------------------


async def rules(thread: Thread) -> Choice:
    """Choose the next step by rules, from nothing but the log. It is honest work for rules: one kind of request, a handful of cases."""
    words, steps = list(said(thread)), turn_steps(thread)
    environment = named_environment(words)
    if environment is None:
        return RequestClarification(question="I deploy the backend, and nothing else. Where to: staging or production?")

    listing = last(steps, "list_git_tags")
    listed = None if listing is None else last_run(listing)
    if listed is None or listed.state != "done":
        if listed is not None and listed.error and thread.errors_in_a_row >= GIVE_UP_AFTER:
            return Done(message=f"I gave up: the tags cannot be listed ({listed.error.message}).")
        return ListGitTags()

    versions = [tag for tag in listed.value if VERSION.fullmatch(tag)]
    tag = named_version(words, versions) or newest(versions)
    if tag is None:
        return Done(message="The repository has no tag that is a version, so there is nothing to deploy.")
    if tag not in versions:
        return RequestClarification(question=f"There is no tag {tag}. The newest are {', '.join(versions[:5])}. Which one?")

    wanted = DeployBackend(tag=tag, environment=environment)
    deployment = last(steps, "deploy_backend")
    return wanted if deployment is None else after(deployment, wanted, steps, thread)


def after(deployment: StepView, wanted: DeployBackend, steps: list[StepView], thread: Thread) -> Choice:
    """What follows a deployment: the end if it worked or was refused, another one if somebody named it or it failed."""
    run, decision = last_run(deployment), last_decision(deployment)
    call = DeployBackend.model_validate(deployment.intent)
    what = f"{call.tag} to {call.environment}"
    if run is not None and run.state == "done":
        return Done(message=f"The backend on {call.environment} stands at {call.tag}.")
    if run is not None and run.error is not None:
        if steps[-1].name == "request_clarification":
            answer = steps[-1].operations[-1].value or ""
            goes_on = wanted != call or re.match(r"\s*(y|yes|again|try|go)\b", answer, re.IGNORECASE)
            return wanted if goes_on else Done(message=f"I gave up deploying {what}: {run.error.message}")
        if thread.errors_in_a_row < GIVE_UP_AFTER:
            return wanted
        question = f"Deploying {what} failed {thread.errors_in_a_row} times in a row ({run.error.message}). Shall I try again?"
        return RequestClarification(question=question)
    if decision.get("kind") == "responded":
        return Done(message=f"Not deployed; {decision['by']} answered: {decision['value']}")
    if decision.get("kind") == "expired":
        return Done(message=f"Not deployed: nobody decided on {what} in time.")
    if decision.get("kind") == "rejected" and wanted == DeployBackend.model_validate(deployment.proposed):
        return Done(message=f"Not deployed: {decision['by']} refused {what}" + (f" ({decision['note']})." if decision["note"] else "."))
    return wanted


def said(thread: Thread) -> Iterator[str]:
    """The words of people in this turn, oldest first: the request, messages, answers, the reasons of refusals."""
    ends = [event for event in thread.events if event.kind == "turn_ended"]
    read, ended = (ends[-1].data["read"], ends[-1].seq) if ends else (0, 0)
    for event in thread.events:
        if event.kind == "input" and not ends:
            yield str(event.data["input"])
        elif event.kind == "message" and event.seq > read:
            yield event.data["text"]
        elif event.kind == "decision" and event.seq > ended:
            text = {"answered": event.data.get("value"), "rejected": event.data.get("note")}.get(event.data["kind"])
            if isinstance(text, str):
                yield text


def turn_steps(thread: Thread) -> list[StepView]:
    """The steps that were selected in this turn."""
    ended = max((event.seq for event in thread.events if event.kind == "turn_ended"), default=0)
    mine = {event.step_id for event in thread.events if event.kind == "selected" and event.seq > ended}
    return [step for step in thread.steps if step.id in mine]


NAMES: dict[Environment, str] = {"staging": "stag(e|ing)", "production": "prod(uction)?"}


def named_environment(words: list[str]) -> Environment | None:
    """The environment in the newest words that name one; None where they name both."""
    for text in reversed(words):
        named = [name for name, pattern in NAMES.items() if re.search(rf"\b{pattern}\b", text, re.IGNORECASE)]
        if named:
            return named[0] if len(named) == 1 else None
    return None


def named_version(words: list[str], versions: list[str]) -> str | None:
    """The version in the newest words that name one, written as its tag is if there is one."""
    for text in reversed(words):
        if found := VERSION.search(text):
            number = found[0].removeprefix("v")
            return next((tag for tag in versions if tag.removeprefix("v") == number), found[0])
    return None


def newest(versions: list[str]) -> str | None:
    """The highest version; a pre-release only where there is nothing else."""
    return max(versions, key=lambda tag: ("-" not in tag, precedence(tag)), default=None)


def last(steps: list[StepView], name: str) -> StepView | None:
    return next((step for step in reversed(steps) if step.name == name), None)


def last_run(step: StepView) -> Operation | None:
    return next((one for one in reversed(step.operations) if one.kind == "run"), None)


def last_decision(step: StepView) -> Mapping[str, Any]:
    return next((one.value for one in reversed(step.operations) if one.kind in ("approval", "hold") and one.value), {})


# ---- from a terminal -----------------------------------------------------------------------------------------------------------

STORE = os.environ.get("DEPLOYBOT_STORE", "sqlite:///deploys.db")
app = make_app(STORE, Repository(os.environ.get("DEPLOYBOT_REPOSITORY", "."), os.environ.get("DEPLOYBOT_ENVIRONMENTS", "environments")))


async def main(repository: str, request: str) -> int:
    """Start one thread and follow it to the end of its turn; whoever is asked answers with the command that is shown."""
    print(f"store {STORE}; no model here: rules decide", file=sys.stderr)
    async with make_app(STORE, Repository(repository)) as here:
        thread = await here.start("deploybot", request)
        async for event in here.stream(thread):
            if not isinstance(event, Event):
                continue
            print(event.seq, event.kind, event.op or event.data.get("intent", ""), event.by or "")
            if event.kind == "request":
                for one in await here.interrupts(thread=thread):
                    shown = one.question or f"{one.name} {one.intent}"
                    print(f"    {shown}\n    ownloop decide {one.id} --store {STORE}   (Ctrl-C leaves; the thread waits on)")
            elif event.kind in ("turn_ended", "failed"):
                print(event.data.get("value") or event.data["error"]["message"])
                return 0 if event.kind == "turn_ended" else 1
    return 1


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit('usage: python examples/deploybot.py REPOSITORY "deploy the backend to production"')
    try:
        sys.exit(asyncio.run(main(*sys.argv[1:])))
    except KeyboardInterrupt:
        sys.exit(130)
