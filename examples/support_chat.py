"""A chat: every reply ends a turn, every message begins one, and a question is answered while a refund waits for its approval.

With `interject=True` a message that comes while everything open waits sets those steps aside and asks the model. The refund waits on, past the
end of the turn; once it is approved it runs, and the customer is told. The decider is honest rules, no network; any model fits in its place.

    python examples/support_chat.py
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path
from typing import Any, assert_never

from story import tell

from ownloop import App, Intent, Thread


class Refund(Intent):
    """Pay the money for an order back. A person looks at it first."""

    order: str


class Reply(Intent):
    """Say something to the customer; then it is their turn."""

    text: str


async def decide(thread: Thread) -> Refund | Reply:
    """Rules in the place of a model: first what the customer said, then what became of a refund."""
    refunds = [step for step in thread.steps if step.name == "refund" and step.status == "open"]
    waiting = [step for step in refunds if any(one.state == "waiting" for one in step.operations)]
    if thread.unread:
        text = str(thread.unread[-1].data["text"])
        if wish := re.search(r"refund (\S+)", text):
            return Refund(order=wish[1])
        pending = "".join(f" Your refund of {step.intent['order']} is with a colleague." for step in waiting)
        return Reply(text=("We answer within a day." if text.endswith("?") else "Hello!") + pending)
    for step in refunds:
        if step not in waiting:
            is_paid = any(one.kind == "run" and one.state == "done" for one in step.operations)
            return Reply(text=f"Order {step.intent['order']} is refunded." if is_paid else f"We cannot refund {step.intent['order']}, sorry.")
    return Reply(text="Hello!")


def make_app(url: Any, clock: Any = None, *, ledger: Path) -> App:
    app = App(url, clock=clock)

    def refund(order: str) -> str:
        with ledger.open("a") as file:
            file.write(f"{order}\n")
        return f"refunded {order}"

    @app.agent(interject=True)
    async def support(thread: Thread) -> str:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Refund():
                    if await step.approved(by="support-leads"):
                        await step.run(refund)
                case Reply(text=text):
                    return text
                case _:
                    assert_never(step.intent)

    return app


async def story(folder: Path) -> None:
    async with make_app(f"sqlite:///{folder / 'chat.db'}", ledger=folder / "refunds.txt") as app:
        chat = await app.start("support", key="customer-7")
        seen = await tell(app, chat, "turn_ended")
        await app.send(chat, "please refund A-17", by="carla")
        seen = await tell(app, chat, "request", after=seen)
        await app.send(chat, "how long does that take?", by="carla")
        seen = await tell(app, chat, "turn_ended", after=seen)
        print(f"carla reads: {(await app.show(chat)).result}")
        (approval,) = await app.interrupts(thread=chat)
        await app.approve(approval, by="support-leads")
        await tell(app, chat, "turn_ended", after=seen)
        print(f"carla reads: {(await app.show(chat)).result}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(story(Path(folder)))
