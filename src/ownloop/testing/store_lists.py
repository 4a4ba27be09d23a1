"""Promises about lists of threads and interrupts: filters, order, pages, counts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ..events import Draft, Json
from ..ids import interrupt_id
from ..stores.base import NewThread
from .store_fixtures import StoreFixtures
from .store_scene import TTL, Scene, Wake

CONTEXTS: list[dict[str, Json]] = [
    {"tenant": "acme", "floor": 2},
    {"tenant": "Acme", "floor": "2"},
    {"tenant": None, "floor": True},
    {'"quoted" ü.$[0]': {"b": [1, "é"], "a": None}},
    {},
]


async def parked_in(scene: Scene, context: dict[str, Json], *, agent: str = "bot", key: str | None = None, **request: Any) -> tuple[str, int]:
    """An open interrupt of a thread with this context: the thread and the position."""
    thread = await scene.thread(agent, key, **context)
    claim = await scene.store.claim(thread, [agent], TTL)
    assert claim is not None
    wake = Wake(scene.store, claim)
    await wake.select()
    event = await wake.request(**request)
    await wake.release()
    return thread, event.seq


class ListPromises(StoreFixtures):
    async def listed(self, scene: Scene, **asked: Any) -> list[tuple[str, int]]:
        return [(row.thread_id, row.request.seq) for row in await scene.store.interrupts(**asked)]

    # ---- context -----------------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            ({}, [0, 1, 2, 3, 4]),
            ({"tenant": "acme"}, [0]),
            ({"tenant": "acme", "floor": 2}, [0]),
            ({"tenant": "acme", "floor": 3}, []),
            ({"floor": 2.0}, [0]),
            ({"floor": "2"}, [1]),
            ({"floor": True}, [2]),
            ({"floor": 1}, []),
            ({"tenant": None}, [2]),
            ({"absent": None}, []),
            ({'"quoted" ü.$[0]': {"a": None, "b": [1, "é"]}}, [3]),
            ({'"quoted" ü.$[0]': {"a": None}}, []),
            ({"tenant": "acme' OR '1'='1"}, []),
            ({"tenant": "\ud83d"}, []),
            ({"\ud83d": 1}, []),
            ({"floor": 10**30}, []),
        ],
    )
    async def test_a_context_filter_finds_those_that_hold_the_pairs_and_no_others(
        self, scene: Scene, wanted: dict[str, Json], found: list[int]
    ) -> None:
        parked = [await parked_in(scene, context) for context in CONTEXTS]
        chosen = [parked[number] for number in found]
        assert sorted(await self.listed(scene, context=wanted)) == sorted(chosen)
        assert {row.id for row in await scene.store.threads(context=wanted)} == {thread for thread, _ in chosen}
        assert sum(one.count for one in await scene.store.tally(context=wanted)) == len(found)

    async def test_a_page_is_full_although_the_filter_leaves_most_out(self, scene: Scene) -> None:
        for number in range(30):
            await parked_in(scene, {"n": number % 10})
            scene.clock.advance("1s")
        assert len(await self.listed(scene, context={"n": 7}, limit=3)) == 3
        assert len(await scene.store.threads(context={"n": 7}, limit=3)) == 3

    # ---- order -------------------------------------------------------------------------------------------------------------------

    async def test_the_urgent_come_first_then_the_oldest_in_pages_of_any_size(self, scene: Scene) -> None:
        made = []
        for hours in (None, 9, 3, None, 9, None):
            made.append(await parked_in(scene, {}, expires=None if hours is None else timedelta(hours=hours)))
            scene.clock.advance("1s")
        await parked_in(scene, {}, kind="timer", expires=timedelta(minutes=1))
        urgent = [made[number] for number in (2, 1, 4, 0, 3, 5)]
        people = ("approval", "question")
        assert await self.listed(scene, order="urgency", kinds=people) == urgent
        for size in range(1, 7):
            pages: list[tuple[str, int]] = []
            while page := await self.listed(scene, order="urgency", kinds=people, limit=size, after=pages[-1] if pages else None):
                pages += page
            assert pages == urgent

    async def test_a_timer_is_not_urgent(self, scene: Scene) -> None:
        timer = await parked_in(scene, {}, kind="timer", expires=timedelta(minutes=1))
        scene.clock.advance("1s")
        approval = await parked_in(scene, {}, expires=timedelta(hours=1))
        assert await self.listed(scene, order="urgency") == [approval, timer]

    async def test_a_page_goes_on_after_one_that_was_decided_meanwhile(self, scene: Scene) -> None:
        made = []
        for hours in (1, 2, 3):
            made.append(await parked_in(scene, {}, expires=timedelta(hours=hours)))
        first = await self.listed(scene, order="urgency", limit=1)
        await scene.decide(*first[0])
        assert await self.listed(scene, order="urgency", after=first[0]) == made[1:]

    # ---- what is asked for -------------------------------------------------------------------------------------------------------

    async def test_interrupts_are_found_by_kinds_and_name(self, scene: Scene) -> None:
        gate = await parked_in(scene, {})
        question = await parked_in(scene, {}, kind="question", question="Which?", name="ask")
        timer = await parked_in(scene, {}, kind="timer")
        assert set(await self.listed(scene, kinds=["approval", "timer"])) == {gate, timer}
        assert await self.listed(scene, kinds=["approval"], kind="question") == []
        assert await self.listed(scene, kinds=["nonsense"]) == []
        assert await self.listed(scene, name="ask") == [question]
        assert await self.listed(scene, name="as") == []
        assert set(await scene.store.waiting()) == {gate, question}

    @pytest.mark.parametrize(
        ("q", "is_found"),
        [
            ("DEPLOY", True),
            ("zendesk:8", True),
            ("backoff", True),
            ("Which tag?", True),
            ("v1.1", True),
            ('say "no"', True),
            ("100%_\\", True),
            ("straße", True),
            ("v1_1", False),
            ("digest", False),
            ("STRASSE", False),
            ("\ud83d", False),
            ("", True),
        ],
    )
    async def test_interrupts_are_found_by_a_piece_of_text(self, scene: Scene, q: str, is_found: bool) -> None:
        arguments = {"tag": "v1.1.0", "note": 'they say "no" to 100%_\\ on the Straße'}
        one = await parked_in(scene, {}, agent="backoffice", key="Zendesk:812", question="Which tag?", arguments=arguments)
        other = await parked_in(scene, {}, kind="question", name="x", question="Nothing of it", agent="other")
        assert set(await self.listed(scene, q=q)) == ({one, other} if not q else {one} if is_found else set())

    async def test_what_is_too_large_is_not_searched(self, scene: Scene) -> None:
        one = await parked_in(scene, {}, arguments={"text": "needle" + "x" * 100_000})
        assert await self.listed(scene, q="needle") == []
        assert await self.listed(scene, q="deploy") == [one]

    async def test_threads_are_found_by_a_piece_of_text(self, scene: Scene) -> None:
        one, _ = await scene.store.create(NewThread("refunds", [Draft("input", {"input": {"text": 'Order "812" is LATE'}})], "mail:1"))
        await scene.thread("other", "k")
        for q in ("refund", "MAIL", 'order "812"', "late"):
            assert [row.id for row in await scene.store.threads(q=q)] == [one]
        assert await scene.store.threads(q="order 812") == []
        assert len(await scene.store.threads(q="")) == 2

    # ---- snoozed -----------------------------------------------------------------------------------------------------------------

    async def test_what_is_snoozed_is_left_out_until_its_time(self, scene: Scene) -> None:
        one, other = await parked_in(scene, {}), await parked_in(scene, {})
        await scene.store.put("snooze", interrupt_id(*one), {}, ttl=timedelta(hours=1))
        assert await self.listed(scene, snoozed=False) == [other]
        assert await self.listed(scene, snoozed=True) == [one]
        assert set(await self.listed(scene)) == {one, other}
        assert sorted((tally.is_snoozed, tally.count) for tally in await scene.store.tally()) == [(False, 1), (True, 1)]
        scene.clock.advance("1h")
        assert set(await self.listed(scene, snoozed=False)) == {one, other}

    async def test_the_tally_counts_what_waits_for_people_by_agent_and_kind(self, scene: Scene) -> None:
        for kind in ("approval", "approval", "question", "timer"):
            await parked_in(scene, {}, kind=kind)
        decided = await parked_in(scene, {}, agent="other")
        found = {(one.agent, one.kind): one.count for one in await scene.store.tally()}
        assert found == {("bot", "approval"): 2, ("bot", "question"): 1, ("other", "approval"): 1}
        await scene.decide(*decided)
        assert len(await scene.store.tally()) == 2

    # ---- beside ------------------------------------------------------------------------------------------------------------------

    async def test_heads_are_the_lengths_of_the_logs(self, scene: Scene) -> None:
        wake = await scene.wake()
        other = await scene.thread()
        await wake.select()
        assert await scene.store.heads([wake.id, other, "thr_0000000000001", "nonsense"]) == {wake.id: 2, other: 1}
        assert await scene.store.heads([]) == {}

    async def test_records_written_since_a_time_are_found_by_their_expiry(self, scene: Scene) -> None:
        day = timedelta(days=1)
        for number in range(3):
            await scene.store.put("progress", f"stp_{number}", number, ttl=day)
            scene.clock.advance("1s")
        await scene.store.put("progress", "stp_for_ever", 9)
        await scene.store.put("other", "stp_9", 9, ttl=day)
        since = scene.clock.now() - timedelta(seconds=2)
        assert list(await scene.store.records("progress", beyond=since + day)) == ["stp_2"]
        assert list(await scene.store.records("progress", "stp_1", beyond=since + day - timedelta(seconds=5))) == ["stp_1"]
