"""Mutants of formulas: every operator turned, every term dropped, every pair of names exchanged, one at a time.

It reads the common part of C's and Python's expressions, so that kernels and their NumPy twins are mutated alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

TOKEN = re.compile(
    r'[\s\\]*(0x[\da-fA-F.]+(?:p[-+]?\d+)?f?|\d[\w.]*|"[^"]*"|[A-Za-z_]\w*|->|//|\*\*|<<|>>|&&|\|\||[<>!=]='
    r"|[-+*/%&|<>?:()\[\].,=!])"
)
TYPES = ("char", "double", "int", "int64_t", "ptrdiff_t", "real", "size_t", "uint64_t", "void", "word")
LEVELS = (
    ("||", "or"),
    ("&&", "and"),
    ("|",),
    ("&",),
    ("<", ">", "<=", ">=", "==", "!=", "is"),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "//", "%"),
    ("**",),
)
TURNED = {
    "+": "-",
    "-": "+",
    "*": "/",
    "/": "*",
    "**": "*",
    "&": "|",
    "|": "&",
    "&&": "||",
    "||": "&&",
    "and": "or",
    "or": "and",
    ">>": "<<",
    "<<": ">>",
    "%": "/",
    "<": ">",
    ">": "<",
    "<=": ">",
    ">=": "<",
    "==": "!=",
    "!=": "==",
    "is": "is not",
    "is not": "is",
}
CLOSING = {"(": ")", "[": "]"}
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
        while text[start:end].strip(" \n\\"):
            found = TOKEN.match(text, start, end)
            if not found:
                raise SyntaxError(text[start:end])
            self.tokens.append((found[1], found.start(1), found.end(1)))
            start = found.end()
        self.at = 0
        self._sequence("")
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

    def _sequence(self, closing: str) -> None:
        """What stands in brackets: some expressions, or one that runs `for x in` something."""
        while self._peek() != closing:
            self._ternary()
            if self._peek() == "for":
                while self._take()[0] != "in":
                    pass
                self._binary(0)
                if self._peek() == "if":
                    self._take()
                    self._binary(0)
            if self._peek() != ",":
                break
            self._take()

    def _ternary(self) -> None:
        start = self._start()
        self._binary(0)
        if self._peek() == "if":
            yes = start, self._end()
            self._take()
            self._binary(0)
            self._take("else")
            self._choices(start, self._end(), yes, (self._start(), self._branch()))
            return
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
            if (operator, self._peek()) == ("is", "not"):
                operator, end = "is not", self._take()[2]
            right = self._start()
            self._binary(level + 1)
            a, b = self.text[start:middle], self.text[right : self._end()]
            if operator in TURNED:
                self._edit(begin, end, TURNED[operator])
            if operator in BORDER:
                self._edit(begin, end, BORDER[operator])
            if operator in ("-", "/"):
                self._edit(start, self._end(), f"{b} {operator} ({a})")
            if operator in ("+", "*", "&", "|", "&&", "||", "and", "or"):
                self._edit(start, self._end(), b)
            if operator not in LEVELS[4] and operator != "//":
                self._edit(start, self._end(), a)

    def _unary(self) -> None:
        if self._peek() in ("-", "!", "not"):
            _, start, end = self._take()
            self._edit(start, end, "")
            self._unary()
        elif self._peek() in ("&", "*"):
            self._take()
            self._unary()
        elif self._peek() == "(" and self._peek(1) in TYPES and self._peek(2) in (")", "*"):
            while self._take()[0] != ")":
                pass
            self._unary()
        else:
            self._postfix()

    def _postfix(self) -> None:
        start = self._start()
        name, _, _ = self._take()
        if name in CLOSING:
            self._sequence(CLOSING[name])
            self._take(CLOSING[name])
        elif name[0].isdigit():
            self._edit(start, self._end(), "1" if re.fullmatch(r"0[.0]*", name) else "0")
        elif name[0] == '"':
            self._edit(start, self._end(), '"0x0p+0"')
        elif name == "sizeof" and self._peek() != "(":
            self._take()
        elif not name.isidentifier():
            raise SyntaxError(name)
        while self._peek() in ("(", "[", ".", "->"):
            opened = self._take()[0]
            if opened in (".", "->"):
                name = self._take()[0]
            elif opened == "[":
                self._index(self._end() - 1)
            else:
                first = self._peek()
                self._call(start, name)
                name = first if name in ("FN", "JOIN") else name

    def _index(self, start: int) -> None:
        """Not looked into; a slice is left out."""
        depth = 1
        while depth:
            depth += {"[": 1, "]": -1}.get(self._take()[0], 0)
        if ":" in self.text[start : self._end()]:
            self._edit(start, self._end(), "")

    def _call(self, start: int, name: str) -> None:
        arguments = []
        while self._peek() != ")":
            if self._peek(1) == "=":
                self.at += 2
            arguments.append((self._start(), self._branch()))
            if self._peek() == ",":
                self._take()
        self._take()
        if name in ("sqrt", "fabs", "abs", "max", "isfinite", "exp", "log", "log1p", "log_correction") and arguments:
            self._edit(start, self._end(), f"({self.text[slice(*arguments[0])]})")
        if name == "where":
            self._choices(start, self._end(), *arguments[1:])


def mutated(text: str, mutants: list[Mutant]) -> str:
    """The text of a file with these mutants, of one kernel each."""
    for m in sorted(mutants, key=lambda m: -m.start):
        text = text[: m.start] + m.body + text[m.end :]
    return text


def _blank(body: str) -> str:
    """Comments and docstrings as spaces."""
    return re.sub(r'/\*.*?\*/|""".*?"""|  # .*?$', lambda found: re.sub(r"\S", " ", found[0]), body, flags=re.S | re.M)


def _lines(body: str) -> Iterator[tuple[int, int]]:
    """Where lines are, joined where they leave a bracket open, but for that of a block given to a macro."""
    start = depth = 0
    for found in re.finditer(r"[^\n]*\n|[^\n]+$", body):
        line = found[0].rstrip("\n")
        depth = 0 if line.rstrip(" \\").endswith("{") else max(0, depth + len(re.findall(r"[(\[]", line)))
        depth = max(0, depth - len(re.findall(r"[)\]]", line)))
        if depth == 0 and not re.fullmatch(r"#define \w+\([\w, ]*\) \\", line):
            yield start, found.start() + len(line)
            start = found.end()


MACRO = r"\s*(?:FOR_EACH_BLOCK\([^,]*, [^,]*, )?"
TARGET = r"\*?[\w.]+(?:->[\w.]+|\[(?:[^\[\]]|\[[^\]]*\])*\])*"
TARGETS = rf"(?:{TARGET}, )*{TARGET}"
ASSIGNED = r"(?:[-+*/]|<<)?="
TYPE = r"(?:[A-Za-z_](?:\w|[*, ]|\[\w*\])*? )?"
CALL = r"(?![A-Z]+_|for\b|if\b|while\b|return\b|assert\b)[\w.]+(?:\(\w+\)|->\w+|\[\w+\])*\([^;]*\)"
EXPRESSIONS = [
    re.compile(pattern, re.S)
    for pattern in (
        r"(?:#define \w+\([\w, ]*\)[ \\\n]+)(\(.*\))$",
        r"#define \w+ (\(.*\)|-?0x[-\w.+]+|\w+\(0x\w+\)) *$",
        r"REDUCTION\(\w+, x, (.*), \w+\)$",
        r"(?!#).*\breturn (.*?);?(?: })?[ \\]*$",
        r"\s*(?:\} )?(?:else |el)?(?:if|while) (.*?)(?: \{|:)?[ \\]*$",
        r"\s*for [^;]* in (.*):$",
        rf"{MACRO}({CALL})(?:;.*)?$",
        rf"(?!\s*for\b|#){MACRO}{TYPE}{TARGETS}(?:: \w+)? {ASSIGNED} (?:{TARGET} = )*([^={{\n].*?)(?:;.*)?[ \\]*$",
    )
]


def _statements(body: str) -> Iterator[tuple[int, int]]:
    """Where expressions are: right sides of assignments, results, conditions, what is called."""
    for start, end in _lines(body):
        found = next(filter(None, (pattern.match(body[start:end]) for pattern in EXPRESSIONS)), None)
        if found:
            begin, finish = found.span(1)
            for comma in re.finditer(r", \*?(?:const )?\w+(?:\[\w+\])? = ", found[1]):
                yield start + begin, start + found.start(1) + comma.start()
                begin = found.start(1) + comma.end()
            yield start + begin, start + finish


def _loops(body: str) -> Iterator[Edit]:
    for found in re.finditer(r"\bfor \([^;]*; ([^;<>]*) (<|<=|>|>=) ([^;]*);", body):
        yield Edit(found.start(2), found.end(2), BORDER[found[2]])
    for found in re.finditer(r"\bLARGER\)$|\bSUM\)$", body, re.M):
        yield Edit(found.start(), found.end(), "SUM)" if found[0] == "LARGER)" else "LARGER)")
    for found in re.finditer(r"\bif (\(.*\))(?=$| \{$)|^ +(?:el)?if (.*):$", body, re.M):
        yield Edit(*found.span(1), f"(!{found[1]})") if found[1] else Edit(*found.span(2), f"not ({found[2]})")
    for found in re.finditer(r"^(?! *for\b).* ([-+*/])= ", body, re.M):
        yield Edit(found.start(1), found.end(1), TURNED[found[1]])


def _dropped(body: str) -> Iterator[Edit]:
    """Each assignment to a buffer or a member and each call, left out."""
    for start, end in _lines(body):
        c = re.match(rf"( +)(?:(?:{TARGET} {ASSIGNED} )+.*|{CALL});([ \\]*)$", body[start:end], re.S)
        python = re.match(
            rf"( +)(?:(?:[\w.]+(?:\[[^=]*\]|\.\w+), )*[\w.]+(?:\[[^=]*\]|\.\w+) = .*|{CALL})()$", body[start:end], re.S
        )
        found = c or python
        if found:
            yield Edit(start, end, f"{found[1]}{';' if c else 'pass'}{found[2]}")


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
        code = _blank(body)
        edits = [*_loops(code), *_dropped(code)]
        for begin, finish in _statements(code):
            edits += Expression(code, begin, finish).edits
        changed = {}
        for edit in edits:
            line = slice(body.rfind("\n", 0, edit.start) + 1, (body + "\n").find("\n", edit.end))
            after = body[: edit.start] + edit.text + body[edit.end :]
            new_line = after[line.start : line.stop + len(after) - len(body)]
            changed.setdefault(after, f"{_one_line(body[line])}  =>  {_one_line(new_line) or 'nothing'}")
        for exchanged in names.get(kernel, []):
            for change, after in _renamed(body, exchanged):
                changed.setdefault(after, change)
        for after, change in changed.items():
            if _blank(after) == code:
                continue
            mutant = Mutant(file, kernel, change, start, end, after)
            again = 2
            while mutant.id in found:
                mutant = mutant._replace(change=f"{change} ({again})")
                again += 1
            found[mutant.id] = mutant
    return list(found.values())
