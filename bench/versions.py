"""Small steps beside those of another version: python -m bench.versions FOLDER

FOLDER is a checkout of that version, built in place (`python setup.py build_ext --inplace`). Both are in one process
and take turns. A ratio is the old time over the new: medians, and means in brackets.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

POLICY = [(4, 64), (64,), (64, 64), (64,), (64, 2), (2,)]
WORK: dict[str, tuple[list[tuple[int, ...]], dict[str, Any]]] = {
    "1 tensor of 1,000": ([(1000,)], {}),
    "policy net 4-64-64-2": (POLICY, {}),
    "the same with clip_norm": (POLICY, {"clip_norm": 0.5}),
    "100 tensors of 100": ([(100,)] * 100, {}),
    "1,000 tensors of 1,000": ([(1000,)] * 1000, {}),
}
SCHEDULED = ("1 tensor of 1,000", "policy net 4-64-64-2")


def imported(folder: Path) -> Any:
    """fastopt from a folder, whatever was imported by that name before, which goes on to work."""
    for name in [name for name in sys.modules if name == "fastopt" or name.startswith("fastopt.")]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module("fastopt")
    finally:
        sys.path.remove(str(folder))
    assert Path(module.__file__ or "").is_relative_to(folder), module.__file__
    return module


def stepper(module: Any, shapes: list[tuple[int, ...]], options: dict[str, Any]) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    params, grads = ([rng.standard_normal(s).astype(np.float32) for s in shapes] for _ in range(2))
    opt = module.AdamW(params, threads=1, **options)
    opt.step(grads)
    return opt.step, grads


def compare(steps: dict[str, tuple[Any, Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of each, in every round."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for k in range(rounds):
        for name in list(steps) if k % 2 else list(steps)[::-1]:
            step, grads = steps[name]
            n = max(3, 2000 // len(grads))
            started = time.perf_counter()
            for _ in range(n):
                step(grads)
            found[name].append((time.perf_counter() - started) / n)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.versions", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the other version, built in place")
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    here = Path(__file__).parent.parent
    old, new = imported(args.folder.resolve()), imported(here)
    print("| AdamW, one thread | old | new | old over new |\n| --- | --: | --: | --: |")
    for title, (shapes, options) in WORK.items():
        found = compare({"old": stepper(old, shapes, options), "new": stepper(new, shapes, options)}, args.rounds)
        median = {name: statistics.median(seconds) for name, seconds in found.items()}
        mean = {name: statistics.fmean(seconds) for name, seconds in found.items()}
        print(
            f"| {title} | {median['old'] * 1e6:,.2f} us | {median['new'] * 1e6:,.2f} us "
            f"| {median['old'] / median['new']:.2f} ({mean['old'] / mean['new']:.2f}) |"
        )
    print("\n| a schedule of lr | without | with | with over without | more |\n| --- | --: | --: | --: | --: |")
    for title in SCHEDULED:
        shapes, _ = WORK[title]
        scheduled = {"lr": lambda t: 1e-3}
        found = compare({"with": stepper(new, shapes, scheduled), "plain": stepper(new, shapes, {})}, args.rounds)
        with_it, plain = statistics.median(found["with"]), statistics.median(found["plain"])
        print(
            f"| {title} | {plain * 1e6:,.2f} us | {with_it * 1e6:,.2f} us | {with_it / plain:.2f} "
            f"| {(with_it - plain) * 1e6:.2f} us |"
        )


if __name__ == "__main__":
    main()
