"""`init` and `demo`: the first five minutes."""

from __future__ import annotations

import os
import re
import shlex
import sys
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from .command import command
from .greeting import Greeting
from .running import PORT, bind_near, has_terminal, needs_server
from .serving import Host, Port, kept, live, only_here
from .session import Session
from .starting import told_to_stop
from .trouble import usage

FILES = {"agent.py": "agent.py", "test_agent.py": "test_agent.py", "README.md": "README.md", ".env.example": "env.example", ".gitignore": "gitignore"}
NAMED = re.compile(r"[a-z][a-z0-9_-]*")


def register(program: typer.Typer) -> None:
    command(program)(demo)
    command(program)(init)


# ---- init ------------------------------------------------------------------------------------------------------------------------


async def init(
    session: Session, name: Annotated[str, typer.Argument(metavar="NAME", help="The agent's name, and the folder that is made; `.` for this folder.")]
) -> None:
    """Make a project: an agent that runs as it is, and a test that drives it.

    It overwrites nothing: where one of its files is there already, it makes none.
    """
    agent, folder, made = _project(name)
    if not session.paper.is_plain:
        session.paper.object({"folder": str(folder), "agent": agent, "files": made})
        return
    for file in made:
        session.paper.line(("made  ", "green"), file)
    inside = "" if name == "." else f"cd {shlex.quote(name)} && "
    session.paper.note(("next:  ", "dim"), (f"{inside}ownloop dev", "cyan"))
    session.paper.note(("       ", "dim"), (f'ownloop start {agent} "order A-1207" --watch', "cyan"), ("   in a second terminal", "dim"))


def _project(name: str) -> tuple[str, Path, list[str]]:
    """The agent's name, the folder, and the files that were made.

    Raises:
        Trouble: the name gives none, something is there already, or the folder cannot be written.
    """
    folder = Path(name)
    agent = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")
    if not NAMED.fullmatch(agent):
        raise usage(f"{name!r} gives no name for an agent: begin with a letter", "ownloop init refunds")
    there = [file for file in FILES if (folder / file).exists()] if folder.is_dir() else [""] if folder.exists() else []
    if there:
        raise usage(f"{', '.join(str(folder / file) for file in there)}: there already; nothing was made", kind="exists")
    try:
        return agent, folder, [_write(folder / file, template, agent) for file, template in FILES.items()]
    except OSError as error:
        raise usage(f"{folder} cannot be written: {error}") from None


def _write(file: Path, template: str, agent: str) -> str:
    text = resources.files(__package__).joinpath("skeleton", f"{template}.txt").read_text(encoding="utf-8")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.replace("NAME", agent), encoding="utf-8")
    return str(file)


# ---- demo ------------------------------------------------------------------------------------------------------------------------


async def demo(
    session: Session,
    host: Host = "127.0.0.1",
    port: Port = PORT,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Forget it all at the end.")] = False,
    open: Annotated[bool | None, typer.Option("--open/--no-open", help="Open the inbox in a browser; by default on a desktop.")] = None,
) -> int:
    """Show an inbox in which something waits for you: no key, no account, no code.

    It is kept in ./.ownloop/demo.db: after Ctrl-C, or kill -9, the next `ownloop demo` goes on from there.
    """
    needs_server()
    from .demo_agent import RELEASE_MANAGERS, SUPPORT, begin, make_app

    only_here(session, host)
    session.groups = session.groups or (RELEASE_MANAGERS, SUPPORT)
    with kept(session, ephemeral, "demo") as store, bind_near(host, port) as sock:
        session.store = store
        app = make_app(store)

        async def prepare() -> str:
            return session.again("decide", await begin(app), "approve", "--group", RELEASE_MANAGERS)

        greeting = Greeting("ownloop.cli.demo_agent", opens=_has_desktop() if open is None else open, prepare=prepare)
        async with told_to_stop() as told:
            await live(session, app, sock, told, host, greeting)
            session.paper.note(("stopped; `ownloop demo` goes on from here", "dim"))
            return told.code


def _has_desktop() -> bool:
    """Whether a person sits at a terminal of a machine that can open a window."""
    has_screen = sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return has_screen and has_terminal()
