"""The list of what waits, and the list of threads: filters are plain GET forms, so that a filter is an address."""

from __future__ import annotations

from typing import Any, get_args

from fastapi import Request
from fastapi.responses import Response

from ...interrupts import DECIDABLE, InterruptStatus
from ...stores.base import Status
from ..auth import Principal
from .rendering import House, base, link
from .routing import PageRouter

STATUSES = ("open", *(status for status in get_args(InterruptStatus) if status != "open"), "all")
THREADS: tuple[str, ...] = get_args(Status)
PAGE = 50


def lists(house: House) -> PageRouter:
    """GET / and GET /threads."""
    router = PageRouter(house)
    sees_interrupts = house.who("interrupts:read")
    sees_threads = house.who("threads:read")

    @router.page("/")
    async def inbox(
        request: Request,
        who: Principal = sees_interrupts,
        status: str = "open",
        agent: str = "",
        kind: str = "",
        tool: str = "",
        q: str = "",
        snoozed: bool = False,
        after: str = "",
    ) -> Response:
        chosen = {"status": status if status != "open" else "", "agent": agent, "kind": kind, "tool": tool, "q": q, "snoozed": "1" if snoozed else ""}
        found = await house.desk.interrupts(
            who,
            status=None if status == "all" else status if status in STATUSES else "open",
            agent=agent or None,
            kind=kind or None,
            name=tool or None,
            q=q or None,
            snoozed=snoozed,
            limit=PAGE,
            after=after or None,
        )
        counts = await house.desk.counts(who)
        kinds = [(one, counts.by_kind.get(one, 0)) for one in KIND_ORDER if counts.by_kind.get(one) or one == kind]
        return await house.page(
            request,
            who,
            "list.html",
            items=found.items,
            next=link(base(request) + "/", {**chosen, "after": found.next}) if found.next else None,
            first=link(base(request) + "/", chosen) if after else None,
            chosen=chosen | {"status": status},
            is_filtered=any(chosen.values()),
            statuses=STATUSES,
            kinds=[(name, number, link(base(request) + "/", {**chosen, "kind": name})) for name, number in kinds],
            every=link(base(request) + "/", {**chosen, "kind": ""}),
            agents=sorted({*counts.by_agent, *([agent] if agent else [])}),
            self_link=link(base(request) + "/", {**chosen, "after": after}),
        )

    @router.page("/threads")
    async def threads(
        request: Request, who: Principal = sees_threads, agent: str = "", status: str = "", key: str = "", q: str = "", after: str = ""
    ) -> Response:
        chosen: dict[str, Any] = {"agent": agent, "status": status, "key": key, "q": q}
        found = await house.desk.threads(
            who, agent=agent or None, status=status if status in THREADS else None, key=key or None, q=q or None, limit=PAGE, after=after or None
        )
        return await house.page(
            request,
            who,
            "threads.html",
            items=found.items,
            next=link(base(request) + "/threads", {**chosen, "after": found.next}) if found.next else None,
            first=link(base(request) + "/threads", chosen) if after else None,
            chosen=chosen,
            is_filtered=any(chosen.values()),
            statuses=THREADS,
            agents=sorted({*house.desk.app.agents, *([agent] if agent else [])}),
            self_link=link(base(request) + "/threads", {**chosen, "after": after}),
        )

    return router


KIND_ORDER = tuple(sorted(DECIDABLE, key=("approval", "question", "in_doubt", "result", "hold", "budget").index))
