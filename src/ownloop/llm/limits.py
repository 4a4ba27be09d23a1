"""`RateLimit`: never more than N in any window, over all processes on one store; and `limited`, which puts one before a function.

The log of slots (`bucket.py`) is one record that is written by compare-and-set. pyrate-limiter was looked at: its buckets bring their own
databases and clocks, and hand out no slot that outlives the process which asked.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, cast
from weakref import WeakKeyDictionary

from .. import watch
from ..branch import Branch, spelled
from ..calls import Run
from ..clock import duration, from_micros, micros
from ..errors import OwnloopError, StoreError
from ..events import Draft, Json, digest
from ..stores.base import Store
from ..tools import name_of, promise_of, promised, running
from ..wake import is_async
from .bucket import SECOND, Ask, Bucket, Rate
from .waiting import lowered, seconds_to_wait

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

log = logging.getLogger("ownloop")

SPACE = "limit"
EARLY = 2 * SECOND
"""How long before its slot a parked thread is woken, if it may wait that long: a wake takes its time."""
TRIES = 3
"""How often somebody who was late for a slot on a slow machine takes the next one, before it just goes."""
FOREVER = 10 * 365 * 86400 * SECOND


class LimitReached(OwnloopError):
    """A rate limit lets the model be asked only later; the thread's timer does that, and the place in the queue is kept.

    Attributes:
        limited: the limit's name.
        retry_after: seconds.
    """

    transient = True

    def __init__(self, limited: str, seconds: float) -> None:
        super().__init__(f"the limit {limited} lets this through in {seconds:.1f} s; the thread waits on its timer and keeps its place")
        self.limited = limited
        self.retry_after = seconds


class OverLimit(OwnloopError):
    """One call wants more than a whole window holds; no wait helps."""

    def __init__(self, limited: str, tokens: int, amount: int) -> None:
        super().__init__(
            f"{tokens:,} tokens in one call, and the limit {limited} lets {amount:,} through in a window; shorten the prompt or raise it"
        )
        self.limited = limited


class NoStore(OwnloopError):
    """Something limited was called outside a step: there is no store that could keep the limit."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was called outside a step, where no store keeps its limit; call it through step.run(limited(…), …)")


@dataclass(frozen=True)
class Caller:
    """Who calls, for `RateLimit(key=function)`: named as on a `Thread`, and `name` is the function that is limited."""

    id: str
    agent: str
    key: str | None
    parent: str | None
    context: Mapping[str, Json]
    name: str


@dataclass(frozen=True)
class Ticket:
    """A place that was given. `at`: when, in microseconds since 1970."""

    limit: str
    at: int
    tokens: int
    _ask: Ask = field(repr=False)
    _line: _Line = field(repr=False)
    _is_parked: bool = field(default=False, repr=False)
    """It is later than its owner waits in the process; who comes back for it gets another ticket."""

    @property
    def is_past(self) -> bool:
        """Whether it may no longer be used."""
        return self._line.is_past(self.at)

    async def fresh(self) -> Ticket:
        """The place, or if it is past the next one before all who wait: for who had something else to do or to wait for meanwhile."""
        return self if not self.is_past else await self._line.taken(replace(self._ask, patience=FOREVER, again=True, peeks=False))


async def all_fresh(tickets: Sequence[Any]) -> list[Any]:
    """The same places, none of them past: while one was waited for, the time of another may have gone by."""
    found = list(tickets)
    for _ in range(TRIES):
        if not any(isinstance(one, Ticket) and one.is_past for one in found):
            break
        found = [await one.fresh() if isinstance(one, Ticket) else one for one in found]
    return found


Key = str | Callable[[Any, Mapping[str, Any]], str] | None


