"""How an async function becomes a command: the common options, the App, errors and exit codes."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import typing
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer

from ..errors import Suspend
from ..telemetry import logs
from . import completing
from .session import Session
from .trouble import Code, Trouble, trouble_of

C = TypeVar("C", bound=Callable[..., Awaitable[int | None]])

_PANEL = "Everywhere"
COMMON: dict[str, tuple[Any, Any]] = {
    "store": (str | None, typer.Option(envvar=["OWNLOOP_STORE", "OWNLOOP_DATABASE_URL"], metavar="URL", help="Store, e.g. sqlite:///agents.db.")),
    "app": (str | None, typer.Option(envvar="OWNLOOP_APP", metavar="WHERE", help="Agents: module:app, or file.py[:app].")),
    "server": (str | None, typer.Option(envvar="OWNLOOP_SERVER", metavar="URL", help="Act through this server instead of a store.")),
    "token": (str | None, typer.Option(envvar="OWNLOOP_TOKEN", metavar="T", help="With --server: a token of `ownloop token`.")),
    "as_": (str | None, typer.Option("--as", envvar="OWNLOOP_AS", metavar="NAME", help="Who acts; default: the user of this machine.")),
    "group": (list[str] | None, typer.Option("--group", envvar="OWNLOOP_GROUP", metavar="G", help="A group of who acts; may be repeated.")),
    "json": (bool, typer.Option("--json", help="One JSON object on stdout.")),
    "jsonl": (bool, typer.Option("--jsonl", help="One JSON object a line, for lists and streams.")),
    "no_color": (bool, typer.Option("--no-color", help="No colours; so does NO_COLOR.")),
    "no_input": (bool, typer.Option("--no-input", help="Never ask.")),
    "quiet": (bool, typer.Option("--quiet", "-q", help="Errors only on stderr.")),
    "verbose": (int, typer.Option("--verbose", "-v", count=True, show_default=False, metavar="", help="More on stderr; twice for all.")),
}
_EMPTY: dict[Any, Any] = {bool: False, int: 0}


def command(program: typer.Typer, name: str | None = None) -> Callable[[C], C]:
    """Register `async def fn(session, …) -> exit code or None`; its docstring is the help."""

    def register(fn: C) -> C:
        program.command(name or fn.__name__)(with_common(fn, lambda context, session, own: carry_out(session, fn, own)))
        return fn

    return register


def with_common(fn: Callable[..., Any], act: Callable[[typer.Context, Session, dict[str, Any]], Any]) -> Callable[..., Any]:
    """A function with `fn`'s parameters but its first, and the common options, for typer to read."""
    hints = typing.get_type_hints(fn, include_extras=True)
    own = [one.replace(annotation=hints[one.name]) for one in list(inspect.signature(fn).parameters.values())[1:]]
    own = [completing.completed(one) for one in own]
    common = [_common(name, panel=_PANEL if own else None) for name in COMMON]
    context = inspect.Parameter("invocation", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    def call(**given: Any) -> Any:
        where: typer.Context = given.pop("invocation")
        options = _merged(where, {name: given.pop(name) for name in COMMON})
        return act(where, Session.of(options), given)

    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *common, context)]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    call.__name__, call.__doc__ = getattr(fn, "__name__", "call"), fn.__doc__
    return call


def _common(name: str, panel: str | None) -> inspect.Parameter:
    kind, option = COMMON[name]
    option.rich_help_panel = panel
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_EMPTY.get(kind), annotation=Annotated[kind, option])


def _merged(context: typer.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The options before the command count too; those after it win."""
    before = context.obj if isinstance(context.obj, dict) else {}
    merged = {name: value or before.get(name) for name, value in options.items()}
    merged["verbose"] = merged["verbose"] or 0
    for name in ("store", "app", "server", "token", "as_", "group"):  # said before the command is stronger than the environment
        if before.get(name) and _is_from_environment(context, name):
            merged[name] = before[name]
    said = {name for name in ("store", "app", "server") if merged[name] and merged[name] != _of_environment(name)}
    if "server" in said and "store" in said:
        raise typer.BadParameter("a server has its own store; give --store or --server, not both")
    if "server" not in said and said:
        merged["server"] = None  # what this command line says is stronger
    return {**merged, "sources": before.get("sources", {})}


def _of_environment(name: str) -> str | None:
    variables = COMMON[name][1].envvar
    return next((os.environ[one] for one in ([variables] if isinstance(variables, str) else variables) if os.environ.get(one)), None)


def _is_from_environment(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "ENVIRONMENT"


def carry_out(session: Session, fn: Callable[..., Awaitable[int | None]], own: dict[str, Any]) -> int:
    """Run a command to its exit code."""
    try:
        if not logs.from_environment():
            session.paper.listen_to_logs()
        return int(asyncio.run(_awaited(fn(session, **own))) or Code.OK)
    except KeyboardInterrupt:
        return Code.INTERRUPTED
    except BrokenPipeError:  # `ownloop export --all | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Code.OK
    except Exception as error:
        whole = error.__cause__ if isinstance(error, Trouble) else error
        if session.paper.verbose > 1 and whole is not None:
            raise whole from whole.__cause__
        return tell(session, trouble_of(error, session.again))


async def _awaited(work: Awaitable[int | None]) -> int | None:
    asyncio.get_running_loop().set_exception_handler(_complain)
    return await work


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A tool that an impatient end cut off is no error of the loop: its call is in doubt, and a person will be asked."""
    if not isinstance(context.get("exception"), Suspend):
        loop.default_exception_handler(context)


def tell(session: Session, trouble: Trouble) -> int:
    """Say what went wrong: people on stderr, programs also as the one object on stdout."""
    if not session.paper.is_plain:
        session.paper.object(trouble.problem())
    session.paper.error(trouble.what, trouble.next)
    return int(trouble.code)
