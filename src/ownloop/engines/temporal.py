"""Temporal as the clock and the courier: a workflow per thread, a signal per hint, an activity per wake, a timer for what is due.

Its history holds ids and times, nothing of what threads say.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from ..clock import duration
from .addresses import host_and_port
from .courier import Courier, WakeFailed, ends_before
from .temporal_client import check_options, connect

FOREVER = timedelta(days=3650)
"""How long a wake may take: its heartbeat watches over it."""
LONG = 500
"""Events of a history after which the workflow goes on in a new one."""
AGAIN = RetryPolicy(initial_interval=timedelta(seconds=0.2), maximum_interval=timedelta(seconds=10))


class Temporal(Courier):
    """`App(url, engine=Temporal("host:7233"))`. Needs `pip install "ownloop[temporal]"` and a Temporal server.

    Args:
        target: where the server answers, as host:port.
        task_queue: names the fleet: every process of one store uses the same, and its workers have the same agents.
        heartbeat: how long a worker may be silent before its wakes are tried elsewhere. They start there once the thread's lease has run out, too.
        sweep: how often each worker looks at the rows for what was lost.
        options: what else `temporalio.client.Client.connect` takes: `tls=`, `api_key=`, …
    """

    def __init__(
        self,
        target: str = "localhost:7233",
        *,
        namespace: str = "default",
        task_queue: str = "ownloop",
        heartbeat: timedelta | str = "10s",
        sweep: timedelta | str = "2s",
        **options: Any,
    ) -> None:
        host_and_port("target", target, "temporal.internal:7233; tls=True encrypts what goes there")
        check_options(options)
        super().__init__(f"Temporal at {target}", sweep)
        self._queue, self._heartbeat = task_queue, duration(heartbeat)
        self._connect: dict[str, Any] = {"target_host": target, "namespace": namespace, **options}
        self._client: tuple[asyncio.AbstractEventLoop, Client] | None = None

    async def send(self, thread_id: str, delay: float) -> None:
        client = await self._sender()
        try:
            await client.start_workflow(
                WakesOfThread.run,
                args=[thread_id, self._heartbeat.total_seconds()],
                id=f"{self._queue}/{thread_id}",
                task_queue=self._queue,
                task_timeout=timedelta(seconds=5),  # of a worker that died deciding what comes next
                start_signal="wake",
                start_signal_args=[delay],
            )
        except RPCError as error:  # ten thousand came during one wake: one more says nothing more, and the next run begins with an empty history
            if error.status != RPCStatusCode.INVALID_ARGUMENT or "limit for signal" not in error.message:
                raise

    async def _sender(self) -> Client:
        """The client of this event loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._client[0] is not loop:
            self._client = loop, await connect(**self._connect, lazy=True)
        return self._client[1]

    async def deliver(self, stop: asyncio.Event) -> None:
        connecting = asyncio.ensure_future(connect(**self._connect))
        if not await ends_before(stop, connecting):
            connecting.cancel()
            return
        worker = Worker(
            connecting.result(),
            task_queue=self._queue,
            workflows=[WakesOfThread],
            activities=[self._run_wake],
            max_concurrent_activities=self._concurrency,
            graceful_shutdown_timeout=FOREVER,
            max_heartbeat_throttle_interval=self._heartbeat / 3,
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),  # what a dead worker had cached goes elsewhere
            workflow_runner=UnsandboxedWorkflowRunner(),
            workflow_failure_exception_types=[Exception],  # a workflow that cannot go on ends; the next hint starts another
        )
        running = asyncio.ensure_future(worker.run())
        if not await ends_before(stop, running):
            await worker.shutdown()
        await running

    @activity.defn(name="wake")
    async def _run_wake(self, thread_id: str) -> float | None:
        waking = asyncio.ensure_future(self.run(thread_id))
        silence = activity.info().heartbeat_timeout or self._heartbeat  # what it was told that began the workflow
        try:
            while not waking.done():
                activity.heartbeat()
                await asyncio.wait({waking}, timeout=silence.total_seconds() / 3)
            return await waking
        except WakeFailed as error:  # told already
            raise ApplicationError(str(error), category=ApplicationErrorCategory.BENIGN) from None
        finally:
            waking.cancel()  # Temporal has given up on it; the wake itself goes on


@workflow.defn(name="ownloop")
class WakesOfThread:
    """Lives while its thread has a timer or a wake. Its only state is when the next wake is due."""

    def __init__(self) -> None:
        self._due = float("inf")

    @workflow.signal
    def wake(self, delay: float) -> None:
        self._due = min(self._due, workflow.time() + delay)

    @workflow.run
    async def run(self, thread_id: str, heartbeat: float, delay: float = float("inf")) -> None:
        self.wake(delay)
        while (due := self._due) < float("inf"):
            rest = due - workflow.time()
            if workflow.info().get_current_history_length() > LONG:
                workflow.continue_as_new(args=[thread_id, heartbeat, max(0.0, rest)])
            if rest > 0:
                with suppress(asyncio.TimeoutError):
                    await workflow.wait_condition(lambda due=due: self._due < due, timeout=rest)  # type: ignore[misc]  # bound now
                continue
            self._due = float("inf")
            again: float | None = await workflow.execute_activity(
                "wake", thread_id, start_to_close_timeout=FOREVER, heartbeat_timeout=timedelta(seconds=heartbeat), retry_policy=AGAIN
            )
            if again is not None:
                self.wake(again)
