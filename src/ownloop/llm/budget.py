"""`Budget`: how much a thread, its tree, a context or a day may spend; spent, a person is asked before the model is asked again.

What a thread has spent is read from its own log. Where several threads share a budget, each writes what it has spent in all into a record of
its own – writing it twice changes nothing – and the sum counts. That happens before each question to the model and at the end of a wake.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from .. import ids
from ..branch import Branch
from ..clock import micros
from ..errors import OwnloopError
from ..events import Draft, Event, Json, digest, sparse, to_json
from ..history import Request
from ..stores.base import Refused
from .prices import price_of

log = logging.getLogger("ownloop")

SPACE = "budget"
STEP = "budget"
"""The named step that holds a thread's questions about budgets."""
KINDS = ("usd", "tokens", "steps")
KEPT = timedelta(days=2)
Amounts = Mapping[str, float]

AMOUNT = {"type": "number", "minimum": 0}
ANSWER = {
    "anyOf": [
        {**AMOUNT, "description": "how much more of what ran out; 0: no more"},
        {"type": "object", "properties": dict.fromkeys(KINDS, AMOUNT), "additionalProperties": False, "minProperties": 1},
        {"enum": ["no", False, None]},
    ]
}
"""The JSON Schema of an answer."""


class BudgetSpent(OwnloopError):
    """A budget is spent, and a person gave no more. `scope` says whose it is, `by` who decided."""

    def __init__(self, scope: str, spent: str, by: str | None) -> None:
        super().__init__(f"{scope} took {spent}, and {by or 'nobody'} gave no more; retry the thread to ask again, or give the agent a larger budget")
        self.scope = scope
        self.by = by


class UnknownPrice(OwnloopError):
    """A budget in USD, and an answer of a model that has no price."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"nobody knows the price of {model}, so a budget in USD cannot be held; "
            f'give it: Budget(usd=…, prices={{"{model}": (INPUT, OUTPUT)}}) in USD per million tokens, then retry the thread'
        )
        self.model = model


class NoSuchContext(OwnloopError):
    """A budget is kept per a key of the context that this thread does not have."""

    def __init__(self, key: str, thread: str) -> None:
        super().__init__(f'the budget is per "context:{key}", and the context of {thread} has no {key!r}; start it with context={{"{key}": …}}')


@dataclass(frozen=True)
class Budget:
    """How much may be spent, checked before each question to the model; so at most one answer of each thread at work comes on top.

    At least one of `steps`, `tokens` and `usd`. Spent: the thread parks on an interrupt of kind "budget". `app.answer(interrupt, 5)` gives so much
    more of what ran out, `{"usd": 5, "steps": 10}` says of what; it counts from what is spent by then. 0, "no" or `app.reject` fails the thread
    with `BudgetSpent`; `retry` asks again. One answer lets all threads go on that wait for the same budget.

    Args:
        steps: selected by the model.
        tokens: input and output together.
        usd: as the events record it (`cost_usd`), else by `prices` or by genai-prices.
        per: "thread"; "tree": the thread and all its descendants; "context": all threads of an equal context, "context:tenant": of an equal
            value there; "day": all threads of the agent in a UTC day, by the store's clock. All but "thread" also count, and hold, descendants.
            Given to `step.spawn`, "thread" means the child and its descendants.
        prices: USD per million tokens of models that nobody else knows: `{"my-model": (input, output)}`.

    Raises:
        ValueError: for a budget of nothing, a negative amount or an unknown `per`.
    """

    steps: int | None = None
    tokens: int | None = None
    usd: float | None = None
    per: str = "thread"
    prices: Mapping[str, Sequence[float]] | None = None

    def __post_init__(self) -> None:
        if not self.limits or min(self.limits.values()) < 0:
            raise ValueError(f"{self!r}: give an amount that is not negative: Budget(steps=50), Budget(tokens=100_000), Budget(usd=2.50)")
        if not re.fullmatch("thread|tree|context(:.+)?|day", self.per):
            raise ValueError(f'per={self.per!r}; choose "thread", "tree", "context", "context:KEY" or "day"')

    @property
    def limits(self) -> Amounts:
        """What is limited, by kind."""
        return sparse(usd=self.usd, tokens=self.tokens, steps=self.steps)

    @classmethod
    def of(cls, value: Any) -> Budget:
        """A budget, or its recorded JSON.

        Raises:
            TypeError: for anything else.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise TypeError(f"budget={value!r}; give a Budget, for instance Budget(usd=5)")
        return cls(**value)


