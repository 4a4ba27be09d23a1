"""Every promise of `ownloop.engines.base`, as tests for any engine on any store."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from ..clock import duration
from ..errors import StoreError
from .engine_scene import Book, EngineFixtures, engine_of

MOMENT = 0.3
"""Seconds after which what was not to happen would have happened."""
NOBODY = "thr_0000000000001"


class HintPromises(EngineFixtures):
    """A hint may be lost, doubled or early."""

    async def test_a_thread_that_is_started_runs(self, book: Book) -> None:
        async with self.app(book) as app:
            thread = await app.start("reader")
            (row,) = await self.done(app, thread)
        assert (book.wakes, row.epoch, row.released) == ([thread], 1, 1)

    async def test_what_nobody_told_while_nobody_served_is_found(self, book: Book) -> None:
        async with self.client() as client:
            threads = [await client.start("reader") for _ in range(5)]
            await self.lose_hints(client)
            async with self.app(book) as app:
                await self.done(app, *threads)
        assert sorted(book.wakes) == sorted(threads)

    async def test_a_hint_that_is_lost_while_it_serves_is_a_delay(self, book: Book) -> None:
        async with self.client() as client, self.app(book) as app:
            threads = [await app.start("reader") for _ in range(5)]
            await self.done(app, *threads)
            for thread in threads:
                await client.send(thread, "hello")
            await self.lose_hints(client)
            await self.until(lambda: all(book.seen[thread] == {"hello"} for thread in threads), "every message is read")

    async def test_a_doubled_hint_runs_no_second_wake(self, book: Book) -> None:
        async with self.app(book) as app:
            thread = await app.start("waiter")
            await self.until(lambda: book.wakes, "it runs")
            await asyncio.gather(*(engine_of(app).wake(thread) for _ in range(30)))
            await asyncio.sleep(MOMENT)
            book.gate.set()
            await self.done(app, thread)
            await asyncio.gather(*(engine_of(app).wake(thread) for _ in range(30)))
            await asyncio.sleep(MOMENT)
            (row,) = await self.done(app, thread)
        assert (len(book.wakes), row.epoch, book.overlaps) == (1, 1, [])

    async def test_an_early_hint_runs_nothing(self, book: Book) -> None:
        async with self.app(book) as app:
            thread = await app.start("sleeper", "1500ms")
            due = await self._due(app, thread)
            for _ in range(10):
                await engine_of(app).wake(thread)
                await engine_of(app).wake(thread, at=due - timedelta(seconds=1))
                await asyncio.sleep(0.02)
            (row,) = await self.done(app, thread)
        assert (row.epoch, len(book.wakes)) == (2, 2)
        assert book.ends[thread] >= due

    async def test_a_hint_for_a_thread_that_does_not_exist_does_no_harm(self, book: Book) -> None:
        async with self.app(book) as app:
            await app.threads(limit=1)
            await engine_of(app).wake(NOBODY)
            await engine_of(app).wake(NOBODY, at=app.store.clock.now() + timedelta(milliseconds=100))
            await engine_of(app).wake("nonsense")
            await asyncio.sleep(MOMENT)
            await self.done(app, await app.start("reader"))

    # ---- the clock -------------------------------------------------------------------------------------------------------------

    async def test_a_timer_wakes_its_thread_when_it_is_due_and_not_before(self, book: Book) -> None:
        async with self.app(book) as app:
            waits = {await app.start("sleeper", f"{wait}ms"): wait for wait in (1, 300, 600, 900, 1200)}
            dues = {thread: await self._due(app, thread) for thread, wait in waits.items() if wait > 1}
            rows = await self.done(app, *waits)
        for thread, due in dues.items():
            assert due <= book.ends[thread] <= due + duration(f"{self.patience}s")
        assert all(row.epoch == 2 for row in rows), "one wake parks it, one ends it"

    async def test_the_timer_of_a_worker_that_died_is_kept(self, book: Book) -> None:
        async with self.app(book) as app:
            thread = await app.start("sleeper", "1s")
            await self._due(app, thread)
        async with self.app(book) as app:
            await self.done(app, thread)

    @staticmethod
    async def _parked(app: Any, thread: str) -> Any:
        row = await app.store.thread(thread)
        return row.due if row.lease_until is None else None

    async def _due(self, app: Any, thread: str) -> Any:
        return await self.until(lambda: self._parked(app, thread), "it is parked")


class ServingPromises(EngineFixtures):
    """It runs what is runnable, as much at once as it may, and ends in order."""

    async def test_an_event_that_comes_during_a_wake_runs_one_more_after_it(self, book: Book) -> None:
        async with self.app(book) as app:
            thread = await app.start("waiter")
            await self.until(lambda: book.wakes, "it runs")
            for text in ("one", "two"):
                await app.send(thread, text)
            await asyncio.sleep(MOMENT)
            assert len(book.wakes) == 1, "no second wake while the first runs"
            book.gate.set()
            await self.until(lambda: book.seen.get(thread) == {"one", "two"}, "both messages are read")
            await self.done(app, thread)
        assert (len(book.wakes), book.overlaps) == (2, [])

    async def test_in_a_burst_every_message_is_read_and_no_two_wakes_of_a_thread_overlap(self, book: Book) -> None:
        book.seconds = 0.01
        async with self.app(book) as app:
            threads = [await app.start("reader") for _ in range(10)]
            texts = [str(number) for number in range(10)]
            await asyncio.gather(*(app.send(thread, text) for text in texts for thread in threads))
            await self.until(lambda: all(book.seen.get(thread) == set(texts) for thread in threads), "every message is read")
            await self.done(app, *threads)
        assert book.overlaps == []

    async def test_several_servers_beside_each_other_run_each_wake_once(self, book: Book) -> None:
        book.seconds = 0.02
        async with self.app(book) as app, self.app(book):
            threads = await asyncio.gather(*(app.start("reader") for _ in range(20)))
            await self.done(app, *threads)
            await asyncio.sleep(MOMENT)
        assert sorted(book.wakes) == sorted(threads)

    async def test_no_more_handlers_run_at_once_than_it_was_told(self, book: Book) -> None:
        async with self.app(book, concurrency=3) as app:
            threads = await asyncio.gather(*(app.start("waiter") for _ in range(12)))
            await self.until(lambda: len(book.wakes) >= 3, "three run")
            await asyncio.sleep(MOMENT)
            assert len(book.wakes) == 3
            book.gate.set()
            await self.done(app, *threads)
        assert book.most == 3

    async def test_one_handler_at_a_time(self, book: Book) -> None:
        async with self.app(book, concurrency=1) as app:
            threads = await asyncio.gather(*(app.start("reader") for _ in range(5)))
            await self.done(app, *threads)
        assert (book.most, sorted(book.wakes)) == (1, sorted(threads))

    async def test_threads_of_an_agent_that_is_not_here_are_left_to_those_who_have_it(self, book: Book) -> None:
        async with self.client() as client, self.app(book, "waiter") as app:
            foreign = [await client.start("reader") for _ in range(5)]
            book.gate.set()
            await self.done(app, await app.start("waiter"))
            await asyncio.sleep(MOMENT)
            assert not set(foreign) & set(book.wakes)
            async with self.app(book, "reader") as other:
                await self.done(other, *foreign)
        assert sorted(set(book.wakes) & set(foreign)) == sorted(foreign)

    async def test_an_agent_that_is_added_while_it_serves_runs(self, book: Book) -> None:
        async with self.app(book, "waiter") as app:
            app.add(book.reader, name="reader")
            await self.done(app, await app.start("reader"))

    # ---- trouble ---------------------------------------------------------------------------------------------------------------

    async def test_an_error_around_a_wake_ends_neither_the_thread_nor_the_engine(self, book: Book) -> None:
        app = self.app(book, lease="1s")
        run_one, failed = app.run_one, list[str]()

        async def failing(thread_id: str) -> bool:
            """The first time before the wake, the second time after it."""
            failed.append(thread_id)
            if failed.count(thread_id) == 1:
                raise StoreError("the store is away")
            again = await run_one(thread_id)
            if failed.count(thread_id) == 2:
                raise StoreError("the store was lost")
            return again

        app.run_one = failing  # type: ignore[method-assign]  # what an engine is given
        async with app:
            thread = await app.start("reader")
            await self.done(app, thread)
            await app.send(thread, "hello")
            await self.until(lambda: book.seen[thread] == {"hello"}, "the message is read")

    async def test_a_wake_that_died_is_run_again_when_its_lease_has_run_out(self, book: Book) -> None:
        async with self.client() as client:
            thread = await client.start("reader")
            claim = await client.store.claim(thread, ["reader"], timedelta(seconds=1))
            assert claim is not None
            async with self.app(book) as app:
                (row,) = await self.done(app, thread)
                assert app.store.clock.now() >= claim.now + timedelta(seconds=1), "not before the lease had run out"
        assert (row.epoch, book.wakes) == (2, [thread])

    # ---- the end ---------------------------------------------------------------------------------------------------------------

    async def test_the_end_starts_nothing_waits_for_what_runs_and_leaves_the_rest(self, book: Book) -> None:
        async with self.client() as client:
            app = self.app(book, concurrency=2)
            await app.__aenter__()
            running = [await app.start("waiter") for _ in range(2)]
            await self.until(lambda: len(book.wakes) == 2, "both run")
            left = [await app.start("reader") for _ in range(2)]  # it knows of them, and has no room
            closing = asyncio.ensure_future(app.aclose())
            await asyncio.sleep(0.1)
            left += [await client.start("reader") for _ in range(2)]
            await asyncio.sleep(MOMENT)
            assert not closing.done(), "it waits for what runs"
            book.gate.set()
            async with asyncio.timeout(self.patience):
                await closing
            assert sorted(book.wakes) == sorted(running), "nothing was started any more"
            rows = [await client.store.thread(thread) for thread in running]
            assert all(row and row.lease_until is None and row.released == row.epoch for row in rows), "released in order"
            async with self.app(book) as later:
                await self.done(later, *running, *left)
        assert book.overlaps == []

    async def test_once_it_was_told_to_end_it_starts_nothing_although_it_has_room(self, book: Book) -> None:
        async with self.client() as client:
            app = self.app(book)
            await app.__aenter__()
            running = await app.start("waiter")
            await self.until(lambda: book.wakes, "it runs")
            closing = asyncio.ensure_future(app.aclose())
            await asyncio.sleep(0.1)
            left = await client.start("reader")
            await asyncio.sleep(MOMENT)
            book.gate.set()
            await closing
            assert book.wakes == [running]
            async with self.app(book) as later:
                await self.done(later, running, left)

    async def test_an_app_that_was_closed_may_be_opened_again(self, book: Book) -> None:
        app = self.app(book)
        for _ in range(2):
            async with app:
                await self.done(app, await app.start("reader"))
        assert len(book.wakes) == 2


class TransactionPromises(EngineFixtures):
    """`tx=`: an event and its hint are committed with what the caller writes, or neither is. A store that cannot do so says so."""

    async def test_what_is_committed_runs_and_not_before(self, book: Book) -> None:
        async with self.app(book) as app:
            if await self._cannot(app):
                return
            async with self.transaction(app) as tx:
                thread = await app.start("reader", tx=tx)
                await asyncio.sleep(MOMENT)
                assert book.wakes == []
            await self.done(app, thread)
            async with self.transaction(app) as tx:
                await app.send(thread, "hello", tx=tx)
                await asyncio.sleep(MOMENT)
                assert book.wakes == [thread]
            await self.until(lambda: book.seen[thread] == {"hello"}, "the message is read")

    async def test_what_is_rolled_back_never_was(self, book: Book) -> None:
        async with self.app(book) as app:
            if await self._cannot(app):
                return
            known = await app.start("reader")
            await self.done(app, known)
            with pytest.raises(ZeroDivisionError):
                async with self.transaction(app) as tx:
                    thread = await app.start("reader", tx=tx)
                    await app.send(known, "hello", tx=tx)
                    raise ZeroDivisionError
            await self.done(app, await app.start("reader"))
            await asyncio.sleep(MOMENT)
            assert await app.store.thread(thread) is None
            (row,) = await self.done(app, known)
        assert (row.epoch, book.seen[known], thread in book.wakes) == (1, set(), False)

    async def _cannot(self, app: Any) -> bool:
        """Whether the store cannot join a transaction; then it must say so."""
        if hasattr(app.store, "within"):
            return False
        with pytest.raises(StoreError, match="tx="):
            await app.start("reader", tx=object())
        return True


class EngineContract(HintPromises, ServingPromises, TransactionPromises):
    """Subclass it in a test module and give `make_app`; pytest collects the promises (with pytest-asyncio).

    Example:
        class TestMyEngine(EngineContract):
            def make_app(self, **options):
                return App(self.url, engine=MyEngine(), **options)  # self.url: an empty store, made anew for each test by a fixture of yours
    """
