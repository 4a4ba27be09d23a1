"""The scripted agents that are measured: what decides is a few lines of Python, so that the time is the library's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ownloop import Actor, App, Intent, Thread

TEXT = "".join(chr(97 + place * place % 23) for place in range(200))
"""A tool's result: 200 bytes."""


class Work(Intent):
    """Do one piece of work."""

    number: int


class Deploy(Intent):
    """Deploy a tag."""

    tag: str


class Done(Intent):
    """Nothing is left to do."""


class ToolLoop:
    """One agent that runs a tool so many times; `stamps` are the moments of the tool's calls, `cpu` this process's CPU seconds then."""

    def __init__(self, url: str, steps: int, wrap: Callable[[Any], Any] = lambda fn: fn, concurrency: int = 100) -> None:
        self.app = App(url, concurrency=concurrency)
        self.stamps: list[float] = []
        self.cpu: list[float] = []
        self._steps, self._tool = steps, wrap(self.work)
        self._left, self._over = 0, asyncio.Event()
        self.app.add(self.agent)

    async def work(self, number: int) -> str:
        self.stamps.append(time.perf_counter())
        self.cpu.append(time.process_time())
        return TEXT

    async def decide(self, thread: Thread) -> Work | Done:
        done = thread.count(Work)
        return Work(number=done) if done < self._steps else Done()

    async def agent(self, thread: Thread) -> str:
        while True:
            step = await thread.next_step(self.decide)
            match step.intent:
                case Work():
                    await step.run(self._tool)
                case Done():
                    await step.close()
                    self._left -= 1
                    if not self._left:
                        self._over.set()
                    return "done"

    async def _run(self, threads: int) -> float:
        async with self.app:
            self._left = threads
            began = time.perf_counter()
            await asyncio.gather(*(self.app.start(self.agent) for _ in range(threads)))
            await self._over.wait()
            return time.perf_counter() - began

    def run(self, threads: int = 1) -> float:
        """Seconds until the last thread has run its last step."""
        return asyncio.run(self._run(threads))


class Gate:
    """One agent that selects a deployment and parks at its approval."""

    def __init__(self, url: str, concurrency: int = 100) -> None:
        self.app = App(url, concurrency=concurrency)
        self._parked, self.deployed = asyncio.Semaphore(0), asyncio.Event()
        self.at = 0.0
        self.app.add(self.agent)

    async def decide(self, thread: Thread) -> Deploy | Done:
        return Done() if thread.count(Deploy) else Deploy(tag="v1.2.3")

    async def deploy(self, tag: str) -> str:
        self.at = time.perf_counter()
        self.deployed.set()
        return tag

    async def agent(self, thread: Thread) -> str | None:
        while True:
            step = await thread.next_step(self.decide)
            match step.intent:
                case Deploy():
                    decision = await step.request_approval(by="release-managers")
                    if decision is None:
                        self._parked.release()
                        return None
                    if decision.granted:
                        await step.run(self.deploy)
                case Done():
                    await step.close()
                    return "done"

    async def park(self, threads: int, batch: int = 500) -> None:
        """Start so many threads and wait until all of them wait for their approval."""
        async with self.app:
            for first in range(0, threads, batch):
                await asyncio.gather(*(self.app.start(self.agent) for _ in range(min(batch, threads - first))))
                for _ in range(min(batch, threads - first)):
                    await self._parked.acquire()


async def approve_one(path: str) -> None:
    """Open the file, approve the oldest call, wait until the tool has run, and stop in order."""
    gate = Gate(f"sqlite:///{path}")
    async with gate.app:
        (interrupt,) = await gate.app.interrupts(limit=1)
        await gate.app.approve(interrupt, by=Actor("ana", ("release-managers",)))
        await gate.deployed.wait()
