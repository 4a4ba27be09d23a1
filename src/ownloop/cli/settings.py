"""What the command line is told besides its words: environment, `.env`, `ownloop.toml` or `[tool.ownloop]`; the first that says something wins."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from ..stores.urls import masked
from .command import command
from .paper import Paper
from .session import DEV_STORE, Session
from .trouble import usage


@dataclass(frozen=True)
class Setting:
    """`name` in files, `variables` in the environment; the first of them that is set counts."""

    name: str
    variables: tuple[str, ...]
    about: str
    default: str = ""
    is_secret: bool = False


SETTINGS = (
    Setting("store", ("OWNLOOP_STORE", "OWNLOOP_DATABASE_URL"), "--store", f"{DEV_STORE} once `ownloop dev` made it"),
    Setting("app", ("OWNLOOP_APP",), "--app"),
    Setting("as", ("OWNLOOP_AS",), "--as", "the user of this machine"),
    Setting("group", ("OWNLOOP_GROUP",), "--group"),
    Setting("server", ("OWNLOOP_SERVER",), "--server"),
    Setting("token", ("OWNLOOP_TOKEN",), "--token", is_secret=True),
    Setting("host", ("OWNLOOP_HOST",), "--host of dev and serve", "127.0.0.1"),
    Setting("port", ("OWNLOOP_PORT",), "--port of dev and serve", "8470"),
    Setting("base_url", ("OWNLOOP_BASE_URL",), "--base-url of serve"),
    Setting("hosts", ("OWNLOOP_HOSTS",), "--known-as of serve"),
    Setting("proxies", ("OWNLOOP_PROXIES",), "--proxy of serve"),
    Setting("concurrency", ("OWNLOOP_CONCURRENCY",), "--concurrency of worker", "the App's, 100"),
    Setting("health", ("OWNLOOP_HEALTH",), "--health of worker", "nowhere"),
    Setting("log_format", ("OWNLOOP_LOG_FORMAT",), "console or json", "console"),
    Setting("log_level", ("OWNLOOP_LOG_LEVEL",), "debug, info, warning, error or critical", "info"),
    Setting("otel", ("OWNLOOP_OTEL",), "OpenTelemetry: 1 or 0"),
)
OWN = "OWNLOOP_"


def register(program: typer.Typer) -> None:
    command(program)(config)


# ---- reading ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What the files of this folder add to the environment, and where each came from; `unknown`: names that nothing reads."""

    added: Mapping[str, str]
    sources: Mapping[str, str]
    unknown: tuple[tuple[str, str], ...] = ()


def read(folder: Path, environment: Mapping[str, str]) -> Found:
    """What `.env` and the settings file say that the environment does not say already.

    Raises:
        Trouble: a file that cannot be read.
    """
    added: dict[str, str] = {}
    sources: dict[str, str] = {}
    for source, values in ((".env", _dotenv(folder / ".env")), *_toml(folder)):
        said = [one.name for one in SETTINGS if any(name in environment or name in added for name in one.variables)]
        for name, value in values.items():
            setting = next((one for one in SETTINGS if name in one.variables), None)
            if (setting is None or setting.name not in said) and name not in environment and name not in added:
                added[name], sources[name] = value, source
    known = {name for one in SETTINGS for name in one.variables}
    own = [*(("the environment", name) for name in environment), *((source, name) for name, source in sources.items())]
    return Found(added, sources, tuple((source, name) for source, name in own if name.startswith(OWN) and name not in known))


def _dotenv(file: Path) -> dict[str, str]:
    """`NAME=value` lines, with or without `export` and quotes; nothing is expanded."""
    values: dict[str, str] = {}
    for number, line in enumerate(_text(file).splitlines(), 1):
        text = line.strip().removeprefix("export ").lstrip()
        if not text or text.startswith("#"):
            continue
        name, is_pair, value = text.partition("=")
        if not is_pair or not name.strip().isidentifier():
            raise usage(f"{file.name}, line {number} is no NAME=value: {line[:80]!r}")
        values[name.strip()] = _unquoted(value.strip())
    return values


def _unquoted(value: str) -> str:
    if value[:1] in ("'", '"') and (end := value.find(value[0], 1)) > 0:
        return value[1:end]
    return value.partition(" #")[0].rstrip()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{file.name} cannot be read: {error}") from None


def _toml(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for name, path in (("ownloop.toml", ()), ("pyproject.toml", ("tool", "ownloop"))):
        text = _text(folder / name)
        if not text or (path and "tool.ownloop" not in text):
            continue
        try:
            table: Any = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise usage(f"{name} is no TOML: {error}") from None
        for part in path:
            table = table.get(part, {})
        variables = {one.name: one.variables[0] for one in SETTINGS}
        yield name, {variables.get(key, OWN + key.upper()): _as_text(value) for key, value in table.items()}


def _as_text(value: Any) -> str:
    """As it would stand in the environment."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(int(value)) if isinstance(value, bool) else str(value)


@contextmanager
def applied() -> Iterator[Found]:
    """The settings of this folder, as part of the environment while the block runs."""
    found = read(Path.cwd(), os.environ)
    os.environ.update(found.added)
    try:
        yield found
    finally:
        for name in found.added:
            os.environ.pop(name, None)


def warn(paper: Paper, found: Found) -> None:
    """Name what looks like a setting and is none."""
    import difflib

    known = [name for one in SETTINGS for name in one.variables]
    for source, name in found.unknown:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else "; `ownloop config` lists what there is"
        paper.note((f"warning: nothing reads {name} of {source}{hint}", "yellow"))


# ---- showing ---------------------------------------------------------------------------------------------------------------------


async def config(session: Session) -> None:
    """Show every setting, its value, and where that came from."""
    rows = list(_rows(session, session.sources))
    if not session.paper.is_plain:
        session.paper.object({"settings": rows})
        return
    cells = [[row["name"], row["value"] or "–", (row["source"], "dim"), (row["variable"], "dim"), (row["about"], "dim")] for row in rows]
    session.paper.columns(("setting", "value", "from", "variable", "for"), cells)


def _rows(session: Session, sources: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    said = {"store": session.store, "app": session.app_place, "as": session.name, "server": session.server, "token": session.token}
    for one in SETTINGS:
        name = next((variable for variable in one.variables if variable in os.environ), None)
        value, flag = os.environ.get(name) if name else None, said.get(one.name)
        source = "default" if name is None else sources.get(name, "environment")
        if flag is not None and flag != value:
            value, source = flag, "flag"
        if value is None:
            value = one.default
            if one.name == "store":
                value = session.default_store or (f"that of {session.app_place}" if session.app_place else value)
        shown = "(set)" if one.is_secret and value else masked(value) if one.name == "store" else value
        yield {"name": one.name, "value": shown, "source": source, "variable": name or one.variables[0], "about": one.about}
