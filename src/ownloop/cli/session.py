"""One command's surroundings: which App, who acts, where to write."""

from __future__ import annotations

import getpass
import os
import shlex
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from ..app import App
from ..interrupts import Actor
from ..stores.urls import masked
from .opening import find_app, move
from .paper import Paper
from .trouble import usage

DEV_STORE = "sqlite:///.ownloop/dev.db"
"""Where `ownloop dev` keeps its threads; in a folder that has it, commands that name nothing else act on it."""


@dataclass
class Session:
    """What the common options say."""

    paper: Paper
    store: str | None = field(default=None, repr=False)
    app_place: str | None = None
    name: str | None = None
    groups: Sequence[str] = ()
    no_input: bool = False
    server: str | None = None
    token: str | None = field(default=None, repr=False)
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Session:
        form = "json" if options["json"] else "jsonl" if options["jsonl"] else "plain"
        paper = Paper(form, color=not options["no_color"], quiet=options["quiet"], verbose=options["verbose"])  # type: ignore[arg-type]  # one of three
        where = options["store"], options["app"], options["as_"], options["group"] or (), options["no_input"]
        return cls(paper, *where, options["server"], options["token"], options.get("sources") or {})

    @property
    def actor(self) -> Actor:
        """Who acts: --as and --group, else the user of the operating system."""
        return Actor(self.name or _os_user(), tuple(self.groups))

    @property
    def is_interactive(self) -> bool:
        """Whether a person sits there who can be asked."""
        return not self.no_input and self.paper.is_plain and sys.stdin.isatty() and sys.stdout.isatty()

    @cached_property
    def app(self) -> App:
        """The App that was named, on the store that was named; an App without agents where there is only a store."""
        store = self.store or self.default_store
        if self.app_place is None and store is None:
            raise usage(
                "no store was named: give --store URL (or OWNLOOP_STORE), or --app FILE (or OWNLOOP_APP), or work where `ownloop dev` runs",
                "ownloop --store sqlite:///agents.db threads",
                kind="no-store",
            )
        if self.app_place is None:
            return App(str(store))
        app = find_app(self.app_place)
        if store is not None:
            move(app, store)
        make_folder(app.store.url)
        return app

    @property
    def default_store(self) -> str | None:
        """That of `ownloop dev` in this folder, where neither a store nor, by a flag or the environment, an App was named."""
        is_of_file = "OWNLOOP_APP" in self.sources and self.app_place == os.environ.get("OWNLOOP_APP")
        return dev_store() if self.app_place is None or is_of_file else None

    @asynccontextmanager
    async def opened(self, *, begins: bool = False) -> AsyncIterator[App]:
        """The App for verbs, closed at the end. It runs no wakes. With --server it is what that server offers of one.

        A store that is made only now is mentioned, unless the command begins something: it may be a name that was mistyped.
        """
        if self.server is not None:
            async with self._connected(self.server) as remote:
                yield remote
            return
        app = self.app
        is_fresh = not begins and app.store.url.startswith("sqlite:") and not is_file(app.store.url)
        try:
            await app.threads(limit=1)  # opens the store: what is wrong with it is told before anything else
            if is_fresh:
                self.paper.note(f"{app.store.url} was not there: it is made now, and empty; see that it is the one you mean")
            if app.store.url.startswith("memory:"):
                self.paper.note(("memory:// and all that is in it end with this command; to keep it: --store sqlite:///agents.db", "yellow"))
            yield app
        finally:
            await app.aclose()

    @asynccontextmanager
    async def _connected(self, url: str) -> AsyncIterator[App]:
        from .remote import connected

        if (self.name and self.name != os.environ.get("OWNLOOP_AS")) or self.groups:
            raise usage("a server knows who acts by the token; --as and --group are for a store", kind="not-here")
        async with connected(url, self.token) as remote:
            yield cast(App, remote)

    def again(self, *words: str) -> str:
        """A command to copy, on the same store: what came from the environment need not be repeated."""
        if self.server is not None:
            return shlex.join(["ownloop", *words, *([] if self.server == os.environ.get("OWNLOOP_SERVER") else ["--server", self.server])])
        place = ["--store", masked(self.store)] if self.store and self.store != store_of_environment() else []
        if not place and self.store is None and self.app_place and self.app_place not in (os.environ.get("OWNLOOP_APP"), *words):
            place = ["--app", self.app_place]
        return shlex.join(["ownloop", *words, *self._who(words), *place])

    def _who(self, words: Sequence[str]) -> list[str]:
        """Who acts, where flags said so and the command does not: an answer that is corrected comes from the same person."""
        if words[0] != "decide" or {"--as", "--group"} & set(words):
            return []
        name = ["--as", self.name] if self.name and self.name != os.environ.get("OWNLOOP_AS") else []
        groups = [] if list(self.groups) == os.environ.get("OWNLOOP_GROUP", "").split() else self.groups
        return [*name, *(word for group in groups for word in ("--group", group))]


def make_folder(url: str) -> None:
    """Make ./.ownloop where a store is to be in it; git does not see what is there."""
    own = Path(".ownloop")
    if url.startswith("sqlite:///.ownloop/") and not (own / ".gitignore").exists():
        own.mkdir(exist_ok=True)
        (own / ".gitignore").write_text("*\n")


def is_file(url: str) -> bool:
    """Whether a store's URL names a file that is there."""
    return url.startswith("sqlite:") and Path(unquote(urlsplit(url).path[1:])).exists()


def dev_store() -> str | None:
    """The store of `ownloop dev` in this folder, if there is one."""
    return DEV_STORE if Path(".ownloop/dev.db").is_file() else None


def store_of_environment() -> str | None:
    return os.environ.get("OWNLOOP_STORE") or os.environ.get("OWNLOOP_DATABASE_URL")


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in containers
        return f"uid-{os.getuid()}"
