"""`cached`: a function that reads is run once for equal arguments, as long as its result may be used.

The results stand in the store's records, so that they are shared by the processes on it and gone by its clock. Who finds none claims the record,
runs the function and puts the result in the claim's place; everybody else waits for that: in this process on the same task, elsewhere by looking
now and then. A claim is prolonged while the function runs, and runs out soon after its process died.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from ..calls import Run, result_type
from ..clock import duration
from ..errors import StoreError
from ..events import Json, digest, to_json
from ..stores.base import Record, Store
from ..tools import annotate, current_call, noting, promise_of
from ..wake import is_async, result_of

P = ParamSpec("P")
R = TypeVar("R")
Scope = Literal["thread", "context", "app"]
log = logging.getLogger("ownloop")

SPACE = "cache"
CLAIM = timedelta(seconds=10)
"""How long others wait for a process that died while it ran the function."""
KEPT = ("summary",)
"""What the run annotated that is true of the result and not of the run; kept with it."""
FIRST_LOOK, LAST_LOOK = 0.02, 0.5
"""Seconds between looks for a result that another process is about to write: doubled from the first to the last."""


def cached(fn: Callable[P, R], ttl: timedelta | str, *, scope: Scope = "thread", version: str = "1") -> Callable[P, R]:
    """The function, for `step.run`: it runs once for equal arguments, and for `ttl` its result is given back instead.

    Equal means: the same function (by module and name), version, arguments (as JSON) and scope. What else the function looks at is not known here:
    hand it in as an argument, or put it into `version`. Calls of one key at the same time share one run, also between processes. A failure is
    given to those who wait for it in this process, and is not kept. The event of a call that was answered from the cache says `cached: true`.
    Outside `step.run` it is the plain function.

    Args:
        ttl: how long a result may be used, from when it was written, by the store's clock.
        scope: who shares it: one thread, all threads with an equal context, or all of the App's.
        version: change it when the function's results change.

    Raises:
        ValueError: the function does not promise `reads=True`; an effect that is not run does not happen.
        TypeError: it is a method of something without a JSON form, which cannot be part of the key.
    """
    promise = promise_of(fn)
    if not promise.reads:
        raise ValueError(
            f"cached({promise.name}): what has effects is never cached; if it only reads, say so: cached(tool({promise.name}, reads=True), …)"
        )
    if scope not in get_args(Scope):
        raise ValueError(f'cached({promise.name}, scope={scope!r}): choose "thread", "context" or "app"')
    cache = Cache(fn, duration(ttl), scope, version, _identity(fn))
    if not cache.ttl:
        raise ValueError(f"cached({promise.name}, {ttl!r}): a result that may be used for no time is no cache")

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            run: Run = current_call()._run
        except LookupError:
            return fn(*args, **kwargs)
        return cache.call(run, args, kwargs)

    wrapper.__ownloop_cache__ = cache  # type: ignore[attr-defined]  # the one mark that is_cached reads
    return wrapper


async def is_cached(run: Run) -> bool:
    """Whether a call that is about to begin will be answered from the cache: a limit need not count it."""
    layer: Any = run.fn
    while layer is not None:
        cache = layer.__dict__.get("__ownloop_cache__") if hasattr(layer, "__dict__") else None
        if isinstance(cache, Cache):
            with suppress(TypeError):  # arguments without a key: the call itself says so
                if await cache.look(run, run.args, run.kwargs) is not None:
                    return True
        layer = getattr(layer, "__wrapped__", None)
    return False


@dataclass
class _Flight:
    """A run that several callers wait for. `notes`: what it annotated; the usage among it is taken by the first who gets the result."""

    task: asyncio.Task[Any]
    notes: dict[str, Json]
    callers: int = 0


@dataclass(frozen=True)
class Cache:
    """One cached function."""

    fn: Callable[..., Any]
    ttl: timedelta
    scope: Scope
    version: str
    identity: Json
    returns: TypeAdapter[Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "returns", result_type(self.fn))

    async def call(self, run: Run, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The result of a call, run or not."""
        key = self.key(run, args, kwargs)
        found = await self._read(run.branch.wake.store, key)
        if found is None:
            return await self._join(run, key, args, kwargs)
        self._tell(run, {**found.notes, "cached": True})
        return found.value

    def _tell(self, run: Run, notes: Mapping[str, Json]) -> None:
        """Annotate the call, if it is this function's own: inside another one only the usage belongs to the event."""
        is_own = is_call_of(run, self.fn)
        annotate(**{name: note for name, note in notes.items() if is_own or name == "usage"})

    async def look(self, run: Run, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Found | None:
        """The result that is there, or None."""
        return await self._read(run.branch.wake.store, self.key(run, args, kwargs))

    def key(self, run: Run, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The record's key.

        Raises:
            TypeError: an argument has no JSON form.
        """
        wake = run.branch.wake
        place = {"thread": wake.thread_id, "context": dict(wake.row.context), "app": None}[self.scope]
        return f"{promise_of(self.fn).name}:{digest([self.identity, self.version, self.scope, place, self._arguments(args, kwargs)])}"

    def _arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Json:
        try:
            named = dict(inspect.signature(self.fn).bind(*args, **kwargs).arguments)
        except (TypeError, ValueError):  # no signature; or the function refuses them, and says so better itself
            named = {"args": args, **kwargs}
        return {name: self._plain(name, value) for name, value in named.items()}

    def _plain(self, name: str, value: Any) -> Json:
        try:
            return to_json(value)
        except Exception:  # pydantic, recursion, a __str__ that fails: all of it means the same here
            what = f"cached {promise_of(self.fn).name}: the argument {name} is a {type(value).__qualname__}, which has no JSON form"
            raise TypeError(f"{what}, so equal calls cannot be told; pass JSON, a dataclass or a pydantic model") from None

    # ---- in this process -------------------------------------------------------------------------------------------------------

    async def _join(self, run: Run, key: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Wait for the one run of this key, or begin it. It ends early only when nobody waits for it any more."""
        flights: dict[str, _Flight] = run.branch.wake.setting.flights
        flight = flights.get(key)
        if is_first := flight is None or flight.task.get_loop() is not asyncio.get_running_loop():
            notes: dict[str, Json] = {}
            flight = flights[key] = _Flight(asyncio.ensure_future(self._fly(run, key, notes, partial(self.fn, *args, **kwargs))), notes)
            flight.task.add_done_callback(_heard)
        assert flight is not None
        flight.callers += 1
        try:
            value = await asyncio.shield(flight.task)
            self._tell(run, {} if is_first else {"cached": True})
            return value
        finally:
            flight.callers -= 1
            if flight.task.done() or not flight.callers:
                self._tell(run, flight.notes)
                flight.notes.pop("usage", None)
            if not flight.callers and flights.get(key) is flight:
                del flights[key]
                flight.task.cancel()

    async def _fly(self, run: Run, key: str, notes: dict[str, Json], work: Callable[[], Any]) -> Any:
        """Run the function, unless another process has its result or is about to."""
        claim = _Claim(run.branch.wake.store, key)
        with suppress(StoreError):  # a cache that is away is no reason not to run
            found = await self._wait(claim)
            if found is not None:
                notes |= {**found.notes, "cached": True}
                return found.value
        try:
            with noting(notes):
                value = await claim.while_held(result_of(work, is_async(self.fn)))
        except BaseException:
            with suppress(StoreError):
                await claim.let_go()
            raise
        await self._keep(run, claim, value, notes)
        return value

    # ---- between processes -----------------------------------------------------------------------------------------------------

    async def _wait(self, claim: _Claim) -> _Found | None:
        """The result, once there is one; None once the claim is ours."""
        pause = FIRST_LOOK
        while not await claim.take():
            record = await claim.store.get(SPACE, claim.key)
            if (found := self._found(record)) is not None:
                return found
            if record is not None and "value" in record.value and await claim.take(record.version):
                return None  # a result of no use any more
            await asyncio.sleep(pause)
            pause = min(LAST_LOOK, pause * 2)
        return None

    async def _read(self, store: Store, key: str) -> _Found | None:
        with suppress(StoreError):  # a cache that is away holds nothing
            return self._found(await store.get(SPACE, key))
        return None

    def _found(self, record: Record | None) -> _Found | None:
        with suppress(ValidationError):  # the type has changed since
            if record is not None and "value" in record.value:
                return _Found(self.returns.validate_python(record.value["value"]), record.value["notes"])
        return None

    async def _keep(self, run: Run, claim: _Claim, value: Any, notes: Mapping[str, Json]) -> None:
        """Put the result in the claim's place, as it would be recorded."""
        kept = {name: note for name, note in notes.items() if name in KEPT}
        try:
            plain = run.branch.wake.setting.redact(to_json(self.returns.dump_python(value, mode="json", warnings=False)))
            self.returns.validate_python(plain)
            await claim.put({"value": plain, "notes": kept}, self.ttl)
        except Exception as error:  # a result that cannot be kept is a result all the same
            log.warning("%s is not cached: %s", claim.key, error)
            with suppress(StoreError):
                await claim.let_go()


@dataclass(frozen=True)
class _Found:
    value: Any
    notes: Mapping[str, Json]


@dataclass
class _Claim:
    """A record that says somebody runs the function; its version is known only to the one who wrote it last."""

    store: Store
    key: str
    version: int = 0
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    async def take(self, version: int = 0) -> bool:
        """Whether the claim is ours; not while there is another one, or a result, except the one of this version."""
        if not await self.store.put(SPACE, self.key, {"claimed": self.mark}, expect=version, ttl=CLAIM):
            return False
        record = await self.store.get(SPACE, self.key)  # versions go on over an expiry: which one it is must be read
        self.version = record.version if record is not None and record.value == {"claimed": self.mark} else 0
        return True

    async def put(self, value: Json, ttl: timedelta) -> None:
        """Write in the claim's place; nothing happens if it ran out and another one stands there."""
        if self.version and await self.store.put(SPACE, self.key, value, expect=self.version, ttl=ttl):
            self.version += 1

    async def let_go(self) -> None:
        await self.put({"claimed": ""}, timedelta())

    async def while_held(self, work: Awaitable[Any]) -> Any:
        """The result of the work; the claim is prolonged meanwhile."""
        is_over = asyncio.Event()
        prolonging = asyncio.ensure_future(self._prolong(is_over))
        try:
            return await work
        finally:
            is_over.set()
            await prolonging

    async def _prolong(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(is_over.wait(), CLAIM.total_seconds() / 3)
                return
            with suppress(StoreError):
                await self.put({"claimed": self.mark}, CLAIM)


def _heard(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waits sees it; nobody else must


def is_call_of(run: Run, fn: Callable[..., Any]) -> bool:
    """Whether a run is of this function, in whatever wrappers; not of another one that calls it."""
    return _innermost(run.fn) is _innermost(fn)


def _innermost(fn: Callable[..., Any]) -> Any:
    inner = inspect.unwrap(fn.func if isinstance(fn, partial) else fn)
    return getattr(inner, "__func__", inner)


def _identity(fn: Callable[..., Any]) -> Json:
    """What a function is, beside its arguments: module and name, and what a method or a partial holds."""
    inner: Any = inspect.unwrap(fn, stop=lambda one: isinstance(one, partial) or inspect.ismethod(one))
    if isinstance(inner, partial):
        return [_identity(inner.func), _held(fn, [list(inner.args), inner.keywords])]
    if inspect.ismethod(inner):
        owner = inner.__self__
        return [_identity(inner.__func__), _path(owner) if inspect.isclass(owner) else [_path(type(owner)), _held(fn, owner)]]
    return _path(inner) if inspect.isroutine(inner) or inspect.isclass(inner) else [_path(type(inner)), _held(fn, inner)]


def _path(named: Any) -> str:
    if named.__name__ == "<lambda>":
        raise ValueError("cached(<lambda>): two of them cannot be told apart; give the function a name with def")
    return f"{named.__module__}.{named.__qualname__}"


def _held(fn: Callable[..., Any], value: Any) -> Json:
    try:
        return to_json(value)
    except Exception:  # as for arguments
        name = promise_of(fn).name
        why = f"cached({name}): it holds a {type(value).__name__} without a JSON form, so the results of two of them cannot be told apart"
        raise TypeError(f"{why}; write a function that takes what matters: async def {name}(…)") from None
