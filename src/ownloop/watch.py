"""Where those who watch are told what happens. `ownloop.telemetry` puts OpenTelemetry here; until then nobody listens, and it is free."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from .events import Draft, Event

_NOTHING: AbstractContextManager[Any] = nullcontext()


class Watch:
    """What is told. Every method is called in the task that it is about, so that a span opened there is the parent of what follows."""

    def wake(self, wake: Any, claim: Any, agent: str) -> AbstractContextManager[Any]:
        """Around one wake: a `Wake`, the `Claim` it came from, and the agent's name."""
        return _NOTHING

    def asking(self, model: Any, thread: Any) -> AbstractContextManager[Any]:
        """Around one request to a model; what is entered gets its answer by `.answered(response)`."""
        return _NOTHING

    def calling(self, run: Any) -> AbstractContextManager[Any]:
        """Around one try of one call (`Run`)."""
        return _NOTHING

    def beginning(self, wake: Any, drafts: Sequence[Draft]) -> Sequence[Draft]:
        """What is about to be recorded; a watch may add a field."""
        return drafts

    def wrote(self, wake: Any, events: Sequence[Event]) -> None:
        """What a wake has recorded."""

    def decided(self, interrupt: Any, verb: str, refusal: Exception | None) -> None:
        """Somebody answered an interrupt, or was refused."""

    def limited(self, limit: str, seconds: float) -> None:
        """A rate limit made a caller wait."""


current = Watch()


def use(watch: Watch | None) -> None:
    """Tell this one from now on; None: nobody."""
    global current
    current = watch or Watch()
