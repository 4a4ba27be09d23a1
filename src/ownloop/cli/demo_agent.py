"""What `ownloop demo` shows: three agents whose deciders are rules and whose tools only pretend, so that neither a key nor an account is needed.

Put a model in the place of a decider (`ownloop.llm.Model[…]("openai:gpt-5-mini")`) and the loops stay as they are.
"""

from __future__ import annotations

import asyncio

from ..app import App
from ..intents import Intent
from ..thread import Thread
from ..tools import current_call, tool

RELEASE_MANAGERS, SUPPORT = "release-managers", "support"
CHAPTERS = 40
TAGS = ["v1.10.0", "v1.9.2", "v1.9.1"]


class ListTags(Intent):
    """List the tags that can be deployed."""


class Deploy(Intent):
    """Deploy the backend at a tag."""

    tag: str
    environment: str = "production"


class AskWhich(Intent):
    """Ask which order is meant."""

    question: str


class Refund(Intent):
    """Give money back."""

    order: str
    amount: float
    reason: str


class ReadChapter(Intent):
    """Read one chapter, page by page."""

    chapter: int


class Done(Intent):
    """Nothing is left to do."""

    message: str


# ---- tools that pretend ----------------------------------------------------------------------------------------------------------


@tool(reads=True)
async def list_tags() -> list[str]:
    return TAGS


@tool(in_doubt="retry")
async def deploy(tag: str, environment: str) -> str:
    for done in range(10):
        current_call().progress(done + 1, 10, f"instance {done + 1} runs {tag}")
        await asyncio.sleep(0.3)
    return f"{tag} is live on {environment}"


async def refund(order: str, amount: float, reason: str) -> dict[str, object]:
    return {"order": order, "refunded": amount, "receipt": f"R-{order}"}


@tool(in_doubt="retry")
async def read_chapter(chapter: int) -> str:
    for page in range(8):
        current_call().progress(page + 1, 8, f"page {page + 1}")
        await asyncio.sleep(0.4)
    return f"chapter {chapter} read"


# ---- deciders: rules -------------------------------------------------------------------------------------------------------------


async def next_of_deployment(thread: Thread) -> ListTags | Deploy | Done:
    if not thread.count(ListTags):
        return ListTags()
    if not thread.count(Deploy):
        return Deploy(tag=TAGS[0])
    return Done(message=said_of(thread) or "Not deployed.")


async def next_of_refund(thread: Thread) -> AskWhich | Refund | Done:
    if not thread.count(AskWhich):
        return AskWhich(question="Mia Berg wants her money back. She has two orders: which one does she mean?")
    if not thread.count(Refund):
        return Refund(order="A-1207", amount=249.0, reason="arrived broken")
    return Done(message=said_of(thread) or "Not refunded.")


async def next_of_reading(thread: Thread) -> ReadChapter | Done:
    read = thread.count(ReadChapter)
    return Done(message="Everything is read.") if read == CHAPTERS else ReadChapter(chapter=read + 1)


def said_of(thread: Thread) -> str:
    """What the last call came to, in words."""
    values = [one.value for step in thread.steps for one in step.operations if one.kind == "run" and one.state == "done"]
    return str(values[-1]) if len(values) > 0 and not isinstance(values[-1], list) else ""


# ---- the loops -------------------------------------------------------------------------------------------------------------------


async def deploybot(thread: Thread) -> str:
    while True:
        step = await thread.next_step(next_of_deployment)
        match step.intent:
            case ListTags():
                await step.run(list_tags)
            case Deploy():
                if await step.approved(by=RELEASE_MANAGERS, reason="production is deployed by release managers"):
                    await step.run(deploy)
            case Done(message=message):
                return message


async def refunds(thread: Thread) -> str:
    while True:
        step = await thread.next_step(next_of_refund)
        match step.intent:
            case AskWhich(question=question):
                await step.ask(question, choices=["A-1207, a lamp, 249.00", "A-1100, a chair, 89.00"])
            case Refund(amount=amount):
                if amount <= 100 or await step.approved(by=SUPPORT, expires="24h", reason=f"{amount:.2f} is more than 100"):
                    await step.run(refund)
            case Done(message=message):
                return message


async def reader(thread: Thread) -> str:
    while True:
        step = await thread.next_step(next_of_reading)
        match step.intent:
            case ReadChapter():
                await step.run(read_chapter)
            case Done(message=message):
                return message


INPUTS = {"deploybot": "deploy the backend to production", "refunds": "ticket 812: Mia Berg", "reader": "read the handbook"}


def make_app(store: str) -> App:
    """The three agents on a store."""
    app = App(store)
    for agent in (deploybot, refunds, reader):
        app.add(agent)
    return app


async def begin(app: App) -> str:
    """Start what does not go on from last time, and wait until the deployment asks; the id of what it asks."""
    for agent, input in INPUTS.items():
        if not await app.threads(agent=agent, status="open", limit=1):
            await app.start(agent, input)
    while True:
        for one in await app.interrupts(agent="deploybot", kind="approval", limit=1):
            return one.id
        if not await app.threads(agent="deploybot", status="open", limit=1):
            await app.start("deploybot", INPUTS["deploybot"])
        await asyncio.sleep(0.05)
