"""The listing of "own your control flow", executed: a loop with two `break`s, eight changed lines, and no process while people think.

`handle_next_step` is the listing of 12-factor agents, factor 8, with its comments and its own bookkeeping. `python tools/seed_diff.py` shows
the eight lines. Everything above it is what the listing takes for granted: intents, a model (here: honest rules that read the prompt, no
network), an issue tracker. `python examples/seed.py` plays three processes: an agent that ends at every `break`, a webhook server that
passes on what people say by HTTP, and the next agent, which goes on from the log.

The listing: https://github.com/humanlayer/12-factor-agents, code under Apache-2.0 (`examples/seed_listing.txt` is the original).
"""

# ruff: noqa: E701, RET508, W291, W293  # the listing's own form

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from webhooks import post, serving

from ownloop import App, Intent, tool
from ownloop.prompt import thread_to_prompt


class SeedIntent(Intent):
    """The listing compares an intent with its name."""

    def __eq__(self, other: object) -> bool:
        return self.intent_name == other if isinstance(other, str) else super().__eq__(other)


class RequestClarification(SeedIntent):
    """Ask the person for whatever is missing."""

    question: str


class FetchOpenIssues(SeedIntent):
    """List the issues that are open."""


class CreateIssue(SeedIntent):
    """Create an issue. Everybody sees it."""

    title: str
    description: str


class LinearClient:
    """An issue tracker in a file."""

    path = Path(os.environ.get("ISSUES", "issues.json"))

    @tool(reads=True)
    async def issues(self) -> list[dict[str, Any]]:
        return json.loads(self.path.read_text()) if self.path.exists() else []

    async def create_issue(self, title: str, description: str) -> int:
        issues = await self.issues()
        issues.append({"id": len(issues) + 1, "title": title, "description": description})
        self.path.write_text(json.dumps(issues, indent=2))
        return len(issues)


async def determine_next_step(prompt: str) -> RequestClarification | FetchOpenIssues | CreateIssue:
    """Rules in the place of a model; like a model they know nothing but the prompt."""
    found = {tag: yaml.safe_load(body) for tag, body in re.findall(r"<(\w+)>\n(.*?)\n</\1>", prompt, re.DOTALL)}
    if "fetch_open_issues_result" not in found:
        return FetchOpenIssues()
    title, answer = found["input"], found.get("answer")
    similar = [issue["title"] for issue in found["fetch_open_issues_result"] if set(issue["title"].split()) & set(title.split())]
    if similar and answer is None:
        return RequestClarification(question=f"{similar[0]!r} is open already. What is new in {title!r}?")
    refusal = found.get("create_issue_rejected")
    if refusal is not None and refusal["note"] not in (answer or {}).get("question", ""):
        return RequestClarification(question=f"{refusal['by']} says: {refusal['note']}. What should the issue say?")
    return CreateIssue(title=title, description=answer["answer"] if answer else title)


class Thread:
    """ownloop's thread, for a listing that appends its own events: the log has them already, so here they are only printed."""

    def __init__(self, thread: Any) -> None:
        self.next_step, self.events = thread.next_step, self

    def append(self, event: dict[Any, Any]) -> None:
        print(f"  agent[{os.getpid()}]: {event[type]}")


class Database:
    """Where the listing saves its thread. Every step is on disk before the listing sees it, so nothing is left to do."""

    async def save_thread(self, thread: Thread) -> None:
        print(f"  agent[{os.getpid()}]: break")


linear_client, db, data = LinearClient(), Database(), "data"


# fmt: off
async def handle_next_step(thread: Thread):

  while True:
    next_step = await thread.next_step(lambda thread: determine_next_step(thread_to_prompt(thread)))
    
    # inlined for clarity - in reality you could put 
    # this in a method, use exceptions for control flow, or whatever you want
    if next_step.intent == 'request_clarification':
      thread.events.append({
        type: 'request_clarification',
          data: next_step,
        })

      if await next_step.request_answer(next_step.intent.question): continue
      await db.save_thread(thread)
      # async step - break the loop, we'll get a webhook later
      break
    elif next_step.intent == 'fetch_open_issues':
      thread.events.append({
        type: 'fetch_open_issues',
        data: next_step,
      })

      issues = await next_step.run(linear_client.issues)

      thread.events.append({
        type: 'fetch_open_issues_result',
        data: issues,
      })
      # sync step - pass the new context to the LLM to determine the NEXT next step
      continue
    elif next_step.intent == 'create_issue':
      thread.events.append({
        type: 'create_issue',
        data: next_step,
      })

      decision = await next_step.request_approval(by='maintainers')
      if decision and not decision.granted: continue
      if decision: await next_step.run(linear_client.create_issue)
      await db.save_thread(thread)
      # async step - break the loop, we'll get a webhook later
      break
# fmt: on


def make_app(url: Any, clock: Any = None) -> App:
    app = App(url, clock=clock)

    @app.agent(name="handle_next_step", intents=RequestClarification | FetchOpenIssues | CreateIssue)
    async def agent(thread):
        return await handle_next_step(Thread(thread))

    return app


async def work(url: str, wish: str) -> None:
    """One agent process: it runs what can run, and ends when the thread waits or is done."""
    app, parked = make_app(url), asyncio.Event()

    async def told(notice: Any) -> None:
        parked.set()

    for name in ("interrupt.opened", "thread.done", "thread.failed"):
        app.on(name)(told)
    async with app:
        await app.start("handle_next_step", wish, key="wish-1")  # the same key is the same thread
        await parked.wait()


async def story(folder: Path) -> None:
    url, wish = f"sqlite:///{folder / 'seed.db'}", "login fails on Safari"
    linear_client.path = folder / "issues.json"
    os.environ["ISSUES"] = str(linear_client.path)  # for the agents' processes
    linear_client.path.write_text(json.dumps([{"id": 1, "title": "login page is slow", "description": ""}]))
    agent, app = [sys.executable, __file__, url, wish], make_app(url)
    with serving(url) as webhook:
        subprocess.run(agent, check=True)
        (question,) = await app.interrupts()
        print(f"ana is asked: {question.question}")
        post(f"{webhook}/interrupts/{question.id}/answer", {"value": "the button does nothing, on 18.2 only"}, "ana-token")
        subprocess.run(agent, check=True)
        (approval,) = await app.interrupts()
        print(f"ana may approve: {approval.name} {dict(approval.intent)}")
        print("bob tries:", post(f"{webhook}/interrupts/{approval.id}/approve", {}, "bob-token"))
        post(f"{webhook}/interrupts/{approval.id}/approve", {}, "ana-token")
        subprocess.run(agent, check=True)
    print(thread_to_prompt(await app.show(("handle_next_step", "wish-1"))))
    print("open issues:", *(f"#{issue['id']} {issue['title']}" for issue in await linear_client.issues()))
    await app.aclose()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        asyncio.run(work(sys.argv[1], sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(story(Path(folder)))
