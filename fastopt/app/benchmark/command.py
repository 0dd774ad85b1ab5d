"""``fastopt bench``: AdamW of some sizes, beside the libraries that are installed."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

import fastopt
from fastopt.app.benchmark.contenders import MAKERS, installed
from fastopt.app.benchmark.rows import Row, machine, measure, row
from fastopt.app.benchmark.table import Progress, print_table
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
    if out is not None:
        check_out(out)
    results = measure_all(rows(fastopt.info().threads), settings)
    print_table(results, OTHERS)
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
    """Every row, behind a line of progress where someone watches."""
    progress = Progress(sum(len(row.entries) for row in rows))
    results = []
    for one in rows:

        def tell(label: str, title: str = one.title) -> None:
            progress(f"{title}: {label}")

        results.append(measure(one, settings, progress=tell))
    progress.clear()
    return results
