"""Where those who watch are told what happens. `ownloop.telemetry` puts OpenTelemetry and logs here; until then nobody listens, and it is free."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from .events import Draft, Event


class Heard:
    """What `asking` and `calling` enter."""

    def answered(self, answer: Any) -> Any:
        """Told the answer of the model, or the result of the call; gives it back."""
        return answer


_NOTHING: AbstractContextManager[Any] = nullcontext(Heard())


class Watch:
    """What is told. Every method is called in the task that it is about, so that a span opened there is the parent of what follows."""

    def wake(self, wake: Any, claim: Any, agent: str) -> AbstractContextManager[Any]:
        """Around one wake: a `Wake`, the `Claim` it came from, and the agent's name."""
        return _NOTHING

    def asking(self, model: Any, thread: Any, messages: Sequence[Any] = ()) -> AbstractContextManager[Any]:
        """Around one request to a model (`name`, `provider`), with what is sent; what is entered gets its answer by `.answered(response)`."""
        return _NOTHING

    def calling(self, run: Any) -> AbstractContextManager[Any]:
        """Around one try of one call (`Run`); what is entered gets its result by `.answered(result)`."""
        return _NOTHING

    def beginning(self, wake: Any, drafts: Sequence[Draft]) -> Sequence[Draft]:
        """What is about to be recorded, by a begin or as the end of a turn; a watch may add a field."""
        return drafts

    def wrote(self, wake: Any, events: Sequence[Event]) -> None:
        """What a wake has recorded, but for the end of its turn."""

    def decided(self, interrupt: Any, verb: str, answer: Event | Exception) -> None:
        """Somebody answered an interrupt (it is told as it was before), or was refused."""

    def limited(self, limit: str, seconds: float) -> None:
        """A rate limit made a caller wait."""


current = Watch()


def use(watch: Watch | None) -> None:
    """Tell this one from now on; None: nobody."""
    global current
    current = watch or Watch()
