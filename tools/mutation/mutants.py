"""Mutants of formulas: every operator turned, every term dropped, every pair of names exchanged, one at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from tools.mutation.expression import BORDER, TURNED, Edit, Expression


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
# In macros, results, conditions, loops of Python's, calls and assignments.
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


def _around(body: str) -> Iterator[Edit]:
    """What is no expression: how far loops run, whether a condition holds, what += does."""
    for found in re.finditer(r"\bfor \([^;]*; ([^;<>]*) (<|<=|>|>=) ([^;]*);", body):
        yield Edit(found.start(2), found.end(2), BORDER[found[2]])
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


def one_line(text: str) -> str:
    return " ".join(text.replace("\\", " ").split())


def add(found: dict[str, Mutant], mutant: Mutant) -> None:
    """Takes it in by its id, numbered where others read the same."""
    change, again = mutant.change, 2
    while mutant.id in found:
        mutant = mutant._replace(change=f"{change} ({again})")
        again += 1
    found[mutant.id] = mutant


def mutants(
    file: str, text: str, spans: dict[str, tuple[int, int]], names: dict[str, list[list[str]]], formulas: bool = True
) -> list[Mutant]:
    """Those of the bodies text[start:end] of named kernels; names[kernel] are lists whose members are exchanged.
    Where these are no formulas, an expression that is not understood is left as it is."""
    found: dict[str, Mutant] = {}
    for kernel, (start, end) in spans.items():
        body = text[start:end]
        code = _blank(body)
        edits = [*_around(code), *_dropped(code)]
        for begin, finish in _statements(code):
            try:
                edits += Expression(code, begin, finish).edits
            except SyntaxError:
                if formulas:
                    raise
        changed = {}
        for edit in edits:
            line = slice(body.rfind("\n", 0, edit.start) + 1, (body + "\n").find("\n", edit.end))
            after = body[: edit.start] + edit.text + body[edit.end :]
            new_line = after[line.start : line.stop + len(after) - len(body)]
            changed.setdefault(after, f"{one_line(body[line])}  =>  {one_line(new_line) or 'nothing'}")
        for exchanged in names.get(kernel, []):
            for change, after in _renamed(body, exchanged):
                changed.setdefault(after, change)
        for after, change in changed.items():
            if _blank(after) == code:
                continue
            add(found, Mutant(file, kernel, change, start, end, after))
    return list(found.values())
