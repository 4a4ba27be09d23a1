"""Several who watch at once: spans, metrics, logs. What one of them gets wrong is logged and never reaches the program."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Self, TypeVar

from .. import watch
from ..events import Draft, Event
from ..watch import Heard, Watch

W = TypeVar("W", bound=Watch)
log = logging.getLogger("ownloop.telemetry")
this_wake: ContextVar[Any] = ContextVar("ownloop_wake", default=None)
"""The wake that what runs belongs to."""


class Together(Watch):
    """Tells each part in turn."""

    def __init__(self, parts: Sequence[Watch]) -> None:
        self.parts = tuple(parts)

    def wake(self, wake: Any, claim: Any, agent: str) -> AbstractContextManager[Heard]:
        return _Around(self.parts, lambda part: part.wake(wake, claim, agent), wake)

    def asking(self, model: Any, thread: Any, messages: Sequence[Any] = ()) -> AbstractContextManager[Heard]:
        return _Around(self.parts, lambda part: part.asking(model, thread, messages))

    def calling(self, run: Any) -> AbstractContextManager[Heard]:
        return _Around(self.parts, lambda part: part.calling(run))

    def beginning(self, wake: Any, drafts: Sequence[Draft]) -> Sequence[Draft]:
        for part in self.parts:
            try:
                drafts = part.beginning(wake, drafts)
            except Exception:
                _blame(part)
        return drafts

    def wrote(self, wake: Any, events: Sequence[Event]) -> None:
        for part in self.parts:
            try:
                part.wrote(wake, events)
            except Exception:
                _blame(part)

    def decided(self, interrupt: Any, verb: str, answer: Event | Exception) -> None:
        for part in self.parts:
            try:
                part.decided(interrupt, verb, answer)
            except Exception:
                _blame(part)

    def limited(self, limit: str, seconds: float) -> None:
        for part in self.parts:
            try:
                part.limited(limit, seconds)
            except Exception:
                _blame(part)


class _Around(Heard):
    """What each part opens, entered and left in order; what passes goes on. `wake`: the wake that what is inside belongs to."""

    def __init__(self, parts: Sequence[Watch], opened: Callable[[Watch], AbstractContextManager[Heard]], wake: Any = None) -> None:
        self._parts, self._opened, self._wake = parts, opened, wake
        self._inside: list[tuple[Watch, AbstractContextManager[Heard], Heard]] = []

    def __enter__(self) -> Self:
        self._token = None if self._wake is None else this_wake.set(self._wake)
        for part in self._parts:
            try:
                manager = self._opened(part)
                self._inside.append((part, manager, manager.__enter__()))
            except Exception:
                _blame(part)
        return self

    def answered(self, answer: Any) -> Any:
        for part, _, heard in self._inside:
            try:
                heard.answered(answer)
            except Exception:
                _blame(part)
        return answer

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        for part, manager, _ in reversed(self._inside):
            try:
                manager.__exit__(kind, error, trace)
            except Exception as own:
                if own is not error:
                    _blame(part)
        if self._token is not None:
            this_wake.reset(self._token)


def _blame(part: object) -> None:
    log.exception("%s failed; the program goes on", type(part).__name__)


def parts() -> tuple[Watch, ...]:
    """Who watches now."""
    current = watch.current
    if isinstance(current, Together):
        return current.parts
    return () if type(current) is Watch else (current,)


def found(kind: type[W]) -> W | None:
    """The one of this kind that watches now."""
    return next((part for part in parts() if isinstance(part, kind)), None)


def put(*new: Watch) -> None:
    """Let these watch too, each in the place of an older one of its kind."""
    kinds = tuple(type(one) for one in new)
    watch.use(Together([*(part for part in parts() if not isinstance(part, kinds)), *new]))


def drop(*kinds: type[Watch]) -> None:
    """Let nobody of these kinds watch any more."""
    rest = [part for part in parts() if not isinstance(part, kinds)]
    watch.use(Together(rest) if rest else None)
