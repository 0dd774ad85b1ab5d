"""``fastopt bench``: AdamW of some sizes, beside the libraries that are installed."""

from __future__ import annotations

import datetime
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import fastopt
from fastopt.app.benchmark.contenders import MAKERS, PACKAGES, installed
from fastopt.app.benchmark.rows import Row, machine, measure, row
from fastopt.app.benchmark.timing import Settings
from fastopt.app.benchmark.work import Work, flat, network

OTHERS = ("NumPy", "torch fused", "DeepSpeed", "optax", "scikit-learn", "thinc")
SETTINGS = Settings(rounds=9, most_rounds=31, batch=2e-4, seconds=1.5)


class BenchError(Exception):
    """The benchmark cannot run as asked; one line says why."""


def rows(threads: int) -> list[Row]:
    works: dict[str, Work] = {
        "1 tensor of 1,000": flat(1_000),
        "policy net 4-64-64-2": network(4, 64, 64, 2),
        "the same, clip_norm": network(4, 64, 64, 2, clip_norm=0.5),
        "100 tensors of 100": flat(100, 100),
        "network 784-512-128-10": network(784, 512, 128, 10),
        "1 tensor of 1,000,000": flat(1_000_000),
        "1 tensor of 10,000,000": flat(10_000_000),
    }
    here = {name for name in OTHERS if MAKERS[name].package in ("", *installed())}
    found = []
    for title, work in works.items():
        names = ["fastopt", *(name for name in OTHERS if name in here)]
        names += ["bytes only"] * (work.elements >= 10_000_000)
        found.append(row(title, title, work._replace(threads=threads), names))
    return found


def run(out: Path | None = None, settings: Settings = SETTINGS) -> None:
    """Times the rows, prints the table and, with `out`, writes all of it as JSON."""
    try:
        importlib.import_module("rich")
    except ImportError:
        raise BenchError("the benchmark's table needs rich: pip install 'fastopt[demo]'") from None
    if out is not None:
        check_out(out)
    results = measure_all(rows(fastopt.info().threads), settings)
    print_table(results)
    if out is not None:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        out.write_text(json.dumps({"date": now, "machine": machine(), "rows": results}, indent=1) + "\n")
        print(f"written to {out}")


def check_out(out: Path) -> None:
    try:
        existed = os.path.lexists(out)
        out.open("ab").close()  # the one check that knows of permissions, folders and read-only disks
        if not existed:
            out.unlink()
    except OSError as e:
        raise BenchError(f"cannot write --out {str(out)!r}: {e.strerror}") from None


def measure_all(rows: list[Row], settings: Settings) -> list[dict[str, Any]]:
    """Every row, behind a progress bar where someone watches."""
    from rich.console import Console
    from rich.progress import Progress

    quiet = not (sys.stdout.isatty() and sys.stderr.isatty())
    results = []
    # While a step is timed nothing else should run: the bar has no thread of its own.
    with Progress(console=Console(stderr=True), disable=quiet, auto_refresh=False, transient=True) as bar:
        task = bar.add_task("", total=sum(len(row.entries) + 1 for row in rows))
        for row in rows:

            def progress(label: str, title: str = row.title) -> None:
                bar.update(task, description=f"{title}: {label}", advance=1, refresh=True)

            results.append(measure(row, settings, progress=progress))
            bar.update(task, advance=1, refresh=True)
    return results


def print_table(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    unit = "us" if console.options.ascii_only else "µs"
    info, here = fastopt.info(), installed()
    console.print(
        f"AdamW, float32, a step on {info.threads} thread{'s' * (info.threads > 1)}; kernels for {info.isa}. "
        "Below each time, how many times as long as fastopt."
    )
    shown = [name for name in ("fastopt", *OTHERS, "bytes only") if any(name in r["seconds"] for r in results)]
    table = Table("step")
    for name in shown:
        table.add_column(name, justify="right")
    for r in results:
        cells = []
        for name in shown:
            if name not in r["seconds"]:
                cells.append("")
                continue
            ratio = "" if name == "fastopt" else f"{r['ratios'][name]['median']:.3g}x"
            cells.append(f"{microseconds(r['seconds'][name]['median'])} {unit}\n[dim]{ratio}[/]")
        table.add_row(r["title"], *cells)
    console.print(table)
    if "bytes only" in shown:
        console.print(
            "bytes only: a loop in C that touches as many bytes and computes next to nothing, the memory's limit"
        )
    console.print("found: " + ", ".join(["NumPy", *(f"{name} {version}" for name, version in here.items())]))
    missing = [name for name in PACKAGES if name not in here]
    if missing:
        console.print(f"not installed: {', '.join(missing)}")
    for reason in dict.fromkeys(f"{label}: {why}" for r in results for label, why in r["absent"].items()):
        console.print(f"left out: {reason}", markup=False)


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f}" if seconds < 1e-4 else f"{seconds * 1e6:,.0f}"
