"""The audit: everybody who tried to decide something, also those who were refused."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from ..clock import from_micros, micros
from ..events import Json, sparse
from ..interrupts import Actor
from ..stores.base import Store

SPACE = "attempt"
KEPT = timedelta(days=400)


@dataclass(frozen=True)
class Attempt:
    """Somebody tried to decide an interrupt. `problem`: the kind of problem that refused it ("already-decided", …), or None."""

    at: datetime
    actor: Actor
    via: str
    decision: str
    outcome: Literal["decided", "voted", "refused"]
    problem: str | None = None


async def record(store: Store, interrupt_id: str, attempt: Attempt) -> None:
    """Keep it for 400 days. What was decided stands in the thread's log besides, for as long as the thread does."""
    value: Json = {
        "at": micros(attempt.at),
        "actor": attempt.actor.id,
        "groups": list(attempt.actor.groups),
        "via": attempt.via,
        "decision": attempt.decision,
        "outcome": attempt.outcome,
        **sparse(problem=attempt.problem),
    }
    await store.put(SPACE, f"{interrupt_id}:{micros(attempt.at):020d}:{secrets.token_hex(4)}", value, expect=0, ttl=KEPT)


async def attempts(store: Store, interrupt_id: str) -> list[Attempt]:
    """All that are kept, oldest first."""
    values = [one.value for one in (await store.records(SPACE, f"{interrupt_id}:")).values()]
    return [
        Attempt(from_micros(one["at"]), Actor(one["actor"], tuple(one["groups"])), one["via"], one["decision"], one["outcome"], one.get("problem"))
        for one in values
    ]
