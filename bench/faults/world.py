"""The world outside of the agent, the same for all: a model, a bank, a person's rules. Only the standard library, for it runs in every environment.

The folder `FAULTS_WORLD` holds it: `settings.json` (written by the run that makes the fault), `ledger.jsonl` (each payment that was made),
`model.jsonl` (each question to the model). Lines are on disk when the call returns, and a killed process takes none back.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["FAULTS_WORLD"])


def setting(name: str) -> Any:
    return json.loads((FOLDER / "settings.json").read_text(encoding="utf-8"))[name]


def note(book: str, **fields: Any) -> None:
    file = os.open(FOLDER / f"{book}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, (json.dumps({**fields, "pid": os.getpid()}) + "\n").encode())
    os.fsync(file)
    os.close(file)


def lines(book: str) -> list[dict[str, Any]]:
    path = FOLDER / f"{book}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


# ---- the model -----------------------------------------------------------------------------------------------------------------


def kind(result: str) -> str:
    """What the model makes of the result of a tool: paid, refused by a person, or an error."""
    text = result.lower()
    if text.startswith("paid"):
        return "paid"
    return "refused" if any(word in text for word in ("reject", "denied", "declin", "not approved")) else "error"


def choose(results: Sequence[str], said: Sequence[str] = ()) -> dict[str, Any] | None:
    """The model: the next payment of the plan, or None when all were answered.

    It is not deterministic, as real models are not: asked a second time for the same payment, it names another amount and another id. After an
    error it tries the same payment again, three times at most.
    """
    kinds = [kind(one) for one in results]
    place, errors = sum(one != "error" for one in kinds), kinds.count("error")
    asked = [line for line in lines("model") if line["place"] == place]
    amounts = setting("amounts")
    call = None
    if place < len(amounts) and errors < 4:
        again = max(0, len(asked) - errors)
        call = {"id": f"call_{len(lines('model'))}", "name": "pay", "args": {"amount": amounts[place] + again}}
    note("model", place=place, results=list(results), said=list(said), call=call)
    return call


# ---- the bank ------------------------------------------------------------------------------------------------------------------


async def pay(amount: Any, key: str | None = None) -> str:
    """Pay at once, irrevocably. The first payment may be slow to answer; it may find the disk full afterwards."""
    first = not lines("ledger")
    note("ledger", amount=amount, key=key)
    if first and setting("fill"):
        fill(Path(setting("fill")))
    if first:
        await asyncio.sleep(setting("slow"))
    return f"paid {amount}"


async def audit() -> str:
    """What the changed program does before it asks for an approval."""
    note("audit")
    return "noted"


def fill(ballast: Path) -> None:
    """Take the last byte of the disk."""
    size = 1 << 20
    with ballast.open("ab", buffering=0) as file:
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2


# ---- the house's rules ---------------------------------------------------------------------------------------------------------


def needs_approval(amount: int) -> bool:
    """Above the limit a person is asked; the house may change its limit at any time."""
    return bool(amount > setting("limit"))


async def gap() -> None:
    """Stands where the program has the selection in its hands and has not begun the payment."""
    if setting("gap"):
        note("gap")
        await asyncio.sleep(600)


TIMEOUT: float | None = setting("timeout")
"""Seconds that a program of this run gives a payment."""


def say(**answer: Any) -> None:
    """To the run that started this process."""
    sys.stdout.write("@@" + json.dumps(answer) + "\n")
    sys.stdout.flush()
