"""The picture of docs/design.md, "Layout", held: a module imports only from lines above it."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# One line a module or folder of src/ownloop, from the bottom of the library to its top. Change the picture with it.
ORDER = [
    "errors",
    "clock",
    "ids",
    "events",
    "intents",
    "interrupts",
    "tools",
    "history",
    "stores",
    "views",
    "watch",
    "wake",
    "branch",
    "calls",
    "waits",
    "step",
    "selection",
    "thread",
    "runner",
    "engines",
    "deciding",
    "forking",
    "app",
    "prompt",
    "inert",
    "doctor",
    "telemetry",
    "__init__",
    "client",
    "llm",
    "server",
    "testing",
    "cli",
    "__main__",
]

# What a line may import besides the standard library, each where its extra is needed.
EVERYWHERE = {"pydantic", "pydantic_core", "yaml"}
EXTRAS = {
    "stores": {"psycopg", "psycopg_pool"},
    "engines": {"psycopg", "psycopg_pool", "pgqueuer", "temporalio", "restate", "hypercorn", "httpx"},
    "telemetry": {"opentelemetry", "prometheus_client"},
    "deciding": {"jsonschema"},
    "client": {"httpx"},
    "llm": {"pydantic_ai", "genai_prices", "xllamacpp"},
    "server": {"fastapi", "starlette", "uvicorn", "jinja2", "markupsafe", "jsonschema", "httpx"},
    "testing": {"pytest", "pytest_asyncio", "hypothesis", "psycopg"},
    "cli": {"typer", "click", "rich", "jsonschema", "uvicorn"},
}
DRIVERS = {"sqlite3"}  # of the standard library: for stores only
# What other lines see of them: the Protocol, and what is built on nothing but it.
PROTOCOLS = {"stores": {"answering", "base", "leases", "outbox", "rules", "streams", "urls"}, "engines": {"base", "urls"}}

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "ownloop"


@dataclass(frozen=True)
class Import:
    """`target` is dotted and absolute, with what `from … import name` takes as its last part."""

    target: str
    line: int


def read_imports(tree: ast.AST, package: str) -> Iterator[Import]:
    """Every import of a module in `package`, in functions too; not what only a type checker reads."""
    children = ast.iter_child_nodes(tree)
    match tree:
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"), orelse=rest):
            children = iter(rest)
        case ast.Import(names=names):
            yield from (Import(alias.name, tree.lineno) for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            parents = package.split(".")[: 1 - level or None] if level else []
            source = ".".join([*parents, *([module] if module else [])])
            yield from (Import(f"{source}.{alias.name}", tree.lineno) for alias in names)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(target)), *_]):
            if name in ("import_module", "__import__"):
                yield Import(target, tree.lineno)
    for child in children:
        yield from read_imports(child, package)


def breaches(path: Path, source: str) -> Iterator[str]:
    """What the module at `path` (relative to src/ownloop) imports against the rules."""
    line = line_of(path)
    for found in read_imports(ast.parse(source), ".".join(["ownloop", *path.parent.parts])):
        top, *inside = found.target.split(".")
        if why := why_not_inside(line, inside) if top == "ownloop" else why_not_outside(line, top):
            yield f"{path}:{found.line} imports {found.target}: {why}"


def line_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def why_not_outside(line: str, top: str) -> str | None:
    if top in DRIVERS and line != "stores":
        return "a driver belongs to stores/"
    allowed = EVERYWHERE | EXTRAS.get(line, set())
    if top not in sys.stdlib_module_names | allowed:
        return f"{line} may import the standard library and {sorted(allowed)}"
    return None


def why_not_inside(line: str, target: list[str]) -> str | None:
    module = target[0] if target and target[0] in ORDER else "__init__"  # `from ownloop import App`
    if module == line:
        return None
    if module == "testing":
        return "nothing imports testing"
    if ORDER.index(module) > ORDER.index(line):
        return f"{line} stands below {module}"
    if line != "testing" and module in PROTOCOLS and not PROTOCOLS[module].issuperset(target[1:2] or [""]):
        return f"{module} stand behind their Protocol: import ownloop.{module}.base"
    return None


SOURCES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_module_imports_only_from_lines_above_it(path: Path) -> None:
    assert line_of(path) in ORDER, f"{path} has no place in ORDER: choose its line in the picture"
    assert list(breaches(path, (PACKAGE / path).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("errors.py", "from .events import Event"),
        ("errors.py", "from ownloop import App"),
        ("errors.py", "import ownloop"),
        ("events.py", "def f():\n    from . import thread"),
        ("wake.py", "from .stores.sqlite import store"),
        ("wake.py", "from .stores import sqlite"),
        ("wake.py", "import sqlite3"),
        ("step.py", "import pydantic_ai"),
        ("runner.py", "from importlib import import_module\nimport_module('fastapi')"),
        ("stores/base.py", "from ..wake import Wake"),
        ("server/api.py", "import psycopg"),
        ("server/api.py", "from ..stores.postgres.store import PostgresStore"),
        ("cli/run.py", "from ..testing import drive"),
        ("tools.py", "if TYPE_CHECKING:\n    pass\nelse:\n    from .thread import Thread"),
    ],
)
def test_the_rule_sees_a_breach(path: str, source: str) -> None:
    assert len(list(breaches(Path(path), source))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("thread.py", "import asyncio, pydantic, yaml\nfrom . import errors\nfrom .stores.base import Store"),
        ("errors.py", "if TYPE_CHECKING:\n    from .interrupts import Interrupt"),
        ("stores/sqlite/store.py", "import sqlite3\nfrom ...events import Event\nfrom ..base import Store\nfrom . import writer"),
        ("telemetry.py", "def tracer():\n    from opentelemetry import trace"),
        ("cli/run.py", "import typer\nfrom ownloop import App"),
        ("__init__.py", "from .app import App"),
    ],
)
def test_the_rule_allows_what_the_picture_shows(path: str, source: str) -> None:
    assert list(breaches(Path(path), source)) == []


def test_importing_ownloop_loads_nothing_that_pydantic_and_yaml_do_not() -> None:
    floor = loaded_by("import yaml, pydantic; type('M', (pydantic.BaseModel,), {'__module__': '__main__'})")
    assert loaded_by("import ownloop") - floor - sys.stdlib_module_names == {"ownloop"}


def loaded_by(program: str) -> set[str]:
    """The top-level names in `sys.modules` after the program, in a process of its own."""
    tell = f"{program}; import json, sys; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", tell], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))
