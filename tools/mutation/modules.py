"""Mutants of ordinary Python: conditions negated, operators turned, terms, statements and errors left out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import accumulate

from tools.mutation.expression import BORDER, TURNED
from tools.mutation.mutants import Mutant, add, one_line

OPERATORS = {
    "+": ast.Add,
    "-": ast.Sub,
    "*": ast.Mult,
    "/": ast.Div,
    "//": ast.FloorDiv,
    "%": ast.Mod,
    "**": ast.Pow,
    "&": ast.BitAnd,
    "|": ast.BitOr,
    "<": ast.Lt,
    ">": ast.Gt,
    "<=": ast.LtE,
    ">=": ast.GtE,
    "==": ast.Eq,
    "!=": ast.NotEq,
    "is": ast.Is,
    "is not": ast.IsNot,
    "in": ast.In,
    "not in": ast.NotIn,
    "and": ast.And,
    "or": ast.Or,
}
NAMES = {kind: name for name, kind in OPERATORS.items()}
OTHERS = {**TURNED, "//": "/", "in": "not in", "not in": "in"}


def _turned(operator: ast.AST) -> Iterator[str]:
    name = NAMES.get(type(operator), "")
    yield from (table[name] for table in (OTHERS, BORDER) if name in table)


def _instead(node: ast.AST) -> Iterator[str]:
    """What may stand in place of an expression."""
    text = ast.unparse
    if isinstance(node, ast.Compare):
        for k, operator in enumerate(node.ops):
            for other in _turned(operator):
                ops = [*node.ops[:k], OPERATORS[other](), *node.ops[k + 1 :]]
                yield f"({text(ast.Compare(node.left, ops, node.comparators))})"  # type: ignore[arg-type]
    elif isinstance(node, ast.BinOp):
        for other in _turned(node.op):
            yield f"({text(ast.BinOp(node.left, OPERATORS[other](), node.right))})"  # type: ignore[arg-type]
        yield f"({text(node.left)})"
        yield f"({text(node.right)})"
    elif isinstance(node, ast.BoolOp):
        for other in _turned(node.op):
            yield f"({text(ast.BoolOp(OPERATORS[other](), node.values))})"  # type: ignore[arg-type]
        for k in range(len(node.values)):
            rest = [*node.values[:k], *node.values[k + 1 :]]
            yield f"({text(ast.BoolOp(node.op, rest) if len(rest) > 1 else rest[0])})"
    elif isinstance(node, ast.UnaryOp):
        yield f"({text(node.operand)})"
    elif isinstance(node, ast.IfExp):
        yield f"({text(node.body)})"
        yield f"({text(node.orelse)})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        yield repr(not node.value) if isinstance(node.value, bool) else "0" if node.value else "1"


def _edits(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """(what, what stands there instead); not in text, annotations or what only type checkers see."""
    if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return
    if isinstance(node, (ast.If, ast.While)):
        yield node.test, f"(not ({ast.unparse(node.test)}))"
    if isinstance(node, ast.Raise):
        yield node, "pass"
        return
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
    if any(isinstance(part, (ast.Attribute, ast.Subscript)) for each in targets for part in ast.walk(each)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield node, "pass"
    for text in _instead(node):
        yield node, text
    for field, child in ast.iter_fields(node):
        if field not in ("annotation", "returns", "decorator_list"):
            for each in child if isinstance(child, list) else [child]:
                if isinstance(each, ast.AST):
                    yield from _edits(each)


def _functions(body: list[ast.stmt], before: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{before}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield before + node.name, node


def mutants_of_module(file: str, text: str) -> list[Mutant]:
    lines = text.splitlines(keepends=True)
    starts = [0, *accumulate(map(len, lines))]

    def place(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    found: dict[str, Mutant] = {}
    for name, function in _functions(ast.parse(text).body):
        for node, other in _edits(function):
            start = place(node.lineno, node.col_offset)  # type: ignore[attr-defined]
            end = place(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
            begin, stop = text.rfind("\n", 0, start) + 1, (text + "\n").find("\n", end)
            line = one_line(text[begin:stop])
            change = f"{line}  =>  {one_line(text[begin:start] + other + text[end:stop])}"
            add(found, Mutant(file, name, change, start, end, other))
    return list(found.values())
