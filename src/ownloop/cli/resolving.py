"""From what people type to ids: whole ones, the beginning or the end of one, `AGENT/KEY`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from .. import ids
from ..app import App
from ..errors import NotFound
from ..interrupts import DECIDABLE, Interrupt
from .trouble import usage

ALPHABET = frozenset("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
LOOKED_AT = 20_000
"""How many of the newest threads (or open interrupts) an ending is looked for in."""
SHOWN = 8


async def thread_id(app: App, text: str) -> str:
    """The id of a thread that exists.

    Raises:
        NotFound: none is meant by it.
        Trouble: several are.
    """
    if "/" in text:
        agent, _, key = text.partition("/")
        return await app._id((agent, key))
    if (place := ids.interrupt_of(text)) is not None:
        text = place[0]
    body = text.removeprefix("thr_").upper()
    found = await _threads(app, body) if body and set(body) <= ALPHABET and len(body) <= 13 else []
    if not found:
        raise NotFound("thread", text)
    return _only(found, text, "threads")


async def _threads(app: App, body: str) -> list[str]:
    if len(body) == 13:
        whole = f"thr_{body}"
        return [whole] if ids.thread_number(whole) is not None and await app.store.thread(whole) is not None else []
    return await _beginning(app, body) or [id async for id in _newest(app) if id.endswith(body)]


async def _beginning(app: App, body: str) -> list[str]:
    """Ids that begin so, newest first: they are one range, because ids rise with time."""
    last = ids.thread_number("thr_" + body.ljust(13, "Z"))
    after = _above((last if last is not None else (1 << 63) - 2) + 1)
    rows = await app.threads(after=after, limit=SHOWN + 1)
    return [row.id for row in rows if row.id.startswith("thr_" + body)]


def _above(number: int) -> str:
    return ids.thread_id(min(number, (1 << 63) - 1))


async def _newest(app: App) -> AsyncIterator[str]:
    after: str | None = None
    for _ in range(0, LOOKED_AT, 1000):
        page = await app.threads(limit=1000, after=after)
        for row in page:
            yield row.id
        if len(page) < 1000:
            return
        after = page[-1].id


def _only(found: Sequence[str], text: str, what: str) -> str:
    candidates = list(dict.fromkeys(found))
    if len(candidates) == 1:
        return candidates[0]
    shown = ", ".join(candidates[:SHOWN]) + (" …" if len(candidates) > SHOWN else "")
    raise usage(
        f"{text!r} is not unique, it could be {shown}; write more of it", kind="ambiguous", more={"what": what, "candidates": candidates[:SHOWN]}
    )


async def interrupt(app: App, text: str) -> Interrupt:
    """The interrupt that is meant: by its id, a part of it, or by its thread: what waits for somebody there, else what was asked there last.

    Raises:
        NotFound, Trouble: see `thread_id`.
    """
    if ids.interrupt_of(text) is not None:
        return await app.interrupt(text)
    if text.startswith("thr_") or "/" in text:
        return await _of_thread(app, await thread_id(app, text))
    body, _, seq = text.removeprefix("int_").upper().rpartition("_")
    if seq.isdecimal() and body:
        thread = await thread_id(app, body)
        return await app.interrupt(ids.interrupt_id(thread, int(seq)))
    beginning = "int_" + text.removeprefix("int_").upper()
    found = [one async for one in open_interrupts(app) if one.id.startswith(beginning)]
    if not found and not text.startswith("int_"):
        found = [one async for one in open_interrupts(app) if one.thread_id.endswith(text.upper())]
    if not found:
        raise NotFound("open interrupt", text)
    chosen = _only([one.id for one in found], text, "interrupts")
    return next(one for one in found if one.id == chosen)


async def _of_thread(app: App, thread: str) -> Interrupt:
    waiting = [one for one in await app.interrupts(thread=thread, limit=1000) if one.kind in DECIDABLE]
    if not waiting:
        return await _asked_last(app, thread)
    chosen = _only([one.id for one in waiting], thread, "interrupts")
    return next(one for one in waiting if one.id == chosen)


async def _asked_last(app: App, thread: str) -> Interrupt:
    """What somebody decided already: who comes second is told who was first."""
    for event in reversed((await app.show(thread)).events):
        if event.kind == "request" and event.data.get("kind") in DECIDABLE:
            return await app.interrupt(ids.interrupt_id(thread, event.seq))
    raise NotFound("question to somebody in", thread)


async def open_interrupts(app: App, agent: str | None = None, kind: str | None = None) -> AsyncIterator[Interrupt]:
    """Open ones that a person can decide, oldest first."""
    for one_kind in sorted(DECIDABLE) if kind is None else [kind]:
        after: str | None = None
        for _ in range(0, LOOKED_AT, 500):
            page = await app.interrupts(agent=agent, kind=one_kind, limit=500, after=after)
            for one in page:
                yield one
            if len(page) < 500:
                break
            after = page[-1].id


def step_id(thread: str, text: str) -> str:
    """A step by its id, or its number in the thread."""
    return ids.step_id(thread, int(text)) if text.isdecimal() else text
