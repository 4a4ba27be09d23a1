"""`make demo`: deploybot on a small git repository, and its inbox in a browser. It stops at its approval; then its worker is killed with
`kill -9`, twice; on a terminal the inbox then stays open.

Everything is real but the decider, which is rules and no model: the repository, the store, the processes, the signal. All of it lives in one
folder. On a terminal it stays where something waits: after Ctrl-C the next `make demo` goes on from there. Otherwise it is gone at the end.
"""

from __future__ import annotations

import asyncio
import fcntl
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
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import deploybot

from ownloop import Actor, App, Event, Interrupt
from ownloop.cli.brief import span
from ownloop.cli.following import Follower
from ownloop.cli.paper import Paper, Span
from ownloop.cli.running import PORT, bind_near, serve_until, url_of
from ownloop.errors import AlreadyDecided
from ownloop.server import Auth

HERE = Path(__file__).resolve().parent.parent
MANAGERS = "release-managers"
DEMO = Actor("the demo", [MANAGERS])
REQUEST = "deploy the backend to production"
LEASE = "2s"  # how long a dead worker keeps others out; the default is 30 s


class Demo:
    """The folder with all that is made, and the paper on which it is told."""

    def __init__(self, folder: Path) -> None:
        self.stage = folder / "stage"
        self.repository, self.environments = folder / "backend", folder / "environments"
        self.store = f"sqlite:///{quote(str(folder / 'deploys.db'))}"
        self.at = deploybot.Repository(self.repository, self.environments)
        self.paper = Paper(color="NO_COLOR" not in os.environ)
        self.asking: asyncio.Task[None] | None = None
        self.prompts = False
        self.has_terminal = has_terminal()
        self.login = ""

    async def run(self) -> None:
        stopped_at = self.stage.read_text() if self.stage.exists() else None
        if stopped_at is None:
            self.make_repository()
        async with self.inbox():
            self.introduce()
            if stopped_at != "inbox":
                await self.approval(goes_on=stopped_at == "approval")
                await self.death("2  Killed after the deployment, before anybody wrote down that it happened", "v1.11.0", "after")
                await self.death("3  Killed in the deployment, before it took effect", "v1.12.0", "before")
            if self.has_terminal:
                await self.leave_open(goes_on=stopped_at == "inbox")
        self.say()
        self.say(("Next: ", "bold"), "ownloop init NAME · ownloop dev · README.md · examples/deploybot.py (a loop of 15 lines) · docs/design.md")

    def introduce(self) -> None:
        self.say(("ownloop: you own the loop, ownloop makes it durable", "bold"))
        self.say()
        self.say(("repository  ", "dim"), str(self.repository), ("  (made just now)", "dim"))
        self.say(("tags        ", "dim"), " ".join(self.at.list_git_tags()))
        self.say(("agent       ", "dim"), "examples/deploybot.py", ("  rules decide; no model here, any fits in", "dim"))
        self.say(("store       ", "dim"), self.store)
        self.say(("inbox       ", "dim"), (self.login, "cyan"), f"  (lets one browser in, as {name_of_user()})")

    @asynccontextmanager
    async def inbox(self) -> AsyncIterator[None]:
        """The threads in a browser, as long as the demo runs: a server over the same file, which needs none of the agents' code."""
        told, ready, app = asyncio.Event(), asyncio.Event(), App(self.store)
        auth = Auth(app)
        with bind_near("127.0.0.1", PORT) as sock:

            async def tell() -> None:
                code = await auth.sessions.code(Actor(name_of_user(), [MANAGERS]))
                self.login = f"{url_of(sock, '127.0.0.1')}/login?code={code}"
                ready.set()

            serving = asyncio.ensure_future(serve_until(app, sock, told, tell, wakes=False, auth=auth))
            serving.add_done_callback(lambda _: ready.set())
            await ready.wait()
            try:
                yield
            finally:
                told.set()
                await serving

    # ---- 1: between the selection and the invocation ---------------------------------------------------------------------------

    async def approval(self, goes_on: bool) -> None:
        self.title("1  An agent that stops between the selection of a tool and its invocation")
        async with deploybot.make_app(self.store, self.at) as app:
            await self.deployment(app, "approval", goes_on)
            self.stands()

    async def deployment(self, app: App, stage: str, goes_on: bool) -> None:
        """One thread, a new one or that of last time, to its end; until then it is kept, whatever happens to this process."""
        thread = await self.last_time(app) if goes_on else await app.start("deploybot", REQUEST)
        self.keep(stage)
        async for event in self.events(app, Follower(app, self.paper, thread)):
            if event.kind == "request":
                for waiting in await app.interrupts(thread=thread):
                    self.tell_how(waiting)
                    self.asking = asyncio.ensure_future(self.ask(app, waiting))
        self.keep(None)

    async def last_time(self, app: App) -> str:
        (view,) = await app.threads(agent="deploybot", limit=1)
        waited = span(app.store.clock.now() - view.created_at)
        self.say(("going on    ", "bold green"), f"{view.id} was started {waited} ago by a process that is no more")
        self.say()
        return view.id

    def keep(self, stage: str | None) -> None:
        """What the next demo goes on with; None: nothing."""
        if stage is None:
            self.stage.unlink(missing_ok=True)
        elif self.has_terminal:
            self.stage.write_text(stage)

    def tell_how(self, waiting: Interrupt) -> None:
        user = name_of_user()
        command = [short(sys.executable), "-m", "ownloop", "decide", waiting.id, "approve", "--as", user, "--group", MANAGERS, "--store", self.store]
        self.say()
        self.say("  Nothing is deployed. Nothing is held in memory: the thread is rows on disk.")
        self.say("  It can wait for days. Answer in the browser, or from another terminal:")
        self.say()
        self.say("    ", (self.login, "cyan"))
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

    # ---- 4: the inbox stays open -----------------------------------------------------------------------------------------------

    async def leave_open(self, goes_on: bool) -> None:
        self.title("4  Yours: one more deployment waits, and the inbox stays open")
        if not goes_on:
            self.release("v1.13.0")
        self.say("Ctrl-C ends it; while something waits, the next `make demo` goes on from here.")
        self.say()
        async with deploybot.make_app(self.store, self.at) as app:
            await self.deployment(app, "inbox", goes_on)
            self.stands()
            self.say()
            self.say("All is done. The inbox stays open: ", (self.login, "cyan"), "  Ctrl-C ends it.")
            await asyncio.Event().wait()

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


def has_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


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
    with folder_for_it() as folder:
        try:
            asyncio.run(Demo(folder).run())
        except KeyboardInterrupt:
            left = f"what waits is kept in {short(str(folder))}: `make demo` goes on from there" if is_kept(folder) else "nothing is left behind"
            print(f"\nstopped; {left}", file=sys.stderr)
            return 130
    return 0


@contextmanager
def folder_for_it() -> Iterator[Path]:
    """On a terminal always the same, unless another demo uses it: something may wait there. It is gone at the end where nothing does."""
    folder = Path(os.environ.get("DEMO_FOLDER", HERE / ".ownloop" / "demo")).resolve()
    lock = lock_of(folder) if has_terminal() else None
    if lock is None:
        folder = Path(tempfile.mkdtemp(prefix="ownloop-demo-")).resolve()
    elif not is_kept(folder):
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if not is_kept(folder):
            shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def lock_of(folder: Path) -> int | None:
    """A lock beside the folder, which the kernel takes back from who dies; None: somebody has it, or nothing can be written there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None
    return lock


def is_kept(folder: Path) -> bool:
    return (folder / "stage").exists()


if __name__ == "__main__":
    sys.exit(main())
