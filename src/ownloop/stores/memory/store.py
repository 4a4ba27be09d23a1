"""A store in this process's memory: for tests, and the protocol's transitions at their plainest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

from ... import ids
from ...clock import micros
from ...events import Draft, Event, Json
from ..base import ENDED, Begun, Claim, ControlVerb, Fenced, NewThread, Pulse, Refused, ThreadRow
from ..rules import MAIL_KEPT, after_control, closed_as, is_progress, stopped_child, watched
from .tables import Mail, Tables, Thread, transaction


class MemoryStore(Tables):
    """See `Store`. Nothing survives the process."""

    # ---- the wake ------------------------------------------------------------------------------------------------------------

    def _is_runnable(self, row: ThreadRow) -> bool:
        now = self.clock.now()
        is_due = row.due is not None and row.due <= now
        if row.status == "done":
            return is_due
        if row.status != "open":
            return False
        return row.lease_until <= now if row.lease_until is not None else row.woken > row.seen or is_due

    def _holds(self, row: ThreadRow) -> tuple[str | None, ...]:
        found = (self._record("hold", key) for key in (row.id, f"agent:{row.agent}"))
        return tuple(on for record in found if record is not None for on in record.value["on"])

    @transaction
    def claim(self, thread_id: str, agents: Collection[str] | None, ttl: timedelta) -> Claim | None:
        thread = self._threads.get(thread_id)
        if thread is None or (agents is not None and thread.row.agent not in agents):
            return None
        row, now = thread.row, self.clock.now()
        free = row.status not in ENDED and (row.lease_until is None or row.lease_until <= now)
        if not (self._is_runnable(row) if agents is not None else free):
            return None
        thread = self._open(thread_id)
        self._set(thread, epoch=row.epoch + 1, lease_until=now + ttl, status="open" if row.status == "done" else row.status)
        return Claim(thread.row, now, self._holds(thread.row))

    async def runnable(self, agents: Collection[str], limit: int) -> tuple[list[str], datetime | None]:
        with self._lock:
            mine = [thread.row for thread in self._threads.values() if thread.row.agent in agents and thread.row.status in ("open", "done")]
            ready = [row for row in mine if self._is_runnable(row)]
            named = {row.id for row in ready}
            times = (row.lease_until if row.status == "open" and row.lease_until else row.due for row in mine if row.id not in named)
            soonest = min((at for at in times if at is not None), default=None)
            return [row.id for row in sorted(ready, key=lambda row: row.updated_at)][:limit], soonest

    def renew(self, leases: Mapping[str, int], ttl: timedelta) -> dict[str, Pulse | None]:
        with self._lock:
            now = self.clock.now()
            result: dict[str, Pulse | None] = {}
            for thread_id, epoch in leases.items():
                thread = self._threads.get(thread_id)
                held = thread is not None and thread.row.epoch == epoch and thread.row.lease_until is not None and thread.row.lease_until > now
                if thread is None or not held:
                    result[thread_id] = None
                    continue
                thread.row = replace(thread.row, lease_until=now + ttl)
                result[thread_id] = Pulse(thread.row.status, thread.row.woken, epoch)
            return result

    async def pulse(self, thread_ids: Collection[str]) -> dict[str, Pulse]:
        rows = (self._threads[thread_id].row for thread_id in thread_ids if thread_id in self._threads)
        return {row.id: Pulse(row.status, row.woken, row.epoch) for row in rows}

    @transaction
    def release(self, thread_id: str, epoch: int, *, seen: int, due: datetime | None) -> bool:
        thread = self._threads.get(thread_id)
        if thread is None or thread.row.epoch != epoch:
            return False
        thread = self._open(thread_id)
        self._set(thread, lease_until=None, seen=seen, due=due, released=epoch)
        return self._is_runnable(thread.row)

    def _fence(self, thread_id: str, epoch: int, statuses: Collection[str]) -> Thread:
        thread = self._threads.get(thread_id)
        if thread is None or thread.row.epoch != epoch or thread.row.lease_until is None or thread.row.lease_until <= self.clock.now():
            raise Fenced(thread.row.status if thread is not None and thread.row.status in ENDED else "lease")
        if thread.row.status not in statuses:
            raise Fenced(thread.row.status)
        return self._open(thread_id)

    def _begin(self, thread_id: str, epoch: int, known: int, selecting: bool = False) -> Thread:
        thread = self._fence(thread_id, epoch, ("open", "paused") if selecting else ("open",))
        if thread.barrier > known:
            raise Fenced("superseded")
        return thread

    @transaction
    def begin(self, thread_id: str, epoch: int, drafts: Sequence[Draft], *, known: int, selecting: bool = False) -> Begun:
        thread = self._begin(thread_id, epoch, known, selecting)
        events: list[Event] = []
        for draft in drafts:
            if (place := watched(draft, known)) is not None and self._outcome(thread, replace(draft, op=place[0]), place[1]):
                raise Fenced("overtaken")
            event = self._append(thread, draft)
            events.append(event)
            if draft.kind == "request" and draft.data["kind"] == "event":
                events += self._look(thread, event)
        if any(is_progress(draft) for draft in drafts):
            self._set(thread, released=max(thread.row.released, epoch - 1))
        return Begun(events, self._holds(thread.row) if selecting else None)

    @transaction
    def spawn(self, thread_id: str, epoch: int, draft: Draft, child: NewThread, *, known: int) -> Event:
        thread = self._begin(thread_id, epoch, known)
        number = ids.thread_id(self._free_number())
        event = self._append(thread, replace(draft, data={**draft.data, "child": number}))
        self._create(number, child, parent=(thread_id, event.seq))
        return event

    @staticmethod
    def _outcome(thread: Thread, draft: Draft, after: int) -> Event | None:
        later = thread.events[after:]
        return next((e for e in later if e.kind == "outcome" and e.op == draft.op and e.step_id == draft.step_id), None)

    @transaction
    def fact(self, thread_id: str, epoch: int, draft: Draft, *, started: int | None = None) -> Event:
        thread = self._open(thread_id)
        row = thread.row
        is_held = row.epoch == epoch and row.lease_until is not None and row.lease_until > self.clock.now()
        if draft.kind == "outcome" and self._outcome(thread, draft, started or 0):
            draft = replace(draft, kind="late")
        event = self._append(thread, draft, outside=not is_held)
        if draft.kind == "outcome":
            self._withdraw(
                thread,
                lambda item: (
                    item.request.data["kind"] == "in_doubt" and item.request.step_id == draft.step_id and item.request.data["call"] == draft.op
                ),
            )
            if is_held:
                self._set(thread, released=max(thread.row.released, epoch - 1))
        return event

    @transaction
    def settle(self, thread_id: str, epoch: int, drafts: Sequence[Draft]) -> list[Event]:
        thread = self._fence(thread_id, epoch, ("open", "paused", "failed", "done"))
        return [self._append(thread, draft) for draft in drafts if thread.interrupts[draft.data["request"]].status == "open"]

    @transaction
    def finish(
        self,
        thread_id: str,
        epoch: int,
        drafts: Sequence[Draft],
        *,
        status: Literal["done", "failed"],
        seen: int,
        due: datetime | None,
        aside: Collection[str] = (),
        tell: Draft | None = None,
    ) -> bool:
        thread = self._begin(thread_id, epoch, known=1 << 62)
        read = next((draft.data["read"] for draft in drafts if draft.kind == "turn_ended"), thread.row.head)
        goes_on = status == "done" and (
            any(event.kind == "message" for event in thread.events[read:])
            or any(self._closes_one_of(thread, event, aside) for event in thread.events[seen:])
        )
        for draft in drafts:
            self._append(thread, draft)
        self._set(
            thread,
            status="open" if goes_on else status,
            turns=thread.row.turns + (status == "done"),
            lease_until=None,
            seen=min(read, seen) if goes_on else thread.row.head,
            due=due,
            released=epoch,
        )
        self._tell_parent(thread, tell)
        return goes_on

    def _tell_parent(self, thread: Thread, tell: Draft | None) -> None:
        parent = self._threads.get(thread.row.parent[0]) if tell is not None and thread.row.parent is not None else None
        if parent is None or tell is None or parent.row.status in ENDED or parent.interrupts[tell.data["request"]].status != "open":
            return
        parent = self._open(parent.row.id)
        self._append(parent, tell, outside=True)
        self._reopen(parent)

    @staticmethod
    def _closes_one_of(thread: Thread, event: Event, steps: Collection[str]) -> bool:
        return closed_as(event) is not None and thread.interrupts[event.data["request"]].request.step_id in steps

    # ---- from outside ----------------------------------------------------------------------------------------------------------

    def _free_number(self) -> int:
        number = ids.new_number()
        while ids.thread_id(number) in self._threads:
            number += 1
        return number

    def _create(self, thread_id: str, new: NewThread, parent: tuple[str, int] | None) -> None:
        now = self.clock.now()
        row = ThreadRow(thread_id, new.agent, new.key, "open", 0, 0, 0, 0, 0, 0, None, None, dict(new.context), parent, now, now)
        thread = self._threads[thread_id] = Thread(row)
        self._touched.add(thread_id)
        if new.key is not None:
            self._keys[new.agent, new.key] = thread_id
        for draft in new.drafts:
            step_id = None if draft.step_id is None else ids.step_id(thread_id, ids.step_of(draft.step_id))
            self._append(thread, replace(draft, step_id=step_id), outside=True, is_new=True)
            if draft.kind == "turn_ended":
                self._set(thread, turns=thread.row.turns + 1)

    @transaction
    def create(self, new: NewThread) -> tuple[str, bool]:
        if new.key is not None and (known := self._keys.get((new.agent, new.key))) is not None:
            return known, False
        thread_id = ids.thread_id(self._free_number())
        self._create(thread_id, new, parent=None)
        return thread_id, True

    @transaction
    def message(self, thread_id: str, drafts: Sequence[Draft], *, dedupe: str | None = None, at_head: int | None = None) -> tuple[Event, bool]:
        thread = self._open(thread_id)
        if dedupe is not None and dedupe in thread.dedupe:
            return thread.dedupe[dedupe], False
        if thread.row.status in ENDED:
            raise Refused(thread.row.status)
        if at_head is not None and thread.row.head != at_head:
            raise Refused("moved")
        events = [self._append(thread, draft, outside=True) for draft in drafts]
        if at_head is not None:
            thread.barrier = thread.row.head
        self._reopen(thread)
        if dedupe is not None:
            thread.dedupe[dedupe] = events[0]
        return events[0], True

    def _reopen(self, thread: Thread) -> None:
        if thread.row.status == "done":
            self._set(thread, status="open")

    @transaction
    def control(self, thread_id: str, verb: ControlVerb, draft: Draft) -> bool:
        return self._control(thread_id, verb, draft)

    def _control(self, thread_id: str, verb: ControlVerb, draft: Draft) -> bool:
        thread = self._open(thread_id)
        was, status = thread.row.status, after_control(verb, thread.row.status)
        if was == status and verb not in ("retry", "hold", "release_hold"):
            return False
        self._append(thread, draft, outside=verb in ("resume", "retry"), status=status)
        self._set(thread, status=status)
        if verb == "retry":
            self._set(thread, released=thread.row.epoch)
        if status in ENDED:
            self._set(thread, epoch=thread.row.epoch + 1, released=thread.row.epoch + 1, lease_until=None, due=None)
            children = [
                item.request.data["child"] for item in thread.interrupts.values() if item.status == "open" and item.request.data["kind"] == "child"
            ]
            self._withdraw(thread, lambda item: True)
            self._tell_parent(thread, None if thread.row.parent is None else stopped_child(thread.row.parent[1], status, draft))
            for child in children if status == "cancelled" else []:
                if child in self._threads and self._threads[child].row.status not in ENDED:
                    self._control(child, verb, replace(draft, data={**draft.data, "reason": f"its parent {thread_id} was cancelled"}))
        return True

    @transaction
    def decide(self, thread_id: str, seq: int, draft: Draft, *, digest: str | None, votes: int) -> Event:
        thread = self._open(thread_id)
        item = thread.interrupts.get(seq)
        if item is None:
            raise Refused("missing")
        expires = item.request.data.get("expires_at")
        if item.status != "open":
            raise Refused("expired" if item.status == "expired" else "decided")
        if expires is not None and micros(self.clock.now()) >= expires:
            raise Refused("expired")
        if digest is not None and digest != item.request.data["digest"]:
            raise Refused("digest")
        if votes != len(item.votes):
            raise Refused("votes")
        event = self._append(thread, draft, outside=draft.kind == "decision")
        if draft.kind == "decision":
            self._reopen(thread)
        return event

    @transaction
    def emit(self, name: str, key: str | None, id: str | None, payload: Json) -> bool:
        box = self._mail.setdefault((name, key), [])
        if id is not None and any(mail.id == id for mail in box):
            return False
        self._mails += 1
        box.append(Mail(self._mails, id, payload, self.clock.now()))
        for thread in [one for one in self._threads.values() if (name, key) in one.waits.values()]:
            if thread.row.status not in ENDED:
                seq = min(seq for seq, wait in thread.waits.items() if wait == (name, key))
                self._deliver(self._open(thread.row.id), thread.interrupts[seq].request, box[-1], outside=True)
                self._reopen(thread)
        return True

    def _look(self, thread: Thread, request: Event) -> list[Event]:
        wait = (request.data["event"], request.data["key"])
        thread.waits[request.seq] = wait
        for mail in self._mail.get(wait, ()):
            if mail.number > thread.had.get(wait, 0) and mail.at >= thread.row.created_at and mail.at > self.clock.now() - MAIL_KEPT:
                return [self._deliver(thread, request, mail, outside=False)]
        return []

    def _deliver(self, thread: Thread, request: Event, mail: Mail, *, outside: bool) -> Event:
        thread.had[request.data["event"], request.data["key"]] = mail.number
        data = {"request": request.seq, "payload": mail.payload, **({"mail": mail.id} if mail.id else {})}
        return self._append(thread, Draft("delivered", data, request.step_id, request.op), outside=outside)
