"""Memory stores with one fault each: what the check must catch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ownloop.clock import micros
from ownloop.events import Draft, Event
from ownloop.stores.base import Claim, Fenced, Pulse, Refused
from ownloop.stores.memory import MemoryStore
from ownloop.stores.memory.tables import transaction


class BeginsWithoutItsEpoch(MemoryStore):
    """begin looks at the lease, but not whose it is."""

    def _fence(self, thread_id: str, epoch: int, statuses: Collection[str]) -> Any:
        return super()._fence(thread_id, self._threads[thread_id].row.epoch, statuses)


class BeginsWithoutALease(MemoryStore):
    """begin looks at the epoch, but not whether the lease has run out."""

    def _fence(self, thread_id: str, epoch: int, statuses: Collection[str]) -> Any:
        thread = self._threads[thread_id]
        thread.row = replace(thread.row, lease_until=thread.row.lease_until and self.clock.now() + timedelta(seconds=1))
        return super()._fence(thread_id, epoch, statuses)


class BeginsWhilePaused(MemoryStore):
    """begin takes no look at the status."""

    def _fence(self, thread_id: str, epoch: int, statuses: Collection[str]) -> Any:
        return super()._fence(thread_id, epoch, ("open", "paused", "done", "failed", "cancelled", "closed"))


class BeginsInASupersededStep(MemoryStore):
    """begin does not look for a superseding message."""

    def _begin(self, thread_id: str, epoch: int, known: int, selecting: bool = False) -> Any:
        return super()._begin(thread_id, epoch, 1 << 62, selecting)


class ReleasesAsIfAllWasSeen(MemoryStore):
    """release stores seen = head."""

    async def release(self, thread_id: str, epoch: int, *, seen: int, due: datetime | None) -> bool:
        return await super().release(thread_id, epoch, seen=self._threads[thread_id].row.head, due=due)


class ReleasesWithoutItsTimer(MemoryStore):
    """release forgets when the thread is due."""

    async def release(self, thread_id: str, epoch: int, *, seen: int, due: datetime | None) -> bool:
        return await super().release(thread_id, epoch, seen=seen, due=None)


class ReleasesForAnybody(MemoryStore):
    """release of a foreign epoch."""

    async def release(self, thread_id: str, epoch: int, *, seen: int, due: datetime | None) -> bool:
        return await super().release(thread_id, self._threads[thread_id].row.epoch, seen=seen, due=due)


class SeesNothing(MemoryStore):
    """release stores seen = 0."""

    async def release(self, thread_id: str, epoch: int, *, seen: int, due: datetime | None) -> bool:
        return await super().release(thread_id, epoch, seen=0, due=due)


class FencesFacts(MemoryStore):
    """A result is refused from a wake that lost its lease."""

    async def fact(self, thread_id: str, epoch: int, draft: Draft, *, started: int | None = None) -> Event:
        row = self._threads[thread_id].row
        if row.epoch != epoch or row.lease_until is None or row.lease_until <= self.clock.now():
            raise Fenced("lease")
        return await super().fact(thread_id, epoch, draft, started=started)


class FactsWakeNobody(MemoryStore):
    """A late fact does not wake the thread."""

    async def fact(self, thread_id: str, epoch: int, draft: Draft, *, started: int | None = None) -> Event:
        woken = self._threads[thread_id].row.woken
        event = await super().fact(thread_id, epoch, draft, started=started)
        thread = self._threads[thread_id]
        thread.row = replace(thread.row, woken=woken)
        return event


class TakesEveryOutcome(MemoryStore):
    """The first outcome does not win."""

    @staticmethod
    def _outcome(thread: Any, draft: Draft, after: int) -> Event | None:
        return None


class LeavesTheQuestionOpen(MemoryStore):
    """A fact does not withdraw the in-doubt question."""

    def _withdraw(self, thread: Any, which: Any) -> None:
        super()._withdraw(thread, lambda item: item.request.data["kind"] != "in_doubt" and which(item))


class RevivesLeases(MemoryStore):
    """renew prolongs a lease that ran out."""

    def renew(self, leases: Mapping[str, int], ttl: timedelta) -> dict[str, Pulse | None]:
        for thread_id, epoch in leases.items():
            thread = self._threads[thread_id]
            if thread.row.epoch == epoch:
                thread.row = replace(thread.row, lease_until=self.clock.now() + ttl)
        return super().renew(leases, ttl)


class ClaimsWhatIsHeld(MemoryStore):
    """claim ignores the lease."""

    async def claim(self, thread_id: str, agents: Collection[str] | None, ttl: timedelta) -> Claim | None:
        row = self._threads[thread_id].row
        if row.status == "open" and row.lease_until is not None:
            self._threads[thread_id].row = replace(row, lease_until=self.clock.now())
        return await super().claim(thread_id, agents, ttl)


class ClaimsWithoutANewEpoch(MemoryStore):
    """claim leaves the epoch as it is."""

    async def claim(self, thread_id: str, agents: Collection[str] | None, ttl: timedelta) -> Claim | None:
        epoch = self._threads[thread_id].row.epoch
        claim = await super().claim(thread_id, agents, ttl)
        if claim is None:
            return None
        self._threads[thread_id].row = replace(claim.row, epoch=epoch)
        return Claim(self._threads[thread_id].row, claim.now)


class NeverClaimsAfterACrash(MemoryStore):
    """A lease that ran out still keeps others out."""

    def _is_runnable(self, row: Any) -> bool:
        return row.lease_until is None and super()._is_runnable(row)


class DecidesWhatIsClosed(MemoryStore):
    """decide does not look whether the interrupt is open."""

    @transaction
    def decide(self, thread_id: str, seq: int, draft: Draft, *, digest: str | None, votes: int) -> Event:
        thread = self._open(thread_id)
        item = thread.interrupts[seq]
        expires = item.request.data.get("expires_at")
        if expires is not None and micros(self.clock.now()) >= expires:
            raise Refused("expired")
        return self._append(thread, draft, outside=True)


class DecidesInSilence(MemoryStore):
    """A decision does not wake the thread."""

    async def decide(self, thread_id: str, seq: int, draft: Draft, *, digest: str | None, votes: int) -> Event:
        woken = self._threads[thread_id].row.woken
        event = await super().decide(thread_id, seq, draft, digest=digest, votes=votes)
        thread = self._threads[thread_id]
        thread.row = replace(thread.row, woken=woken)
        return event


class EndsOverMessages(MemoryStore):
    """finish ignores unread messages."""

    async def finish(self, thread_id: str, epoch: int, drafts: Sequence[Draft], **options: Any) -> bool:
        head = self._threads[thread_id].row.head
        for draft in drafts:
            if draft.kind == "turn_ended":
                thread = self._threads[thread_id]
                before = [replace(event, kind="late") if event.kind == "message" else event for event in thread.events]
                true, thread.events = thread.events, before
                goes_on = await super().finish(thread_id, epoch, drafts, **options)
                thread = self._threads[thread_id]
                thread.events = [*true, *thread.events[head:]]
                return goes_on
        return await super().finish(thread_id, epoch, drafts, **options)


class CancelsWithoutTakingTheLease(MemoryStore):
    """cancel leaves the wake its lease, and begin does not look."""

    def _control(self, thread_id: str, verb: Any, draft: Draft) -> bool:
        row = self._threads[thread_id].row
        done = super()._control(thread_id, verb, draft)
        if verb == "cancel" and done:
            self._set(self._threads[thread_id], epoch=row.epoch, released=row.released, lease_until=row.lease_until)
        return done

    def _fence(self, thread_id: str, epoch: int, statuses: Collection[str]) -> Any:
        return super()._fence(thread_id, epoch, ("open", "paused", "cancelled"))


class ForgetsMail(MemoryStore):
    """A wait does not look into the mailbox: an event that came early is lost."""

    def _look(self, thread: Any, request: Event) -> list[Event]:
        thread.waits[request.seq] = (request.data["event"], request.data["key"])
        return []


class DeliversInSilence(MemoryStore):
    """A delivered event does not wake the thread."""

    def _deliver(self, thread: Any, request: Event, mail: Any, *, outside: bool) -> Event:
        return super()._deliver(thread, request, mail, outside=False)


class SettlesWhatIsClosed(MemoryStore):
    """A deadline closes what an event has closed before."""

    @transaction
    def settle(self, thread_id: str, epoch: int, drafts: Sequence[Draft]) -> list[Event]:
        thread = self._fence(thread_id, epoch, ("open", "paused", "failed", "done"))
        return [self._append(thread, draft) for draft in drafts]
