"""What a program may be changed to: `mutants_of(path)` lists one small change after the other.

Comparisons, boolean operators and conditions, arithmetic, constants, conditions inside SQL, removed statements, None for what is returned, two
arguments swapped. Left as they are: messages (of errors, of the log, for people), assertions, annotations, decorators.
"""

import ast
import copy
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.Lt: ast.LtE, ast.Gt: ast.GtE, ast.Is: ast.IsNot, ast.In: ast.NotIn,
    ast.NotEq: ast.Eq, ast.LtE: ast.Lt, ast.GtE: ast.Gt, ast.IsNot: ast.Is, ast.NotIn: ast.In,
}  # fmt: skip
COUNTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip
IS_SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|CREATE|WHERE|AND|ORDER BY)\b")
SQL = [
    (r" AND ", " OR "), (r"(?<!INSERT) OR (?!REPLACE|IGNORE)", " AND "), (r" <= ", " < "), (r" < ", " <= "), (r" >= ", " > "), (r" > ", " >= "),
    (r"(?<=WHERE)( \w+) = ", r"\1 <> "), (r"(?<=AND)( \w+) = ", r"\1 <> "), (r"IS NULL", "IS NOT NULL"), (r"IS NOT NULL", "IS NULL"),
    (r" DESC\b", ""), (r"\bmin\(", "max("), (r"\bmax\(", "min("), (r"LIMIT 1\b", "LIMIT 2"), (r" \+ 1\b", " + 2"), (r" - 1\b", " - 2"),
    (r"NOT EXISTS", "EXISTS"), (r"(?<!NOT )EXISTS", "NOT EXISTS"), (r"DISTINCT ", ""), (r"NOT IN\b", "IN"), (r"(?<!NOT) IN\b", " NOT IN"),
]  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: these bytes of the file become `new`. `lines` are the statement's, `around` those of its function; none: what runs at import."""

    file: str
    line: int
    kind: str
    start: int
    end: int
    old: str
    new: str
    lines: tuple[int, ...]
    around: tuple[int, ...]


def mutants_of(path: Path, root: Path) -> list[Mutant]:
    """In the order of the syntax tree; `file` is relative to `root`."""
    return list(Finder(path, root).found.values())


