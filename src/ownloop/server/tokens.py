"""API tokens: shown once, kept as a hash, with scopes, an actor, a filter of what they see, an expiry and an end."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..clock import from_micros, micros
from ..errors import NotFound
from ..events import Json
from ..interrupts import Actor
from ..stores.base import Store

SPACE = "token"
PREFIX = "ownloop_"
SCOPES: tuple[str, ...] = ("threads:read", "threads:write", "interrupts:read", "interrupts:decide", "events:write", "admin")
"""What a token may be allowed; `admin` is all of it, and the metrics."""


@dataclass(frozen=True)
class Token:
    """What is known of a token; the token itself is not.

    `see`: it sees the threads whose context holds these pairs, and their interrupts; None: all.
    """

    id: str
    name: str
    actor: Actor
    scopes: frozenset[str]
    see: Mapping[str, Json] | None
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def why_not(self, now: datetime) -> str | None:
        """Why it does not count now, or None."""
        if self.revoked_at is not None:
            return f"the token {self.id} was revoked at {self.revoked_at:%Y-%m-%d %H:%M:%S}Z"
        if self.expires_at is not None and now >= self.expires_at:
            return f"the token {self.id} expired at {self.expires_at:%Y-%m-%d %H:%M:%S}Z"
        return None


class Tokens:
    """The tokens of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def issue(
        self,
        name: str,
        actor: Actor | str,
        scopes: Collection[str],
        *,
        see: Mapping[str, Json] | None = None,
        expires: timedelta | None = timedelta(days=90),
    ) -> tuple[str, Token]:
        """A new token, and what is known of it. This is the only time that the token itself is seen.

        Raises:
            ValueError: a scope that does not exist, or an actor without a name.
        """
        if unknown := set(scopes) - set(SCOPES):
            raise ValueError(f"no scope is named {', '.join(sorted(unknown))}; choose from {', '.join(SCOPES)}")
        now = self._store.clock.now()
        text = PREFIX + secrets.token_urlsafe(32)
        end = None if expires is None else now + expires
        token = Token(f"tok_{secrets.token_hex(6)}", name, Actor.of(actor), frozenset(scopes), see, now, end)
        await self._store.put(SPACE, _hash(text), _json(token), expect=0)
        return text, token

    async def find(self, text: str) -> Token | None:
        """What is known of a token, whether or not it still counts."""
        record = await self._store.get(SPACE, _hash(text)) if text.startswith(PREFIX) else None
        return None if record is None else _token(record.value)

    async def all(self) -> list[Token]:
        """Every token that was ever issued, oldest first."""
        records = await self._store.records(SPACE)
        return sorted((_token(record.value) for record in records.values()), key=lambda token: token.created_at)

    async def revoke(self, id: str) -> Token:
        """End a token now; one that has ended stays as it is.

        Raises:
            NotFound: no token has that id.
        """
        while True:
            found = next(((key, one) for key, one in (await self._store.records(SPACE)).items() if one.value["id"] == id), None)
            if found is None:
                raise NotFound("token", id)
            key, record = found
            if record.value.get("revoked_at") is not None:
                return _token(record.value)
            ended = {**record.value, "revoked_at": micros(self._store.clock.now())}
            if await self._store.put(SPACE, key, ended, expect=record.version):
                return _token(ended)


def _hash(text: str) -> str:
    """A token has 256 random bits: one round of SHA-256 is enough, and a salt would hide nothing."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _json(token: Token) -> Json:
    return {
        "id": token.id,
        "name": token.name,
        "actor": token.actor.id,
        "groups": list(token.actor.groups),
        "scopes": sorted(token.scopes),
        "see": None if token.see is None else dict(token.see),
        "created_at": micros(token.created_at),
        "expires_at": None if token.expires_at is None else micros(token.expires_at),
    }


def _token(value: Mapping[str, Any]) -> Token:
    times = {name: None if value.get(name) is None else from_micros(value[name]) for name in ("expires_at", "revoked_at")}
    actor = Actor(value["actor"], tuple(value["groups"]))
    return Token(value["id"], value["name"], actor, frozenset(value["scopes"]), value["see"], from_micros(value["created_at"]), **times)
