"""A model that says what a test wrote down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..intents import Intent, members
from ..thread import Thread

Line = Intent | list[Intent] | Exception


class Calls(list[int]):
    """One entry for every time the model was asked: how many events it saw. Equal to a number when that is how many there are."""

    def __eq__(self, other: object) -> bool:
        return len(self) == other if isinstance(other, int) else super().__eq__(other)

    def __int__(self) -> int:
        return len(self)

    __hash__ = None


class ScriptedModel:
    """Answers line by line; where a thread stands is read from its log, so that a crash or another process changes nothing.

    Args:
        script: an intent, a list of intents (several calls in one answer), or an exception (raised, as a model that fails).
        intents: what it declares; default the classes in the script.

    Attributes:
        calls: one entry for every time it was asked.
    """

    def __init__(self, script: Sequence[Line], intents: Any = None) -> None:
        self._script = list(script)
        lines = [line if isinstance(line, list) else [line] for line in self._script]
        found = {type(intent): None for line in lines for intent in line if isinstance(intent, Intent)}
        self.intents = members(intents) if intents is not None else tuple(found)
        self.calls = Calls()

    async def __call__(self, thread: Thread[Any]) -> Any:
        place = thread._wake.history.counters.asked
        self.calls.append(len(thread.events))
        if place >= len(self._script):
            raise AssertionError(
                f"the script has {len(self._script)} lines, and {thread.agent} asks for line {place + 1}; add one that ends the turn"
            )
        line = self._script[place]
        if isinstance(line, Exception):
            raise line
        return line
