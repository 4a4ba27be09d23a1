"""The App of this folder, where nobody names one: found by reading its files, without running any of them."""

from __future__ import annotations

import ast
from pathlib import Path

from .trouble import usage


def app_here() -> str:
    """The only file here that makes an App at its top level.

    Raises:
        Trouble: there is none, or several.
    """
    found = [file.name for file in sorted(Path.cwd().glob("*.py")) if _is_program(file)]
    if len(found) == 1:
        return found[0]
    if not found:
        ways = ("ownloop dev path/to/agent.py", "ownloop init NAME", "ownloop demo")
        raise usage(f"no Python file here ({Path.cwd()}) makes an App", *ways, kind="no-app")
    raise usage(f"several files here make an App: {', '.join(found)}", *(f"ownloop dev {name}" for name in found), kind="several-apps")


def _is_program(file: Path) -> bool:
    if file.name.startswith(("test_", "conftest", "setup")):
        return False
    try:
        text = file.read_text(encoding="utf-8")
        return "ownloop" in text and any(_makes_app(node) for node in ast.parse(text).body)
    except (OSError, ValueError, SyntaxError):
        return "ownloop" in _text(file) and "App(" in _text(file)  # broken now: to be named in the error, and mended


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _makes_app(node: ast.stmt) -> bool:
    """`app = App(…)`, `app: App = …`, or anything else that is called and named `app`."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=made)) | ast.AnnAssign(target=ast.Name(id=name), value=ast.Call(func=made)):
            called = made.id if isinstance(made, ast.Name) else made.attr if isinstance(made, ast.Attribute) else ""
            return called == "App" or name == "app"
    return False
