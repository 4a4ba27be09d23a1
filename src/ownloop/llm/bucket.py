"""What a rate limit remembers: who may go when. Pure: it reads no clock and no store; `limits.py` keeps it in a record.

A sliding log of *slots*. Everybody gets a slot at first ask, in order of asking, and keeps it. N slots never stand closer together than the
window and a margin: a grant travels to the server, and two of them may travel at different speeds. Times are microseconds since 1970.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..events import Json

SECOND = 1_000_000
UNITS = {"ms": SECOND // 1000, "s": SECOND, "sec": SECOND, "second": SECOND, "m": 60 * SECOND, "min": 60 * SECOND, "minute": 60 * SECOND}
UNITS |= {"h": 3600 * SECOND, "hour": 3600 * SECOND, "d": 86400 * SECOND, "day": 86400 * SECOND}
SUFFIXES = {"": 1, "k": 1_000, "K": 1_000, "M": 1_000_000}
FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKM]?)\s*/\s*(\d+(?:\.\d+)?)?\s*([a-z]+)\s*")

MARGIN, SHORT_MARGIN = 0.03, 0.05
"""Part of a window by which it is kept longer, so that grants may reach the server late by that, at most two seconds; and of one up to a second."""
SHORT = 2 * SECOND
"""A pause between two slots that is worth taking so that the load is even; longer ones are not."""
MANY = 512
"""Slots after which old ones are put together."""

State = Literal["", "parked", "granted"]


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in any window of so many microseconds."""

    amount: int
    window: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """`"500/min"`, `"90k/min"`, `"100/2s"`.

        Raises:
            ValueError: for anything else, and for nothing in no time.
        """
        found = FORM.fullmatch(text) if isinstance(text, str) else None
        unit = None if found is None else UNITS.get(found[4]) or UNITS.get(found[4].removesuffix("s"))
        if found is None or unit is None:
            raise ValueError(f'{text!r} is no rate: write a number, a slash and a window: "10/s", "500/min", "90k/min", "2M/day", "100/2s"')
        amount, window = float(found[1]) * SUFFIXES[found[2]], float(found[3] or 1) * unit
        if amount < 1 or amount != int(amount) or window < 1:
            raise ValueError(
                f'{text!r} lets {amount:g} through in {window / SECOND:g} s: at least one whole thing, in some time, for instance "1/min"'
            )
        return cls(int(amount), int(window))

    @property
    def margin(self) -> int:
        return min(int(max(self.window * MARGIN, min(self.window, SECOND) * SHORT_MARGIN)), 2 * SECOND)

    @property
    def span(self) -> int:
        """The window with its margin."""
        return self.window + self.margin


