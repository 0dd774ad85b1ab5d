"""Mutants of formulas: every operator turned, every term dropped, every pair of names exchanged, one at a time.

It reads the common part of C's and Python's expressions, so that csrc/*.h and fastopt/reference.py are mutated alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

TOKEN = re.compile(r"\s*(\d[\w.]*|[A-Za-z_]\w*|//|<<|>>|[<>!=]=|[-+*/%&<>?:()\[\].,=])")
TYPES = ("double", "real", "word")
LEVELS = (("&",), ("<", ">", "<=", ">=", "==", "!="), ("<<", ">>"), ("+", "-"), ("*", "/", "//", "%"))
TURNED = {
    "+": "-",
    "-": "+",
    "*": "/",
    "/": "*",
    "&": "|",
    ">>": "<<",
    "%": "/",
    "<": ">",
    ">": "<",
    "<=": ">",
    ">=": "<",
    "==": "!=",
    "!=": "==",
}
BORDER = {"<": "<=", ">": ">=", "<=": "<", ">=": ">"}


class Edit(NamedTuple):
    """Replace text[start:end]."""

    start: int
    end: int
    text: str


class Mutant(NamedTuple):
    """Another body for a kernel, in place of text[start:end] of its file."""

    file: str
    kernel: str
    change: str
    start: int
    end: int
    body: str

    @property
    def id(self) -> str:
        return f"{self.file} {self.kernel}: {self.change}"


class Expression:
    """Parses text[start:end] and collects the edits that mutate it; raises SyntaxError where it cannot."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text = text
        self.edits: list[Edit] = []
        self.tokens: list[tuple[str, int, int]] = []
        while text[start:end].strip():
            found = TOKEN.match(text, start, end)
            if not found:
                raise SyntaxError(text[start:end])
            self.tokens.append((found[1], found.start(1), found.end(1)))
            start = found.end()
        self.at = 0
        self._ternary()
        if self.at != len(self.tokens):
            raise SyntaxError(text[self._start() : end])

    def _peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead][0] if self.at + ahead < len(self.tokens) else ""

    def _start(self) -> int:
        return self.tokens[self.at][1]

    def _end(self) -> int:
        return self.tokens[self.at - 1][2]

    def _take(self, expected: str = "") -> tuple[str, int, int]:
        if self.at == len(self.tokens) or (expected and self._peek() != expected):
            raise SyntaxError(f"expected {expected!r}, found {self._peek()!r}")
        self.at += 1
        return self.tokens[self.at - 1]

    def _edit(self, start: int, end: int, text: str) -> None:
        self.edits.append(Edit(start, end, text))

    def _ternary(self) -> None:
        start = self._start()
        self._binary(0)
        if self._peek() != "?":
            return
        self._take()
        yes = self._start(), self._branch()
        self._take(":")
        no = self._start(), self._branch()
        self._choices(start, self._end(), yes, no)

    def _branch(self) -> int:
        self._ternary()
        return self._end()

    def _choices(self, start: int, end: int, yes: tuple[int, int], no: tuple[int, int]) -> None:
        a, b = self.text[slice(*yes)], self.text[slice(*no)]
        self._edit(start, end, f"({a})")
        self._edit(start, end, f"({b})")
        self._edit(yes[0], no[1], f"{b}{self.text[yes[1] : no[0]]}{a}")

    def _binary(self, level: int) -> None:
        if level == len(LEVELS):
            self._unary()
            return
        start = self._start()
        self._binary(level + 1)
        while self._peek() in LEVELS[level]:
            middle = self._end()
            operator, begin, end = self._take()
            right = self._start()
            self._binary(level + 1)
            a, b = self.text[start:middle], self.text[right : self._end()]
            if operator in TURNED:
                self._edit(begin, end, TURNED[operator])
            if operator in BORDER:
                self._edit(begin, end, BORDER[operator])
            if operator in ("-", "/"):
                self._edit(start, self._end(), f"{b} {operator} ({a})")
            if operator in ("+", "*"):
                self._edit(start, self._end(), b)
            if operator in ("+", "-", "*", "/", "&", ">>", "%"):
                self._edit(start, self._end(), a)

    def _unary(self) -> None:
        if self._peek() == "-":
            _, start, end = self._take()
            self._edit(start, end, "")
            self._unary()
        elif self._peek() == "(" and self._peek(1) in TYPES and self._peek(2) == ")":
            self.at += 3
            self._unary()
        else:
            self._postfix()

    def _postfix(self) -> None:
        start = self._start()
        name, _, _ = self._take()
        if name == "(":
            self._ternary()
            self._take(")")
        elif re.fullmatch(r"\d[\w.]*", name):
            self._edit(start, self._end(), "1" if float(name) == 0 else "0")
        elif not name.isidentifier():
            raise SyntaxError(name)
        while self._peek() in ("(", "[", "."):
            opened = self._take()[0]
            if opened == ".":
                name = self._take()[0]
            elif opened == "[":
                while self._peek() != "]":
                    self._take()
                self._take()
            else:
                self._call(start, name)

    def _call(self, start: int, name: str) -> None:
        arguments = []
        while self._peek() != ")":
            if self._peek(1) == "=":
                self.at += 2
            begin = self._start()
            self._ternary()
            arguments.append((begin, self._end()))
            if self._peek() == ",":
                self._take()
        self._take()
        if name in ("sqrt", "fabs", "abs", "max", "isfinite"):
            self._edit(start, self._end(), f"({self.text[slice(*arguments[0])]})")
        if name == "where":
            self._choices(start, self._end(), *arguments[1:])


