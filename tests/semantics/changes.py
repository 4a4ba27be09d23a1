"""One program in many shapes: what it was when its thread parked, and what somebody deployed onto it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from worlds import Died, World

from ownloop import Happened, Intent, NotHappened, Thread, tool
from ownloop.testing import Drive, ScriptedModel


class End(Intent):
    """The work is done."""


def ship(name: str = "Ship", **fields: Any) -> Any:
    """The intent class of one version of the program: field names and types, or (type, default)."""
    kinds = {one: kind[0] if isinstance(kind, tuple) else kind for one, kind in fields.items()}
    defaults = {one: kind[1] for one, kind in fields.items() if isinstance(kind, tuple)}
    return type(name, (Intent,), {"__annotations__": kinds, "__module__": __name__, **defaults})


ORDER = ("lock", "wait", "approve", "deploy", "unlock")


@dataclass(frozen=True)
class Shape:
    """One version of the program.

    `wait` is what stands between the lock and the approval; `order` the branch's operations; `skips` those that the branch leaves out.
    """

    wait: str
    intent: Any = field(default_factory=lambda: CLASSES["old"])
    order: tuple[str, ...] = ORDER
    skips: tuple[str, ...] = ()
    has_case: bool = True
    question: str | None = None
    text: str = "go?"
    event: str = "ready"
    nap: str = "1h"
    tool_name: str = "deploy"
    reads: bool = False
    host: str = "web-1"
    label: str | None = None
    policy: tuple[tuple[str, Any], ...] = ()
    loop: str = "next_step"
    model: str = "v1"
    end: str | None = None


CLASSES = {"old": ship(tag=str)}
"""In a dict, so that a handler of a later version cannot name it."""
PARKS = ("ask", "event", "nap", "approval", "granted", "rejected", "doubt")
"""Where the thread stands when the new program is deployed: "granted" and "rejected" are decided and not yet read."""


def waits_in(park: str) -> str:
    return park if park in ("ask", "event", "nap") else "none"


CHANGES: dict[str, dict[str, Any]] = {
    "nothing changed": {},
    "case removed": {"has_case": False},
    "question inserted": {"question": "really?"},
    "question reworded": {"text": "go on, please?"},
    "event renamed": {"event": "prepared"},
    "sleeps longer": {"nap": "2h"},
    "tool renamed": {"tool_name": "deploy_v2"},
    "tool only reads now": {"reads": True},
    "quorum raised": {"policy": (("quorum", 2),)},
    "other people must agree": {"policy": (("by", "ann"),)},
    "deadline added": {"policy": (("expires", "1d"),)},
    "field added": {"intent": ship(tag=str, region=str)},
    "optional field added": {"intent": ship(tag=str, dry_run=(bool, False))},
    "field removed": {"intent": ship()},
    "field renamed": {"intent": ship(version=str)},
    "field's type changed": {"intent": ship(tag=int)},
    "class renamed": {"intent": ship("Release", tag=str)},
    "approval first": {"order": ("approve", "lock", "wait", "deploy", "unlock")},
    "unlock before deploy": {"order": ("lock", "wait", "approve", "unlock", "deploy")},
    "deploy first": {"order": ("deploy", "lock", "wait", "approve", "unlock")},
    "backwards": {"order": tuple(reversed(ORDER))},
    "lock dropped": {"skips": ("lock",)},
    "wait dropped": {"skips": ("wait",)},
    "deploy dropped": {"skips": ("deploy",)},
    "approval dropped": {"skips": ("approve",)},
    "everything dropped": {"skips": ORDER},
    "arguments changed": {"host": "web-2"},
    "name given": {"label": "web"},
    "each instead of next_step": {"loop": "each"},
    "model says another thing": {"model": "v2"},
    "returns at once": {"end": "return"},
    "raises": {"end": "raise"},
}


class Yard:
    """What the programs of one thread really did. `complaints` holds every effect that nobody allowed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ran: Counter[str] = Counter()
        self.complaints: list[str] = []
        self.dies_in = ""

    def effect(self, name: str, **options: Any) -> Any:
        async def work(tag: str = "") -> str:
            self.ran[name.removesuffix("_v2")] += 1
            if name.startswith("deploy"):
                await self.check(tag)
            if name == self.dies_in:
                self.dies_in = ""
                raise Died
            return name

        return tool(work, name=name, **options)

    async def check(self, tag: str) -> None:
        """A deployment needs a granted approval for exactly these arguments, if this thread ever asked for one."""
        asked = [one for one in await self.world.d.interrupts(status=None, limit=1_000) if one.kind == "approval"]
        granted = [one for one in asked if one.decision is not None and one.decision.granted and one.intent.get("tag") == tag]
        if asked and not granted:
            self.complaints.append(f"deployed {tag} over {[(one.status, dict(one.intent)) for one in asked]}")
        if any(one.status == "open" for one in asked):
            self.complaints.append(f"deployed {tag} while an approval is open")

    def agent(self, shape: Shape) -> Any:
        """The handler of one version."""
        first = shape.intent.model_construct(**({"tag": shape.model} if "tag" in shape.intent.model_fields else {}))
        model = ScriptedModel([first, End()], intents=[shape.intent, End])

        async def branch(step: Any) -> bool:
            if isinstance(step.intent, End):
                step.close()
                return True
            if isinstance(step.intent, shape.intent) and shape.has_case:
                await self.work(step, shape)
            return False

        async def handler(thread: Thread[Any]) -> str:
            if shape.end == "raise":
                raise ValueError("a bug")
            if shape.end == "return":
                return "over"
            while True:
                done = await thread.each(model, branch) if shape.loop == "each" else [await branch(await thread.next_step(model))]
                if any(done):
                    return "end"

        return handler

    async def work(self, step: Any, shape: Shape) -> None:
        granted = "approve" in shape.skips or shape.order.index("deploy") < shape.order.index("approve")
        for name in shape.order:
            if name in shape.skips:
                continue
            if name == "lock":
                named = step if shape.label is None else step.named(shape.label)
                await named.run(self.effect("lock"), shape.host)
            elif name == "wait":
                await self.wait(step, shape)
            elif name == "approve":
                granted = await step.approved(**dict(shape.policy))
            elif name == "deploy" and granted:
                await step.run(self.effect(shape.tool_name, reads=shape.reads))
            elif name == "unlock":
                await step.run(self.effect("unlock"))

    async def wait(self, step: Any, shape: Shape) -> None:
        if shape.question is not None:
            await step.ask(shape.question)
        if shape.wait == "ask":
            await step.ask(shape.text)
        elif shape.wait == "event":
            await step.wait_for(shape.event)
        elif shape.wait == "nap":
            await step.sleep(shape.nap)

    async def people(self, d: Drive) -> None:
        """Everybody answers, truthfully and with a yes, until nothing moves."""
        for _ in range(12):
            await d.advance("1h")
            waiting = await d.interrupts(limit=100)
            for one in waiting:
                if one.kind in ("approval", "hold"):
                    voted = {vote.by.id for vote in one.votes}
                    await d.approve(one, by="bob" if "ann" in voted else "ann")
                elif one.kind == "question":
                    await d.answer(one, "yes", by="ann")
                elif one.kind == "in_doubt":
                    name = one.value["call"].removeprefix("run:").split("@")[0]
                    await d.answer(one, Happened(name) if self.ran[name.removesuffix("_v2")] else NotHappened(), by="ann")
                elif one.kind == "event":
                    await d.emit(one.value["event"], {"n": 1})
            await d.settle()
            if not waiting:
                return
