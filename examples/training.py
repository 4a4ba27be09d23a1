"""Long jobs: the thread parks between selection and the end of a training, holding nothing; the job reports back by webhook.

`trainer`: the model (here: honest rules, no network) selects `StartTraining`. `submit` starts a process of its own that fits a logistic
regression by gradient descent and posts its progress and its metrics to the webhook server. The thread waits for the event "training" with the
job's key: no process, no task, no connection. Then the model reads the metrics, tries another learning rate if they are poor, and selects
`DeployModel`, which needs a person. `nightly_report`: a second agent, without any model: named steps, a retry, a sleep.

    python examples/training.py
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, assert_never

from story import tell
from webhooks import post, serving

from ownloop import App, Intent, Thread, current_call, tool

HERE = Path(__file__)


class StartTraining(Intent):
    """Train the model. Takes hours."""

    learning_rate: float


class DeployModel(Intent):
    """Put trained weights into production. High stakes."""

    job: str
    accuracy: float


class Done(Intent):
    """Nothing is left to do."""

    message: str


async def decide(thread: Thread) -> StartTraining | DeployModel | Done:
    """Rules in the place of a model: train until the accuracy is good, at most three times, then deploy."""
    trainings = [step for step in thread.steps if step.name == "start_training"]
    if any(step.name == "deploy_model" for step in thread.steps):
        last = next(step for step in reversed(thread.steps) if step.name == "deploy_model")
        return Done(message="deployed" if any(one.kind == "run" for one in last.operations) else "not deployed")
    metrics = [one.value for step in trainings for one in step.operations if one.kind == "event" and one.value is not None]
    if metrics and metrics[-1]["accuracy"] >= 0.9:
        return DeployModel(job=metrics[-1]["job"], accuracy=metrics[-1]["accuracy"])
    if len(trainings) == 3:
        return Done(message=f"no good model in {len(trainings)} trainings")
    return StartTraining(learning_rate=0.00001 * 1000 ** len(trainings))


class Cluster:
    """Where jobs run: here a process each, which outlives the agent's. `folder` holds the weights, `webhook` is told how it goes."""

    def __init__(self, folder: Path, webhook: str) -> None:
        self.folder, self.webhook = folder, webhook

    def submit(self, learning_rate: float) -> str:
        """Start a training; the job's id, which is that of this call: a second start of it would be the same job."""
        job = "job-" + "".join(char for char in current_call().key if char.isalnum())
        command = [sys.executable, str(HERE), "fit", job, str(learning_rate), str(self.folder / f"{job}.json"), self.webhook]
        with (self.folder / "jobs.log").open("a") as log:
            subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        return job

    def deploy(self, job: str) -> str:
        """Make the weights of a job the ones that are served."""
        (self.folder / "production.json").write_text((self.folder / f"{job}.json").read_text())
        return str(self.folder / "production.json")


def make_app(url: Any, clock: Any = None, *, cluster: Any) -> App:
    app = App(url, clock=clock)

    @app.agent
    async def trainer(thread: Thread) -> str:
        while True:
            step = await thread.next_step(decide)
            match step.intent:
                case StartTraining():
                    job = (await step.run(cluster.submit)).value
                    await step.wait_for("training", key=job, timeout="12h")  # parks here: nothing runs, the job has all the time
                case DeployModel(job=job):
                    if await step.approved(by="ml-leads"):
                        await step.run(cluster.deploy)
                case Done(message=message):
                    return message
                case _:
                    assert_never(step.intent)

    @app.agent
    async def nightly_report(thread: Thread) -> str:
        rows = (await thread.step("read").run(read_sales, str(thread.input))).value
        await thread.step("until the morning").sleep("6h")
        return (await thread.step("report").run(write_report, str(thread.input), rows)).value

    return app


@tool(reads=True, retry=5)
def read_sales(path: str) -> dict[str, float]:
    """The file may not be there yet: only reading is retried."""
    return dict(json.loads(Path(path).read_text()))


def write_report(path: str, rows: dict[str, float]) -> str:
    report = Path(path).with_suffix(".md")
    report.write_text("\n".join([*(f"- {name}: {amount:.2f}" for name, amount in rows.items()), f"- all: {sum(rows.values()):.2f}", ""]))
    return str(report)


def fit(job: str, learning_rate: float, weights: Path, webhook: str) -> None:
    """The job: a logistic regression on 400 points in two clouds, by stochastic gradient descent."""
    draw = random.Random(7)
    points = [(draw.gauss(3 + side, 0.8), draw.gauss(3 + side, 0.8), (side + 1) // 2) for side in (-1, 1) for _ in range(200)]
    draw.shuffle(points)
    a = b = c = 0.0
    for epoch in range(1, 31):
        for x, y, label in points:
            error = 1 / (1 + math.exp(-(a * x + b * y + c))) - label
            a, b, c = a - learning_rate * error * x, b - learning_rate * error * y, c - learning_rate * error
        if epoch % 10 == 0:
            post(f"{webhook}/events/training.progress", {"key": job, "payload": {"done": epoch, "total": 30, "text": "epochs"}}, "job-token")
    hits = sum((a * x + b * y + c > 0) == bool(label) for x, y, label in points)
    weights.write_text(json.dumps([a, b, c]))
    post(f"{webhook}/events/training", {"key": job, "id": job, "payload": {"job": job, "accuracy": hits / len(points)}}, "job-token")


async def story(folder: Path) -> None:
    url = f"sqlite:///{folder / 'training.db'}"
    with serving(url) as webhook:
        async with make_app(url, cluster=Cluster(folder, webhook)) as app:
            thread, seen = await app.start("trainer"), 0
            while not (approvals := await app.interrupts(kind="approval")):
                seen = await tell(app, thread, "request", after=seen)
            print(f"ana may approve: {approvals[0].name} {dict(approvals[0].intent)}")
            post(f"{webhook}/interrupts/{approvals[0].id}/approve", {"note": "good enough"}, "ana-token")
            await tell(app, thread, "turn_ended", after=seen)
            print("and an agent without a model, until its sleep:")
            report = await app.start("nightly_report", str(folder / "sales.json"))
            await asyncio.sleep(0.3)
            (folder / "sales.json").write_text(json.dumps({"north": 120.5, "south": 80.25}))  # it comes late: the read is tried again
            await tell(app, report, "request")


if __name__ == "__main__":
    if sys.argv[1:2] == ["fit"]:
        fit(sys.argv[2], float(sys.argv[3]), Path(sys.argv[4]), sys.argv[5])
    else:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(story(Path(folder)))