@dataclass(frozen=True)
class RateLimit:
    """At most so many requests, so many tokens, in any window, by all processes on the same store.

    First come, first served. After a quiet time half a window's worth goes at once, the rest evenly; where that would make pauses of more than
    two seconds ("5/hour") all of a window's worth goes at once. A window is kept 3 % longer (at most two seconds), because what is let through
    evenly arrives unevenly. A place that is not used is lost for its window and no longer.

    Args:
        requests, tokens: "500/min", "90k/min", "10/s", "100/2s".
        key: what is counted together: a text ("openai"), or a function of the thread (for a call: a `Caller`) and the arguments by name, for
            instance `lambda thread, arguments: thread.context["tenant"]`. Limits with equal numbers and equal key are one limit.
        max_wait: a longer wait is a timer of the thread instead of a sleep.

    Raises:
        ValueError: no rate, or one that cannot be read.
    """

    requests: str | None = None
    tokens: str | None = None
    key: Key = None
    max_wait: timedelta | str = "5s"
    _rates: tuple[Rate | None, Rate | None] = field(init=False, repr=False, compare=False)
    _lines: WeakKeyDictionary[Store, dict[str, _Line]] = field(init=False, repr=False, compare=False, default_factory=WeakKeyDictionary)

    def __post_init__(self) -> None:
        requests, tokens = (None if text is None else Rate.parse(text) for text in (self.requests, self.tokens))
        if requests is None and tokens is None:
            raise ValueError('RateLimit() limits nothing; say what: RateLimit(requests="500/min", tokens="90k/min")')
        object.__setattr__(self, "_rates", (requests, tokens))
        object.__setattr__(self, "max_wait", duration(self.max_wait))

    # ---- a model's side --------------------------------------------------------------------------------------------------------

    async def admit(self, thread: Any, *, requests: int = 1, tokens: int = 0) -> Ticket:
        """Wait for a place before a request to a model; `tokens` is the estimate that `correct` replaces.

        Inside a function of a step it always sleeps.

        Raises:
            LimitReached: it takes longer than `max_wait`; the next `admit` of this thread uses the place.
            OverLimit: the estimate is more than a window holds.
            NoStore: `thread` is None, and no step runs this.
        """
        call = running.get(None)
        if thread is None and call is None:
            raise NoStore("a limited model")
        wake = thread._wake if call is None else call._run.branch.wake
        asker = thread if thread is not None else _caller(call._run if call is not None else None)
        line = self._line(wake.store, asker, {"requests": requests, "tokens": tokens})
        weights = self._weights(line.name, requests, tokens)
        if call is not None:
            return await line.taken(Ask(_token(), weights, FOREVER))
        refused = [failure.data.get("limited") for failure in wake.history.model_failures[-1:]]
        unspent = refused not in ([], [None], [line.name])
        ticket = await line.taken(Ask(f"model:{thread.id}", weights, self._patience, unspent=unspent, keeps=True))
        if ticket._is_parked:
            until = self._wakes_at(ticket) - wake.store.clock.now()
            raise LimitReached(line.name, max(0.001, until.total_seconds()))
        return ticket

    async def correct(self, ticket: Ticket, *, tokens: int | None, headers: Mapping[str, str] | None = None) -> None:
        """Count what a request really took. Where the provider says that nothing is left, or when to come again, everybody waits until then.

        Args:
            tokens: input and output; None: the estimate stays.
            headers: of the answer: `retry-after…`, `x-ratelimit-…`, `anthropic-ratelimit-…`.
        """
        closed = seconds_to_wait(lowered(headers)) if headers else None
        if closed is None and not ticket._ask.keeps and (self._rates[1] is None or tokens is None):
            return

        def change(bucket: Bucket, now: int) -> None:
            bucket.correct(ticket._ask.owner, ticket.at, None if self._rates[1] is None else tokens)
            bucket.close(now + int((closed or 0) * SECOND), now)

        try:
            await ticket._line.change(change)
        except StoreError as error:  # what was asked has been answered, and that counts more
            log.warning("limit %s: what was really used could not be written, the estimate stays (%s)", ticket.limit, error)

    # ---- a call's side ---------------------------------------------------------------------------------------------------------

    async def wait(self, run: Run, arguments: Mapping[str, Any], tokens: int) -> Ticket:
        """A place for a call that has begun: it sleeps, however long that takes."""
        line = self._line(run.branch.wake.store, _caller(run), arguments)
        return await line.taken(Ask(_token(), self._weights(line.name, 1, tokens), FOREVER))

    async def wait_or_park(self, run: Run, arguments: Mapping[str, Any], tokens: int, *, peeks: bool) -> Ticket | None:
        """A place for a call that has not begun: it sleeps, or parks the step on a timer. None: it peeked, and need not park."""
        branch = run.branch
        line = self._line(branch.wake.store, _caller(run), arguments)
        place = f"limit:{spelled(run.key)}|"
        timer = await _timer(branch, f"{run.key}|{line.id}")
        is_other = any(key.startswith(place) and not key.startswith(place + line.id) for key in branch.log.ops)
        weights, keeps = self._weights(line.name, 1, tokens), len(run.promise.gates) > 1
        ask = Ask(run.idempotency_key, weights, self._patience, unspent=is_other, keeps=keeps, peeks=peeks)
        ticket = await branch.wake.interruptible(line.take(ask))
        if ticket is None or not ticket._is_parked:
            return ticket
        request = {"kind": "timer", "name": branch.log.name, "limit": line.name}
        await branch.park(timer, Draft("request", request, branch.log.id, timer, expires=self._wakes_at(ticket)))
        raise branch.suspend()

    # ---- inside ----------------------------------------------------------------------------------------------------------------

    @property
    def _patience(self) -> int:
        return duration(self.max_wait) // timedelta(microseconds=1)

    def _wakes_at(self, ticket: Ticket) -> datetime:
        """When the owner of a place comes back for it."""
        return from_micros(ticket.at - min(EARLY, self._patience))

    def _weights(self, name: str, requests: int, tokens: int) -> tuple[int, int]:
        rate = self._rates[1]
        if rate is not None and tokens > rate.amount:
            raise OverLimit(name, tokens, rate.amount)
        return requests, tokens if rate is None else max(1, tokens)

    def _line(self, store: Store, asker: Any, arguments: Mapping[str, Any]) -> _Line:
        key = self.key(asker, arguments) if callable(self.key) else self.key
        if not isinstance(key, str | None):
            raise TypeError(f"key of {self!r} gave {key!r}; it gives a text, for instance a tenant's id")
        id = digest([[None if rate is None else [rate.amount, rate.window] for rate in self._rates], key])[:16]
        lines = self._lines.setdefault(store, {})
        line = lines.get(id)
        if line is None or line.loop is not asyncio.get_running_loop():
            line = lines[id] = _Line(store, id, self._name(key), self._rates)
        return line

    def _name(self, key: str | None) -> str:
        parts = [self.requests, None if self.tokens is None else f"{self.tokens} tokens"]
        return ", ".join(part for part in parts if part) + (f" of {key}" if key is not None else "")


