"""What ``fastopt bench`` shows: a line that says where it is, while someone watches, and a table. Plain text, for it is
not to need a package that draws."""

from __future__ import annotations

import sys
from typing import Any

import fastopt
from fastopt.app.benchmark.contenders import PACKAGES, installed


class Progress:
    """A line on stderr, written over and over; nothing where no one watches. It has no thread of its own: while a step
    is timed nothing else should run."""

    def __init__(self, total: int) -> None:
        self.done, self.total = 0, total
        self.watched = sys.stdout.isatty() and sys.stderr.isatty()

    def __call__(self, doing: str = "") -> None:
        self.done += 1
        if self.watched:
            print(f"\r\033[K{self.done}/{self.total} {doing}"[:100], end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.watched:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def print_table(results: list[dict[str, Any]], others: tuple[str, ...]) -> None:
    info, here = fastopt.info(), installed()
    unit = "us" if _ascii_only() else "µs"
    print(
        f"AdamW, float32, a step on {info.threads} thread{'s' * (info.threads > 1)}; kernels for {info.isa}.\n"
        "Below each time, how many times as long as fastopt."
    )
    shown = [name for name in ("fastopt", *others, "bytes only") if any(name in r["seconds"] for r in results)]
    lines = [["step", *shown]]
    for r in results:
        times, ratios = [r["title"]], [""]
        for name in shown:
            there = name in r["seconds"]
            times.append(f"{microseconds(r['seconds'][name]['median'])} {unit}" if there else "")
            ratios.append(f"{r['ratios'][name]['median']:.3g}x" if there and name != "fastopt" else "")
        lines += [[], times, ratios]
    print(aligned(lines))
    if "bytes only" in shown:
        print("bytes only: a loop in C that touches as many bytes and computes next to nothing, the memory's limit")
    print("found: " + ", ".join(["NumPy", *(f"{name} {version}" for name, version in here.items())]))
    missing = [name for name in PACKAGES if name not in here]
    if missing:
        print(f"not installed: {', '.join(missing)}")
    for reason in dict.fromkeys(f"{label}: {why}" for r in results for label, why in r["absent"].items()):
        print(f"left out: {reason}")


def aligned(lines: list[list[str]]) -> str:
    """Columns, the first to the left and the others to the right; an empty list is a rule."""
    widths = [max(map(len, column)) for column in zip(*filter(None, lines), strict=True)]
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    rows = []
    for line in lines:
        cells = [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] if line else [rule]
        rows.append("  ".join(cells).rstrip())
    return "\n".join(rows)


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f}" if seconds < 1e-4 else f"{seconds * 1e6:,.0f}"


def _ascii_only() -> bool:
    try:
        "µ".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return True
    return False
