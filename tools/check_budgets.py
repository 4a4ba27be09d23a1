"""Hold the size budgets of the house style: `python tools/check_budgets.py [FOLDER]`, by default `src/ownloop`.

A code line carries code: blank lines, comments and docstrings do not count, each line of another text (SQL) does.
"""

import ast
import io
import math
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CORE_LINES = 3_000
FILE_LINES = 400
FUNCTION_LINES_P90 = 25
PUBLIC_NAMES = 25
OUTSIDE_CORE = {"stores", "engines", "prompt", "inert", "doctor", "__init__", "__main__", "client", "llm", "telemetry", "server", "testing", "cli"}

NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}
Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    path: Path  # relative to the package
    lines: int
    functions: dict[str, int]  # where it starts -> its code lines
    public: int

    @property
    def core(self) -> bool:
        return self.path.parts[0].removesuffix(".py") not in OUTSIDE_CORE

    @property
    def longest(self) -> int:
        return max(self.functions.values(), default=0)


def read_module(path: Path, package: Path) -> Module:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source, path)
    code = code_lines(source, tree)
    functions = {
        f"{path}:{node.lineno} {node.name}": len(code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
        for node in ast.walk(tree)
        if isinstance(node, Definition)
    }
    return Module(path.relative_to(package), len(code), functions, len(public_names(tree)))


def code_lines(source: str, tree: ast.Module) -> set[int]:
    texts = source.splitlines()
    docstrings = set(docstring_starts(tree))
    return {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in NO_CODE and token.start not in docstrings
        for line in range(token.start[0], token.end[0] + 1)
        if texts[line - 1].strip()
    }


def docstring_starts(tree: ast.Module) -> Iterator[tuple[int, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.col_offset


def public_names(tree: ast.Module) -> list[ast.expr]:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=names) | ast.Tuple(elts=names)):
                return names
    return []


def breaches(modules: list[Module]) -> Iterator[str]:
    core = sum(module.lines for module in modules if module.core)
    if core > CORE_LINES:
        yield over("the core", core, "code lines", CORE_LINES, "find what is said twice, or leave it out")
    for module in modules:
        if module.lines > FILE_LINES:
            yield over(module.path, module.lines, "code lines", FILE_LINES, "give its missing noun a file")
        if module.public > PUBLIC_NAMES:
            yield over(module.path, module.public, "names in __all__", PUBLIC_NAMES, "values may live in their modules")
    functions = {where: lines for module in modules for where, lines in module.functions.items()}
    if (p90 := percentile_90(functions.values())) > FUNCTION_LINES_P90:
        longest = sorted(functions, key=lambda where: -functions[where])[:10]
        split = "".join(f"\n  {functions[where]:4}  {where}" for where in longest)
        yield over("functions' 90th percentile", p90, "code lines", FUNCTION_LINES_P90, f"split the longest:{split}")


def over(what: object, value: int, unit: str, rule: int, next_step: str) -> str:
    return f"{what}: {value} {unit}, at most {rule} are allowed: {next_step}"


def percentile_90(lines: Iterable[int]) -> int:
    """The nearest rank: the smallest value that nine tenths do not exceed."""
    ordered = sorted(lines)
    return ordered[math.ceil(0.9 * len(ordered)) - 1] if ordered else 0


def print_table(modules: list[Module]) -> None:
    print(f"{'module':32} {'lines':>6} {'longest':>8} {'__all__':>8}")
    for module in modules:
        print(f"{module.path!s:32} {module.lines:6} {module.longest:8} {module.public:8}")
    core = sum(module.lines for module in modules if module.core)
    p90 = percentile_90(lines for module in modules for lines in module.functions.values())
    print(f"core {core} of {CORE_LINES} code lines; functions' 90th percentile {p90} of {FUNCTION_LINES_P90}")


def main(folder: str = "src/ownloop") -> int:
    package = Path(folder)
    modules = [read_module(path, package) for path in sorted(package.rglob("*.py"))]
    if not modules:
        sys.exit(f"no Python file under {folder}: run this from the root of the project")
    print_table(modules)
    found = list(breaches(modules))
    for breach in found:
        print(f"over budget: {breach}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