def mutated(text: str, mutants: list[Mutant]) -> str:
    """The text of a file with these mutants, of one kernel each."""
    for m in sorted(mutants, key=lambda m: -m.start):
        text = text[: m.start] + m.body + text[m.end :]
    return text


def _statements(body: str) -> Iterator[tuple[int, int]]:
    """Where the right sides of assignments and results are."""
    right = r"(?:=|\breturn\b) (?P<value>[^={\n].*?)(?:;?[ \\]*)$"
    for found in re.finditer(rf"^(?!\s*(?:for|#)\b)[^=\n]*?{right}", body, re.M):
        start = found.start("value")
        for comma in re.finditer(r", \*?\w+ = ", found["value"]):
            yield start, found.start("value") + comma.start()
            start = found.start("value") + comma.end()
        yield start, found.end("value")
    for found in re.finditer(r"^#define \w+\((?:\w|, )*\) (\(.*\))$", body, re.M):
        yield found.start(1), found.end(1)
    for found in re.finditer(r"^REDUCTION\(\w+, x, (.*), \w+\)$", body, re.M):
        yield found.start(1), found.end(1)


def _loops(body: str) -> Iterator[Edit]:
    for found in re.finditer(r"\bfor \([^;]*; ([^;<>]*) (<|<=|>|>=) ([^;]*);", body):
        yield Edit(found.start(2), found.end(2), BORDER[found[2]])
    for found in re.finditer(r"\bLARGER\)$|\bSUM\)$", body, re.M):
        yield Edit(found.start(), found.end(), "SUM)" if found[0] == "LARGER)" else "LARGER)")


def _dropped(body: str) -> Iterator[Edit]:
    """Each assignment to a buffer, left out."""
    for found in re.finditer(r"^ +\w+\[(?:i|\.\.\.)\] = .*$", body, re.M):
        yield Edit(found.start(), found.end(), re.sub(r"\S.*", "pass" if "..." in found[0] else ";", found[0]))


def _renamed(body: str, names: list[str]) -> Iterator[tuple[str, str]]:
    """(change, body) for each pair of names exchanged."""
    for a, b in combinations(names, 2):
        parts = re.split(rf"\b({a}|{b})\b", body)
        yield f"{a} <-> {b}", "".join({a: b, b: a}.get(part, part) for part in parts)


def _one_line(text: str) -> str:
    return " ".join(text.replace("\\", " ").split())


def mutants(file: str, text: str, spans: dict[str, tuple[int, int]], names: dict[str, list[list[str]]]) -> list[Mutant]:
    """Those of the bodies text[start:end] of named kernels; names[kernel] are lists whose members are exchanged."""
    found: dict[str, Mutant] = {}
    for kernel, (start, end) in spans.items():
        body = text[start:end]
        edits = [*_loops(body), *_dropped(body)]
        for begin, finish in _statements(body):
            edits += Expression(body, begin, finish).edits
        changed = []
        for edit in edits:
            line = slice(body.rfind("\n", 0, edit.start) + 1, (body + "\n").find("\n", edit.end))
            after = body[: edit.start] + edit.text + body[edit.end :]
            new_line = after[line.start : line.stop + len(after) - len(body)]
            changed.append((f"{_one_line(body[line])}  =>  {_one_line(new_line) or 'nothing'}", after))
        for exchanged in names.get(kernel, []):
            changed += _renamed(body, exchanged)
        for change, after in changed:
            mutant = Mutant(file, kernel, change, start, end, after)
            if after != body:
                found.setdefault(mutant.id, mutant)
    return list(found.values())