@dataclass(frozen=True)
class _Scope:
    """A budget that holds a thread: `id` names what shares it, `words` says that to people."""

    id: str
    words: str
    budget: Budget

    @property
    def is_shared(self) -> bool:
        return not self.id.startswith("thread:")

    def period(self, now: datetime) -> str:
        """What an extension is good for: the scope, or its day."""
        return f"{self.id}:{now.date()}" if self.budget.per == "day" else self.id

    def ends(self, now: datetime) -> datetime | None:
        """When it is full again by itself."""
        tomorrow = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
        return tomorrow if self.budget.per == "day" else None


async def check(thread: Any, budget: Any) -> None:
    """Park the thread while a budget that holds it is spent. At the end of a wake: only count.

    Raises:
        Suspend: a person is asked.
        BudgetSpent, UnknownPrice, NoSuchContext: the thread fails.
    """
    ledger = _Ledger(thread)
    if thread._wake.sealed is None:
        await ledger.hold(budget)
        return
    try:
        await ledger.count(budget)
    except Exception as error:  # the wake ends all the same; the next one counts it
        log.warning("%s: what it spent was not counted yet (%s)", thread.id, error)


class _Ledger:
    """What one thread has spent, may spend, and asks for."""

    def __init__(self, thread: Any) -> None:
        self._thread, self._wake, self._store = thread, thread._wake, thread._wake.store
        self._now: datetime = self._store.clock.now()

    async def hold(self, declared: Any) -> None:
        """Ask for more where something is spent."""
        scopes = await self._scopes(declared)
        own = await self._own(scopes, strict=True) if scopes else {}
        branch: Branch | None = None
        for scope in scopes:
            await self._written(scope, own)
            branch = branch or await self._branch()
            await _Question(self, branch, scope, own).settle()

    async def count(self, declared: Any) -> None:
        """Write down what was spent, for the others."""
        scopes = await self._scopes(declared)
        own = await self._own(scopes, strict=False) if scopes else {}
        for scope in scopes:
            await self._written(scope, own)

    async def _branch(self) -> Branch:
        branch: Branch = self._thread.step(STEP)._branch
        await branch.read()
        return branch

    # ---- which budgets hold it -------------------------------------------------------------------------------------------------

    async def _scopes(self, declared: Any) -> list[_Scope]:
        """Its own, that of its spawn, and those of its ancestors that go down."""
        first = self._wake.history.events[0].data.get("budget") if self._wake.history.events else None
        own = [] if declared is None else [self._scope(Budget.of(declared))]
        own += [] if first is None else [self._scope(Budget.of(first), spawned=True)]
        if down := [scope for scope in own if scope.is_shared]:
            await self._tell(to_json([asdict(scope) for scope in down]))
        return [*own, *[scope for ancestor in await self._ancestors() for scope in await self._of(ancestor)]]

    def _scope(self, budget: Budget, spawned: bool = False) -> _Scope:
        thread, context = self._thread, dict(self._thread.context)
        kind, _, key = budget.per.partition(":")
        if kind == "day":
            return _Scope(f"day:{quote(thread.agent, safe='')}", f"{thread.agent} today", budget)
        if kind == "context" and key and key not in context:
            raise NoSuchContext(key, thread.id)
        if kind == "context":
            shared = {key: context[key]} if key else context
            return _Scope(
                f"context:{digest(shared)[:20]}", f"all threads of {', '.join(f'{name} {value}' for name, value in shared.items())}", budget
            )
        if kind == "tree" or spawned:
            return _Scope(f"{'spawn' if spawned else 'tree'}:{thread.id}", f"{thread.agent} {thread.id} with its children", budget)
        return _Scope(f"thread:{thread.id}", f"{thread.agent} {thread.id}", budget)

    async def _tell(self, scopes: Json) -> None:
        key = f"of:{self._thread.id}"
        record = await self._store.get(SPACE, key)
        if record is None or record.value != scopes:
            await self._store.put(SPACE, key, scopes)

    async def _of(self, ancestor: str) -> list[_Scope]:
        record = await self._store.get(SPACE, f"of:{ancestor}")
        told = [] if record is None else record.value
        return [_Scope(one["id"], one["words"], Budget.of(one["budget"])) for one in told]

    async def _ancestors(self) -> list[str]:
        """They never change, so one look a wake is enough."""
        known: list[str] | None = self._thread.__dict__.get("_ancestors")
        if known is None:
            known, parent = [], self._thread.parent
            while parent is not None:
                known.append(parent)
                row = await self._store.thread(parent)
                parent = None if row is None or row.parent is None else row.parent[0]
            self._thread.__dict__["_ancestors"] = known
        return known

    # ---- what is spent ---------------------------------------------------------------------------------------------------------

    async def _own(self, scopes: Sequence[_Scope], *, strict: bool) -> Amounts:
        """What this thread has spent in its life."""
        usage, counters = self._thread.usage, self._wake.history.counters
        priced = [scope for scope in scopes if scope.budget.usd is not None]
        usd = usage.cost_usd + (await self._unpriced(priced, strict) if priced else 0.0)
        return {"usd": usd, "tokens": usage.input_tokens + usage.output_tokens, "steps": counters.steps}

    async def _unpriced(self, scopes: Sequence[_Scope], strict: bool) -> float:
        """USD of the answers whose events do not say it. What was reckoned is kept: a compaction may leave the events out."""
        key = f"priced:{self._thread.id}"
        record = await self._store.get(SPACE, key)
        upto, usd = (0, 0.0) if record is None else record.value
        prices = {model: pair for scope in scopes for model, pair in (scope.budget.prices or {}).items()}
        found = [event for event in self._thread.events if event.seq > upto and _has_no_price(event)]
        reckoned = [_price(event, prices) for event in found]
        for event, price in zip(found, reckoned, strict=True):
            if price is None and strict:
                raise UnknownPrice(str(event.data.get("model") or "the model"))
        if found and None not in reckoned:
            usd += sum(price for price in reckoned if price is not None)
            await self._store.put(SPACE, key, [found[-1].seq, usd])
        return float(usd)

    async def _written(self, scope: _Scope, own: Amounts) -> None:
        """Have the others know what this thread has spent; what is recorded never shrinks."""
        if not scope.is_shared:
            return
        key = f"{scope.id}|{self._thread.id}"
        record = await self._store.get(SPACE, key)
        before = {} if record is None else record.value
        total = {kind: max(own[kind], before.get("total", own)[kind]) for kind in KINDS}
        value = {"total": total, **(self._day(before, own) if scope.budget.per == "day" else {})}
        if value != before:
            await self._store.put(SPACE, key, value, ttl=KEPT if scope.budget.per == "day" else None)

    def _day(self, before: Json, own: Amounts) -> dict[str, Json]:
        """Which day it is, and what had been spent before it."""
        today = str(self._now.date())
        if before.get("day") == today:
            return {"day": today, "base": before["base"]}
        is_new = not before and self._wake.row.created_at.astimezone(UTC).date() == self._now.date()
        return {"day": today, "base": dict.fromkeys(KINDS, 0) if is_new else before.get("total", own)}

    async def spent(self, scope: _Scope, own: Amounts) -> Amounts:
        """What all that share it have spent."""
        if not scope.is_shared:
            return own
        values = [record.value for record in (await self._store.records(SPACE, f"{scope.id}|")).values()]
        if scope.budget.per == "day":
            values = [one for one in values if one["day"] == str(self._now.date())]
        return {kind: sum(one["total"][kind] - one.get("base", {}).get(kind, 0) for one in values) for kind in KINDS}

    async def allowed(self, scope: _Scope) -> Amounts:
        """The budget with what people have added."""
        added = [record.value for record in (await self._store.records(SPACE, f"more:{scope.period(self._now)}|")).values()]
        return {kind: limit + sum(one["more"].get(kind, 0) for one in added) for kind, limit in scope.budget.limits.items()}


