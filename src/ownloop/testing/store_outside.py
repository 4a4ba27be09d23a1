"""Promises about what comes from outside: create, message, control, decide, emit."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from ..events import Draft
from ..stores.base import ControlVerb, Fenced, NewThread, Refused
from .store_fixtures import MS, StoreFixtures
from .store_scene import TTL, Scene, kinds

ENDING: list[ControlVerb] = ["cancel", "close"]


class OutsidePromises(StoreFixtures):
    # ---- create ------------------------------------------------------------------------------------------------------------------

    async def test_a_new_thread_is_open_and_runnable_and_holds_its_first_events(self, scene: Scene) -> None:
        thread = await scene.thread(key="k", team="red")
        row = await scene.row(thread)
        assert (row.agent, row.key, row.status, row.head, row.turns, dict(row.context)) == ("bot", "k", "open", 1, 0, {"team": "red"})
        assert row.created_at == row.updated_at == scene.clock.now()
        assert await scene.kinds(thread) == ["input"]
        assert await scene.is_runnable(thread)

    async def test_the_same_key_is_the_same_thread_within_an_agent(self, scene: Scene) -> None:
        new = NewThread("bot", [Draft("input", {"input": 1})], "zendesk:812")
        first, is_new = await scene.store.create(new)
        assert is_new
        assert await scene.store.create(new) == (first, False)
        assert await scene.kinds(first) == ["input"]
        assert (await scene.store.create(NewThread("other", new.drafts, new.key)))[1]

    async def test_of_many_creations_with_one_key_one_wins(self, scene: Scene) -> None:
        found = await asyncio.gather(*(scene.store.create(NewThread("bot", [Draft("input")], "k")) for _ in range(20)))
        assert len({thread for thread, _ in found}) == 1
        assert sum(is_new for _, is_new in found) == 1

    async def test_threads_without_a_key_are_all_different(self, scene: Scene) -> None:
        assert len({await scene.thread() for _ in range(50)}) == 50

    # ---- message -----------------------------------------------------------------------------------------------------------------

    async def test_a_message_wakes_and_is_signed(self, scene: Scene) -> None:
        thread, _ = await scene.parked()
        event, is_new = await scene.message(thread, "hello")
        assert (event.kind, event.by, event.data, is_new) == ("message", "ann", {"text": "hello"}, True)
        assert await scene.is_runnable(thread)

    async def test_a_message_twice_with_one_token_is_one_message(self, scene: Scene) -> None:
        thread, other = await scene.thread(), await scene.thread()
        first, _ = await scene.message(thread, dedupe="m1")
        again, is_new = await scene.message(thread, "other words", dedupe="m1")
        assert (again, is_new) == (first, False)
        assert await scene.kinds(thread) == ["input", "message"]
        assert (await scene.message(other, dedupe="m1"))[1]

    async def test_a_known_token_is_answered_even_when_the_thread_has_ended(self, scene: Scene) -> None:
        thread = await scene.thread()
        first, _ = await scene.message(thread, dedupe="m1")
        await scene.control(thread, "close")
        assert await scene.message(thread, dedupe="m1") == (first, False)

    async def test_a_message_opens_a_done_thread(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.finish()
        await scene.message(wake.id)
        assert (await scene.row(wake.id)).status == "open"
        assert await scene.is_runnable(wake.id)

    @pytest.mark.parametrize("verb", ENDING)
    async def test_an_ended_thread_takes_no_message(self, scene: Scene, verb: ControlVerb) -> None:
        thread = await scene.thread()
        await scene.control(thread, verb)
        with pytest.raises(Refused, match=r"cancelled|closed"):
            await scene.message(thread)

    async def test_a_missing_thread_takes_no_message(self, scene: Scene) -> None:
        with pytest.raises(Refused, match="missing"):
            await scene.message("thr_0000000000001")

    async def test_a_superseding_message_is_refused_if_the_log_has_moved_on(self, scene: Scene) -> None:
        thread, request = await scene.parked()
        with pytest.raises(Refused, match="moved"):
            await scene.message(thread, at_head=request.seq - 1)
        assert (await scene.row(thread)).head == request.seq

    async def test_a_superseding_message_ends_steps_and_withdraws_their_requests_in_the_same_commit(self, scene: Scene) -> None:
        thread, request = await scene.parked()
        drafts = [Draft("message", {"text": "stop"}), Draft("ended", {"status": "superseded"}, request.step_id)]
        await scene.store.message(thread, drafts, at_head=request.seq)
        assert await scene.status_of(thread, request.seq) == "withdrawn"
        assert (await scene.kinds(thread))[-2:] == ["message", "ended"]
        with pytest.raises(Refused, match="decided"):
            await scene.decide(thread, request.seq)

    # ---- control -----------------------------------------------------------------------------------------------------------------

    async def test_pause_stops_claims_and_resume_wakes(self, scene: Scene) -> None:
        thread, _ = await scene.parked()
        assert await scene.control(thread, "pause") is True
        await scene.message(thread)
        assert await scene.store.claim(thread, ["bot"], TTL) is None
        assert await scene.control(thread, "resume") is True
        assert await scene.is_runnable(thread)

    @pytest.mark.parametrize(("verb", "before"), [("pause", "pause"), ("resume", None), ("cancel", "cancel"), ("close", "close")])
    async def test_a_verb_that_changes_nothing_writes_nothing(self, scene: Scene, verb: ControlVerb, before: ControlVerb | None) -> None:
        thread = await scene.thread()
        if before is not None:
            await scene.control(thread, before)
        head = (await scene.row(thread)).head
        assert await scene.control(thread, verb) is False
        assert (await scene.row(thread)).head == head

    async def test_a_verb_that_makes_no_sense_is_refused_with_the_status(self, scene: Scene) -> None:
        closed, done = await scene.thread(), await scene.wake()
        await scene.control(closed, "close")
        await done.finish()
        refused: list[tuple[str, ControlVerb, str]] = [
            (closed, "pause", "closed"),
            (closed, "cancel", "closed"),
            (closed, "retry", "closed"),
            (closed, "hold", "closed"),
            (done.id, "pause", "done"),
            (done.id, "retry", "done"),
            ("thr_0000000000001", "pause", "missing"),
        ]
        for thread, verb, why in refused:
            with pytest.raises(Refused, match=why):
                await scene.control(thread, verb)

    async def test_retry_opens_a_failed_thread_wakes_it_and_forgets_crashes(self, scene: Scene) -> None:
        wake = await scene.wake()
        for _ in range(3):
            scene.clock.advance(TTL)
            wake = await scene.wake(wake.id)
        await wake.finish(status="failed")
        assert not await scene.is_runnable(wake.id)
        await scene.control(wake.id, "retry")
        assert (await scene.wake(wake.id)).claim.crashes == 0

    async def test_retry_forgets_the_crashes_of_a_thread_that_never_released(self, scene: Scene) -> None:
        wake = await scene.wake()
        for _ in range(3):
            scene.clock.advance(TTL)
            wake = await scene.wake(wake.id)
        await scene.control(wake.id, "retry")
        scene.clock.advance(TTL)
        assert (await scene.wake(wake.id)).claim.crashes == 0

    @pytest.mark.parametrize("verb", ENDING)
    async def test_an_end_takes_the_lease_away_and_withdraws_what_is_open(self, scene: Scene, verb: ControlVerb) -> None:
        wake = await scene.wake()
        request = await wake.request()
        await scene.control(wake.id, verb)
        row = await scene.row(wake.id)
        assert (row.lease_until, row.due, row.epoch) == (None, None, 2)
        assert await scene.status_of(wake.id, request.seq) == "withdrawn"
        assert await wake.release() is False
        assert await scene.store.runnable(["bot"], 10) == ([], None)

    async def test_hold_only_writes(self, scene: Scene) -> None:
        thread, _ = await scene.parked()
        assert await scene.control(thread, "hold") is True
        assert await scene.control(thread, "hold") is True
        assert (await scene.row(thread)).status == "open"
        assert not await scene.is_runnable(thread)

    # ---- decide --------------------------------------------------------------------------------------------------------------------

    async def test_a_decision_closes_the_interrupt_and_wakes_the_thread(self, scene: Scene) -> None:
        thread, request = await scene.parked()
        event = await scene.decide(thread, request.seq, digest=request.data["digest"])
        item = await scene.store.interrupt(thread, request.seq)
        assert item is not None and (item.status, item.closing, item.request) == ("decided", event, request)
        assert await scene.is_runnable(thread)

    async def test_a_late_decision_is_refused_and_the_winner_stays(self, scene: Scene) -> None:
        thread, request = await scene.parked()
        await scene.decide(thread, request.seq, by="ann")
        with pytest.raises(Refused, match="decided"):
            await scene.decide(thread, request.seq, "rejected", by="bob")
        item = await scene.store.interrupt(thread, request.seq)
        assert item is not None and item.closing is not None and item.closing.by == "ann"

    async def test_of_many_decisions_at_once_one_wins(self, scene: Scene) -> None:
        thread, request = await scene.parked()
        found = await asyncio.gather(*(scene.decide(thread, request.seq, by=f"p{n}") for n in range(20)), return_exceptions=True)
        assert sum(isinstance(one, Refused) for one in found) == 19
        assert (await scene.kinds(thread)).count("decision") == 1

    async def test_a_decision_counts_until_the_last_millisecond_and_not_at_the_deadline(self, scene: Scene) -> None:
        early, first = await scene.parked(expires=timedelta(hours=1))
        late, second = await scene.parked(expires=timedelta(hours=1))
        scene.clock.advance(timedelta(hours=1) - MS)
        await scene.decide(early, first.seq)
        scene.clock.advance(MS)
        with pytest.raises(Refused, match="expired"):
            await scene.decide(late, second.seq)
        assert await scene.status_of(late, second.seq) == "open"

    async def test_a_decision_after_a_recorded_expiry_is_refused_as_expired(self, scene: Scene) -> None:
        wake = await scene.wake()
        request = await wake.request()
        await wake.settle(request, "expired")
        with pytest.raises(Refused, match="expired"):
            await scene.decide(wake.id, request.seq)

    async def test_a_decision_on_another_digest_is_refused(self, scene: Scene) -> None:
        thread, request = await scene.parked()
        with pytest.raises(Refused, match="digest"):
            await scene.decide(thread, request.seq, digest="0" * 64)
        assert await scene.status_of(thread, request.seq) == "open"

    async def test_what_is_no_interrupt_cannot_be_decided(self, scene: Scene) -> None:
        thread, request = await scene.parked()
        for where in ((thread, request.seq - 1), (thread, 99), ("thr_0000000000001", 1)):
            with pytest.raises(Refused, match="missing"):
                await scene.decide(*where)

    async def test_votes_are_counted_and_neither_wake_nor_close(self, scene: Scene) -> None:
        thread, request = await scene.parked()
        await scene.vote(thread, request.seq, by="ann", votes=0)
        assert await scene.status_of(thread, request.seq) == "open"
        assert not await scene.is_runnable(thread)
        with pytest.raises(Refused, match="votes"):
            await scene.vote(thread, request.seq, by="bob", votes=0)
        await scene.vote(thread, request.seq, by="bob", votes=1)
        await scene.decide(thread, request.seq, by="cleo", votes=2)
        item = await scene.store.interrupt(thread, request.seq)
        assert item is not None and [vote.by for vote in item.votes] == ["ann", "bob"]

    async def test_of_two_last_votes_at_once_one_must_look_again(self, scene: Scene) -> None:
        thread, request = await scene.parked()
        votes = (scene.vote(thread, request.seq, by=name, votes=0) for name in ("ann", "bob"))
        found = await asyncio.gather(*votes, return_exceptions=True)
        assert sorted(type(one).__name__ for one in found) == ["Event", "Refused"]

    async def test_decisions_are_taken_while_paused_or_failed(self, scene: Scene) -> None:
        paused, request = await scene.parked()
        await scene.control(paused, "pause")
        await scene.decide(paused, request.seq)
        assert (await scene.row(paused)).status == "paused"
        wake = await scene.wake()
        request = await wake.request()
        await wake.finish(status="failed")
        await scene.decide(wake.id, request.seq)
        assert (await scene.row(wake.id)).status == "failed"

    async def test_a_decision_on_a_step_set_aside_opens_a_done_thread(self, scene: Scene) -> None:
        wake = await scene.wake()
        request = await wake.request()
        await wake.finish(aside=[wake.step()])
        await scene.decide(wake.id, request.seq)
        assert (await scene.row(wake.id)).status == "open"
        assert await scene.is_runnable(wake.id)

    @pytest.mark.parametrize("verb", ENDING)
    async def test_nothing_is_decided_on_an_ended_thread(self, scene: Scene, verb: ControlVerb) -> None:
        thread, request = await scene.parked()
        await scene.control(thread, verb)
        with pytest.raises(Refused, match="decided"):
            await scene.decide(thread, request.seq)

    # ---- emit ----------------------------------------------------------------------------------------------------------------------

    async def test_an_event_is_delivered_to_the_oldest_wait_of_every_thread(self, scene: Scene) -> None:
        one, two = await scene.wake(), await scene.wake()
        waits = [(wake, (await wake.wait("paid", "1"))[0]) for wake in (one, two)]
        second = (await one.wait("paid", "1", op="wait:y"))[0]
        await scene.store.emit("paid", "1", "e1", {"sum": 7})
        for wake, request in waits:
            last = (await scene.store.events(wake.id))[-1]
            assert (last.kind, last.step_id, last.op) == ("delivered", request.step_id, request.op)
            assert last.data == {"request": request.seq, "payload": {"sum": 7}, "mail": "e1"}
            assert await wake.release() is True
        assert await scene.status_of(one.id, second.seq) == "open"

    async def test_two_waits_of_one_thread_get_two_events(self, scene: Scene) -> None:
        wake = await scene.wake()
        requests = [(await wake.wait("tick", op=f"wait:{n}"))[0].seq for n in range(2)]
        for payload in ("a", "b"):
            await scene.store.emit("tick", None, None, payload)
        found = [event.data for event in await scene.store.events(wake.id) if event.kind == "delivered"]
        assert [(data["request"], data["payload"]) for data in found] == [(requests[0], "a"), (requests[1], "b")]

    async def test_what_a_wait_got_from_outside_is_not_got_again(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.wait("tick")
        await scene.store.emit("tick", None, None, 1)
        assert kinds(await wake.wait("tick")) == ["request"]

    async def test_an_id_that_is_known_is_not_emitted_again(self, scene: Scene) -> None:
        wake = await scene.wake()
        assert await scene.store.emit("paid", "1", "e1", 1) is True
        assert await scene.store.emit("paid", "1", "e1", 2) is False
        assert await scene.store.emit("paid", "2", "e1", 3) is True
        assert (await wake.wait("paid", "1"))[1].data["payload"] == 1
        assert kinds(await wake.wait("paid", "1")) == ["request"]

    async def test_a_late_event_beats_a_deadline_that_nobody_recorded(self, scene: Scene) -> None:
        wake = await scene.wake()
        draft = Draft("request", {"kind": "event", "event": "paid", "key": None}, wake.step(), "wait:paid", expires=timedelta(seconds=1))
        request = (await wake.begin(draft)).events[0]
        await wake.release(due=scene.clock.now() + timedelta(seconds=1))
        scene.clock.advance("1h")
        await scene.store.emit("paid", None, None, 1)
        assert await scene.status_of(wake.id, request.seq) == "decided"
        wake = await scene.wake(wake.id)
        assert await wake.settle(request) == []

    async def test_a_wait_that_was_closed_gets_nothing(self, scene: Scene) -> None:
        wake = await scene.wake()
        request = (await wake.wait("paid"))[0]
        await wake.settle(request, "superseded")
        head = (await scene.row(wake.id)).head
        await scene.store.emit("paid", None, None, 1)
        assert (await scene.row(wake.id)).head == head

    async def test_an_event_opens_a_done_thread_that_waits_for_it(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.wait("paid")
        await wake.finish(aside=[wake.step()])
        await scene.store.emit("paid", None, None, 1)
        assert (await scene.row(wake.id)).status == "open"

    async def test_waits_and_events_at_once_lose_nothing(self, scene: Scene) -> None:
        wakes = [await scene.wake() for _ in range(10)]
        await asyncio.gather(*(call for wake in wakes for call in (wake.wait("go", wake.id), scene.store.emit("go", wake.id, None, 1))))
        for wake in wakes:
            assert (await scene.kinds(wake.id)).count("delivered") == 1

    async def test_a_fenced_wait_leaves_nothing_behind(self, scene: Scene) -> None:
        wake = await scene.wake()
        await scene.control(wake.id, "pause")
        with pytest.raises(Fenced):
            await wake.wait("paid")
        head = (await scene.row(wake.id)).head
        await scene.store.emit("paid", None, None, 1)
        assert (await scene.row(wake.id)).head == head
