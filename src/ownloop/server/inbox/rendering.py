"""From data to a page: the templates, what every page shows, and the headers that keep it inert."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..auth import Principal
from ..desk import Desk
from ..guard import HEADERS
from . import inert, telling, values, words

HERE = Path(__file__).parent
STATIC = HERE / "static"
SCOPES = ("threads:read", "threads:write", "interrupts:read", "interrupts:decide")
THEMES = ("auto", "light", "dark")


class Door(Protocol):
    """What the pages need of `ownloop.server.auth`."""

    def require(self, *scopes: str) -> Any:
        """A dependency that gives the `Principal`, or refuses."""
        ...

    def csrf(self, request: Request) -> str:
        """What every form carries."""
        ...

    def check_form(self, request: Request, token: str | None) -> None:
        """Refuse a form that another site made."""
        ...


class House:
    """What all pages share."""

    def __init__(self, desk: Desk, door: Door) -> None:
        self.desk, self.door = desk, door

    @property
    def now(self) -> datetime:
        return self.desk.app.store.clock.now()

    def who(self, *scopes: str) -> Any:
        """A dependency that gives the `Principal`, kept for the page of a refusal too."""
        known = self.door.require(*scopes)

        async def principal(request: Request, who: Principal = known) -> Principal:
            request.state.ownloop_who = who
            return who

        return Depends(principal)

    @cached_property
    def _templates(self) -> Environment:
        templates = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        templates.filters |= {
            "line": inert.line,
            "block": inert.block,
            "plain": inert.plain,
            "brief": values.brief,
            "when": words.when,
            "ago": words.ago,
            "span": words.span,
            "stamp": words.stamp,
            "money": words.money,
            "gist": telling.gist,
            "word": telling.word,
            "tone": telling.tone,
            "json_text": inert.json_text,
        }
        templates.globals |= {"KINDS": words.KINDS, "ASKS": words.ASKS, "PAST": words.PAST, "urgency": words.urgency, "usage_words": words.usage}
        return templates

    async def page(self, request: Request, who: Principal, template: str, status: int = 200, **data: Any) -> HTMLResponse:
        """A whole page; `data` are the template's own variables."""
        may = {scope: scope in who.scopes or "admin" in who.scopes for scope in SCOPES}
        counts = await self.desk.counts(who) if may["interrupts:read"] else None
        text = self._templates.get_template(template).render(
            base=base(request),
            here=request.url.path.removeprefix(base(request)),
            who=who,
            counts=counts,
            now=self.now,
            csrf=self.door.csrf(request),
            theme=preference(request, "theme", THEMES),
            has_keys=preference(request, "keys", ("off", "on")) == "on",
            may=may,
            **data,
        )
        return HTMLResponse(text, status, headers=HEADERS)


def base(request: Request) -> str:
    """Where these pages are mounted, without a slash at its end: what stands before our own part of the path."""
    root, path = str(request.scope.get("root_path", "")).rstrip("/"), request.url.path
    found = _OURS.fullmatch(path)
    prefix = found["base"] if found is not None else ""
    return prefix if prefix.startswith(root) else root + prefix


_OURS = re.compile(r"(?P<base>.*?)(?:/|/settings|/interrupts/[^/]+(?:/\w+)?|/threads(?:/[^/]+(?:/(?:events\.ndjson|events/[^/]+|send|command))?)?)")


def preference(request: Request, name: str, known: tuple[str, ...]) -> str:
    chosen = request.cookies.get(f"ownloop_{name}", "")
    return chosen if chosen in known else known[0]


def go(request: Request, path: str, **query: str) -> RedirectResponse:
    """After a POST: the page to look at."""
    address = base(request) + path + (f"?{urlencode(query)}" if query else "")
    return RedirectResponse(address, 303, headers={"Cache-Control": "no-store"})


def link(path: str, query: Mapping[str, Any]) -> str:
    """An address with what is set of a query."""
    known = {name: value for name, value in query.items() if value not in (None, "", False)}
    return path + (f"?{urlencode(known)}" if known else "")
