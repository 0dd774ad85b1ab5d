"""The edits that mutate an expression, in what C and Python have in common: kernels and twins are treated alike."""

from __future__ import annotations

import re
from typing import NamedTuple

TOKEN = re.compile(
    r'[\s\\]*(0x[\da-fA-F.]+(?:p[-+]?\d+)?f?|\d[\w.]*|"[^"]*"|\'.\'|[A-Za-z_]\w*|->|\+\+|//|\*\*|<<|>>|&&|\|\||[<>!=]='
    r"|[-+*/%&|<>?:(){}\[\].,=!~])"
)
TYPES = (
    "char",
    "const",
    "double",
    "int",
    "int64_t",
    "ptrdiff_t",
    "real",
    "size_t",
    "uint64_t",
    "void",
    "volatile",
    "word",
)
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
CLOSING = {"(": ")", "[": "]", "{": "}"}
BORDER = {"<": "<=", ">": ">=", "<=": "<", ">=": ">"}


class Edit(NamedTuple):
    """Replace text[start:end]."""

    start: int
    end: int
    text: str


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
        elif self._peek() in ("&", "*", "++", "~"):
            self._take()
            self._unary()
        elif self._peek() == "(" and self._peek(1) in TYPES and self._peek(2) in (")", "*", *TYPES):
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
        elif name[0] == "'":
            pass
        elif name[0] == '"':
            self._edit(start, self._end(), '"0x0p+0"')
        elif name == "sizeof" and self._peek() != "(":
            self._take()
        elif not name.isidentifier():
            raise SyntaxError(name)
        while self._peek() in ("(", "[", "{", ".", "->", "++"):
            opened = self._take()[0]
            if opened == "++":
                continue
            if opened == "{":
                self._sequence("}")
                self._take("}")
            elif opened in (".", "->"):
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
