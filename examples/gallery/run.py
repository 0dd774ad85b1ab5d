"""Draws the figures of the gallery, and prints their numbers: python examples/gallery/run.py [--small]."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the matrices are small

FIGURES = (
    "batch_size",
    "trajectories",
    "gabor",
    "initialisation",
    "bias_variance",
    "double_descent",
    "early_stopping",
    "which_error",
    "scaling_law",
)


def draw(names: list[str], small: bool, out: Path) -> dict[str, dict[str, float]]:
    """The numbers of each figure by name."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    found = {}
    columns = (TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=len(names))
        for name in names:
            progress.update(task, description=name)
            started = time.perf_counter()
            found[name] = importlib.import_module(name).main(small, out)
            progress.console.print(f"[bold]{out / name}.png[/]  {time.perf_counter() - started:.1f} s", highlight=False)
            for fact, value in found[name].items():
                progress.console.print(f"  {fact}: {value:.4g}", highlight=False)
            progress.advance(task)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which figures, of {', '.join(FIGURES)}; all without")
    parser.add_argument("--small", action="store_true", help="fewer steps and sizes, for a quick look")
    parser.add_argument("--out", type=Path, default=Path("gallery"), help="the folder for the pictures (gallery)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in FIGURES]
    if unknown:
        parser.error(f"no figure {unknown[0]!r}: there are {', '.join(FIGURES)}")
    draw(arguments.names or list(FIGURES), arguments.small, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
