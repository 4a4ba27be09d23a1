"""The statements of the protocol as calls of `ownloop.append`: one call, one answer. `joined.py` sends them in the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from ... import ids
from ...events import Draft, Event, Json
from ..base import Begun, Claim, ControlVerb, Fenced, NewThread, Refused, Status
from ..rules import MAIL_KEPT, after_control, is_progress, stopped_child, watched
from ..values import dump, number_of
from .codec import LARGEST, THREAD, box, event_of, is_plain, micros_of, moment_of, newborn, recorded, step_column, thread_of, wire, written
from .connect import span

Call = dict[str, Json]
NO_BLOBS: Mapping[str, str] = {}


class Verbs:
    """What writes. `_call` sends one call and gives its answer; `alone`: it may wait for others, so that no group must wait with it."""

    async def _call(self, call: Call, *, alone: bool = False) -> Any:
        raise NotImplementedError

    async def _checked(self, call: Call, *, alone: bool = False) -> Any:
        """The answer, unless it is a refusal."""
        answer = await self._call(call, alone=alone)
        if isinstance(answer, dict):
            if "fenced" in answer:
                raise Fenced(answer["fenced"])
            if "refused" in answer:
                raise Refused(answer["refused"])
        return answer

    # ---- the wake ------------------------------------------------------------------------------------------------------------

    async def claim(self, thread_id: str, agents: Collection[str] | None, ttl: timedelta) -> Claim | None:
        call = {"do": "claim", "thread": number_of(thread_id), "agents": None if agents is None else list(agents), "ttl": span(ttl)}
        answer = await self._call(call)
        if answer is None:
            return None
        row = [answer["row"][name] for name in THREAD.split(", ")]
        end = None if answer["end"] is None else await self._event(thread_id, answer["end"])
        at = moment_of(answer["now"])
        assert at is not None
        return Claim(thread_of(row, end), at, holds_of(answer["holds"]))

    async def release(self, thread_id: str, epoch: int, *, seen: int, due: datetime | None) -> bool:
        call = {"do": "release", "thread": number_of(thread_id), "epoch": epoch, "seen": seen, "due": micros_of(due)}
        return bool(await self._call(call))

    async def begin(self, thread_id: str, epoch: int, drafts: Sequence[Draft], *, known: int, selecting: bool = False) -> Begun:
        datas = [recorded(draft, thread_id) for draft in drafts]
        sent = [wire(draft, data) for draft, data in zip(drafts, datas, strict=True)]
        call: Call = {"do": "begin", "thread": number_of(thread_id), "id": thread_id, "epoch": epoch, "known": min(known, LARGEST), "drafts": sent}
        if selecting:
            call["selecting"] = True
        if any(is_progress(draft) for draft in drafts):
            call["progress"] = True
        if all(is_plain(one, selecting=selecting) for one in sent):
            call["plain"] = True
        if watches := [_watch(draft, *place) for draft in drafts if (place := watched(draft, known)) is not None]:
            call["watches"] = watches
        boxes = [[one["name"], one["box"]] for one in sent if "box" in one]
        if boxes:
            call |= {"boxes": boxes, "kept": span(MAIL_KEPT)}
        answer = await self._checked(call, alone=bool(boxes))
        return Begun(_begun(thread_id, drafts, datas, answer), holds_of(answer["holds"]) if selecting else None)

    async def spawn(self, thread_id: str, epoch: int, draft: Draft, child: NewThread, *, known: int) -> Event:
        number = ids.new_number()
        draft = Draft(draft.kind, {**draft.data, "child": ids.thread_id(number)}, draft.step_id, draft.op, draft.by, draft.expires)
        data = recorded(draft, thread_id)
        sent = {**wire(draft, data, child=number), "newborn": newborn(child, number)}
        call = {"do": "begin", "thread": number_of(thread_id), "epoch": epoch, "known": known, "drafts": [sent]}
        answer = await self._checked(call, alone=True)
        return written(draft, data, answer["head"] + 1, answer["at"])

    async def fact(self, thread_id: str, epoch: int, draft: Draft, *, started: int | None = None) -> Event:
        data = recorded(draft, thread_id)
        sent = wire(draft, data)
        call = {"do": "fact", "thread": number_of(thread_id), "id": thread_id, "epoch": epoch, "draft": sent, "started": started or 0}
        if is_plain(sent):
            call["plain"] = True
        answer = await self._checked(call)
        return written(draft, data, answer["seq"], answer["at"], answer["kind"])

    async def settle(self, thread_id: str, epoch: int, drafts: Sequence[Draft]) -> list[Event]:
        datas = [recorded(draft, thread_id) for draft in drafts]
        sent = [wire(draft, data) for draft, data in zip(drafts, datas, strict=True)]
        answer = await self._checked({"do": "settle", "thread": number_of(thread_id), "epoch": epoch, "drafts": sent})
        return [written(drafts[one], datas[one], answer["head"] + more, answer["at"]) for more, one in enumerate(answer["written"], 1)]

    async def finish(
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
        call: Call = {
            "do": "finish",
            "thread": number_of(thread_id),
            "epoch": epoch,
            "drafts": [wire(draft, recorded(draft, thread_id)) for draft in drafts],
            "status": status,
            "seen": seen,
            "due": micros_of(due),
            "aside": [step_column(step) for step in aside],
            "read": next((draft.data["read"] for draft in drafts if draft.kind == "turn_ended"), None),
            "end": max((place for place, draft in enumerate(drafts, 1) if draft.kind in ("turn_ended", "failed")), default=None),
        }
        if tell is not None:
            call["tell"] = wire(tell, tell.data)
        return bool(await self._checked(call, alone=tell is not None))

    # ---- from outside ----------------------------------------------------------------------------------------------------------

    async def create(self, new: NewThread) -> tuple[str, bool]:
        while True:
            answer = await self._call({"do": "create", **newborn(new, ids.new_number())}, alone=new.key is not None)
            if "taken" not in answer:
                return ids.thread_id(answer["thread"]), answer["new"]

    async def message(self, thread_id: str, drafts: Sequence[Draft], *, dedupe: str | None = None, at_head: int | None = None) -> tuple[Event, bool]:
        datas = [recorded(draft, thread_id) for draft in drafts]
        sent = [wire(draft, data) for draft, data in zip(drafts, datas, strict=True)]
        call: Call = {"do": "message", "thread": number_of(thread_id), "id": thread_id, "drafts": sent, "dedupe": dedupe, "at_head": at_head}
        if all(is_plain(one) for one in sent):
            call["plain"] = True
        answer = await self._checked(call)
        if "known" in answer:
            return await self._event(thread_id, answer["known"]), False
        return written(drafts[0], datas[0], answer["seq"], answer["at"]), True

    async def control(self, thread_id: str, verb: ControlVerb, draft: Draft) -> bool:
        data = recorded(draft, thread_id)
        call: Call = {"do": "control", "thread": number_of(thread_id), "verb": verb, "draft": wire(draft, data), "after": _after(verb)}
        if verb in ("cancel", "close"):
            tell = stopped_child(0, "cancelled" if verb == "cancel" else "closed", draft)
            call["tell"] = {**wire(tell, tell.data), "data": dump({"error": tell.data["error"]})}
            call["down"] = dump({**{name: value for name, value in data.items() if name != "reason"}, "reason": 0})[:-2] + "}"
        return bool((await self._checked(call, alone=True))["changed"])

    async def decide(self, thread_id: str, seq: int, draft: Draft, *, digest: str | None, votes: int) -> Event:
        data = recorded(draft, thread_id)
        call = {
            "do": "decide",
            "thread": number_of(thread_id),
            "seq": min(seq, LARGEST),
            "draft": wire(draft, data),
            "digest": digest,
            "votes": votes,
        }
        answer = await self._checked(call)
        return written(draft, data, answer["seq"], answer["at"])

    async def emit(self, name: str, key: str | None, id: str | None, payload: Json) -> bool:
        return bool(await self._call({"do": "emit", "name": name, "box": box(key), "id": id, "payload": dump(payload)}, alone=True))

    async def _event(self, thread_id: str, row: Sequence[Any]) -> Event:
        """An event that came with an answer; its big values are looked up."""
        return event_of(thread_id, row, NO_BLOBS if row[-1] is None else await self._blobs(row[-1].values()))

    async def _blobs(self, hashes: Collection[str]) -> Mapping[str, str]:
        raise NotImplementedError


def _watch(draft: Draft, op: str | None, after: int) -> list[Json]:
    return [step_column(draft.step_id), op or "", min(after, LARGEST)]


def _begun(thread_id: str, drafts: Sequence[Draft], datas: Sequence[dict[str, Json]], answer: Mapping[str, Any]) -> list[Event]:
    """The drafts' events, and between them what a wait got at once."""
    mails = {row[0]: row for row in answer["mails"]}
    seq, events = answer["head"], []
    for draft, data in zip(drafts, datas, strict=True):
        seq += 1
        events.append(written(draft, data, seq, answer["at"]))
        if seq + 1 in mails:
            seq += 1
            events.append(event_of(thread_id, mails[seq], NO_BLOBS))
    return events


def _after(verb: ControlVerb) -> dict[str, str]:
    """What the verb leads to, by status, where it makes sense."""
    found: dict[str, str] = {}
    for status in get_args(Status):
        try:
            found[status] = after_control(verb, status)
        except Refused:
            continue
    return found


def holds_of(values: Sequence[str]) -> tuple[str | None, ...]:
    """The operator's breakpoints, from the records as they are stored."""

    return tuple(on for value in values for on in json.loads(value)["on"])
