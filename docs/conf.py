"""The site of these pages: `make docs`. It needs no network, neither to be built nor to be read.

Comments in pages that are replaced when the site is built:

- `<!-- from FILE: NAME -->` by what stands in FILE (from the root of the project) between `<!-- NAME: … -->` and `<!-- end of NAME -->`, or by all of
  it (`whole`);
- `<!-- routes -->` by the routes of openapi.json, `<!-- commands -->` by the commands of the program.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

project = "ownloop"
author = "the ownloop project"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["openapi.json", "dashboards"]
suppress_warnings = ["toc.empty_glob"]
myst_heading_anchors = 3

default_role = "code"
smartquotes_action = "D"  # dashes alone: quotes are code
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_custom_sections = [("Source", "notes_style")]
napoleon_use_rtype = False

html_theme = "furo"
html_title = "ownloop"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def included(file: str, name: str) -> str:
    """What a program has written into a file: its marked part, or the whole but for its title. Links that lead out of docs are their words."""
    path = HERE.parent / file
    if not path.exists():
        return f"(Nothing was measured in this tree: there is no {file}.)"
    text = path.read_text(encoding="utf-8")
    whole = re.sub(r"(?m)\A(<!--.*?-->\s*)?# .*\n|^(?=##+ )", lambda found: "" if found[0] else "#", text)
    marked = re.search(rf"<!-- {name}\b.*?-->\n(.*?)<!-- end of {name} -->", text, re.DOTALL)
    shown = whole if name == "whole" else marked[1] if marked else ""
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", shown).strip()


def routes() -> Iterator[str]:
    yield "| | |\n|---|---|"
    for path, methods in json.loads((HERE / "openapi.json").read_text(encoding="utf-8"))["paths"].items():
        for method, operation in methods.items():
            yield f"| `{method.upper()} {path}` | {operation['description'].splitlines()[0]} |"


def commands() -> Iterator[str]:
    import typer.main

    from ownloop.cli.program import program

    whole = typer.main.get_command(program)
    for name, command in sorted(whole.commands.items()):  # type: ignore[attr-defined]
        yield from described(f"ownloop {name}", command)


def described(name: str, command: Any) -> Iterator[str]:
    parameters = [one for one in command.params if getattr(one, "rich_help_panel", None) is None]
    words = " ".join(one.metavar or one.name.upper() for one in parameters if one.param_type_name == "argument")
    yield f"## `{f'{name} {words}'.strip()}`\n\n{command.help}\n"
    for one in parameters:
        shown = ", ".join([*one.opts, *one.secondary_opts]) if one.param_type_name == "option" else one.metavar or one.name.upper()
        value = f" {one.metavar}" if one.param_type_name == "option" and one.metavar else ""
        if one.help:
            yield f"- `{shown}{value}`: {one.help}"
    for below, sub in getattr(command, "commands", {}).items():
        yield from described(f"{name} {below}", sub)
    yield ""


def replace(app: Any, page: str, source: list[str]) -> None:
    text = re.sub(r"<!-- from (\S+): (\w+) -->", lambda found: included(found[1], found[2]), source[0])
    for mark, lines in (("<!-- routes -->", routes), ("<!-- commands -->", commands)):
        if mark in text:
            text = text.replace(mark, "\n".join(lines()))
    source[0] = text


def plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are written in Markdown's way: `name` is code, what is indented by itself is a program, and * and _ are what they are."""
    shown: list[str] = []
    is_program, is_section = False, False
    for paragraph in re.sub(r"(?m)^Example:\n", "Example:\n\n", "\n".join(lines)).split("\n\n"):
        is_indented = paragraph.startswith("    ") and not is_section
        if is_indented and not is_program:
            shown.append("::")
        is_section = (is_section and paragraph.startswith("    ")) or re.match(r"\w+:\n", paragraph) is not None
        is_program = is_indented
        shown.append(paragraph if is_program else inline(paragraph))
    lines[:] = "\n\n".join(shown).split("\n")


def inline(text: str) -> str:
    parts = re.split(r"`([^`]+)`", text)
    parts[::2] = [re.sub(r"\*(?=[*\w])|(?<=[\w*])\*|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
    ends = ["\\ " if after[:1].isalnum() else "" for after in parts[2::2]]  # `RateLimit`s
    parts[1::2] = [f"``{' '.join(code.split())}``{end}" for code, end in zip(parts[1::2], ends, strict=True)]
    return "".join(parts)


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", replace)
    app.connect("autodoc-process-docstring", plain, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
