"""What a server of one's own machine says when it is ready: where everything is, and what goes on from last time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import __version__
from ..app import App
from ..interrupts import DECIDABLE
from .session import Session

if TYPE_CHECKING:
    from ..server import Auth

KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "MISTRAL_API_KEY", "GROQ_API_KEY", "OPENROUTER_API_KEY")


@dataclass
class Greeting:
    """`place`: where the App is from. `tell`: called first. Only the first start prints links: a browser that is in stays in.

    `prepare`: awaited before anything is printed; gives a command to show. `beside`: the App's own store, where another one is served.
    """

    place: str
    tell: Callable[[], None] = lambda: None
    is_first: bool = True
    opens: bool = False
    prepare: Callable[[], Awaitable[str]] | None = None
    beside: str = ""
    _began: float = field(default_factory=time.perf_counter)

    async def greet(self, session: Session, app: App, url: str, auth: Auth) -> None:
        """Say that it can be reached."""
        self.tell()
        took = f"{time.perf_counter() - self._began:.1f} s"
        if not self.is_first:
            session.paper.note((f"ready again in {took}", "dim"))
            return
        going = await _standing(app)
        command = await self.prepare() if self.prepare is not None else ""
        login = f"{url}/login?code={await auth.sessions.code(session.actor)}"
        if session.paper.is_plain:
            self._print(session, app, login, url, took, going)
        else:
            where = {"url": url, "login": login, "api": f"{url}/v1", "store": app.store.url, "agents": sorted(app.agents), "pid": os.getpid()}
            session.paper.object({**where, **going})
        if command:
            session.paper.note(("  or answer from another terminal: ", "dim"), (command, "cyan"))
        if self.beside:
            session.paper.note(f"  what is in the App's own store is not shown: --store {self.beside} shows it")
        session.paper.note(("  Ctrl-C stops in order; the next start goes on from here", "dim"))
        if self.opens:
            _open(login)

    def _print(self, session: Session, app: App, login: str, url: str, took: str, going: dict[str, int]) -> None:
        paper = session.paper
        who = session.actor.id + (f", in {', '.join(session.groups)}" if session.groups else "")
        rows = {
            "Inbox": (login, f"lets one browser in, as {who}"),
            "API": (f"{url}/v1", f"{url}/openapi.json"),
            "Store": _store(app.store.url),
            "Agents": (", ".join(sorted(app.agents)), f"from {self.place}"),
            "Model": _model(),
        }
        if going["open"]:
            waiting = f"{going['waiting']} wait for a person" if going["waiting"] else ""
            rows["Threads"] = (f"{going['open']} open go on where they were", waiting)
        paper.line(("ownloop", "bold"), f" {__version__}  ", (f"ready in {took}", "dim"))
        for name, (value, more) in rows.items():
            paper.line(f"  {name:<9}", (value, "cyan" if value.startswith("http") else ""), (f"  {more}" if more else "", "dim"), indent=11)


async def _standing(app: App) -> dict[str, int]:
    """How many threads are open, and how many of them wait for a person (of the first 1,000)."""
    going = await app.threads(status="open", limit=1000)
    waits = [one for kind in DECIDABLE for one in await app.interrupts(kind=kind, limit=1000)]
    return {"open": len(going), "waiting": len({one.thread_id for one in waits})}


def _store(url: str) -> tuple[str, str]:
    kind, _, path = url.partition("://")
    path = path.removeprefix("/")
    is_kept = kind != "memory" and not path.startswith(f"{tempfile.gettempdir()}/ownloop-")
    return f"{kind} {path if path.startswith('/') else f'./{path}'}" if path else kind, "kept between runs" if is_kept else "gone at the end"


def _model() -> tuple[str, str]:
    keys = [name for name in KEYS if os.environ.get(name)]
    if keys:
        return ", ".join(keys), "in the environment"
    return "no key", "rules and scripts need none; a provider reads OPENAI_API_KEY, ANTHROPIC_API_KEY, … here or in .env"


def _open(link: str) -> None:
    import webbrowser

    webbrowser.open(link)
