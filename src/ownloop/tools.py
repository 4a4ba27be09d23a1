"""What a function promises (`tool`), what became of a call (`Outcome`), and what a running function can ask (`current_call`)."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Generic, Literal, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

from .clock import duration
from .errors import StepFailed
from .events import Json, to_json

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class InDoubt(Exception):
    """Raised by a function that cannot tell whether its effect happened (a lost reply, a timeout of the remote side)."""


@dataclass(frozen=True, slots=True)
class Happened:
    """The effect took place, with this result."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class NotHappened:
    """The effect did not take place; the function may be started again."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A `verify` function cannot tell either; a person is asked."""


Answer = Happened | NotHappened | Unknown
Verify = Callable[[str], Answer | Awaitable[Answer]]
DoubtPolicy = Literal["ask", "retry", "fail"] | Verify


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """A failure as the model sees it: type, message, and the innermost frame of the user's own code ("deploy.py:41 in push")."""

    type: str
    message: str
    where: str | None = None

    @classmethod
    def of(cls, recorded: Mapping[str, Json]) -> ErrorInfo:
        """The `error` of an event, without its traceback."""
        return cls(recorded["type"], recorded["message"], recorded.get("where"))


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of a call.

    `ok`: it returned. `unknown`: it was started, and nobody knows whether its effect happened (only with `in_doubt="fail"`).
    """

    ok: bool
    error: ErrorInfo | None = None
    unknown: bool = False
    _value: T | None = field(default=None, repr=True)

    @property
    def value(self) -> T:
        """What the function returned: the recorded JSON, validated by its return annotation.

        Raises:
            StepFailed: when the call failed.
        """
        if not self.ok:
            raise StepFailed(self.error)
        return cast(T, self._value)


@dataclass(frozen=True, slots=True)
class Promise:
    """The options of a function, as `tool` set them."""

    name: str
    reads: bool = False
    in_doubt: DoubtPolicy = "ask"
    unknown_on: tuple[type[BaseException], ...] = (InDoubt,)
    timeout: timedelta | None = None
    retry: int = 0
    judges: bool = False
    """A judge's verdict is about a result and is not one itself."""
    gates: tuple[Callable[[Any, bool], Awaitable[None]], ...] = ()
    """Awaited before every try, as `(run, may_park)`: a gate returns once the call may begin, or parks the step on a timer."""

    @property
    def repeatable(self) -> bool:
        """Whether the user gave their word that it may be called again without asking."""
        return self.reads or self.in_doubt == "retry"


class Options(TypedDict, total=False):
    """What `tool` takes."""

    name: str | None
    reads: bool
    in_doubt: DoubtPolicy
    unknown_on: tuple[type[BaseException], ...]
    timeout: timedelta | str | None
    retry: int


@overload
def tool(fn: Callable[P, R], /, **options: Unpack[Options]) -> Callable[P, R]: ...
@overload
def tool(fn: None = None, /, **options: Unpack[Options]) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def tool(fn: Callable[..., Any] | None = None, /, **options: Unpack[Options]) -> Any:
    """Say what a function promises; a decorator, or a wrapper in place (`tool(search, reads=True)`). What it promised before and is not named stays.

    Args:
        name: how its calls are recorded; default the function's name.
        reads: it has no effects: nothing is recorded before it runs, and after a crash it may run again.
        in_doubt: what happens when it was started and its outcome is unknown: "ask" a person, "retry" with the same key, "fail",
            or a function `verify(key)` that looks.
        unknown_on: exception types that leave the outcome unknown instead of failed.
        timeout: after this the call is let go: unknown if it has effects, failed if it only reads.
        retry: how many more tries a failing call gets; only with `reads=True` or `in_doubt="retry"`. All tries share one key.

    Raises:
        ValueError: for options that contradict each other.
    """
    if fn is None:
        return functools.partial(tool, **options)
    timeout = options.get("timeout")
    before: Promise = getattr(fn, "__ownloop__", None) or Promise(name_of(fn))
    timed: Options = {} if timeout is None else {"timeout": duration(timeout)}
    promise = replace(before, **{**options, "name": options.get("name") or before.name, **timed})  # type: ignore[arg-type]  # the fields of Options
    if not (callable(promise.in_doubt) or promise.in_doubt in ("ask", "retry", "fail")):
        raise ValueError(f'in_doubt={promise.in_doubt!r}; choose "ask", "retry", "fail" or a function verify(key)')
    if promise.retry < 0 or (promise.retry and not promise.repeatable):
        raise ValueError(f'retry={promise.retry} on {promise.name}: only what may run twice is retried; add reads=True or in_doubt="retry"')
    return promised(fn, promise)