class _Question:
    """One budget of one thread: asked for more as often as it is spent."""

    def __init__(self, ledger: _Ledger, branch: Branch, scope: _Scope, own: Amounts) -> None:
        self._ledger, self._branch, self._scope, self._own = ledger, branch, scope, own
        self._wake = branch.wake
        self._period = scope.period(ledger._now)

    async def settle(self) -> None:
        """Return once there is something left; park until then."""
        while True:
            key = self._branch.key("budget", digest(self._period)[:12])
            op = self._branch.op(key)
            request = None if op is None else op.request
            if request is None or request.status in ("superseded", "withdrawn") or request.is_open:
                if not await self._parked(key, request):
                    return
                request = self._branch.log.ops[key].request
            assert request is not None
            assert request.closing is not None
            await self._answered(request, request.closing)

    async def _parked(self, key: str, request: Request | None) -> bool:
        """Whether the question is answered; False: it need not be asked. Raises Suspend while it waits."""
        spent, allowed, out = await self._look()
        closing = None
        if out:
            closing = await self._branch.park(key, self._draft(key, spent, allowed, out))
        if closing is not None:
            return True
        if out and (await self._look())[2]:  # looked at again: somebody may have given more before this question was on record
            raise self._branch.suspend()
        op = self._branch.log.ops.get(key)
        if op is not None and op.request is not None and op.request.is_open:
            data = {"request": op.request.event.seq, "kind": "superseded"}
            await self._wake.settle(Draft("decision", data, self._branch.log.id, key))
        self._branch.waiting = False
        return False

    async def _look(self) -> tuple[Amounts, Amounts, list[str]]:
        """What is spent, what is allowed, and what ran out."""
        spent, allowed = await self._ledger.spent(self._scope, self._own), await self._ledger.allowed(self._scope)
        return spent, allowed, [kind for kind, limit in allowed.items() if spent[kind] >= limit]

    def _draft(self, key: str, spent: Amounts, allowed: Amounts, out: Sequence[str]) -> Draft:
        of = self._wake.setting.redact(self._scope.words)
        words = f'{of} took {_said(spent, allowed)}. How much more {_UNITS[out[0]]}? A number, {{"{out[0]}": …}}, or "no".'
        numbers = {"spent": {kind: spent[kind] for kind in allowed}, "allowed": dict(allowed), "ran_out": list(out)}
        data = {"kind": "budget", "name": STEP, "question": words, "schema": ANSWER, "scope": self._period, **numbers}
        return Draft("request", data, self._branch.log.id, key, expires=self._scope.ends(self._ledger._now))

    async def _answered(self, request: Request, closing: Event) -> None:
        """Take what a person gave.

        Raises:
            BudgetSpent: nothing.
        """
        value = closing.data.get("value")
        if closing.data["kind"] == "expired" or (isinstance(value, Mapping) and "extended_by" in value):
            return
        more = {} if closing.data["kind"] == "rejected" else _more(value, request.event.data["ran_out"][0])
        if more:
            await self._extend(request, closing, more)
        elif more is not None and closing.seq > self._wake.history.retried:
            told = request.event.data
            raise BudgetSpent(self._scope.words, _said(told["spent"], told["allowed"]), closing.by)

    async def _extend(self, request: Request, closing: Event, more: Amounts) -> None:
        """Write it down for all that share the budget, once, and let those go on that wait for it too."""
        store, id = self._wake.store, ids.interrupt_id(self._wake.thread_id, request.event.seq)
        key = f"more:{self._period}|{id}"
        record = await store.get(SPACE, key)
        if record is None:
            spent, allowed, _ = await self._look()
            beyond = {kind: amount + max(0.0, spent[kind] - allowed.get(kind, spent[kind])) for kind, amount in more.items()}
            await store.put(SPACE, key, {"more": beyond, "by": closing.by, "at": micros(closing.at)}, expect=0)
        if record is None or not record.value.get("told"):
            await self._tell_others(id, closing.by)
            record = await store.get(SPACE, key)
            if record is not None:
                await store.put(SPACE, key, {**record.value, "told": True})

    async def _tell_others(self, id: str, by: str | None) -> None:
        store = self._wake.store
        for row in await store.interrupts(kind="budget", limit=100_000) if self._scope.is_shared else ():
            if row.request.data.get("scope") == self._period and row.thread_id != self._wake.thread_id:
                data = {"request": row.request.seq, "kind": "answered", "value": {"extended_by": id}}
                try:
                    await store.decide(row.thread_id, row.request.seq, Draft("decision", data, row.request.step_id, by=by), digest=None, votes=0)
                except Refused:  # somebody has answered it meanwhile
                    continue