class Finder:
    """The mutants of one file."""

    def __init__(self, path: Path, root: Path) -> None:
        self.file, self.source = path.relative_to(root).as_posix(), path.read_bytes()
        self.starts = [0, *accumulate(len(text) for text in self.source.splitlines(keepends=True))]
        self.found: dict[tuple[int, int, str], Mutant] = {}
        self.look(ast.parse(self.source), (), ())

    def look(self, node: ast.AST, lines: tuple[int, ...], around: tuple[int, ...]) -> None:
        """`lines` are the statement's, or its head's; `around` is empty for what is run at import, or whose result is kept from test to test."""
        if isinstance(node, ast.stmt):
            last = max(node.lineno, node.body[0].lineno - 1) if hasattr(node, "body") else node.end_lineno or node.lineno
            lines = tuple(range(node.lineno, last + 1))
        for kind, place, new in changes(node):
            start, end = (self.starts[line - 1] + column for line, column in edges(place))
            text = new if isinstance(new, str) else f"({ast.unparse(new)})"
            mutant = Mutant(self.file, place.lineno, kind, start, end, self.source[start:end].decode(), text, lines if around else (), around)
            self.found.setdefault((start, end, text), mutant)
        for name, child in parts(node):
            if name == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                is_kept = any("cache" in ast.unparse(one) for one in node.decorator_list)
                self.look(child, lines, () if is_kept else around or tuple(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
            else:
                self.look(child, lines, around)


def edges(node: Any) -> list[tuple[int, int]]:
    return [(node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)]


def parts(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The nodes below that may be changed."""
    if isinstance(node, ast.JoinedStr | ast.Assert | ast.Raise | ast.Import | ast.ImportFrom) or is_silent(node):
        return
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list", "pattern", "bases", "ctx", "op", "ops", "type_params"):
            yield from ((name, child) for child in (value if isinstance(value, list) else [value]) if isinstance(child, ast.AST))


def is_silent(node: ast.AST) -> bool:
    """Whether it only logs, or names types."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="log")) | ast.Name(id="cast" | "TypeVar")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]) | ast.Assign(value=ast.Subscript(value=ast.Name(id="Literal" | "Callable"))):
            return True
        case ast.Expr(value=ast.Constant()) | ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
            return True
    return False


def changes(node: ast.AST) -> Iterator[tuple[str, Any, ast.AST | str]]:
    """What may be changed here: the kind, the node, what it becomes."""
    for test in [getattr(node, "test", None), *getattr(node, "ifs", ())]:
        if isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Await | ast.NamedExpr) and not isinstance(node, ast.Assert):
            yield "boolean", test, ast.UnaryOp(ast.Not(), test)
    match node:
        case _ if is_silent(node):
            pass
        case ast.Compare():
            for number, op in enumerate(node.ops):
                yield "comparison", node, changed(node, ops=[*node.ops[:number], COMPARED[type(op)](), *node.ops[number + 1 :]])
        case ast.BoolOp():
            yield "boolean", node, changed(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
        case ast.UnaryOp(op=ast.Not()):
            yield "boolean", node, node.operand
        case ast.BinOp() if type(node.op) in COUNTED:
            yield "arithmetic", node, changed(node, op=COUNTED[type(node.op)]())
        case ast.Constant(value=bool(value)):
            yield "constant", node, str(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield "constant", node, repr(value + 1)
        case ast.Constant(value=str(value)) if IS_SQL.search(value):
            yield from (("sql", node, ast.Constant(text)) for text in other_sql(value))
        case ast.Constant(value=str(value)) if re.fullmatch(r"[\w:.%-]*", value):
            yield "constant", node, repr(value + "XX")
        case ast.JoinedStr() if IS_SQL.search(ast.unparse(node)):
            for number, part in enumerate(node.values):
                for text in other_sql(str(part.value)) if isinstance(part, ast.Constant) else ():
                    yield "sql", node, changed(node, values=[*node.values[:number], ast.Constant(text), *node.values[number + 1 :]])
        case ast.Call(args=[first, second, *_]) if ast.dump(first) != ast.dump(second) and not isinstance(first, ast.Starred):
            if not isinstance(second, ast.Starred):
                yield "arguments", node, changed(node, args=[second, first, *node.args[2:]])
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant) or value.value is not None:
            yield "return", node, "return None"
        case ast.Expr() | ast.Raise() | ast.Delete() | ast.Continue() | ast.Break() | ast.AugAssign() | ast.Return(value=None):
            yield "removed", node, "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "removed", node, "pass"


def changed(node: ast.AST, **fields: Any) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def other_sql(text: str) -> Iterator[str]:
    for old, new in SQL:
        for match in re.finditer(old, text):
            yield text[: match.start()] + match.expand(new) + text[match.end() :]


# ---- into a process that runs -----------------------------------------------------------------------------------------------------


def replace_code(functions: list[FunctionType], changed: Path, before: bytes) -> None:
    """Give the functions of a module the code of the changed file, in the process as it is."""
    pairs = zip(
        codes(compile(before, changed, "exec", dont_inherit=True)),
        codes(compile(changed.read_bytes(), changed, "exec", dont_inherit=True)),
        strict=True,
    )
    new = {(old.co_qualname, old.co_firstlineno): code for old, code in pairs}
    for function in functions:
        if function.__code__.co_filename == str(changed) and (function.__code__.co_qualname, function.__code__.co_firstlineno) in new:
            function.__code__ = new[function.__code__.co_qualname, function.__code__.co_firstlineno]


def codes(code: CodeType) -> Iterator[CodeType]:
    """Of the functions of a module or a class, without those inside functions."""
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from [one] if one.co_flags & inspect.CO_OPTIMIZED else codes(one)