class _Line:
    """Who asks one bucket in this process. Those who ask at the same time are written at once."""

    def __init__(self, store: Store, id: str, name: str, rates: Sequence[Rate | None]) -> None:
        self.id, self.name, self.loop = id, name, asyncio.get_running_loop()
        self._store, self._rates, self._grace = store, rates, Bucket(rates).grace
        self._asked: list[tuple[Callable[[Bucket, int], Any], asyncio.Future[Any]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._took = 0  # microseconds of the last commit

    async def change(self, work: Callable[[Bucket, int], T]) -> T:
        """Do this to the bucket; its result once that is written."""
        future: asyncio.Future[T] = self.loop.create_future()
        self._asked.append((work, future))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write())  # a task of its own: who asks may be cut
        return await future

    async def _write(self) -> None:
        while self._asked:
            batch, self._asked = self._asked, []
            try:
                results: Sequence[Any] = await self._commit([work for work, _ in batch])
            except BaseException as error:  # everybody who asked hears of it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _commit(self, works: Sequence[Callable[[Bucket, int], Any]]) -> list[Any]:
        while True:
            record = await self._store.get(SPACE, self.id)
            now = micros(self._store.clock.now())
            bucket = Bucket(self._rates, None if record is None else record.value)
            results = [work(bucket, now) for work in works]
            ttl = timedelta(microseconds=max(bucket.lives_until() - now, SECOND))
            if await self._store.put(SPACE, self.id, bucket.to_json(now), expect=0 if record is None else record.version, ttl=ttl):
                self._took = self._now() - now
                return results

    async def take(self, ask: Ask) -> Ticket | None:
        """A place: one that has come, or one so much later that its owner parks. None: who peeks need not park."""
        told, late = False, 0
        while True:
            at = await self.change(partial(Bucket.ask, ask=ask))
            if at is None:
                return None
            wait = at - self._now()
            if wait > 0 and not told:
                told = True
                watch.current.limited(self.name, wait / SECOND)
            if wait > ask.patience:
                return Ticket(self.name, at, ask.weights[1], ask, self, True)
            if await self._has_come(ask.owner, at):
                late += 1
                if late > TRIES or not self.is_past(at):
                    return Ticket(self.name, at, ask.weights[1], ask, self)
            ask = replace(ask, again=True, ahead=max(0, self._took // 2))

    async def taken(self, ask: Ask) -> Ticket:
        """`take` for who does not peek."""
        ticket = await self.take(ask)
        assert ticket is not None
        return ticket

    async def _has_come(self, owner: str, at: int) -> bool:
        """Sleep until the place has come; False if it was put off meanwhile."""
        if (wait := at - self._now()) <= 0:
            return True
        await asyncio.sleep(wait / SECOND)
        record = await self._store.get(SPACE, self.id)
        slot = None if record is None else Bucket(self._rates, record.value).of(owner)
        return slot is None or slot.at <= at

    def is_past(self, at: int) -> bool:
        """Whether it is too late for what was given for this moment."""
        return self._now() > at + self._grace

    def _now(self) -> int:
        return micros(self._store.clock.now())


async def _timer(branch: Branch, what: str) -> str:
    """The key of the next timer of a call, once those before are over."""
    while True:
        key = branch.key("limit", what)
        op = branch.op(key)
        if op is None or op.request is None or op.request.status in ("superseded", "withdrawn"):
            return key
        if await branch.park(key, Draft("request")) is None:
            raise branch.suspend()


async def _is_cached(run: Run) -> bool:
    from .cache import is_cached

    return await is_cached(run)


def _token() -> str:
    return secrets.token_hex(4)


def _caller(run: Run | None) -> Caller | None:
    if run is None:
        return None
    row = run.branch.wake.row
    return Caller(row.id, row.agent, row.key, None if row.parent is None else row.parent[0], row.context, run.promise.name)


# ---- wrapping a function -----------------------------------------------------------------------------------------------------------

_given: ContextVar[dict[object, Ticket | None] | None] = ContextVar("ownloop_limit_tickets", default=None)
"""What gates have given to the call that is about to run; None: a cache answers, or the call itself has to ask."""
CACHE = "__ownloop_cache__"
"""What `cached` leaves on a function and on all that wraps it."""


def limited(fn: Callable[P, R], limit: RateLimit, *, tokens: int | Callable[..., int] = 0) -> Callable[P, R]:
    """The same function behind a rate limit, for `step.run`; its promise, name and signature stay.

    The limit is asked before anything is recorded as started; a wait of more than `limit.max_wait` parks the step on a timer. Each try is
    counted; what a cache has is not, whether it is inside (`limited(cached(fn, "10m"), limit)`) or outside (`cached(limited(fn, limit), "10m")`).
    Calls of one key at the same time, which share one run, count once only with the cache outside. Several limits on one function are each asked,
    the innermost first.

    Args:
        tokens: what a call takes of `limit.tokens`, or a function of its arguments that estimates; corrected by the usage that it annotates.
    """
    gate = _Gate(fn, limit, tokens)
    wrapped = gate.asynchronous() if is_async(fn) else gate.synchronous()
    promise = promise_of(fn)
    return cast(Callable[P, R], promised(wrapped, replace(promise, gates=(*promise.gates, gate))))


class _Gate:
    """One `limited`: asked by `step.run` before a call, else by the call itself."""

    def __init__(self, fn: Callable[..., Any], limit: RateLimit, tokens: int | Callable[..., int]) -> None:
        self._fn, self._limit, self._tokens = fn, limit, tokens

    async def __call__(self, run: Run, may_park: bool) -> None:
        is_cached, is_outside = hasattr(run.fn, CACHE), not hasattr(self._fn, CACHE)
        if is_cached and await _is_cached(run):
            self._give(None)
            return
        arguments, tokens = self._reckoned(run.args, run.kwargs)
        if may_park:
            ticket = await self._limit.wait_or_park(run, arguments, tokens, peeks=is_cached and is_outside)
        else:
            ticket = await run.branch.wake.interruptible(self._limit.wait(run, arguments, tokens))
        self._give(ticket)
        given = _given.get() or {}
        _given.set(dict(zip(given, await run.branch.wake.interruptible(all_fresh(list(given.values()))), strict=True)))

    def asynchronous(self) -> Callable[..., Awaitable[Any]]:
        @wraps(self._fn)
        async def call(*args: Any, **kwargs: Any) -> Any:
            ticket = await self._ask(args, kwargs) if self._has_to_ask() else self._take()
            if ticket is not None:
                ticket = await ticket.fresh()
            try:
                return await self._fn(*args, **kwargs)
            finally:
                if ticket is not None:
                    await self._correct(ticket, self._usage())

        return call

    def synchronous(self) -> Callable[..., Any]:
        @wraps(self._fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            ticket = self._wait_for(self._ask(args, kwargs, self._running())) if self._has_to_ask() else self._take()
            if ticket is not None and ticket.is_past:
                ticket = self._wait_for(ticket.fresh())
            try:
                return self._fn(*args, **kwargs)
            finally:
                if ticket is not None and (self._limit.tokens is not None or ticket._ask.keeps):
                    self._wait_for(self._correct(ticket, self._usage()))

        return call

    def _give(self, ticket: Ticket | None) -> None:
        _given.set({**(_given.get() or {}), self: ticket})

    def _has_to_ask(self) -> bool:
        """Whether no gate has dealt with this call; a cache around it may have let that to the call."""
        given = _given.get() or {}
        return self not in given or (given[self] is None and not hasattr(self._fn, CACHE))

    def _take(self) -> Ticket | None:
        """What the gate was given for this call; it counts once."""
        return (_given.get() or {}).pop(self)

    def _running(self) -> Run:
        call = running.get(None)
        if call is None:
            raise NoStore(name_of(self._fn))
        return cast(Run, call._run)

    def _reckoned(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
        """The arguments by name, and the tokens that they will take."""
        return _named(self._fn, args, kwargs), self._tokens(*args, **kwargs) if callable(self._tokens) else self._tokens

    async def _ask(self, args: Sequence[Any], kwargs: Mapping[str, Any], run: Run | None = None) -> Ticket:
        return await self._limit.wait(run or self._running(), *self._reckoned(args, kwargs))

    def _usage(self) -> int | None:
        call = running.get(None)
        usage = None if call is None else call._run.notes.get("usage")
        return None if not usage else int(usage.get("input_tokens") or 0) + int(usage.get("output_tokens") or 0)

    async def _correct(self, ticket: Ticket, tokens: int | None) -> None:
        await self._limit.correct(ticket, tokens=tokens)

    def _wait_for(self, work: Any) -> Any:
        """Run this on the loop of the wake, from the thread that a sync function has."""
        main = self._running().branch.wake._main
        assert main is not None
        loop = main.get_loop()
        try:
            is_inside = asyncio.get_running_loop() is loop
        except RuntimeError:
            is_inside = False
        if is_inside:
            work.close()
            raise TypeError(f"{name_of(self._fn)} is limited and not async, and was called on the event loop; run it through step.run(…)")
        return asyncio.run_coroutine_threadsafe(work, loop).result()


def _named(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments by the names of their parameters."""
    try:
        return inspect.signature(fn).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):  # a builtin without a signature; or it does not fit, which the call itself will say
        return kwargs
