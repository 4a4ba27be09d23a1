"""The `ownloop` program: its families of commands, and what is wrong with a command line itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.main

from . import settings
from .command import COMMON, tell, with_common
from .completing import is_completing, told_shell
from .deciding import register as deciding
from .exporting import register as exporting
from .looking import register as looking
from .making import register as making
from .migrating import register as migrating
from .serving import register as serving
from .session import Session
from .starting import register as starting
from .steering import register as steering
from .tokens import register as tokens
from .trouble import Code, Trouble, usage
from .upkeep import register as upkeep
from .webhooks import register as webhooks

EPILOG = (
    "Exit codes: 0 ok · 1 failure · 2 usage · 3 not found · 4 conflict or already decided · 5 not allowed · 6 expired or changed · "
    "7 server unreachable · "
    "10 waits for somebody · 11 thread failed · 12 thread cancelled · 124 --timeout · 130 Ctrl-C"
)

program = typer.Typer(
    name="ownloop",
    help="Agents that pause for people, clocks and events. Threads are named by id, by the beginning or the end of one, or as AGENT/KEY.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for register in (making, serving, starting, looking, deciding, steering, exporting, upkeep, migrating, tokens, webhooks, settings.register):
    register(program)


def _before(session: Session, version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Agents that pause for people, clocks and events."""


def _global(context: typer.Context, session: Session, own: dict[str, Any]) -> None:
    if own["version"]:
        from .. import __version__

        print(f"ownloop {__version__}")
        raise typer.Exit
    context.obj = {
        "sources": session.sources,
        "server": session.server,
        "token": session.token,
        "store": session.store,
        "app": session.app_place,
        "as_": session.name,
        "group": list(session.groups),
        "json": session.paper.form == "json",
        "jsonl": session.paper.form == "jsonl",
        "no_color": not session.paper.has_color,
        "no_input": session.no_input,
        "quiet": session.paper.quiet,
        "verbose": session.paper.verbose,
    }


program.callback(invoke_without_command=True, no_args_is_help=True)(with_common(_before, _global))


def run(words: Sequence[str]) -> int:
    """Carry out one command line; its exit code."""
    if "--no-color" in words:
        os.environ["NO_COLOR"] = "1"  # for help and usage errors too
    try:
        with settings.applied() as found:
            if not is_completing():
                settings.warn(_session_of(words).paper, found)
            code = told_shell(words)
            return _carried_out(words, found) if code is None else code
    except Trouble as trouble:  # a settings file
        return tell(_session_of(words), trouble)


def _carried_out(words: Sequence[str], found: settings.Found) -> int:
    try:
        main = typer.main.get_command(program).main
        code = main(args=list(words), prog_name="ownloop", standalone_mode=False, obj={"sources": found.sources})
    except typer.Abort:
        return Code.INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return _misused(error, words)
    return code if isinstance(code, int) else Code.OK


def _session_of(words: Sequence[str]) -> Session:
    """What can be known before the words are parsed."""
    said = {"json": "--json" in words, "jsonl": "--jsonl" in words, "quiet": bool({"-q", "--quiet"} & {*words}), "verbose": 0}
    return Session.of({**dict.fromkeys(COMMON), **said})


def _misused(error: Any, words: Sequence[str]) -> int:
    """What the parser refuses: exit code 2."""
    session = _session_of(words)
    context = getattr(error, "ctx", None)
    if not words or type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{error.format_message()}\n")
        return Code.USAGE
    path = getattr(context, "command_path", "ownloop")
    return tell(session, usage(error.format_message(), f"{path} --help"))
