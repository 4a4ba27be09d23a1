"""Progress of what runs: the latest value only, at most one write a second."""

import asyncio

from ownloop import App, Intent, Thread, current_call
from ownloop.errors import StoreError
from ownloop.events import Progress
from ownloop.stores.memory import MemoryStore
from ownloop.testing import ScriptedModel


class Train(Intent):
    pass


class Done(Intent):
    pass


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.progress: list[float] = []

    async def put(self, space, key, value, **options):  # type: ignore[no-untyped-def]
        if space == "progress":
            self.progress.append(value["done"])
        return await super().put(space, key, value, **options)


async def test_a_tool_that_reports_a_thousand_times_costs_a_write_a_second_and_the_last_value_is_kept() -> None:
    store = CountingStore()
    app, model = App(store), ScriptedModel([Train(), Done()])

    def train() -> str:
        for done in range(1, 1001):
            current_call().progress(done, 1000, f"epoch {done}")
        return "trained"

    @app.agent
    async def trainer(thread: Thread) -> str:
        while True:
            step = await thread.next_step(model)
            if isinstance(step.intent, Done):
                return "end"
            await step.run(train)

    async with app:
        thread = await app.start(trainer)
        kinds = set()
        async for item in app.stream(thread):
            kinds.add(item.kind)  # whatever it is: who follows need not ask first
            if item.kind == "turn_ended":
                break
    assert {"started", "progress", "turn_ended"} <= kinds
    assert 1 <= len(store.progress) <= 3
    [record] = (await store.records("progress")).values()
    assert record.value["done"] == 1000 and record.value["text"] == "epoch 1000"


async def test_the_progress_of_an_outside_job_comes_by_event_and_reaches_who_follows_the_thread() -> None:
    app, model = App("memory://"), ScriptedModel([Train(), Done()])

    @app.agent
    async def waiter(thread: Thread) -> object:
        while True:
            step = await thread.next_step(model)
            if isinstance(step.intent, Done):
                return "end"
            await step.wait_for("training", key="job-7")

    seen: list[Progress] = []
    async with app, asyncio.timeout(20):
        thread = await app.start(waiter)
        async for item in app.stream(thread):
            if isinstance(item, Progress):
                seen.append(item)
                await app.emit("training", {"loss": 0.1}, key="job-7")
            elif item.kind == "request":
                await app.emit("training.progress", {"done": 1, "total": 4, "text": "epoch 1"}, key="job-7")
                await app.emit("training.progress", {"done": 2, "total": 4, "text": "epoch 2"}, key="job-7")
            elif item.kind == "turn_ended":
                break
    assert (seen[-1].done, seen[-1].total, seen[-1].text) == (2, 4, "epoch 2")
    assert seen[-1].started_at is not None
    assert [event.kind for event in (await app.show(thread)).events].count("delivered") == 1


class AwayStore(MemoryStore):
    async def put(self, space, key, value, **options):  # type: ignore[no-untyped-def]
        if space == "progress":
            raise StoreError("away")
        return await super().put(space, key, value, **options)


async def test_progress_that_cannot_be_written_is_no_error_at_the_end() -> None:
    app = App(AwayStore())
    async with app:
        app._board.report("stp_1", {"done": 1})
        await asyncio.sleep(0.01)
        app._board.report("stp_1", {"done": 2})  # it would be written a second later
    assert app._runner is None, "it is closed"
