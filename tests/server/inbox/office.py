"""An office whose agents stop for people in every way there is: for the inbox's tests and its screenshots."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, Field

from ownloop import App, InDoubt, Intent, Thread, current_call, tool
from ownloop.tools import annotate


class Currency(StrEnum):
    EUR = "EUR"
    USD = "USD"


class Window(BaseModel):
    """When it may happen."""

    start: str
    minutes: int = Field(ge=5, le=240)


class DeployBackend(Intent):
    """Deploy the backend at a tag. High stakes."""

    tag: str = Field(description="a git tag of the release branch")
    environment: Literal["staging", "production"]
    canary_percent: int = Field(ge=0, le=100)
    regions: list[str]
    notify: str | None = None
    window: Window
    release_notes: str = ""


class Refund(Intent):
    """Pay money back to a customer."""

    customer: str
    amount: float = Field(gt=0, le=5000)
    currency: Currency
    invoice: str
    booked_on: date
    is_goodwill: bool = False
    reason: str = ""


class ChargeCard(Intent):
    """Take money; the answer may be lost on the way."""

    customer: str
    cents: int


class AskPerson(Intent):
    """Ask a person."""

    question: str


class QueryCustomers(Intent):
    """Read customers' records."""

    where: str


class SendNewsletter(Intent):
    """Write to all subscribers."""

    subject: str
    body: str
    recipients: int


class TrainModel(Intent):
    """Run for a while."""

    epochs: int


class Delegate(Intent):
    """Let another agent look."""

    task: str


class Done(Intent):
    """Nothing is left to do."""

    message: str


class Contact(BaseModel):
    """Whom to call."""

    name: str
    phone: str | None = None
    on_call: bool
    since: date
    level: int = Field(ge=1, le=5)


NOTES = """Fixes the double charge of card payments (#4812).

Migrates `invoices` in place; takes about four minutes on production.
Roll back with `deploy v1.8.2`; the migration is compatible with it."""

DEPLOY = DeployBackend(
    tag="v1.9.0",
    environment="production",
    canary_percent=10,
    regions=["eu-central-1", "us-east-2"],
    notify=None,
    window=Window(start="22:00", minutes=45),
    release_notes=NOTES,
)
REFUND = Refund(
    customer="cus_8812 Nadia Haddad",
    amount=249.9,
    currency=Currency.EUR,
    invoice="INV-2026-1183",
    booked_on=date(2026, 11, 3),
    reason="The parcel arrived broken; she sent photos. Third complaint about this carrier in November.",
)


