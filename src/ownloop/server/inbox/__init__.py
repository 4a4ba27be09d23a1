"""The inbox: pages that a person reads and answers in any browser, with or without JavaScript.

Rendered here from the recorded arguments (`values`, `inert`), never from what an agent says about them; forms carry typed values (`schemas`, `forms`,
`reading`); the picture of a thread is made from its log (`timeline`). Nothing decides but a POST with the digest of what was shown.
"""

from __future__ import annotations

from fastapi import APIRouter

from ..desk import Desk
from .answering import answers
from .listing import lists
from .rendering import STATIC, Door, House
from .settings import settings
from .threads import thread_pages

__all__ = ["STATIC", "Door", "pages"]


def pages(desk: Desk, auth: Door) -> APIRouter:
    """Every page, to be mounted where `/static` serves the folder `STATIC` and `/v1` the API."""
    house, router = House(desk, auth), APIRouter()
    for part in (lists, answers, thread_pages, settings):
        router.include_router(part(house))
    return router
