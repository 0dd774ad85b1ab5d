"""The first steps of an optimizer, one by one: whether anything but the first, which touches new memory, costs more.

A row is AdamW over one tensor; what is made for it is new each time.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from fastopt.app.benchmark.work import Work, flat

STEPS, REPEATS = 100, 3


class Steady(NamedTuple):
    """So many elements on so many threads: the mean over steps 2 to 100 must be at most `target` times their median."""

    elements: int
    threads: int
    target: float = 1.1
    goal: float = 1.03

    @property
    def name(self) -> str:
        return f"steady-{self.elements}/{self.threads}"

    @property
    def group(self) -> str:
        return "steady"

    @property
    def work(self) -> Work:
        return flat(self.elements, threads=self.threads)

    @property
    def title(self) -> str:
        return f"{self.elements:,}"


def measure(row: Steady) -> dict[str, Any]:
    """Medians over optimizers made anew: seconds of the first step, and of the median and mean of the others."""
    found = [_run(row) for _ in range(REPEATS)]
    first, median, mean = (float(np.median(column)) for column in zip(*found, strict=True))
    ratio = float(np.median([mean / median for _, median, mean in found]))
    verdict = "goal" if ratio <= row.goal else "target" if ratio <= row.target else "missed"
    return {
        "name": row.name, "title": row.title, "group": row.group, "threads": row.threads, "elements": row.elements,
        "first": first, "median": median, "mean": mean, "ratio": ratio, "verdict": verdict,
    }  # fmt: skip


def _run(row: Steady) -> tuple[float, float, float]:
    work = row.work
    params, grads = work.parameters(), work.gradients()
    opt = work.make(params)
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        opt.step(grads)
        seconds.append(time.perf_counter() - started)
    return seconds[0], float(np.median(seconds[1:])), float(np.mean(seconds[1:]))
