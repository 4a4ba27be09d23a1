"""Prints what the examples do: the log of a thread, one line an event, as it grows."""

from __future__ import annotations

import json

from ownloop import App, Event


async def tell(app: App, thread: str, *until: str, after: int = 0) -> int:
    """Print the log from a position on, up to the first event of one of these kinds; its position."""
    async for event in app.stream(thread, after=after):
        if isinstance(event, Event):
            print(line(event))
            if event.kind in until:
                return event.seq
    raise AssertionError(f"{thread} ended without {' or '.join(until)}")


def line(event: Event) -> str:
    """`  7  request    approval:3f2a…  {"kind": "approval", …}`"""
    said = json.dumps(event.data, ensure_ascii=False)
    who = f" by {event.by}" if event.by else ""
    return f"{event.seq:4}  {event.kind:10}{who} {event.op or ''} {said if len(said) <= 110 else said[:109] + '…'}"
