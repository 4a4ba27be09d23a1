"""Restate as the clock and the courier: a virtual object per thread, whose exclusive `wake` runs one wake and sends itself what is due.

Its journal holds ids and times, nothing of what threads say. There is no `ctx.run`: what a wake does is in the thread's log.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta

import httpx
import hypercorn.asyncio
import hypercorn.config
import restate
from restate.exceptions import RetryableError

from ..clock import duration
from .addresses import called_at, host_and_port, webs
from .courier import LAST_WORDS, PATIENCE, RETRY, Courier, WakeFailed, ends_before
from .posting import Posting

log = logging.getLogger("ownloop")

RETRIES = restate.InvocationRetryPolicy(timedelta(seconds=0.2), 2.0, timedelta(seconds=10), max_attempts=20, on_max_attempts="kill")
"""Of a wake that could not be run. A killed hint is a lost one: the sweep finds the thread, and the object is free again."""


class Restate(Courier):
    """`App(url, engine=Restate("http://restate:8080"))`. Needs `pip install "ownloop[restate]"` and a Restate server.

    Args:
        ingress: where the server takes calls; with several nodes, all of them or their load balancer.
        admin: where it is told of this service. None: somebody else registers it.
        listen: host and port at which this process takes wakes. Workers of one store may share it on one machine.
        url: how the server reaches the workers, all of them behind one address; default `listen`. What the worker that starts last says, counts.
        longest: longer than any wake, tools included. A wake that takes longer is tried again beside itself, and its lease keeps the other one out.
        name: of the service: one per store.
        sweep: how often each worker looks at the rows for what was lost.
        headers: sent to the server, for instance {"Authorization": "Bearer …"}.
        identity_keys: public keys of the server; calls that it did not sign are refused.
    """

    def __init__(
        self,
        ingress: str | Sequence[str] = "http://localhost:8080",
        *,
        admin: str | None = "http://localhost:9070",
        listen: str = "127.0.0.1:9080",
        url: str | None = None,
        longest: timedelta | str = "1d",
        name: str = "ownloop",
        sweep: timedelta | str = "2s",
        headers: Mapping[str, str] | None = None,
        identity_keys: Sequence[str] = (),
    ) -> None:
        if not re.fullmatch(r"([a-z]|_[a-z0-9])[a-z0-9._-]*", name, re.IGNORECASE | re.ASCII):
            raise ValueError(f"name={name!r}: a service of Restate is named by a letter, and then letters, digits, and . _ -")
        self._ingress, self._admin = deque(webs("ingress", ingress)), admin and webs("admin", admin)[0]
        super().__init__(f"Restate at {self._ingress[0]}", sweep)
        self._listen, self._url = host_and_port("listen", listen, "127.0.0.1:9080"), called_at(listen, url) if admin else ""
        self._service, self._longest, self._headers = name, duration(longest), headers
        self._hints = Posting(headers, PATIENCE / 2, keeps=True)
        self._app, self._is_known = restate.app([self._threads()], identity_keys=list(identity_keys)), False

    async def send(self, thread_id: str, delay: float) -> None:
        path = f"/{self._service}/{thread_id}/wake/send" + (f"?delay={round(delay * 1000)}ms" if delay >= 0.001 else "")
        for left in reversed(range(len(self._ingress))):
            try:
                await self._hints.post(self._ingress[0] + path)
                break
            except httpx.HTTPError as error:
                if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 404:
                    self._is_known = False  # the server has lost what it was told
                self._ingress.rotate(-1)  # the next one is asked first from now on
                if not left:
                    raise

    async def deliver(self, stop: asyncio.Event) -> None:
        config = hypercorn.config.Config()
        config.bind = [f"fd://{self._socket().detach()}"]
        config.loglevel, config.graceful_timeout = "ERROR", self._longest.total_seconds()
        self._is_known = False
        serving = asyncio.ensure_future(hypercorn.asyncio.serve(self._app, config, shutdown_trigger=stop.wait))
        registering = asyncio.ensure_future(self._register())
        try:
            if await ends_before(stop, serving) or (await asyncio.wait({serving}, timeout=LAST_WORDS))[0]:
                serving.result()
        finally:
            serving.cancel()
            registering.cancel()

    def _socket(self) -> socket.socket:
        """One that other workers of this machine may share: the kernel gives each connection to one of them."""
        family = socket.AF_INET6 if ":" in self._listen[0] else socket.AF_INET
        return socket.create_server(self._listen, family=family, reuse_port=True)

    def _threads(self) -> restate.VirtualObject:
        threads = restate.VirtualObject(
            self._service,
            inactivity_timeout=self._longest,
            abort_timeout=self._longest,
            journal_retention=timedelta(),
            idempotency_retention=timedelta(),  # the server gives each hint a key of its own, and would keep it for a day
            state_preload=False,
            invocation_retry_policy=RETRIES,
        )

        @threads.handler()
        async def wake(ctx: restate.ObjectContext) -> None:
            try:
                delay = await self.run(ctx.key())
            except WakeFailed as error:  # told already
                raise RetryableError(str(error)) from None
            if delay is not None:
                ctx.object_send(wake, ctx.key(), None, send_delay=timedelta(seconds=delay), idempotency_key=_due(delay))

        return threads

    async def _register(self) -> None:
        """Tell the server where the workers are, until it has heard, and again once it has lost that. By force, or it would keep the address that it
        was told last, and of a known one what it was told first, `longest` too."""
        pause, is_told, posting = 0.05, False, Posting(self._headers, 10.0, keeps=False)
        while self._admin is not None:
            await asyncio.sleep(pause)
            pause, is_told = RETRY, is_told and not self._is_known
            try:
                if not self._is_known:
                    answer = await posting.post(f"{self._admin}/deployments", {"uri": self._url, "force": True})
                    self._is_known = self._is_among([one["name"] for one in answer.json()["services"]])
            except (httpx.HTTPError, LookupError, ValueError) as error:
                if not is_told:
                    log.error("%s could not be told of the workers at %s (%s), trying again", self._admin, self._url, error)
                is_told = True

    def _is_among(self, names: list[str]) -> bool:
        if self._service not in names:
            raise LookupError(f"there is {', '.join(names)}, and not {self._service}: two stores on one machine need a listen= each")
        return True


def _due(delay: float) -> str | None:
    """The same for every wake that finds the same timer, or a thread with a thousand messages would be sent a thousand hints when it is due. None for
    what is near: a hint that came a moment early must not be taken for the one that it sends."""
    return f"{time.time() + delay:.1f}" if delay >= 1 else None
