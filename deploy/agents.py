"""The agents that the containers run: put yours here. This one deploys what it is asked to, after approval, and needs no model."""

from ownloop import App, Intent, Thread


class Deploy(Intent):
    """Deploy a tag to production."""

    tag: str


class Done(Intent):
    """Nothing is left to do."""

    message: str


async def decide(thread: Thread) -> Deploy | Done:
    return Done(message="nothing is left to do") if thread.count(Deploy) else Deploy(tag=str(thread.input).split()[-1])


def deploy(tag: str) -> str:
    return f"{tag} deployed"


app = App("sqlite:///agents.db")  # OWNLOOP_STORE and --store win over this


@app.agent
async def deploybot(thread: Thread) -> str:
    while True:
        step = await thread.next_step(decide)
        match step.intent:
            case Deploy():
                if await step.approved(by="ops"):
                    await step.run(deploy)
            case Done(message=message):
                return message
