"""A real server on a real port, and a watch on everything that a browser says or asks for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from office import Office
from playwright.sync_api import BrowserContext, Page

from ownloop import Actor
from ownloop.server import Auth, create
from ownloop.server.attempts import attempts

CHROMIUM = "/usr/bin/chromium"
ANA = Actor("ana", ("release-managers", "finance", "data-protection"))
ZOE = Actor("zoe", ("release-managers", "finance"))


class House:
    """An office behind a server, in a thread with an event loop of its own."""

    def __init__(self, url: str, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.office = Office(url, **options)
        self.auth = Auth(self.office.app)
        self.port = 0
        self.server: uvicorn.Server | None = None
        self.serving: Any = None

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(30)

    def open(self, wakes: bool = True) -> None:
        """Serve; again on the same port if it was closed."""
        site = create(self.office.app, wakes=wakes, auth=self.auth)
        self.server = uvicorn.Server(uvicorn.Config(site, "127.0.0.1", self.port, log_level="warning", timeout_graceful_shutdown=1))
        self.serving = asyncio.run_coroutine_threadsafe(self.server.serve(), self.loop)
        while not self.server.started:
            if self.serving.done():
                self.serving.result()
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def close(self) -> None:
        assert self.server is not None
        self.server.should_exit = True
        self.serving.result(30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cookie(self, actor: Actor) -> dict[str, str]:
        code = self.run(self.auth.sessions.code(actor))
        answer = httpx.post(f"{self.url}/login", data={"code": code})
        (name, value), *_ = answer.cookies.items()
        return {"name": name, "value": value, "url": self.url}

    def start(self, agent: str, input: str, waits: bool = True, **options: Any) -> tuple[str, Any]:
        """A new thread, and what it waits for once it does."""
        return self.run(self._start(agent, input, waits, options))  # type: ignore[no-any-return]

    async def _start(self, agent: str, input: str, waits: bool, options: Any) -> tuple[str, Any]:
        app = self.office.app
        thread = await app.start(agent, input, **options)
        for _ in range(400 if waits else 0):
            found = [one for one in await app.interrupts(thread=thread) if one.kind not in ("timer", "event", "child")]
            if found:
                return thread, found[0]
            await asyncio.sleep(0.02)
        assert not waits, f"{agent} never waited: {await app.show(thread)}"
        return thread, None

    def interrupt(self, id: str) -> Any:
        return self.run(self.office.app.interrupt(id))

    def attempts(self, id: str) -> Any:
        return self.run(attempts(self.office.app.store, id))


@dataclass
class Seen:
    """What went on in a browser that should not have."""

    troubles: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def watch(self, context: BrowserContext, origin: str) -> None:
        context.on("request", lambda request: self.note(request.url.startswith((origin, "data:")), f"asked for {request.url}"))
        context.on("console", lambda message: self.note(message.type not in ("error", "warning"), f"console: {message.text}"))
        context.on("weberror", lambda error: self.note(False, f"error: {error.error}"))
        context.on("dialog", lambda dialog: (self.note(False, f"dialog: {dialog.message}"), dialog.dismiss()))

    def note(self, is_fine: bool, text: str) -> None:
        if not is_fine and not any(word in text for word in self.expected):
            self.troubles.append(text)


Opener = Callable[..., Page]
