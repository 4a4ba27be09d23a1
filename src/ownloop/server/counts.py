"""How much waits for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..events import Json
from ..stores.base import Store


@dataclass(frozen=True)
class Counts:
    """How many interrupts wait for a person: `open` without the snoozed ones, `by_kind` and `by_agent` of the open ones."""

    open: int
    snoozed: int
    by_kind: Mapping[str, int] = field(default_factory=dict)
    by_agent: Mapping[str, int] = field(default_factory=dict)


async def counted(store: Store, see: Mapping[str, Json] | None) -> Counts:
    """Of the threads whose context holds these pairs."""
    by_kind, by_agent, snoozed = Counter[str](), Counter[str](), 0
    for one in await store.tally(context=see):
        if one.is_snoozed:
            snoozed += one.count
        else:
            by_kind[one.kind] += one.count
            by_agent[one.agent] += one.count
    return Counts(by_kind.total(), snoozed, dict(by_kind), dict(by_agent))
