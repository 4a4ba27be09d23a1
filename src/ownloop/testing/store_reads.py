"""Promises about reading, listening, records, notices and upkeep."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import timedelta

from ..events import Draft
from ..stores.base import NoticeName
from .store_fixtures import MS, StoreFixtures
from .store_scene import TTL, Scene


class ReadPromises(StoreFixtures):
    async def test_open_may_be_called_again(self, scene: Scene) -> None:
        thread = await scene.thread()
        await scene.store.open()
        assert (await scene.row(thread)).head == 1

    async def test_the_log_comes_back_as_it_was_written(self, scene: Scene) -> None:
        wake = await scene.wake()
        values = [{"ü": "\u2028 \x00 \U0001f600", "n": [1, 2.5, True, None, {}]}, {"$blob": "0" * 64, "request": "no"}, {}, {"half": "\ud83d"}]
        begun = await wake.begin(*(Draft("appended", {"name": "n", "data": value}, wake.step("gate"), "op", "ann") for value in values))
        assert await scene.store.events(wake.id, after=1) == begun.events
        assert [event.data["data"] for event in begun.events] == values

    async def test_large_values_come_back_whole(self, scene: Scene) -> None:
        wake = await scene.wake()
        large = {"text": "ä" * 100_000}
        begun = await wake.begin(*(Draft("appended", {"name": "n", "data": large}) for _ in range(2)))
        assert await scene.store.events(wake.id, after=1) == begun.events
        assert await scene.store.recall(wake.id, None, 99) == begun.events

    async def test_events_are_read_in_pages(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.begin(*(Draft("selected", {"n": n}, wake.step(n)) for n in range(1, 6)))
        assert [event.seq for event in await scene.store.events(wake.id, after=2, limit=2)] == [3, 4]
        assert await scene.store.events(wake.id, after=6) == []
        assert await scene.store.events("thr_0000000000001") == []

    async def test_load_gives_the_log_up_to_the_snapshot(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.select()
        await scene.message(wake.id)
        log = await scene.store.events(wake.id)
        assert await scene.store.load(wake.id, 2) == log[:2]
        assert await scene.store.load(wake.id, 3) == log

    async def test_load_leaves_out_what_a_compaction_covers(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.begin(*(Draft("selected", {"n": n}, wake.step(n)) for n in range(1, 6)))
        await wake.begin(Draft("compacted", {"summary": "…", "upto": 5, "kept": [3], "counters": {}}))
        await wake.begin(Draft("ended", {}, wake.step(5)))
        assert [event.seq for event in await scene.store.load(wake.id, 8)] == [1, 3, 6, 7, 8]
        assert [event.seq for event in await scene.store.load(wake.id, 6)] == [1, 2, 3, 4, 5, 6]
        await wake.begin(Draft("compacted", {"summary": "…", "upto": 7, "kept": [3, 6], "counters": {}}))
        assert [event.seq for event in await scene.store.load(wake.id, 9)] == [1, 3, 6, 8, 9]

    async def test_recall_gives_a_named_step_or_the_notes(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.outcome(step="gate")
        await wake.outcome(step=1)
        await wake.begin(Draft("appended", {"name": "n", "data": 1}))
        await wake.outcome("run:g", step="gate")
        assert [event.seq for event in await scene.store.recall(wake.id, wake.step("gate"), 4)] == [2]
        assert [event.seq for event in await scene.store.recall(wake.id, wake.step("gate"), 5)] == [2, 5]
        assert [event.seq for event in await scene.store.recall(wake.id, None, 5)] == [4]
        assert await scene.store.recall(wake.id, wake.step("gat"), 5) == []

    async def test_rows_are_found_by_agent_status_key_and_context(self, scene: Scene) -> None:
        one = await scene.thread("a", "k1", team="red", floor=2)
        two = await scene.thread("a", "k2", team="red")
        other = await scene.thread("b", "k1", team="blue")
        await scene.control(two, "pause")
        store = scene.store

        async def found(**wanted: object) -> set[str]:
            return {row.id for row in await store.threads(**wanted)}  # type: ignore[arg-type]  # what is asked for below

        assert await found() == {one, two, other}
        assert await found(agent="a") == {one, two}
        assert await found(status="paused") == {two}
        assert await found(key="k1") == {one, other}
        assert await found(context={"team": "red"}) == {one, two}
        assert await found(context={"team": "red", "floor": 2}, agent="a", status="open") == {one}
        assert await found(agent="c") == set()
        odd = await scene.thread("a", path="C:\\udata\\u0000", team="green")
        assert await found(context={"path": "C:\\udata\\u0000"}) == {odd}
        assert await found(context={"path": "C:\\\\udata"}) == await found(context={"path": "\x00"}) == set()
        assert (await store.find("b", "k1"), await store.find("b", "k2")) == (other, None)

    async def test_rows_come_newest_first_in_pages(self, scene: Scene) -> None:
        threads = sorted([await scene.thread() for _ in range(5)], reverse=True)
        assert [row.id for row in await scene.store.threads(limit=2)] == threads[:2]
        assert [row.id for row in await scene.store.threads(limit=2, after=threads[1])] == threads[2:4]

    async def test_interrupts_come_oldest_first_in_pages_and_by_what_is_asked_for(self, scene: Scene) -> None:
        found = []
        for kind in ("approval", "question", "approval"):
            thread, request = await scene.parked(kind=kind)
            found.append((thread, request.seq))
            scene.clock.advance("1s")
        store = scene.store
        listed = await store.interrupts()
        assert [(row.thread_id, row.request.seq) for row in listed] == found
        assert [row.thread_id for row in await store.interrupts(limit=1, after=found[0])] == [found[1][0]]
        assert [row.thread_id for row in await store.interrupts(kind="approval")] == [found[0][0], found[2][0]]
        assert [row.thread_id for row in await store.interrupts(thread=found[1][0])] == [found[1][0]]
        assert [row.agent for row in await store.interrupts(agent="bot", limit=2)] == ["bot", "bot"]
        assert await store.interrupts(agent="other") == []
        await scene.decide(*found[0])
        assert len(await store.interrupts()) == 2
        assert len(await store.interrupts(status=None)) == 3
        assert [row.thread_id for row in await store.interrupts(status="decided")] == [found[0][0]]

    async def test_listeners_hear_of_every_commit_and_of_none_that_failed(self, scene: Scene) -> None:
        heard: list[Collection[str] | None] = []
        thread, request = await scene.parked()
        stop = scene.store.listen(heard.append)
        await scene.message(thread)
        await asyncio.sleep(0.05)
        assert any(ids is not None and thread in ids for ids in heard)
        heard.clear()
        await asyncio.gather(scene.decide(thread, request.seq, digest="no"), return_exceptions=True)
        stop()
        await scene.message(thread)
        await asyncio.sleep(0.05)
        assert heard == []


class UpkeepPromises(StoreFixtures):
    # ---- records -----------------------------------------------------------------------------------------------------------------

    async def test_a_record_comes_back_with_a_rising_version(self, scene: Scene) -> None:
        store = scene.store
        assert await store.get("s", "k") is None
        for version, value in enumerate([{"a": 1}, None, "ä"], 1):
            assert await store.put("s", "k", value) is True
            record = await store.get("s", "k")
            assert record is not None and (record.value, record.version, record.expires_at) == (value, version, None)
        assert await store.get("other", "k") is None

    async def test_a_put_with_another_version_changes_nothing(self, scene: Scene) -> None:
        store = scene.store
        assert await store.put("s", "k", 1, expect=1) is False
        assert await store.put("s", "k", 1, expect=0) is True
        assert await store.put("s", "k", 2, expect=0) is False
        assert await store.put("s", "k", 2, expect=1) is True
        record = await store.get("s", "k")
        assert record is not None and (record.value, record.version) == (2, 2)

    async def test_of_many_puts_with_one_version_one_wins(self, scene: Scene) -> None:
        found = await asyncio.gather(*(scene.store.put("s", "k", n, expect=0) for n in range(20)))
        assert found.count(True) == 1

    async def test_a_record_is_gone_at_its_expiry(self, scene: Scene) -> None:
        store = scene.store
        await store.put("s", "k", 1, ttl=timedelta(seconds=1))
        scene.clock.advance(timedelta(seconds=1) - MS)
        assert await store.get("s", "k") is not None
        scene.clock.advance(MS)
        assert await store.get("s", "k") is None
        assert await store.records("s") == {}
        assert await store.drop("s", "k") is False

    async def test_who_held_a_record_that_expired_cannot_write_over_the_next_holder(self, scene: Scene) -> None:
        store = scene.store
        await store.put("s", "k", "mine", expect=0, ttl=timedelta(seconds=1))
        scene.clock.advance("1s")
        assert await store.put("s", "k", "theirs", expect=0) is True
        assert await store.put("s", "k", "mine again", expect=1) is False

    async def test_records_are_listed_by_prefix(self, scene: Scene) -> None:
        for key in ("a_1", "a_2", "ab", "b"):
            await scene.store.put("s", key, key)
        assert list(await scene.store.records("s", "a_")) == ["a_1", "a_2"]
        assert list(await scene.store.records("s")) == ["a_1", "a_2", "ab", "b"]
        assert await scene.store.drop("s", "ab") is True
        assert await scene.store.drop("s", "ab") is False
        assert list(await scene.store.records("s", "a")) == ["a_1", "a_2"]

    # ---- notices -----------------------------------------------------------------------------------------------------------------

    async def test_notices_are_written_for_subscribed_names_only(self, scene: Scene) -> None:
        store = scene.store
        await scene.parked()
        await store.subscribe(["interrupt.opened"])
        assert await store.notices(["interrupt.opened", "thread.started"], 10, TTL) == []
        thread, request = await scene.parked()
        found = await store.notices(["interrupt.opened", "thread.started"], 10, TTL)
        assert [(row.name, row.thread_id, row.interrupt_seq, row.at) for row in found] == [
            ("interrupt.opened", thread, request.seq, scene.clock.now())
        ]

    async def test_a_notice_is_told_again_until_it_is_delivered(self, scene: Scene) -> None:
        store = scene.store
        await store.subscribe(["thread.started"])
        await scene.thread()
        (notice,) = await store.notices(["thread.started"], 10, TTL)
        assert await store.notices(["thread.started"], 10, TTL) == []
        scene.clock.advance(TTL)
        (again,) = await store.notices(["thread.started"], 10, TTL)
        assert (again.id, notice.tries, again.tries) == (notice.id, 0, 1)
        await store.delivered([notice.id])
        scene.clock.advance(TTL)
        assert await store.notices(["thread.started"], 10, TTL) == []

    async def test_every_change_has_its_notice(self, scene: Scene) -> None:
        store = scene.store
        names: tuple[NoticeName, ...] = (
            "thread.started",
            "thread.done",
            "thread.failed",
            "thread.cancelled",
            "thread.closed",
            "interrupt.opened",
            "interrupt.resolved",
        )
        await store.subscribe(names)
        wake = await scene.wake()
        await wake.request()
        await wake.finish(Draft("ended", {}, wake.step()))
        await scene.message(wake.id)
        await (await scene.wake(wake.id)).finish(status="failed")
        await scene.control(wake.id, "cancel")
        closed, request = await scene.parked()
        await scene.decide(closed, request.seq)
        await scene.control(closed, "close")
        found = [row.name for row in await store.notices(names, 100, TTL)]
        assert found == [
            "thread.started",
            "interrupt.opened",
            "interrupt.resolved",
            "thread.done",
            "thread.failed",
            "thread.cancelled",
            "thread.started",
            "interrupt.opened",
            "interrupt.resolved",
            "thread.closed",
        ]

    async def test_a_refused_change_causes_no_notice(self, scene: Scene) -> None:
        await scene.store.subscribe(["interrupt.resolved"])
        thread, request = await scene.parked()
        await asyncio.gather(scene.decide(thread, request.seq, digest="no"), return_exceptions=True)
        assert await scene.store.notices(["interrupt.resolved"], 10, TTL) == []

    # ---- upkeep ------------------------------------------------------------------------------------------------------------------

    async def test_prune_forgets_old_threads_that_are_over_and_no_others(self, scene: Scene) -> None:
        over = []
        for verb in ("cancel", "close"):
            over.append(await scene.thread(key=verb))
            await scene.store.control(over[-1], verb, Draft("control", {"verb": verb}))
        done = await scene.wake()
        await done.finish()
        failed = await scene.wake()
        await failed.finish(status="failed")
        waiting, _ = await scene.parked()
        scene.clock.advance("1d")
        fresh = await scene.thread()
        await scene.control(fresh, "close")
        assert await scene.store.prune(scene.clock.now() - timedelta(hours=1)) == 3
        assert {row.id for row in await scene.store.threads()} == {failed.id, waiting, fresh}
        assert await scene.store.events(done.id) == []
        assert await scene.store.find("bot", "close") is None
        assert await scene.store.check() == []

    async def test_prune_leaves_a_thread_that_is_done_and_still_waits(self, scene: Scene) -> None:
        aside = await scene.wake()
        request = await aside.request()
        await aside.finish(aside=[aside.step()])
        scene.clock.advance("40d")
        assert await scene.store.prune(scene.clock.now()) == 0
        await scene.decide(aside.id, request.seq)
        await (await scene.wake(aside.id)).finish(Draft("ended", {}, aside.step()))
        scene.clock.advance("1d")
        assert await scene.store.prune(scene.clock.now()) == 1

    async def test_prune_forgets_notices_that_nobody_takes_any_more_and_no_others(self, scene: Scene) -> None:
        store = scene.store
        await store.subscribe(["thread.started", "interrupt.opened"])
        await scene.parked()
        scene.clock.advance("40d")
        assert len(await store.notices(["interrupt.opened"], 10, TTL)) == 1, "somebody is told, however often that fails"
        await store.prune(scene.clock.now() - timedelta(days=30))
        scene.clock.advance(TTL)
        assert [row.name for row in await store.notices(["thread.started", "interrupt.opened"], 10, TTL)] == ["interrupt.opened"]

    async def test_prune_forgets_old_mail_and_its_ids(self, scene: Scene) -> None:
        wake = await scene.wake()
        await scene.store.emit("tick", None, "e1", 1)
        await scene.store.emit("tick", None, None, 2)
        assert (await wake.wait("tick"))[1].data["payload"] == 1
        scene.clock.advance("7d")
        await scene.store.emit("tick", None, None, 3)
        await scene.store.prune(scene.clock.now())
        assert await scene.store.emit("tick", None, "e1", 4) is True
        await scene.message(wake.id)
        wake = await scene.wake(wake.id)
        assert [(await wake.wait("tick"))[1].data["payload"] for _ in range(2)] == [3, 4]

    async def test_a_sound_store_has_nothing_to_report(self, scene: Scene) -> None:
        thread, request = await scene.parked()
        await scene.decide(thread, request.seq)
        assert await scene.store.check() == []