# ---- amounts -----------------------------------------------------------------------------------------------------------------------

_UNITS = {"usd": "USD", "tokens": "tokens", "steps": "steps"}


def _said(spent: Amounts, allowed: Amounts) -> str:
    shown = {"usd": "${:,.2f} of ${:,.2f}", "tokens": "{:,.0f} of {:,.0f} tokens", "steps": "{:,.0f} of {:,.0f} steps"}
    return ", ".join(shown[kind].format(spent[kind], limit) for kind, limit in allowed.items())


def _more(value: Json, ran_out: str) -> Amounts | None:
    """What an answer gives; nothing for a no; None for what is no answer at all (where no schema could be checked): it is asked again."""
    if value in (None, False, "no", 0):
        return {}
    named = value if isinstance(value, Mapping) else {ran_out: value}
    if set(named) - set(KINDS) or any(isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0 for amount in named.values()):
        return None
    return {kind: amount for kind, amount in named.items() if amount}


def _has_no_price(event: Event) -> bool:
    usage = event.data.get("usage") or {}
    return usage.get("cost_usd") is None and bool(usage.get("input_tokens") or usage.get("output_tokens"))


def _price(event: Event, prices: Mapping[str, Sequence[float]]) -> float | None:
    """USD of an answer by the prices that the budget gives, else by those of genai-prices."""
    usage, model = event.data["usage"], str(event.data.get("model") or "")
    pair = next((pair for name, pair in prices.items() if model and model in (name, name.partition(":")[2])), None)
    if pair is not None:
        return float((usage.get("input_tokens") or 0) * pair[0] + (usage.get("output_tokens") or 0) * pair[1]) / 1e6
    try:
        price = price_of(model, event.data.get("provider"), usage) if model else None
    except ImportError:
        return None
    return None if price is None else float(price)
