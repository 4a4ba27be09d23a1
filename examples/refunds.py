"""Refunds: small ones run unasked, large ones need two people who are not the requester, within a day; and no refund is ever paid twice.

The ledger is a file of payments, keyed by `current_call().key`. When a process dies between paying and writing that it paid, nobody is asked:
`in_doubt=` looks the key up in the ledger. The decider is honest rules, no network; any model fits in its place.

    python examples/refunds.py
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, assert_never

from story import tell

from ownloop import Actor, App, ApprovalPolicy, Happened, Intent, NotHappened, Thread, current_call, tool

UNASKED_UP_TO = 50_00
"""Cents that are paid back without asking anybody."""


class Refund(Intent):
    """Pay money back to a customer."""

    order: str
    cents: int


class Done(Intent):
    """Nothing is left to do."""

    message: str


class Ledger:
    """Payments in a file, one line each. `pay` says how to find out whether a payment happened: look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pay = tool(self._pay, name="pay", in_doubt=self.find)

    def payments(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def _pay(self, order: str, cents: int) -> str:
        key = current_call().key
        with self.path.open("a") as file:
            file.write(json.dumps({"key": key, "order": order, "cents": cents}) + "\n")
        return f"paid {cents / 100:.2f} for {order}"

    def find(self, key: str) -> Happened | NotHappened:
        for payment in self.payments():
            if payment["key"] == key:
                return Happened(f"paid {payment['cents'] / 100:.2f} for {payment['order']}")
        return NotHappened()


async def decide(thread: Thread[Ledger]) -> Refund | Done:
    """Rules in the place of a model: one refund for what was asked, then say what became of it."""
    wish = thread.input
    if not thread.count(Refund):
        return Refund(order=wish["order"], cents=wish["cents"])
    operations = thread.steps[-1].operations
    last = next((one for one in operations if one.kind == "run"), operations[-1])
    if last.kind == "run":
        return Done(message=str(last.value) if last.error is None else last.error.message)
    return Done(message="nobody decided in time; nothing was paid" if last.state == "expired" else f"refused: {last.value['note']}")


def make_app(url: Any, clock: Any = None, *, ledger: Path) -> App:
    @asynccontextmanager
    async def deps(thread: Thread[Any]) -> AsyncIterator[Ledger]:
        yield Ledger(ledger)

    app = App(url, clock=clock, deps=deps)

    @app.agent
    async def refunds(thread: Thread[Ledger]) -> str:
        requester = thread.context["requester"]
        two_of_finance = ApprovalPolicy(by="finance", quorum=2, not_by=requester, expires="24h", on_expiry="reject", reason="more than 50.00")
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case Refund(cents=cents):
                    if cents <= UNASKED_UP_TO or await step.approved(two_of_finance):
                        await step.run(thread.deps.pay)
                case Done(message=message):
                    return message
                case _:
                    assert_never(step.intent)

    return app


async def story(folder: Path) -> None:
    app = make_app(f"sqlite:///{folder / 'refunds.db'}", ledger=folder / "ledger.jsonl")
    finance = ("finance",)
    async with app:
        print("a small one:")
        small = await app.start("refunds", {"order": "A-1", "cents": 12_00}, context={"requester": "mia"})
        await tell(app, small, "turn_ended")
        print("a large one, which mia asked for:")
        large = await app.start("refunds", {"order": "A-2", "cents": 900_00}, context={"requester": "mia"})
        seen = await tell(app, large, "request")
        (approval,) = await app.interrupts(thread=large)
        for who in (Actor("mia", finance), Actor("ana", finance), Actor("ana", finance), Actor("ben", finance)):
            try:
                await app.approve(approval, by=who)
            except Exception as refusal:
                print(f"   -> {refusal}")
        await tell(app, large, "turn_ended", after=seen)
    print(*Ledger(folder / "ledger.jsonl").payments(), sep="\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(story(Path(folder)))