@dataclass(slots=True, eq=False)
class Slot:
    """A place in the log. Its `owner` has yet to use it ("parked"), has it and may not have used it ("granted"), or needs no name any more."""

    at: int
    weights: Sequence[int]
    owner: str = ""
    state: State = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody wants to go.

    Attributes:
        owner: a name by which the slot is found again.
        weights: how much of each rate it takes.
        patience: microseconds that it waits in its process; for a later slot it parks.
        again: it comes back for the slot that it has.
        ahead: microseconds until it hears of a slot. Who was late for one would be for the next, too, if that came at once.
        unspent: what it was granted before, it has not used.
        keeps: a grant stays under its name until it is corrected.
        peeks: it takes a slot only to park for it; a near one is asked for later, if it is needed at all.
    """

    owner: str
    weights: Sequence[int]
    patience: int
    again: bool = False
    ahead: int = 0
    unspent: bool = False
    keeps: bool = False
    peeks: bool = False


class Bucket:
    """The log of one limit, for each of its rates (None: that rate is not limited)."""

    def __init__(self, rates: Sequence[Rate | None], recorded: Json = None) -> None:
        self.rates = rates
        self.closed: int = (recorded or {}).get("closed", 0)
        self.slots = [Slot(at, weights, *named) for at, weights, *named in (recorded or {}).get("slots", ())]

    @property
    def grace(self) -> int:
        """How late a slot may be used; the rest of the margin is for the way to the server."""
        return min(rate.margin for rate in self.rates if rate is not None) // 2

    @property
    def _kept(self) -> int:
        return max(rate.span for rate in self.rates if rate is not None)

    def to_json(self, now: int) -> Json:
        """What later asks must know."""
        kept = [slot for slot in self.slots if slot.at > now - self._kept]
        for slot in kept:
            if not slot.state and slot.at < now - 5 * SECOND:  # whoever was to use it has, or was late and has another
                slot.owner = ""
        slots = [[slot.at, list(slot.weights), *((slot.owner, slot.state) if slot.owner else ())] for slot in self._thinned(kept)]
        return {"slots": slots, **({"closed": self.closed} if self.closed > now else {})}

    def lives_until(self) -> int:
        """When it can be forgotten."""
        return max(self.closed, *(slot.at + self._kept for slot in self.slots[-1:]), 0) + SECOND

    def of(self, owner: str) -> Slot | None:
        return next((slot for slot in self.slots if slot.owner == owner), None)

    # ---- asking ----------------------------------------------------------------------------------------------------------------

    def ask(self, now: int, ask: Ask) -> int | None:
        """When it may go; None for who peeks, if that is soon. Who comes back too late for its slot gets the next one before all who wait."""
        slot = self.of(ask.owner)
        if slot is not None and (ask.again or slot.state == "parked" or (slot.state == "granted" and ask.unspent)):
            if slot.at + self.grace < now:
                self._to_front(slot, now, ask.ahead)
        else:
            if slot is not None:
                slot.owner = ""
            at = self._place(ask.weights, now)
            if ask.peeks and at - now <= ask.patience:
                return None
            slot = Slot(at, ask.weights, ask.owner)
            self.slots.append(slot)
        slot.state = "parked" if slot.at - now > ask.patience else "granted" if ask.keeps else ""
        return slot.at

    def correct(self, owner: str, at: int, tokens: int | None) -> None:
        """What was granted is used, and took so much of the second rate."""
        slot = self.of(owner) or next((one for one in self.slots if one.at >= at), None)
        if slot is None:
            return
        if tokens is not None:
            is_own = slot.owner == owner or slot.at == at
            slot.weights = (slot.weights[0], tokens if is_own else slot.weights[1] + tokens)
        if slot.owner == owner:
            slot.owner, slot.state = "", ""

    def close(self, until: int, now: int) -> None:
        """Let nobody through before; who waits goes later, in the same order."""
        if until > max(self.closed, now):
            self.closed = until
            self._replan(self.slots, now)

    # ---- placing ---------------------------------------------------------------------------------------------------------------

    def _place(self, weights: Sequence[int], now: int) -> int:
        """The first moment after all slots at which there is room in every rate."""
        at = max(now, self.closed, self.slots[-1].at if self.slots else 0)
        limited = [(rate, place) for place, rate in enumerate(self.rates) if rate is not None and weights[place]]
        for rate, place in limited:
            at = max(at, self._room(rate, place, weights[place], at))
        return max([at, *(self._paced(rate, place, weights[place], at) for rate, place in limited)])

    def _room(self, rate: Rate, place: int, weight: int, at: int) -> int:
        used = 0
        for slot in reversed(self.slots):
            if slot.at <= at - rate.span:
                break
            used += slot.weights[place]
            if used + weight > rate.amount:
                return slot.at + rate.span
        return at

    def _paced(self, rate: Rate, place: int, weight: int, at: int) -> int:
        """Half a window's worth may go at once; the rest is spread over the window, unless that makes long pauses."""
        recent = [slot for slot in self.slots if slot.at > at - rate.span and slot.weights[place]]
        left = rate.amount - sum(slot.weights[place] for slot in recent)
        if not recent or rate.amount - left + weight <= (rate.amount + 1) // 2:
            return at
        last = recent[-1].at
        even = (recent[0].at + rate.span - last) * weight // (max(left, 0) + weight)
        gap = max(rate.span * weight // rate.amount, even)
        return last + gap if gap <= SHORT else at

    def _to_front(self, slot: Slot, now: int, ahead: int) -> None:
        slot.at = now + 1 + ahead
        self._replan([slot, *(one for one in self.slots if one is not slot)], now)

    def _replan(self, slots: Iterable[Slot], now: int) -> None:
        """Give those who wait a slot again, in this order and none before the one they had."""
        slots = list(slots)
        self.slots = [slot for slot in slots if slot.at <= now]
        for slot in (one for one in slots if one.at > now):
            slot.at = max(slot.at, self._place(slot.weights, now))
            self.slots.append(slot)

    def _thinned(self, slots: list[Slot]) -> list[Slot]:
        """Many old slots as fewer: those of one moment count as at its end."""
        moment = min(rate.span for rate in self.rates if rate is not None) // (MANY // 2)
        if len(slots) <= MANY:
            return slots
        thinned: list[Slot] = []
        for slot in slots:
            before = thinned[-1] if thinned else None
            if before is not None and not before.owner and not slot.owner and slot.at // moment == before.at // moment:
                together = [one + other for one, other in zip(before.weights, slot.weights, strict=True)]
                thinned[-1] = Slot(slot.at, together)
            else:
                thinned.append(slot)
        return thinned
