"""Who is asking: a session, a token, a trusted proxy, or the host application's own word. There is no way to ask as nobody."""

from __future__ import annotations

import hmac
import inspect
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from fastapi import Depends, Request

from ..app import App
from ..events import Json, canonical
from ..interrupts import Actor
from .problems import Refusal
from .sessions import Session, Sessions
from .tokens import SCOPES, Tokens

ALL_SCOPES = frozenset(SCOPES)


@dataclass(frozen=True)
class Principal:
    """Who asks, what they may do (`scopes`), and which threads they see: those whose context holds the pairs of `see` (None: all).

    `via`: "login", "token", "proxy" or "host".
    """

    actor: Actor
    scopes: frozenset[str]
    see: Mapping[str, Json] | None
    via: str

    def must(self, scope: str) -> None:
        """Raises Refusal: without this scope."""
        if scope not in self.scopes:
            raise Refusal("missing-scope", f"{self.actor.id} lacks the scope {scope}; use a token that has it", scope=scope)


@dataclass(frozen=True)
class Proxy:
    """A reverse proxy that has authenticated who asks, and says so in a header.

    Args:
        networks: where it connects from, as CIDR ("10.1.0.0/16"); from anywhere else the headers mean nothing.
        header: holds the actor's id.
        groups_header: holds the groups, separated by commas; None: there are none.
        scopes: what those people may do.
    """

    networks: Sequence[str]
    header: str = "X-Forwarded-User"
    groups_header: str | None = "X-Forwarded-Groups"
    scopes: frozenset[str] = ALL_SCOPES - {"admin"}
    _parsed: list[Any] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._parsed.extend(ipaddress.ip_network(network) for network in self.networks)

    def actor(self, request: Request) -> Actor | None:
        """Whom the proxy names; None if it names nobody, or is not ours."""
        name = request.headers.get(self.header, "").strip()
        if not name or not self._is_ours(request):
            return None
        said = request.headers.get(self.groups_header, "") if self.groups_header else ""
        return Actor(name, tuple(group.strip() for group in said.split(",") if group.strip()))

    def _is_ours(self, request: Request) -> bool:
        peer = _peer(request)
        return peer is not None and any(peer in network for network in self._parsed)


class Door(Protocol):
    """How somebody is known: by credentials of ours (`Auth`), or by the host application (`Host`)."""

    async def principal(self, request: Request) -> Principal:
        """Raises Refusal: "unauthenticated"."""
        ...

    async def session_id(self, request: Request) -> str:
        """What makes this visitor's forms different from those of the same person elsewhere; "" where nothing does."""
        ...


class Auth:
    """Credentials of ours; whichever comes first: a token, a session, a proxy's word.

    Args:
        login: whether the login link is served.
        anywhere: whether a code may be used by a browser on another machine.
        tokens: whether API tokens count.
        proxy: whose headers count.
    """

    def __init__(self, app: App, *, login: bool = True, anywhere: bool = False, tokens: bool = True, proxy: Proxy | None = None) -> None:
        self._app, self._has_tokens, self._proxy = app, tokens, proxy
        self.has_login, self._anywhere = login, anywhere

    @cached_property
    def sessions(self) -> Sessions:
        return Sessions(self._app.store)

    async def principal(self, request: Request) -> Principal:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme:
            return await self._of_token(scheme, text.strip())
        if (session := await self._session(request)) is not None:
            return Principal(session.actor, ALL_SCOPES, None, "login")
        if self._proxy is not None and (actor := self._proxy.actor(request)) is not None:
            return Principal(actor, _all_of(self._proxy.scopes), None, "proxy")
        ways = [*(["a token (Authorization: Bearer ownloop_…)"] if self._has_tokens else []), *(["the login link"] if self.has_login else [])]
        raise _unknown(f"nothing here says who asks; use {' or '.join(ways) or 'the proxy that authenticates'}")

    async def _of_token(self, scheme: str, text: str) -> Principal:
        token = await Tokens(self._app.store).find(text) if self._has_tokens and scheme.lower() == "bearer" else None
        if token is None:
            raise _unknown("the Authorization header holds no token that was issued here; make one with `ownloop token`")
        if (why := token.why_not(self._app.store.clock.now())) is not None:
            raise _unknown(f"{why}; make another one with `ownloop token`")
        return Principal(token.actor, _all_of(token.scopes), token.see, "token")

    async def _session(self, request: Request) -> Session | None:
        cookie = request.cookies.get(await self.sessions.name()) if self.has_login and request.cookies else None
        return None if cookie is None else await self.sessions.read(cookie)

    async def session_id(self, request: Request) -> str:
        session = await self._session(request)
        return "" if session is None else session.id

    def is_near(self, request: Request) -> bool:
        """Whether a code may be used by whoever asks: from this machine, unless `anywhere`."""
        peer = _peer(request)
        return self._anywhere or (peer is not None and peer.is_loopback)


