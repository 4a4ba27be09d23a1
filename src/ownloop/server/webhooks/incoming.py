"""Webhooks that come in: verified, taken once, and turned into what an App understands by a small function of the user's."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from ...app import App, Ref
from ...clock import duration
from ...errors import AlreadyDecided, Expired
from ...events import Json, digest
from ...interrupts import Actor
from .signing import NotVerified, key_of, verify

log = logging.getLogger("ownloop")

SEEN_FOR = timedelta(days=7)
"""How long a request's id is remembered."""


@dataclass(frozen=True)
class Request:
    """A request that was verified.

    Attributes:
        id: what the sender calls it; the same when it is sent again.
        body: the JSON of its body.
    """

    source: str
    id: str
    body: Json
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Send:
    """A message to one thread."""

    thread: Ref
    text: str
    by: Actor | str | None = None
    supersede: bool = False


@dataclass(frozen=True)
class Emit:
    """An event for whoever waits for it, now or within 7 days."""

    name: str
    payload: Any
    key: str | None = None


@dataclass(frozen=True)
class Decide:
    """A person's answer that came through another system, which proved who it was: `by`."""

    interrupt: str
    decision: Literal["approve", "edit", "reject", "respond", "answer"]
    by: Actor | str
    value: Any = None
    note: str = ""
    digest: str | None = None


Action = Send | Emit | Decide
Mapped = Action | Sequence[Action] | None
Verify = Callable[[bytes, Mapping[str, str]], "str | None"]
Handler = Callable[[Request], Mapped | Awaitable[Mapped]]


@dataclass(frozen=True)
class Hook:
    """One source: how its requests are checked, and what they mean. `verify` gives a request's id, or None for one that is not genuine."""

    handler: Handler
    secrets: tuple[str, ...] = ()
    verify: Verify | None = None
    seen_for: timedelta = SEEN_FOR


@dataclass
class Hooks:
    """The sources whose webhooks are taken, by name.

    Example:
        hooks = Hooks()

        @hooks.on("linear", secrets=[os.environ["LINEAR_SECRET"]])
        async def linear(request: Request) -> Emit:
            return Emit("issue.created", request.body["data"], key=request.body["data"]["id"])
    """

    sources: dict[str, Hook] = field(default_factory=dict)

    def on(
        self, source: str, *, secrets: Sequence[str] | str = (), verify: Verify | None = None, seen_for: timedelta | str = SEEN_FOR
    ) -> Callable[[Handler], Handler]:
        """Take requests to /v1/hooks/SOURCE. They are signed after Standard Webhooks with one of `secrets`, or `verify(body, headers)` says which
        request it is, by an id that is the same when it is sent again, or None.

        Raises:
            ValueError: there is neither a secret nor a function, or the source has a handler.
        """
        known = (secrets,) if isinstance(secrets, str) else tuple(secrets)
        for secret in known:
            key_of(secret)
        if not known and verify is None:
            raise ValueError(f"hook {source!r}: pass secrets=[…] or verify=…; an open door is no webhook")
        if source in self.sources:
            raise ValueError(f"two handlers for the webhooks of {source!r}")

        def add(handler: Handler) -> Handler:
            self.sources[source] = Hook(handler, known, verify, duration(seen_for))
            return handler

        return add

    async def take(self, app: App, source: str, body: bytes, parsed: Callable[[bytes], Json], headers: Mapping[str, str]) -> bool:
        """Do what a request asks for. False: it was done before, nothing changed.

        A process that dies in the middle has remembered nothing, and when the sender sends again what was done is not done twice: messages and
        events carry the request's id, and the first decision stands.

        Raises:
            KeyError: no such source.
            NotVerified: it is not genuine.
        """
        hook = self.sources[source]
        id = self._checked(hook, body, headers, app)
        key = f"{source}|{digest(id)}"
        if await app.store.get("hook", key) is not None:
            return False
        result = hook.handler(Request(source, id, parsed(body), headers))
        mapped = await result if inspect.isawaitable(result) else result
        actions = [] if mapped is None else list(mapped) if isinstance(mapped, Sequence) else [mapped]
        for number, action in enumerate(actions):
            await perform(app, action, f"{source}:{id}:{number}")
        await app.store.put("hook", key, {"id": id}, ttl=hook.seen_for)
        return True

    @staticmethod
    def _checked(hook: Hook, body: bytes, headers: Mapping[str, str], app: App) -> str:
        lower = {name.lower(): value for name, value in headers.items()}
        if hook.verify is None:
            return verify(hook.secrets, lower, body, app.store.clock.now())
        id = hook.verify(body, lower)
        if id is None:
            raise NotVerified("the signature does not fit the body")
        return id


async def perform(app: App, action: Action, id: str) -> None:
    """Do one action, once per id."""
    match action:
        case Send(thread, text, by, supersede):
            await app.send(thread, text, by=by, dedupe=id, supersede=supersede)
        case Emit(name, payload, key):
            await app.emit(name, payload, key=key, id=id)
        case Decide():
            await _decide(app, action)
        case _:
            raise TypeError(f"a webhook's handler returned {action!r}; return Send(…), Emit(…), Decide(…), a list of them, or None")


async def _decide(app: App, action: Decide) -> None:
    """The first decision stands: a late one is told to the log and not to the sender, who could only send it again."""
    verb = {"approve": app.approve, "reject": app.reject, "edit": app.edit, "respond": app.respond, "answer": app.answer}[action.decision]
    values = () if action.decision in ("approve", "reject") else (action.value,)
    seen = {} if action.decision == "answer" else {"digest": action.digest}
    try:
        await verb(action.interrupt, *values, by=action.by, note=action.note, **seen)  # type: ignore[operator]  # five verbs, one shape
    except (AlreadyDecided, Expired) as late:
        log.warning("a webhook's %s changed nothing: %s", action.decision, late)