def promised(fn: Callable[..., Any], promise: Promise) -> Callable[..., Any]:
    """The function with its promise attached, the function itself unchanged."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    wrapper.__ownloop__ = promise  # type: ignore[attr-defined]  # the one mark that promise_of reads
    return wrapper


@functools.lru_cache(maxsize=1024)
def promise_of(fn: Callable[..., Any]) -> Promise:
    """What `tool` said of the function; without it: effects, and a person is asked when in doubt."""
    found = getattr(fn, "__ownloop__", None)
    return found if isinstance(found, Promise) else Promise(name=name_of(fn))


def name_of(fn: Callable[..., Any]) -> str:
    """The name a function's calls are recorded under."""
    inner = fn.func if isinstance(fn, functools.partial) else fn
    return str(getattr(inner, "__name__", None) or type(inner).__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """The call that is running: its idempotency key, whether it should stop, and where to report progress.

    Attributes:
        key: the same for every start and try of this operation, different for any other; hand it to the remote side.
    """

    key: str
    thread_id: str
    step_id: str
    _stop: Callable[[], bool]
    _report: Callable[[Json], None]
    _run: Any = field(default=None, repr=False, compare=False)

    @property
    def stop_requested(self) -> bool:
        """Whether somebody paused or cancelled the thread; a long tool looks at this now and then and ends early."""
        return self._stop()

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Say how far the call is. Only the latest value is kept, written at most once a second. Callable from any thread."""
        self._report({"done": done, "total": total, "text": text})


running: ContextVar[Call] = ContextVar("ownloop_call")
_noted: ContextVar[dict[str, Json]] = ContextVar("ownloop_notes")


@contextmanager
def noting(noted: dict[str, Json]) -> Iterator[None]:
    """Collect here what is annotated inside."""
    token = _noted.set(noted)
    try:
        yield
    finally:
        _noted.reset(token)


_TAKEN = frozenset({"args", "batch", "error", "judge", "limited", "reads", "request", "retry_at", "unknown", "unwritable", "value"})
"""Fields that say what became of something; a note must not."""


def annotate(*, usage: Mapping[str, float] | None = None, **fields: Json) -> None:
    """Add to the event that will record what runs now: a selection, a call, a summary; elsewhere nothing happens.

    `usage` adds up over several requests: {"input_tokens", "output_tokens", "cost_usd", "requests"}; other fields replace those before.

    Raises:
        ValueError: events have a field of that name, or the value has no JSON form.
    """
    if taken := _TAKEN & fields.keys():
        raise ValueError(f"annotate({', '.join(sorted(taken))}=…): events say something else by that name; choose another one")
    if (noted := _noted.get(None)) is not None:
        before = noted.get("usage") or {}
        together = {name: before.get(name, 0) + amount for name, amount in (usage or {}).items()}
        noted |= to_json(fields) | ({"usage": {**before, **together}} if usage else {})


def current_call() -> Call:
    """The call that this function runs in.

    Raises:
        LookupError: outside a function that `step.run` started.
    """
    if (call := running.get(None)) is None:
        raise LookupError("current_call() is only there inside a function that step.run(...) started; read it there and hand on what you need")
    return call
