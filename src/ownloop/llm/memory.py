"""`Memory`: what is remembered about a customer, a project or a person beyond one thread, in the App's own store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from ..app import App
from ..events import Event, Json
from ..prompt import View
from ..stores.base import Note
from ..tools import tool

LONGEST = 10_000
"""Characters of a note. What is longer is a document: keep it elsewhere and note where."""


class Memory:
    """Notes by owner, a string of your own such as "customer:42", searchable by their words.

    Usable in handlers, in prompt functions and outside. A model never names the owner: take it from the thread (`thread.context["customer"]`).

        case Remember(text=text):
            await step.run(memory.note, owner, text)                                   # an intent writes; once, whatever is killed

        async def prompt(thread):                                                      # the prompt includes what fits
            return thread_to_prompt(thread, await memory.view(owner, thread.input))

    Notes pass the App's `redact`. They outlive the threads: `prune` leaves them alone, `forget` deletes them.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    @tool(in_doubt="retry")  # writing the same note again changes nothing
    async def note(self, owner: str, text: str, key: str | None = None) -> Note:
        """Remember a text. With a `key` it replaces what that key said before; without one the same text is one note.

        Raises:
            ValueError: no owner, or the text is empty or longer than 10,000 characters.
        """
        text = str(self._app._redact(_writable(text)))
        if not owner or not text.strip() or len(text) > LONGEST:
            raise ValueError(f"note(owner={owner!r}, …): a note has an owner and 1 to {LONGEST:,} characters; this one has {len(text):,}")
        await self._app._open()
        return await self._app.store.note(_writable(owner), _writable(key) if key else hashlib.sha256(text.encode()).hexdigest()[:16], text)

    @tool(reads=True)
    async def search(self, owner: str, query: str, limit: int = 10) -> list[Note]:
        """The owner's notes that hold a word of the query, or one that begins so; the best match first, then the newest.

        `query` may be anything, also what a user wrote: nothing in it is an operator.
        """
        await self._app._open()
        return await self._app.store.notes(_writable(owner), query, limit=limit)

    @tool(reads=True)
    async def notes(self, owner: str, limit: int = 50) -> list[Note]:
        """The owner's notes, newest first."""
        await self._app._open()
        return await self._app.store.notes(_writable(owner), limit=limit)

    @tool(in_doubt="retry")
    async def forget(self, owner: str, key: str | None = None) -> int:
        """Delete one note, or all of an owner; how many there were. A thread that was told of a note still has it in its log."""
        await self._app._open()
        return await self._app.store.forget_notes(_writable(owner), key)

    async def view(self, owner: str, query: Json = None, *, limit: int = 10, name: str = "memory") -> View:
        """A view that shows the model what is remembered, at the end of the prompt, as <memory>.

        With a query (a text, or any JSON: its words count) the notes that match it, without one the newest. Nothing is shown where there is none.
        """
        found = await (self.notes(owner, limit) if query is None else self.search(owner, str(query), limit))
        shown = [{"note": note.text, "since": f"{note.at:%Y-%m-%d}"} for note in found]

        def view(events: Sequence[Event]) -> Sequence[Event]:
            if not shown:
                return events
            last = events[-1] if events else Event(0, "appended", datetime.now(UTC))
            return [*events, replace(last, seq=last.seq + 1, kind="appended", step_id=None, op=None, by=None, data={"name": name, "data": shown})]

        return view


def _writable(text: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
