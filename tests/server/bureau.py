"""An App for the tests of the server: what its agent does is what the thread is started with. And doors, tokens, a server in this loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from ownloop import App, InDoubt, Intent, Thread, current_call, tool
from ownloop.server import Tokens, create
from ownloop.server.tokens import SCOPES
from ownloop.testing import FakeClock

BASE = "http://127.0.0.1:8470"
Json = Any


class Deploy(Intent):
    """Deploy at a tag."""

    tag: str
    count: int = 1


class Ask(Intent):
    """Ask a person."""

    question: str


class Charge(Intent):
    """Take money; may lose the reply."""

    amount: int


class Train(Intent):
    """Run for a while."""

    epochs: int


class Wait(Intent):
    """Wait for an event or a child."""

    what: str


class Done(Intent):
    """The end."""

    message: str


FIRST: Mapping[str, Intent] = {
    "deploy": Deploy(tag="v1.1.0"),
    "short": Deploy(tag="v1.1.0"),
    "two": Deploy(tag="v1.1.0"),
    "review": Deploy(tag="v1.1.0"),
    "managers": Deploy(tag="v1.1.0"),
    "ask": Ask(question="Which name?"),
    "charge": Charge(amount=3),
    "train": Train(epochs=3),
    "event": Wait(what="event"),
    "child": Wait(what="child"),
}
TERMS: Mapping[str, dict[str, Any]] = {"two": {"quorum": 2}, "short": {"expires": "1h"}, "managers": {"by": "managers", "not_by": "eve"}}


@dataclass
class Bureau:
    """One store's App, and what ran."""

    app: App
    ran: list[Json] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app.add(self.desk)

    async def decide(self, thread: Thread) -> Deploy | Ask | Charge | Train | Wait | Done:
        if thread.input == "fail":
            raise RuntimeError("the model is broken")
        if thread.input in FIRST and not any(step.name != "done" for step in thread.steps):
            return FIRST[thread.input]
        return Done(message=f"{thread.input} is over")

    async def deploy(self, tag: str, count: int) -> Json:
        self.ran.append({"tag": tag, "count": count})
        return {"deployed": tag, "count": count}

    async def charge(self, amount: int) -> str:
        raise InDoubt("the reply was lost")

    @tool(reads=True)
    async def train(self, epochs: int) -> str:
        for number in range(epochs):
            current_call().progress(number + 1, epochs, f"epoch {number + 1}")
            await asyncio.sleep(1.1)
        return "trained"

    async def desk(self, thread: Thread) -> str:
        while True:
            step = await thread.next_step(self.decide)
            match step.intent:
                case Deploy():
                    if thread.input == "review":
                        await step.run(self.deploy)
                        await step.result_approved()
                    elif await step.approved(**TERMS.get(thread.input, {}), reason="it is production"):
                        await step.run(self.deploy)
                case Ask(question=question):
                    await step.ask(question, choices=["alpha", "beta"])
                case Charge():
                    await step.run(self.charge)
                case Train():
                    await step.run(self.train)
                case Wait(what="event"):
                    await step.wait_for("built", key="job-1")
                case Wait():
                    await step.join(await step.spawn(self.desk, "deploy"))
                case Done(message=message):
                    return message

    async def settle(self) -> None:
        await self.app._open()
        while ready := (await self.app.store.runnable(["desk"], 1000))[0]:
            await asyncio.gather(*(self.app.run_one(one) for one in ready))

    async def thread(self, input: Json = "deploy", **more: Any) -> str:
        """A thread that has come as far as it can without anybody."""
        id = await self.app.start("desk", input, **more)
        await self.settle()
        return id

    async def parked(self, input: Json = "deploy", **more: Any) -> Json:
        """The open interrupt of such a thread."""
        (found,) = await self.app.interrupts(thread=await self.thread(input, **more))
        return found

    async def token(self, name: str = "ann", *, scopes: Any = SCOPES, groups: tuple[str, ...] = (), **more: Any) -> str:
        from ownloop import Actor

        await self.app._open()
        text, _ = await Tokens(self.app.store).issue(f"{name}'s", Actor(name, groups), scopes, **more)
        return text


def make(url: str, clock: FakeClock | None = None, **more: Any) -> Bureau:
    return Bureau(App(url, clock=clock, **more))


def visitor(site: FastAPI, token: str | None = None, *, base: str = BASE, client: tuple[str, int] = ("127.0.0.1", 5000)) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=site, client=client, raise_app_exceptions=False), base_url=base, headers=headers)


@dataclass
class Place:
    """A bureau with its server, and somebody who may do everything."""

    bureau: Bureau
    site: FastAPI
    token: str
    http: httpx.AsyncClient
    clock: FakeClock

    async def visitor(self, name: str = "bob", **more: Any) -> httpx.AsyncClient:
        return visitor(self.site, await self.bureau.token(name, **more))


@asynccontextmanager
async def opened(url: str, *, pages: bool = False, **more: Any) -> AsyncIterator[Place]:
    """Without the pages, which take some time to build, unless they are wanted."""
    clock = FakeClock()
    bureau = make(url, clock)
    site = create(bureau.app, pages=pages, **more)
    token = await bureau.token("ann", groups=("managers",))
    async with visitor(site, token) as http:
        yield Place(bureau, site, token, http, clock)
    await site.state.desk.hub.close()
    await bureau.app.aclose()


@asynccontextmanager
async def running(site: Any, **more: Any) -> AsyncIterator[str]:
    """The same behind a real socket, in this loop; its address."""
    server = uvicorn.Server(uvicorn.Config(site, "127.0.0.1", 0, log_level="warning", timeout_graceful_shutdown=1, **more))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    await site.state.desk.hub.close()
    server.should_exit = True
    await task


def kind(response: httpx.Response) -> str:
    """The kind of a problem, and that it is one."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["title"] and problem["detail"]
    return str(problem["type"]).removeprefix("urn:ownloop:error:")
