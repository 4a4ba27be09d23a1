"""One process of one framework: `python child.py MODULE STORE VERB [JSON]`; runs in that framework's own environment.

`MODULE` is the file of the adapter: a class `Peer(store)` with

    open(), close()
    start() -> str                  a thread with the user's wish "pay"; runs as far as it goes: "waiting", "done", "failed: …"
    waiting() -> list[dict]         the calls that wait for a person: `call` names one as this framework's documentation does, `amount` is shown
    answer(kind, call, amount)      approve | reject | edit (with another amount); runs on as far as it goes
    recover() -> str                what the documentation says to do after a restart; runs on as far as it goes
    say(text) -> str                the user writes while the thread waits
    questions() -> list[str]        what a person is asked about calls that may or may not have happened
    happened() -> str               a person answers such a question: it did
    stand_by()                      what a second worker beside the first does

A verb that a framework has no way for is missing from its class.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")
sys.path.insert(0, str(Path(__file__).parent))
import world  # type: ignore[import-not-found]  # noqa: E402


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[Path(path).stem] = module
    spec.loader.exec_module(module)
    return module


async def tried(verb: Any, *args: Any) -> str:
    """What a verb came to; an exception of the framework is an answer, too."""
    try:
        return str(await verb(*args))
    except Exception as error:
        return f"raised {type(error).__name__}: {' '.join(str(error).split())[:300]}"


async def until(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240  # another process makes it
        await asyncio.sleep(0.001)


class Verbs:
    """What the run asks of this process; each gives a status."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer

    async def start(self) -> str:
        return await tried(self.peer.start)

    async def look(self) -> str:
        return "looked"

    async def recover(self) -> str:
        return await tried(self.peer.recover)

    async def answer(self, kind: str, call: Any, amount: Any = None) -> str:
        return await tried(self.peer.answer, kind, call, amount)

    async def answer_when(self, gate: str, kind: str, call: Any) -> str:
        """Two processes that answer at the same moment."""
        world.note("ready")
        await until(Path(gate))
        return await self.answer(kind, call)

    async def answer_twice(self, kind: str, call: Any) -> str:
        both = await asyncio.gather(self.answer(kind, call), self.answer(kind, call))
        return " | ".join(both)

    async def say(self, text: str) -> str:
        return await tried(self.peer.say, text) if hasattr(self.peer, "say") else "not offered"

    async def happened(self) -> str:
        return await tried(self.peer.happened)

    async def stand_by(self, gate: str) -> str:
        """A second worker, until it is told to stop."""
        world.note("ready")
        if hasattr(self.peer, "stand_by"):
            await self.peer.stand_by()
        await until(Path(gate))
        return "stood by"


async def main(module: str, store: str, verb: str, args: str = "[]") -> None:
    peer = load(module).Peer(store)
    began = time.monotonic()
    opened = await tried(peer.open)
    if opened.startswith("raised"):
        world.say(status=opened, waiting=[], questions=[])
        os._exit(0)
    status = await getattr(Verbs(peer), verb)(*json.loads(args))
    waiting: list[dict[str, Any]] = []
    questions: list[str] = []
    if verb not in ("answer_when", "stand_by"):
        try:
            waiting = await peer.waiting()
            questions = await peer.questions() if hasattr(peer, "questions") else []
        except Exception as error:
            status += f" (raised {type(error).__name__} when looking)"
    world.say(status=status, waiting=waiting, questions=questions, seconds=time.monotonic() - began)
    if not getattr(peer, "LEAVES_AT_ONCE", False):
        try:
            async with asyncio.timeout(15):
                await peer.close()
        except Exception as error:
            print(f"close: {error!r}", file=sys.stderr)
    os._exit(0)  # from within the loop: a server in it may hold its end until the last connection is closed, and one waits for a person


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
