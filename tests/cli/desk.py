"""An App for the tests of the command line: what its agent does is what the thread is started with."""

import asyncio
import os

from ownloop import App, InDoubt, Intent, Thread, current_call, tool

HOSTILE = "Which \u202eevil\u202c\u200b name\x1b[2J\x07 \x9b31m?"


class Deploy(Intent):
    """Deploy at a tag."""

    tag: str
    environment: str


class Ask(Intent):
    """Ask a person."""

    question: str


class Charge(Intent):
    """Take money; may lose the reply."""

    amount: int


class Train(Intent):
    """Run for a while."""

    epochs: int


class Wait(Intent):
    """Wait for an event, a clock or a child."""

    what: str


class Done(Intent):
    """The end."""

    message: str


app = App(os.environ.get("DESK_STORE", "sqlite:///desk.db"))
FIRST: dict[str, Intent] = {
    "deploy": Deploy(tag="v1.1.0", environment="production"),
    "two": Deploy(tag="v1.1.0", environment="production"),
    "short": Deploy(tag="v1.1.0", environment="production"),
    "soon": Deploy(tag="v1.1.0", environment="production"),
    "review": Deploy(tag="v1.1.0", environment="production"),
    "ask": Ask(question="Which name?"),
    "hostile": Ask(question=HOSTILE),
    "charge": Charge(amount=3),
    "train": Train(epochs=4),
    "event": Wait(what="event"),
    "sleep": Wait(what="sleep"),
    "child": Wait(what="child"),
}


async def decide(thread: Thread) -> Deploy | Ask | Charge | Train | Wait | Done:
    if thread.input == "fail":
        raise RuntimeError("the model is \x1b[31mbroken")
    if thread.input in FIRST and not any(step.name != "done" for step in thread.steps):
        return FIRST[thread.input]
    return Done(message=f"{thread.input} is over")


async def deploy(tag: str, environment: str) -> dict[str, str]:
    return {"deployed": tag, "to": environment}


async def charge(amount: int) -> str:
    raise InDoubt("the reply was lost")


@tool(reads=True)
async def train(epochs: int) -> str:
    for number in range(epochs):
        current_call().progress(number + 1, epochs, "epoch\x1b[2J")
        await asyncio.sleep(0.45)
    return "trained"


@app.agent
async def desk(thread: Thread) -> str:
    while True:
        step = await thread.next_step(decide)
        match step.intent:
            case Deploy():
                terms = {"two": {"quorum": 2}, "short": {"expires": "50ms"}, "soon": {"expires": "1h"}}.get(thread.input, {"by": "release-managers"})
                if thread.input == "review":
                    await step.run(deploy)
                    await step.result_approved()
                elif await step.approved(**terms):  # type: ignore[arg-type]
                    await step.run(deploy)
            case Ask(question=question):
                choices = None if thread.input == "hostile" else ["alpha", "beta"]
                await step.ask(question, choices=choices)
            case Charge():
                await step.run(charge)
            case Train():
                await step.run(train)
            case Wait(what="event"):
                await step.wait_for("built", key="job-1")
            case Wait(what="sleep"):
                await step.sleep("1h")
            case Wait():
                await step.join(await step.spawn(desk, "deploy"))
            case Done(message=message):
                return message


async def settled(url: str, *inputs: str, key: str | None = None) -> list[str]:
    """Threads that were started with these inputs and can do nothing more for now; their ids."""
    from ownloop.cli.opening import move

    move(app, url)
    try:
        found = []
        for text in inputs:
            found.append(await app.start(desk, text, key=key))
            while ready := (await app.store.runnable(["desk"], 100))[0]:
                await asyncio.gather(*(app.run_one(one) for one in ready))
        return found
    finally:
        await app.aclose()