class Office:
    """An App and what its agents do; `scripts` maps an input to the intents chosen in turn."""

    def __init__(self, url: str, **options: Any) -> None:
        self.app = App(url, **options)
        self.done: list[tuple[str, Any]] = []
        self.charges = 0
        self.pause = 0.0
        self.deadline = timedelta(minutes=42)
        self.clock: Any = options.get("clock")
        self.scripts: dict[str, list[Intent]] = {
            "release v1.9.0": [DEPLOY],
            "refund Nadia": [QueryCustomers(where="name = 'Nadia Haddad'"), REFUND],
            "charge": [ChargeCard(customer="cus_1203", cents=4900)],
            "which": [AskPerson(question="Which carrier should replaced parcels use from now on?")],
            "free": [AskPerson(question="The contract of Haddad & Sons ends on Friday. What should I tell them about the new terms?")],
            "contact": [AskPerson(question="Who is on call for payments this week?")],
            "export": [QueryCustomers(where="churn_risk > 0.8")],
            "newsletter": [SendNewsletter(subject="November at Fernweh", body="Dear reader, …", recipients=48_210)],
            "train": [TrainModel(epochs=40)],
            "delegate": [Delegate(task="which")],
        }
        self._register()

    async def _decide(
        self, thread: Thread
    ) -> DeployBackend | Refund | ChargeCard | AskPerson | QueryCustomers | SendNewsletter | TrainModel | Delegate | Done:
        await self._spend(1.3)
        place = len([step for step in thread.steps if not step.id.count("@")])
        script = self.scripts.get(str(thread.input), [])
        usage = {"input_tokens": 1840 + 310 * place, "output_tokens": 96 + 12 * place, "cost_usd": 0.0031 + 0.0006 * place}
        annotate(usage=usage, model="gpt-5-mini", latency_ms=1240)
        if place < len(script):
            return script[place]  # type: ignore[return-value]
        return Done(message=f"“{thread.input}” is settled")

    async def _spend(self, seconds: float) -> None:
        """Time passes: on the clock of a story, or (`pause`) really."""
        if self.clock is not None:
            self.clock.advance(timedelta(seconds=seconds))
        await asyncio.sleep(self.pause)

    def _register(self) -> None:
        office, app, decide = self, self.app, self._decide

        @tool(reads=True)
        async def query_customers(where: str) -> dict[str, Any]:
            await office._spend(0.4)
            rows = [{"id": "cus_8812", "name": "Nadia Haddad", "phone": "+49 151 5550 1234", "orders": 14}]
            return {"rows": rows, "where": where}

        async def deploy(**arguments: Any) -> dict[str, Any]:
            await office._spend(74)
            office.done.append(("deploy", arguments))
            return {"deployed": arguments["tag"]}

        async def refund(**arguments: Any) -> str:
            await office._spend(2.1)
            office.done.append(("refund", arguments))
            return "re_3301"

        async def charge_card(customer: str, cents: int) -> dict[str, Any]:
            office.charges += 1
            await office._spend(12)
            if office.charges == 1:
                raise InDoubt("the bank's gateway closed the connection after 30 s")
            return {"charge": "ch_2"}

        async def send_newsletter(**arguments: Any) -> str:
            office.done.append(("newsletter", arguments))
            return "sent"

        @tool(reads=True)
        async def train(epochs: int) -> str:
            for epoch in range(epochs):
                current_call().progress(epoch + 1, epochs, "epoch")
                await asyncio.sleep(0.2)
            return "trained"

        async def handle(thread: Thread) -> str:
            while True:
                step = await thread.next_step(decide)
                match step.intent:
                    case DeployBackend():
                        if await step.approved(
                            by="release-managers", expires=office.deadline, reason="rule “prod-writes”: production needs a manager"
                        ):
                            await step.run(deploy, **step.intent.model_dump(mode="json"))
                    case Refund():
                        rule = "rule “refunds”: amount 249.90 > 100.00 EUR"
                        if await step.approved(by=["finance", "support-leads"], quorum=2, expires="3d", reason=rule):
                            await step.run(refund, **step.intent.model_dump(mode="json"))
                    case ChargeCard():
                        await step.run(charge_card)
                    case AskPerson(question=question):
                        kinds: dict[str, Any] = {"which": {"choices": ["DHL", "GLS", "Hermes", "none of these"]}, "contact": {"schema": Contact}}
                        await step.ask(question, **kinds.get(str(thread.input), {}))
                    case QueryCustomers():
                        await step.run(query_customers)
                        if thread.input == "export" and not await step.result_approved(by="data-protection", reason="personal data leaves the house"):
                            await step.close("withheld")
                    case SendNewsletter():
                        await step.run(send_newsletter, **step.intent.model_dump(mode="json"))
                    case TrainModel():
                        await step.run(train)
                    case Delegate(task=task):
                        await step.join(await step.spawn("support", task))
                    case Done(message=message):
                        return message

        for name in ("releases", "support", "billing", "marketing"):
            app.add(_named(handle, name), name=name, intents=())


def _named(handle: Any, name: str) -> Any:
    async def handler(thread: Thread) -> str:
        return await handle(thread)  # type: ignore[no-any-return]

    handler.__name__ = name
    return handler


WORK = (
    ("releases", "release v1.9.0"),
    ("support", "refund Nadia"),
    ("billing", "charge"),
    ("support", "which"),
    ("support", "contact"),
    ("billing", "export"),
    ("marketing", "newsletter"),
)
