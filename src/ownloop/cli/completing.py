"""Completion of ids, names and decisions, from the store that the half-written command line names. Slow or broken: no proposals, no words."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer

from ..inert import inert
from .brief import brief
from .trouble import usage

if TYPE_CHECKING:
    from ..app import App

LIMIT = 0.2
"""Seconds for the store to answer; a prompt that hangs is worse than one that proposes nothing."""
MOST = 50
VARIABLE = "_OWNLOOP_COMPLETE"
SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
Proposals = list[tuple[str, str]]
"""What fits, and a few words about it."""


def is_completing() -> bool:
    """Whether a shell asks what could come next."""
    return VARIABLE in os.environ


def told_shell(words: Sequence[str]) -> int | None:
    """`--show-completion SHELL` and `--install-completion SHELL`; without SHELL typer finds out which one asks. None: it is something else."""
    if len(words) != 2 or words[0] not in ("--show-completion", "--install-completion"):
        return None
    from typer._completion_shared import get_completion_script, install

    if words[1] not in SHELLS:
        raise usage(f"no completion for {words[1]!r}; there is one for {', '.join(SHELLS)}")
    if words[0] == "--show-completion":
        print(get_completion_script(prog_name="ownloop", complete_var=VARIABLE, shell=words[1]))
    else:
        shell, path = install(shell=words[1], prog_name="ownloop", complete_var=VARIABLE)
        print(f"{shell} completion is in {path}; it works in the next terminal")
    return 0


def completed(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter of a command, with what completes it: known by its name."""
    propose = _BY_NAME.get(parameter.name)
    if propose is None or get_origin(parameter.annotation) is not Annotated:
        return parameter
    kind, info = get_args(parameter.annotation)[:2]

    def complete(ctx: typer.Context, incomplete: str) -> Proposals:
        return _within(ctx, incomplete, propose)

    info.autocompletion = complete
    return parameter.replace(annotation=Annotated[kind, info])


def _within(context: typer.Context, typed: str, propose: Callable[[App, str, dict[str, Any]], Awaitable[Proposals]]) -> Proposals:
    found: Proposals = []
    with suppress(Exception):
        found = asyncio.run(_asked(context, typed, propose))
    return [(value, inert(about)) for value, about in found if value.startswith(typed)][:MOST]


async def _asked(context: typer.Context, typed: str, propose: Callable[[App, str, dict[str, Any]], Awaitable[Proposals]]) -> Proposals:
    from ..app import App
    from .session import dev_store, store_of_environment

    usual = store_of_environment()
    said = [context.params.get("store"), context.parent.params.get("store") if context.parent is not None else None]
    store = next((one for one in said if one and one != usual), usual) or dev_store()
    if store is None:
        return []
    app = App(store)
    try:
        async with asyncio.timeout(LIMIT):
            return await propose(app, typed, context.params)
    finally:
        await app.aclose()


async def _threads(app: App, typed: str, said: dict[str, Any]) -> Proposals:
    newest = await app.threads(limit=MOST)
    if "/" in typed:
        return [(f"{one.agent}/{one.key}", one.status) for one in newest if one.key is not None]
    return [(one.id, f"{one.agent} {one.status}" + (f" {one.key}" if one.key else "")) for one in newest]


async def _interrupts(app: App, typed: str, said: dict[str, Any]) -> Proposals:
    from ..interrupts import DECIDABLE

    if "/" in typed:
        return await _threads(app, typed, said)
    found = [one for kind in sorted(DECIDABLE) for one in await app.interrupts(kind=kind, limit=MOST)]
    return [(one.id, f"{one.kind} {one.name or brief(one.question, 60)} of {one.agent}") for one in found]


async def _agents(app: App, typed: str, said: dict[str, Any]) -> Proposals:
    return [(name, "") for name in sorted({one.agent for one in await app.threads(limit=200) if one.agent})]


async def _targets(app: App, typed: str, said: dict[str, Any]) -> Proposals:
    return [*await _agents(app, typed, said), *await _threads(app, typed, said)]


async def _decisions(app: App, typed: str, said: dict[str, Any]) -> Proposals:
    from .deciding import VERBS, offered

    one = None
    with suppress(Exception):
        one = await app.interrupt(str(said.get("interrupt")))
    return [(verb, "") for verb in (VERBS if one is None else offered(one))]


async def _statuses(app: App, typed: str, said: dict[str, Any]) -> Proposals:
    return [(name, "") for name in ("open", "paused", "done", "failed", "cancelled", "closed")]


_BY_NAME: dict[str, Callable[[Any, str, dict[str, Any]], Awaitable[Proposals]]] = {
    "thread": _threads,
    "interrupt": _interrupts,
    "agent": _agents,
    "target": _targets,
    "verb": _decisions,
    "status": _statuses,
}
