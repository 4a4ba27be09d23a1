"""Logins: a code that counts once, and the signed cookie that it is turned into."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..clock import from_micros, micros
from ..interrupts import Actor
from ..stores.base import Store

CODE_FOR = timedelta(hours=1)
SESSION_FOR = timedelta(days=7)


@dataclass(frozen=True)
class Session:
    """Who has logged in, until when."""

    id: str
    actor: Actor
    until: datetime


class Sessions:
    """Codes, cookies and the tokens of forms, all made with one secret of the store: any server on the same store knows them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._secret: bytes | None = None

    async def secret(self) -> bytes:
        """Made at first use, kept in the store."""
        if self._secret is None:
            await self._store.put("server", "secret", secrets.token_hex(32), expect=0)
            record = await self._store.get("server", "secret")
            assert record is not None
            self._secret = bytes.fromhex(record.value)
        return self._secret

    async def code(self, actor: Actor | str, valid: timedelta = CODE_FOR) -> str:
        """A new code with which this actor can log in once."""
        code, known = secrets.token_urlsafe(24), Actor.of(actor)
        await self._store.put("login", _hash(code), {"actor": known.id, "groups": list(known.groups)}, ttl=valid)
        return code

    async def is_good(self, code: str) -> bool:
        """Whether a login with it would succeed now; this does not use it up."""
        return await self._store.get("login", _hash(code)) is not None

    async def login(self, code: str) -> Session | None:
        """The session that a code opens, once."""
        record = await self._store.get("login", _hash(code))
        if record is None or not await self._store.drop("login", _hash(code)):
            return None
        actor = Actor(record.value["actor"], tuple(record.value["groups"]))
        return Session(secrets.token_hex(8), actor, self._store.clock.now() + SESSION_FOR)

    async def name(self) -> str:
        """The cookie's name: browsers keep one jar for all ports of a machine, so that two servers must not share a name."""
        return f"ownloop_session_{hashlib.sha256(await self.secret()).hexdigest()[:8]}"

    async def cookie(self, session: Session) -> str:
        """The session as a value that nobody else can make."""
        said = {"id": session.id, "actor": session.actor.id, "groups": list(session.actor.groups), "until": micros(session.until)}
        body = base64.urlsafe_b64encode(json.dumps(said).encode()).decode()
        return f"{body}.{await self.sign(f'session:{body}')}"

    async def read(self, cookie: str) -> Session | None:
        """The session of a cookie, if we made it and it has not run out."""
        body, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), (await self.sign(f"session:{body}")).encode()):
            return None
        said: Mapping[str, Any] = json.loads(base64.urlsafe_b64decode(body))
        session = Session(said["id"], Actor(said["actor"], tuple(said["groups"])), from_micros(said["until"]))
        return session if self._store.clock.now() < session.until else None

    async def sign(self, text: str) -> str:
        """HMAC-SHA256 with the store's secret, in hex."""
        return hmac.new(await self.secret(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()
