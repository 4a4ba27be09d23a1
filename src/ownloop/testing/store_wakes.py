"""Promises about a wake: claim, renew, release, begin, the mailbox, fact."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from ..clock import micros
from ..events import Draft
from ..stores.base import Fenced, Refused
from .store_fixtures import MS, StoreFixtures
from .store_scene import TTL, Scene, kinds


class WakePromises(StoreFixtures):
    # ---- claim -------------------------------------------------------------------------------------------------------------------

    async def test_a_claim_takes_the_lease_raises_the_epoch_and_gives_the_snapshot(self, scene: Scene) -> None:
        wake = await scene.wake()
        row = wake.claim.row
        assert (row.epoch, row.head, row.lease_until) == (1, 1, scene.clock.now() + TTL)
        assert wake.claim.now == scene.clock.now()
        assert row == await scene.row(wake.id)

    async def test_a_held_thread_is_claimed_by_nobody_else(self, scene: Scene) -> None:
        wake = await scene.wake()
        await scene.message(wake.id)
        assert await scene.store.claim(wake.id, ["bot"], TTL) is None
        assert await scene.store.claim(wake.id, None, TTL) is None
        assert not await scene.is_runnable(wake.id)

    async def test_of_many_claims_at_once_one_wins(self, scene: Scene) -> None:
        thread = await scene.thread()
        claims = await asyncio.gather(*(scene.store.claim(thread, ["bot"], TTL) for _ in range(20)))
        assert sum(claim is not None for claim in claims) == 1

    async def test_a_thread_of_an_agent_that_this_process_lacks_is_not_claimed(self, scene: Scene) -> None:
        thread = await scene.thread("other")
        assert await scene.store.claim(thread, ["bot"], TTL) is None
        assert (await scene.store.runnable(["bot"], 10))[0] == []

    async def test_a_missing_thread_is_not_claimed(self, scene: Scene) -> None:
        assert await scene.store.claim("thr_0000000000001", ["bot"], TTL) is None
        assert await scene.store.claim("nonsense", None, TTL) is None

    async def test_a_lease_that_ran_out_is_claimed_and_the_dead_wake_counts_as_a_crash(self, scene: Scene) -> None:
        first = await scene.wake()
        assert (await scene.store.runnable(["bot"], 10))[1] == scene.clock.now() + TTL
        scene.clock.advance(TTL - MS)
        assert not await scene.is_runnable(first.id)
        scene.clock.advance(MS)
        second = await scene.wake(first.id)
        assert (second.epoch, first.claim.crashes, second.claim.crashes) == (2, 0, 1)

    async def test_a_wake_that_ended_in_order_is_no_crash(self, scene: Scene) -> None:
        first = await scene.wake()
        await first.release()
        await scene.message(first.id)
        assert (await scene.wake(first.id)).claim.crashes == 0

    async def test_a_selection_forgets_the_crashes_before_this_wake_but_not_this_wake(self, scene: Scene) -> None:
        wake = await scene.wake()
        for _ in range(3):
            scene.clock.advance(TTL)
            wake = await scene.wake(wake.id)
        assert wake.claim.crashes == 3
        await wake.select()
        scene.clock.advance(TTL)
        assert (await scene.wake(wake.id)).claim.crashes == 1

    async def test_an_outcome_forgets_the_crashes_before_this_wake(self, scene: Scene) -> None:
        wake = await scene.wake()
        scene.clock.advance(TTL)
        wake = await scene.wake(wake.id)
        await wake.outcome()
        scene.clock.advance(TTL)
        assert (await scene.wake(wake.id)).claim.crashes == 1

    async def test_an_outcome_from_a_lost_lease_does_not_hide_the_crash_of_a_later_wake(self, scene: Scene) -> None:
        lost = await scene.wake()
        scene.clock.advance(TTL)
        await scene.wake(lost.id)
        await lost.outcome()
        scene.clock.advance(TTL)
        assert (await scene.wake(lost.id)).claim.crashes == 2

    async def test_the_lease_outside_a_wake_takes_any_idle_thread_and_opens_a_done_one(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.finish()
        assert await scene.store.claim(wake.id, ["bot"], TTL) is None
        claim = await scene.store.claim(wake.id, None, TTL)
        assert claim is not None and claim.row.status == "open"

    @pytest.mark.parametrize("verb", ["cancel", "close"])
    async def test_the_lease_outside_a_wake_is_refused_on_an_ended_thread(self, scene: Scene, verb: str) -> None:
        thread = await scene.thread()
        await scene.store.control(thread, verb, Draft("control", {"verb": verb}))  # type: ignore[arg-type]  # one of two verbs
        assert await scene.store.claim(thread, None, TTL) is None

    async def test_a_claim_brings_the_breakpoints_of_thread_and_agent(self, scene: Scene) -> None:
        thread = await scene.thread()
        await scene.store.put("hold", thread, {"on": ["deploy"]})
        await scene.store.put("hold", "agent:bot", {"on": [None]})
        await scene.store.put("hold", "agent:other", {"on": ["no"]})
        wake = await scene.wake(thread)
        assert wake.claim.holds == ("deploy", None)
        await scene.store.drop("hold", thread)
        assert (await wake.begin(Draft("selected", {}, wake.step()), selecting=True)).holds == (None,)

    # ---- runnable ----------------------------------------------------------------------------------------------------------------

    async def test_runnable_names_the_longest_ready_first_and_no_more_than_asked_for(self, scene: Scene) -> None:
        threads = []
        for _ in range(3):
            threads.append(await scene.thread())
            scene.clock.advance("1s")
        assert (await scene.store.runnable(["bot"], 2))[0] == threads[:2]

    async def test_a_timer_makes_runnable_at_its_moment_and_is_announced_before(self, scene: Scene) -> None:
        wake = await scene.wake()
        due = scene.clock.now() + timedelta(hours=6)
        await wake.release(due=due)
        assert await scene.store.runnable(["bot"], 10) == ([], due)
        scene.clock.advance(timedelta(hours=6) - MS)
        assert await scene.store.claim(wake.id, ["bot"], TTL) is None
        scene.clock.advance(MS)
        assert await scene.store.runnable(["bot"], 10) == ([wake.id], None)
        assert await scene.store.claim(wake.id, ["bot"], TTL) is not None

    async def test_a_done_thread_is_runnable_when_a_step_set_aside_is_due(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.finish(due=scene.clock.now() + timedelta(minutes=1))
        assert (await scene.row(wake.id)).status == "done"
        assert not await scene.is_runnable(wake.id)
        scene.clock.advance("1m")
        assert await scene.is_runnable(wake.id)
        assert (await scene.wake(wake.id)).claim.row.status == "open"

    # ---- renew and pulse -----------------------------------------------------------------------------------------------------------

    async def test_a_renewed_lease_lasts_from_now_on(self, scene: Scene) -> None:
        wake = await scene.wake()
        scene.clock.advance(TTL - MS)
        pulse = scene.store.renew({wake.id: 1}, TTL)[wake.id]
        assert pulse is not None and (pulse.status, pulse.woken, pulse.epoch) == ("open", 1, 1)
        scene.clock.advance(TTL - MS)
        await wake.select()

    async def test_a_lease_that_ran_out_is_never_revived(self, scene: Scene) -> None:
        wake = await scene.wake()
        scene.clock.advance(TTL)
        assert scene.store.renew({wake.id: 1}, TTL) == {wake.id: None}
        with pytest.raises(Fenced):
            await wake.select()

    async def test_only_the_holder_renews(self, scene: Scene) -> None:
        wake = await scene.wake()
        assert scene.store.renew({wake.id: 2, "thr_0000000000001": 1}, TTL) == {wake.id: None, "thr_0000000000001": None}
        await wake.release()
        assert scene.store.renew({wake.id: 1}, TTL) == {wake.id: None}

    async def test_renew_works_from_another_thread_and_tells_of_pause_and_news(self, scene: Scene) -> None:
        wake = await scene.wake()
        await scene.message(wake.id)
        await scene.control(wake.id, "pause")
        pulse = (await asyncio.to_thread(scene.store.renew, {wake.id: 1}, TTL))[wake.id]
        assert pulse is not None and (pulse.status, pulse.woken) == ("paused", 2)
        assert await scene.store.pulse([wake.id, "thr_0000000000001"]) == {wake.id: pulse}

    # ---- release -------------------------------------------------------------------------------------------------------------------

    async def test_an_event_between_snapshot_and_release_keeps_the_thread_runnable(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.select()
        await scene.message(wake.id)
        assert await wake.release() is True
        assert await scene.is_runnable(wake.id)

    async def test_the_handlers_own_events_never_wake_it(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.select()
        await wake.request()
        assert await wake.release() is False
        assert await scene.store.runnable(["bot"], 10) == ([], None)

    async def test_an_event_that_nobody_consumes_causes_exactly_one_wake(self, scene: Scene) -> None:
        thread, _ = await scene.parked()
        await scene.message(thread)
        wake = await scene.wake(thread)
        assert await wake.release() is False
        assert await scene.store.claim(thread, ["bot"], TTL) is None

    async def test_the_release_of_an_old_epoch_changes_nothing(self, scene: Scene) -> None:
        old = await scene.wake()
        scene.clock.advance(TTL)
        new = await scene.wake(old.id)
        before = await scene.row(old.id)
        assert await old.release() is False
        assert await scene.row(old.id) == before
        await new.select()

    # ---- begin -----------------------------------------------------------------------------------------------------------------------

    async def test_begins_get_contiguous_positions_and_the_stores_time(self, scene: Scene) -> None:
        wake = await scene.wake()
        begun = await wake.begin(Draft("selected", {"intent": "a"}, wake.step(1)), Draft("selected", {"intent": "b"}, wake.step(2)))
        assert [(event.seq, event.at) for event in begun.events] == [(2, scene.clock.now()), (3, scene.clock.now())]
        assert (await scene.store.events(wake.id))[1:] == begun.events

    async def test_a_begin_of_a_wrong_epoch_is_refused(self, scene: Scene) -> None:
        old = await scene.wake()
        scene.clock.advance(TTL)
        await scene.wake(old.id)
        with pytest.raises(Fenced, match="lease"):
            await old.started()
        assert await scene.kinds(old.id) == ["input"]

    async def test_a_begin_after_the_lease_ran_out_is_refused_although_nobody_took_it(self, scene: Scene) -> None:
        wake = await scene.wake()
        scene.clock.advance(TTL - MS)
        await wake.started()
        scene.clock.advance(MS)
        with pytest.raises(Fenced, match="lease"):
            await wake.started()

    async def test_a_begin_after_release_is_refused(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.release()
        with pytest.raises(Fenced, match="lease"):
            await wake.started()

    async def test_nothing_begins_on_a_paused_thread_but_a_selection_is_kept(self, scene: Scene) -> None:
        wake = await scene.wake()
        await scene.control(wake.id, "pause")
        with pytest.raises(Fenced, match="paused"):
            await wake.started()
        with pytest.raises(Fenced, match="paused"):
            await wake.request()
        assert (await wake.select()).kind == "selected"

    @pytest.mark.parametrize("verb", ["cancel", "close"])
    async def test_nothing_begins_on_an_ended_thread_not_even_a_selection(self, scene: Scene, verb: str) -> None:
        wake = await scene.wake()
        await scene.store.control(wake.id, verb, Draft("control", {"verb": verb}))  # type: ignore[arg-type]  # one of two verbs
        for begin in (wake.started, wake.select, wake.request):
            with pytest.raises(Fenced, match=r"cancelled|closed"):
                await begin()

    async def test_a_begin_that_is_refused_writes_none_of_its_events(self, scene: Scene) -> None:
        wake = await scene.wake()
        started = await wake.started()
        await wake.outcome(started=started.seq)
        second = Draft("started", {"after": started.seq}, wake.step(), "run:f")
        with pytest.raises(Fenced, match="overtaken"):
            await wake.begin(Draft("ended", {}, wake.step(9)), second)
        assert (await scene.row(wake.id)).head == 3

    async def test_a_question_about_a_call_is_overtaken_by_an_outcome_that_its_asker_has_not_read(self, scene: Scene) -> None:
        slow = await scene.wake()
        started = await slow.started()
        scene.clock.advance("31s")
        asker = await scene.wake(slow.id)
        await slow.outcome(started=started.seq)
        with pytest.raises(Fenced, match="overtaken"):
            await asker.request("in_doubt", call="run:f")
        assert await scene.store.interrupts(thread=slow.id) == []

    async def test_a_start_is_overtaken_only_by_an_outcome_of_its_own_operation_after_that_position(self, scene: Scene) -> None:
        wake = await scene.wake()
        started = await wake.started()
        await wake.outcome("run:g", started=started.seq)
        await wake.outcome(step=2)
        again = await wake.started(after=started.seq)
        outcome = await wake.outcome(started=started.seq)
        await wake.started(after=outcome.seq)
        with pytest.raises(Fenced, match="overtaken"):
            await wake.started(after=again.seq)

    async def test_a_superseding_message_stops_begins_that_have_not_read_it(self, scene: Scene) -> None:
        wake = await scene.wake()
        head = (await scene.row(wake.id)).head
        await scene.message(wake.id, at_head=head)
        for begin in (wake.started, wake.select):
            with pytest.raises(Fenced, match="superseded"):
                await begin()
        await wake.begin(Draft("started", {}, wake.step(), "run:f"), known=head + 1)

    async def test_a_plain_message_stops_nothing(self, scene: Scene) -> None:
        wake = await scene.wake()
        await scene.message(wake.id)
        await wake.started()

    async def test_a_request_gets_a_digest_of_what_is_shown_and_a_deadline_from_its_commit(self, scene: Scene) -> None:
        wake = await scene.wake()
        scene.clock.advance("5s")
        one = await wake.request(arguments={"tag": "v1"}, expires=timedelta(hours=1))
        two = await wake.request(arguments={"tag": "v2"}, expires=scene.clock.now())
        assert one.data["expires_at"] == micros(scene.clock.now() + timedelta(hours=1))
        assert two.data["expires_at"] == micros(scene.clock.now())
        assert len(one.data["digest"]) == 64 and one.data["digest"] != two.data["digest"]

    # ---- mailbox ---------------------------------------------------------------------------------------------------------------------

    async def test_an_event_that_came_before_the_wait_is_delivered_in_the_same_commit(self, scene: Scene) -> None:
        wake = await scene.wake()
        await scene.store.emit("paid", "42", "e1", {"sum": 7})
        request, delivered = await wake.wait("paid", "42")
        assert delivered.kind == "delivered" and delivered.data == {"request": request.seq, "payload": {"sum": 7}, "mail": "e1"}
        assert await scene.status_of(wake.id, request.seq) == "decided"
        assert await wake.release() is False

    async def test_each_event_is_had_once_by_each_thread_oldest_first(self, scene: Scene) -> None:
        one, two = await scene.wake(), await scene.wake()
        for number in range(3):
            await scene.store.emit("tick", None, None, number)
        for wake in (one, two):
            got = [(await wake.wait("tick"))[1].data["payload"] for _ in range(3)]
            assert got == [0, 1, 2]
            assert kinds(await wake.wait("tick")) == ["request"]

    async def test_an_event_from_before_the_threads_start_is_not_for_it(self, scene: Scene) -> None:
        await scene.store.emit("tick", None, None, 1)
        scene.clock.advance(MS)
        assert kinds(await (await scene.wake()).wait("tick")) == ["request"]

    async def test_an_event_is_kept_seven_days_for_who_waits_later(self, scene: Scene) -> None:
        wakes = [await scene.wake(), await scene.wake()]
        await scene.store.emit("tick", None, None, 1)
        for wake, days, found in zip(wakes, (timedelta(days=7) - MS, MS), (["request", "delivered"], ["request"]), strict=True):
            scene.clock.advance(days)
            await scene.message(wake.id)
            assert kinds(await (await scene.wake(wake.id)).wait("tick")) == found

    async def test_name_and_key_both_count(self, scene: Scene) -> None:
        wake = await scene.wake()
        await scene.store.emit("paid", "1", None, 1)
        assert kinds(await wake.wait("paid", "2")) == ["request"]
        assert kinds(await wake.wait("paid")) == ["request"]
        assert kinds(await wake.wait("sent", "1")) == ["request"]

    # ---- fact ------------------------------------------------------------------------------------------------------------------------

    async def test_a_fact_of_the_wake_that_holds_the_lease_wakes_nobody(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.started()
        await wake.outcome()
        assert await wake.release() is False

    async def test_a_fact_from_a_lost_lease_is_accepted_and_wakes(self, scene: Scene) -> None:
        lost = await scene.wake()
        started = await lost.started()
        scene.clock.advance(TTL)
        other = await scene.wake(lost.id)
        fact = await lost.outcome(started=started.seq)
        assert fact.kind == "outcome"
        assert await other.release() is True

    async def test_a_fact_after_the_lease_ran_out_wakes_although_nobody_took_it(self, scene: Scene) -> None:
        wake = await scene.wake()
        scene.clock.advance(TTL)
        fact = await wake.outcome()
        assert (await scene.row(wake.id)).woken == fact.seq

    @pytest.mark.parametrize("verb", ["pause", "cancel", "close"])
    async def test_a_fact_is_accepted_whatever_became_of_the_thread(self, scene: Scene, verb: str) -> None:
        wake = await scene.wake()
        await wake.started()
        await scene.store.control(wake.id, verb, Draft("control", {"verb": verb}))  # type: ignore[arg-type]  # one of three verbs
        assert (await wake.outcome()).kind == "outcome"

    async def test_a_fact_of_a_missing_thread_is_refused(self, scene: Scene) -> None:
        with pytest.raises(Refused, match="missing"):
            await scene.store.fact("thr_0000000000001", 1, Draft("outcome", {"value": 1}, op="run:f"))

    async def test_the_second_outcome_of_an_operation_is_late_and_changes_nothing(self, scene: Scene) -> None:
        wake = await scene.wake()
        started = await wake.started()
        assert (await wake.outcome(started=started.seq)).kind == "outcome"
        assert (await wake.outcome(started=started.seq, value=2)).kind == "late"
        assert (await wake.outcome("run:g", started=started.seq)).kind == "outcome"
        assert (await wake.outcome(step="gate", started=started.seq)).kind == "outcome"

    async def test_an_outcome_before_the_first_start_does_not_count(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.outcome()
        again = await wake.started()
        assert (await wake.outcome(started=again.seq)).kind == "outcome"
        assert (await wake.outcome()).kind == "late"

    async def test_of_many_outcomes_at_once_one_wins(self, scene: Scene) -> None:
        wake = await scene.wake()
        facts = await asyncio.gather(*(wake.outcome(value=number) for number in range(20)))
        assert sorted(kinds(facts)) == ["late"] * 19 + ["outcome"]

    async def test_an_outcome_withdraws_the_question_in_doubt_of_its_operation_only(self, scene: Scene) -> None:
        wake = await scene.wake()
        mine = await wake.request("in_doubt", call="run:f", question="did it happen?")
        other = await wake.request("in_doubt", call="run:g", question="did it happen?")
        approval = await wake.request()
        await wake.outcome()
        found = [await scene.status_of(wake.id, event.seq) for event in (mine, other, approval)]
        assert found == ["withdrawn", "open", "open"]
        with pytest.raises(Refused, match="decided"):
            await scene.decide(wake.id, mine.seq, "answered")
