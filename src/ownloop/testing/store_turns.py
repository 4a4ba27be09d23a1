"""Promises about how waits, turns and children end: settle, spawn, finish, cancel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from .. import ids
from ..events import Draft
from ..stores.base import ControlVerb, Fenced, NewThread
from .store_fixtures import StoreFixtures
from .store_scene import TTL, Scene, Wake, kinds


class TurnPromises(StoreFixtures):
    # ---- settle ----------------------------------------------------------------------------------------------------------------------

    async def test_settle_closes_only_what_is_open(self, scene: Scene) -> None:
        wake = await scene.wake()
        request = await wake.request()
        assert kinds(await wake.settle(request)) == ["decision"]
        assert await wake.settle(request) == []
        assert await scene.status_of(wake.id, request.seq) == "expired"

    async def test_settle_is_fenced(self, scene: Scene) -> None:
        wake = await scene.wake()
        request = await wake.request()
        scene.clock.advance(TTL)
        with pytest.raises(Fenced, match="lease"):
            await wake.settle(request)

    async def test_settle_works_while_the_thread_is_paused(self, scene: Scene) -> None:
        wake = await scene.wake()
        request = await wake.request()
        await scene.control(wake.id, "pause")
        assert kinds(await wake.settle(request, "superseded")) == ["decision"]
        assert await scene.status_of(wake.id, request.seq) == "superseded"

    # ---- spawn -----------------------------------------------------------------------------------------------------------------------

    async def spawn(self, wake: Wake, step: int | str = 1) -> tuple[int, str]:
        """The position of the request, and the child's id."""
        draft = Draft("request", {"kind": "child", "agent": "bot"}, wake.step(step), "spawn:bot")
        event = await wake.store.spawn(wake.id, wake.epoch, draft, NewThread("bot", [Draft("input", {"input": 2})]), known=wake.claim.row.head)
        return event.seq, event.data["child"]

    async def test_a_spawn_writes_request_and_child_at_once(self, scene: Scene) -> None:
        wake = await scene.wake()
        seq, child = await self.spawn(wake)
        row = await scene.row(child)
        assert (row.parent, row.status) == ((wake.id, seq), "open")
        assert await scene.is_runnable(child)

    async def test_a_fenced_spawn_leaves_no_child(self, scene: Scene) -> None:
        wake = await scene.wake()
        await scene.control(wake.id, "pause")
        with pytest.raises(Fenced, match="paused"):
            await self.spawn(wake)
        assert len(await scene.store.threads()) == 1

    # ---- finish ----------------------------------------------------------------------------------------------------------------------

    async def test_finish_ends_the_turn_and_releases_in_one_commit(self, scene: Scene) -> None:
        wake = await scene.wake()
        assert await wake.finish() is False
        row = await scene.row(wake.id)
        assert (row.status, row.turns, row.lease_until, row.released, row.seen) == ("done", 1, None, 1, row.head)
        assert row.last_end is not None and row.last_end.kind == "turn_ended"
        assert await scene.store.runnable(["bot"], 10) == ([], None)

    async def test_a_failure_is_kept_and_is_no_turn(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.finish(status="failed")
        row = await scene.row(wake.id)
        assert (row.status, row.turns) == ("failed", 0)
        assert row.last_end is not None and row.last_end.data["error"]["type"] == "ValueError"

    async def test_finish_is_fenced_by_lease_and_status(self, scene: Scene) -> None:
        paused, lost = await scene.wake(), await scene.wake()
        await scene.control(paused.id, "pause")
        with pytest.raises(Fenced, match="paused"):
            await paused.finish()
        scene.clock.advance(TTL)
        with pytest.raises(Fenced, match="lease"):
            await lost.finish()

    async def test_a_turn_never_ends_over_an_unread_message(self, scene: Scene) -> None:
        wake = await scene.wake()
        await scene.message(wake.id)
        assert await wake.finish() is True
        row = await scene.row(wake.id)
        assert (row.status, row.turns) == ("open", 1)
        assert await scene.is_runnable(wake.id)

    async def test_a_message_that_a_selection_has_read_does_not_hold_the_turn(self, scene: Scene) -> None:
        wake = await scene.wake()
        event, _ = await scene.message(wake.id)
        assert await wake.finish(read=event.seq) is False
        assert (await scene.row(wake.id)).status == "done"

    async def test_a_failed_thread_stays_failed_over_a_message(self, scene: Scene) -> None:
        wake = await scene.wake()
        await scene.message(wake.id)
        assert await wake.finish(status="failed") is False
        assert (await scene.row(wake.id)).status == "failed"

    async def test_a_decision_on_a_step_set_aside_keeps_the_thread_going(self, scene: Scene) -> None:
        wake = await scene.wake()
        await wake.select()
        request = await wake.request()
        await wake.release()
        await scene.message(wake.id)
        wake = await scene.wake(wake.id)
        await scene.decide(wake.id, request.seq)
        assert await wake.finish(aside=[wake.step()]) is True

    async def test_a_decision_that_the_wake_has_seen_does_not(self, scene: Scene) -> None:
        thread, request = await scene.parked()
        await scene.decide(thread, request.seq)
        wake = await scene.wake(thread)
        assert await wake.finish(aside=[wake.step()]) is False

    async def test_a_turns_end_withdraws_the_requests_of_ended_and_named_steps_but_not_of_those_set_aside(self, scene: Scene) -> None:
        wake = await scene.wake()
        requests = {step: (await wake.request(step=step)).seq for step in (1, 2, "gate")}
        children = [(await self.spawn(wake, step))[0] for step in (1, "gate")]
        await wake.finish(Draft("ended", {}, wake.step(1)), aside=[wake.step(2)])
        assert {step: await scene.status_of(wake.id, seq) for step, seq in requests.items()} == {1: "withdrawn", 2: "open", "gate": "withdrawn"}
        assert [await scene.status_of(wake.id, seq) for seq in children] == ["open", "open"]

    async def test_a_failure_withdraws_nothing(self, scene: Scene) -> None:
        wake = await scene.wake()
        request = await wake.request(step="gate")
        await wake.finish(status="failed")
        assert await scene.status_of(wake.id, request.seq) == "open"

    async def test_finish_tells_the_parent_in_the_same_commit_and_wakes_it(self, scene: Scene) -> None:
        parent = await scene.wake()
        seq, child = await self.spawn(parent)
        await parent.release()
        tell = Draft("outcome", {"request": seq, "value": 7}, parent.step(), "spawn:bot")
        await (await scene.wake(child)).finish(tell=tell)
        assert (await scene.store.events(parent.id))[-1].data == {"request": seq, "value": 7}
        assert await scene.status_of(parent.id, seq) == "decided"
        assert await scene.is_runnable(parent.id)

    async def test_a_parent_that_is_done_opens_when_its_child_ends(self, scene: Scene) -> None:
        parent = await scene.wake()
        seq, child = await self.spawn(parent)
        await parent.finish()
        await (await scene.wake(child)).finish(tell=Draft("outcome", {"request": seq, "value": 7}))
        assert (await scene.row(parent.id)).status == "open"

    async def test_a_parent_is_told_once(self, scene: Scene) -> None:
        parent = await scene.wake()
        seq, child = await self.spawn(parent)
        tell = Draft("outcome", {"request": seq, "value": 7})
        await (await scene.wake(child)).finish(tell=tell)
        head = (await scene.row(parent.id)).head
        await scene.message(child)
        await (await scene.wake(child)).finish(tell=replace(tell, data={"request": seq, "value": 8}))
        assert (await scene.row(parent.id)).head == head

    async def test_an_ended_parent_is_not_told(self, scene: Scene) -> None:
        parent = await scene.wake()
        seq, child = await self.spawn(parent)
        await scene.control(parent.id, "close")
        head = (await scene.row(parent.id)).head
        await (await scene.wake(child)).finish(tell=Draft("outcome", {"request": seq, "value": 7}))
        assert (await scene.row(parent.id)).head == head

    async def test_cancel_goes_down_to_open_children_in_the_same_commit(self, scene: Scene) -> None:
        parent = await scene.wake()
        _, child = await self.spawn(parent)
        below = await scene.wake(child)
        _, grandchild = await self.spawn(below)
        await scene.control(parent.id, "cancel")
        assert [(await scene.row(id)).status for id in (parent.id, child, grandchild)] == ["cancelled"] * 3
        with pytest.raises(Fenced, match="cancelled"):
            await below.started()

    @pytest.mark.parametrize("verb", ["cancel", "close"])
    async def test_a_parent_does_not_wait_for_ever_for_a_child_that_was_stopped(self, scene: Scene, verb: ControlVerb) -> None:
        parent = await scene.wake()
        seq, child = await self.spawn(parent)
        await parent.release()
        await scene.control(child, verb)
        row = await scene.store.interrupt(parent.id, seq)
        assert row is not None and row.status == "decided" and row.closing is not None
        assert row.closing.data["error"]["type"] in ("Cancelled", "Closed")
        assert parent.id in (await scene.store.runnable(["bot"], 10))[0]

    async def test_close_leaves_children_alone(self, scene: Scene) -> None:
        parent = await scene.wake()
        _, child = await self.spawn(parent)
        await scene.control(parent.id, "close")
        assert (await scene.row(child)).status == "open"

    async def test_the_step_ids_of_a_new_threads_events_become_its_own(self, scene: Scene) -> None:
        other = await scene.thread()
        drafts = [Draft("input", {"input": 1}), Draft("selected", {}, ids.step_id(other, 1)), Draft("ended", {}, ids.step_id(other, "gate"))]
        thread, _ = await scene.store.create(NewThread("bot", drafts))
        found = [event.step_id for event in await scene.store.events(thread)]
        assert found == [None, ids.step_id(thread, 1), ids.step_id(thread, "gate")]
