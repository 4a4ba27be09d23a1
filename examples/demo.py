"""`make demo`: deploybot on a small git repository. It stops at its approval; then its worker is killed with `kill -9`, twice.

Everything is real but the decider, which is rules and no model: the repository, the store, the processes, the signal. All of it lives in one
temporary folder, which is gone at the end.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import deploybot

from ownloop import Actor, App, Event, Interrupt
from ownloop.cli.following import Follower
from ownloop.cli.paper import Paper, Span
from ownloop.errors import AlreadyDecided

HERE = Path(__file__).resolve().parent.parent
MANAGERS = "release-managers"
DEMO = Actor("the demo", [MANAGERS])
REQUEST = "deploy the backend to production"
LEASE = "2s"  # how long a dead worker keeps others out; the default is 30 s


class Demo:
    """The folder with all that is made, and the paper on which it is told."""

    def __init__(self, folder: Path) -> None:
        self.repository, self.environments = folder / "backend", folder / "environments"
        self.store = f"sqlite:///{quote(str(folder / 'deploys.db'))}"
        self.at = deploybot.Repository(self.repository, self.environments)
        self.paper = Paper(color="NO_COLOR" not in os.environ)
        self.asking: asyncio.Task[None] | None = None
        self.prompts = False
        self.has_terminal = sys.stdin.isatty() and sys.stdout.isatty()

    async def run(self) -> None:
        self.make_repository()
        self.say(("ownloop: you own the loop, ownloop makes it durable", "bold"))
        self.say()
        self.say(("repository  ", "dim"), str(self.repository), ("  (made just now)", "dim"))
        self.say(("tags        ", "dim"), " ".join(self.at.list_git_tags()))
        self.say(("agent       ", "dim"), "examples/deploybot.py", ("  rules decide; no model here, any fits in", "dim"))
        self.say(("store       ", "dim"), self.store)
        await self.approval()
        await self.death("2  Killed after the deployment, before anybody wrote down that it happened", "v1.11.0", "after")
        await self.death("3  Killed in the deployment, before it took effect", "v1.12.0", "before")
        self.say()
        self.say(("Next: ", "bold"), "README.md · examples/deploybot.py (a loop of 15 lines) · docs/design.md")

    # ---- 1: between the selection and the invocation ---------------------------------------------------------------------------

    async def approval(self) -> None:
        self.title("1  An agent that stops between the selection of a tool and its invocation")
        async with deploybot.make_app(self.store, self.at) as app:
            thread = await app.start("deploybot", REQUEST)
            async for event in self.events(app, Follower(app, self.paper, thread)):
                if event.kind == "request":
                    (waiting,) = await app.interrupts(thread=thread)
                    self.tell_how(waiting)
                    self.asking = asyncio.ensure_future(self.ask(app, waiting))
            self.stands()

    def tell_how(self, waiting: Interrupt) -> None:
        user = name_of_user()
        command = [short(sys.executable), "-m", "ownloop", "decide", waiting.id, "approve", "--as", user, "--group", MANAGERS, "--store", self.store]
        self.say()
        self.say("  Nothing is deployed. Nothing is held in memory: the thread is rows on disk.")
        self.say("  It can wait for days. Answer from another terminal:")
        self.say()
        self.say(("" if Path.cwd() == HERE else f"    cd {shlex.quote(str(HERE))}\n") + "    " + shlex.join(command))
        self.say()

    async def ask(self, app: App, waiting: Interrupt) -> None:
        """Answer here: by y or n where there is a terminal. Whoever is first, here or elsewhere, decides."""
        if not self.has_terminal:
            self.say("  There is no terminal here, so the demo answers itself: approve.")
            self.say()
            await asyncio.sleep(0.5)
            await app.approve(waiting, by=DEMO, note="nobody is at the terminal")
            return
        by = Actor(name_of_user(), [MANAGERS])
        with typed_lines() as lines:
            while True:
                print("  …or here: approve? [y/n] ", end="", flush=True)
                self.prompts = True
                answer = (await lines.get()).strip().lower()
                self.prompts = False
                with suppress(AlreadyDecided):  # the other terminal was first: the log says who
                    if answer in ("y", "yes"):
                        await app.approve(waiting, by=by)
                    elif answer in ("n", "no"):
                        await app.reject(waiting, by=by, note="not now")
                    else:
                        continue
                return

    def stop_asking(self) -> None:
        """Somebody has answered, here or elsewhere."""
        if self.prompts and self.asking is not None:
            self.asking.cancel()
            self.prompts = False
            print()

    # ---- 2 and 3: kill -9 ------------------------------------------------------------------------------------------------------

    async def death(self, title: str, tag: str, moment: str) -> None:
        self.title(title)
        self.release(tag)
        before = self.made()
        app = App(self.store)
        with self.worker(moment) as worker:
            thread = await app.start("deploybot", REQUEST)
            follower = Follower(app, self.paper, thread)
            events = self.events(app, follower)
            async for event in events:
                if event.kind == "request":
                    (waiting,) = await app.interrupts(thread=thread)
                    await app.approve(waiting, by=DEMO)
                elif event.kind == "started":
                    break
            assert worker.stdout is not None
            await asyncio.to_thread(worker.stdout.readline)  # it has come to the moment
            os.kill(worker.pid, signal.SIGKILL)
            await asyncio.to_thread(worker.wait)
        self.say()
        why = "and the log does not know it" if moment == "after" else f"still: {tag} is not in place"
        self.say(("  kill -9 ", "bold red"), str(worker.pid), f"  production {self.standing()}, ", (why, "red"))
        with self.worker("never") as worker:
            self.say(("  worker  ", "bold"), str(worker.pid), f"  takes over when the dead one's lease ends ({LEASE}); verify looks")
            self.say()
            async for _ in events:
                pass
            starts = sum(event.kind == "started" for event in (await app.show(thread)).events)
            again = "started once" if starts == 1 else f"started {starts} times, under one key"
            self.stands(f"{self.made() - before} release made, {again}")
        await app.aclose()

    @contextmanager
    def worker(self, moment: str) -> Iterator[subprocess.Popen[str]]:
        """A process that serves the store; it halts right `before` or `after` the switch, or `never`."""
        command = [sys.executable, __file__, "--worker", self.store, str(self.repository), str(self.environments), moment]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.terminate()

    # ---- telling ---------------------------------------------------------------------------------------------------------------

    async def events(self, app: App, follower: Follower) -> AsyncIterator[Event]:
        """The log as it grows, printed, until the turn ends."""
        async for event in app.stream(follower.thread_id):
            if isinstance(event, Event):
                if event.kind == "decision":
                    self.stop_asking()
                follower.event(event)
                yield event
                if event.kind in ("turn_ended", "failed"):
                    return
                await asyncio.sleep(0.15 if self.has_terminal else 0)

    def say(self, *spans: Span) -> None:
        self.paper.line(*spans)

    def title(self, text: str) -> None:
        self.say()
        self.say((text, "bold cyan"))
        self.say()

    def standing(self) -> str:
        release = self.at.standing("production")
        return "is empty" if release is None else f"stands at {release.tag}"

    def stands(self, more: str = "") -> None:
        self.say()
        self.say(("  production ", "bold"), self.standing(), f": {more}" if more else "")

    # ---- making ----------------------------------------------------------------------------------------------------------------

    def make_repository(self) -> None:
        self.repository.mkdir()
        self.git("init", "--quiet")
        for tag in ("v1.2.0", "v1.9.0", "v1.10.0"):
            self.release(tag)

    def release(self, tag: str) -> None:
        """Commit and tag."""
        (self.repository / "app.py").write_text(f'VERSION = "{tag}"\n')
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", f"Release {tag}")
        self.git("tag", tag)

    def git(self, *arguments: str) -> None:
        plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}  # no signing, no hooks, no templates of the user
        identity = {f"GIT_{who}_{what}": f"demo{at}" for who in ("AUTHOR", "COMMITTER") for what, at in (("NAME", ""), ("EMAIL", "@example.org"))}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        subprocess.run(["git", "-C", self.repository, *arguments], check=True, env={**inherited, **plain, **identity})

    def made(self) -> int:
        return len(list((self.environments / "releases").glob("*.json")))


# ---- the worker, a process of its own ------------------------------------------------------------------------------------------


def work(store: str, repository: str, environments: str, moment: str) -> None:
    """Serve the store. So that the kill is sure to hit it in the middle, the worker halts there and says so."""
    at = deploybot.Repository(repository, environments)
    switch = at._switch

    def slow_switch(release: deploybot.Release) -> None:
        if moment == "after":
            switch(release)
        print("here", flush=True)
        time.sleep(60)

    if moment != "never":
        at._switch = slow_switch  # type: ignore[method-assign]  # the one place where the demo helps chance along
    deploybot.make_app(store, at, lease=LEASE).run()


# ---- the terminal --------------------------------------------------------------------------------------------------------------


@contextmanager
def typed_lines() -> Iterator[asyncio.Queue[str]]:
    """Lines as they are typed, without a thread that blocks in `input`."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[str]()

    def read() -> None:
        line = sys.stdin.readline()
        if line:
            lines.put_nowait(line)
        else:  # Ctrl-D: nothing more is typed here
            loop.remove_reader(sys.stdin)

    loop.add_reader(sys.stdin, read)
    try:
        yield lines
    finally:
        loop.remove_reader(sys.stdin)


def name_of_user() -> str:
    with suppress(OSError, KeyError):
        return getpass.getuser()
    return "me"


def short(path: str) -> str:
    """The path from the project's folder, if it is in there."""
    return os.path.relpath(path, HERE) if Path(path).is_relative_to(HERE) else path


def main() -> int:
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
        return 0
    if shutil.which("git") is None:
        print("the demo deploys a real git repository and finds no git; install it (Debian: apt-get install git)", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    folder = Path(tempfile.mkdtemp(prefix="ownloop-demo-")).resolve()
    try:
        asyncio.run(Demo(folder).run())
    except KeyboardInterrupt:
        print("\nstopped; nothing is left behind", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