class Host:
    """The host application's own authentication.

    Args:
        actor: `(request) -> Actor | str`, sync or async; raises what the host raises (401) for who is nobody.
        see: what they see, as the pairs that a thread's context must hold, None for all: `(actor)`, or `(request)` if its parameter is named so.
    """

    def __init__(self, actor: Callable[[Request], Any], see: Callable[[Any], Any] | None = None) -> None:
        self._actor, self._see = actor, see

    async def principal(self, request: Request) -> Principal:
        found = await _awaited(self._actor(request))
        if found is None:
            raise _unknown("the application that this is a part of does not know who asks")
        actor = Actor.of(found)
        return Principal(actor, ALL_SCOPES, await self._filter(request, actor), "host")

    async def _filter(self, request: Request, actor: Actor) -> Mapping[str, Json] | None:
        if self._see is None:
            return None
        name = next(iter(inspect.signature(self._see).parameters), "")
        found: Mapping[str, Json] | None = await _awaited(self._see(request if name == "request" else actor))
        return found

    async def session_id(self, request: Request) -> str:
        return ""


@dataclass(frozen=True)
class Entrance:
    """What a request carries with it (`request.state.ownloop`): how its visitor is known, and the secret that forms are signed with."""

    door: Door
    sessions: Callable[[], Sessions]

    async def principal(self, request: Request) -> Principal:
        """Asked for once a request; forms are signed from then on."""
        known: Principal | None = getattr(request.state, "ownloop_principal", None)
        if known is None:
            known = request.state.ownloop_principal = await self.door.principal(request)
            who = canonical([known.via, known.actor.id, await self.door.session_id(request)])
            request.state.ownloop_csrf = await self.sessions().sign(f"form:{who}")
        return known


def require(*scopes: str) -> Any:
    """A dependency that gives the `Principal`, or refuses: `who: Principal = require("interrupts:read")`."""

    async def principal(request: Request) -> Principal:
        who = await entrance(request).principal(request)
        for scope in scopes:
            who.must(scope)
        return who

    return Depends(principal)


def entrance(request: Request) -> Entrance:
    """How this request came in."""
    found: Entrance = request.state.ownloop
    return found


def csrf(request: Request) -> str:
    """What every form carries in its field `csrf`; known once `require` has let the visitor in."""
    return str(request.state.ownloop_csrf)


def check_form(request: Request, token: str | None) -> None:
    """Raises Refusal: the form is not one that we gave this visitor."""
    if not hmac.compare_digest(csrf(request).encode(), (token or "").encode("utf-8", "replace")):
        raise Refusal("wrong-form", "this form was not made for you by this server; nothing was done. Load the page again")


def _all_of(scopes: frozenset[str]) -> frozenset[str]:
    """`admin` is all of them."""
    return ALL_SCOPES if "admin" in scopes else scopes


def _unknown(why: str) -> Refusal:
    return Refusal("unauthenticated", why, headers={"WWW-Authenticate": 'Bearer realm="ownloop"'})


def _peer(request: Request) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        peer = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return None
    return getattr(peer, "ipv4_mapped", None) or peer


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
