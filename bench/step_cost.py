"""Where the time of a small step goes: python -m bench.step_cost

A column is AdamW on one thread, with so many float32 tensors of so many elements, in nanoseconds per step: medians
over rounds in each of which every row has its turn, so that a busy moment of the machine meets all alike.

    whole step     opt.step(grads), what a user waits for
    admit          collecting and checking the gradients, and letting go of them
    coefficients   those that change with t, in Python, and their way into the plan
    run            the call without the GIL; of that
      arithmetic   beyond the same call for as many tensors of one element
    glue           the whole less these parts: the statements of Optimizer.step, the report, and what the parts
                   cost more among others than in a loop of their own
    with schedule  the whole where lr is a schedule, so that programs are made anew at every step

The last row is the whole step per tensor. Compare within one run only.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

import numpy as np

import fastopt
from fastopt.base.tree import Array

SHAPES = [(1, 1000), (10, 100), (100, 100), (1000, 100)]
ROUNDS = 400


def arrays(tensors: int, elements: int) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(elements).astype(np.float32) for _ in range(tensors)]


def made(tensors: int, elements: int, **options: Any) -> tuple[fastopt.Optimizer, list[Array]]:
    """An optimizer on the calling thread that has taken a step, and gradients for it."""
    opt = fastopt.AdamW(arrays(tensors, elements), threads=1, **options)
    grads = arrays(tensors, elements)
    opt.step(grads)
    return opt, grads


def rows(tensors: int, elements: int) -> dict[str, Callable[[], Any]]:
    """The step as a whole, then the calls that it is made of, each repeatable by itself."""
    whole, grads = made(tensors, elements)
    scheduled, _ = made(tensors, elements, lr=lambda t: 1e-3)
    door, _ = made(tensors, elements)
    opt, _ = made(tensors, elements)
    opt._engine.plan.admit(grads, opt._engine.match)
    single, ones = made(tensors, 1)
    single._engine.plan.admit(ones, single._engine.match)
    h = opt._engine.cohorts[0].h

    def admit() -> None:
        door._engine.plan.admit(grads, door._engine.match)
        door._engine.plan.release()

    return {
        "whole step": lambda: whole.step(grads),
        "admit": admit,
        "coefficients": lambda: opt._engine.plan.set_numbers(0, opt.coefficients_at(h, 2)),
        "run": lambda: opt._engine.plan.run(),
        "run 1": lambda: single._engine.plan.run(),
        "with schedule": lambda: scheduled.step(grads),
    }


def nothing() -> None:
    pass


def measure(calls: dict[str, Callable[[], Any]], loops: int) -> dict[str, float]:
    """Median nanoseconds of each call, less those of a call that does nothing."""
    calls = {"nothing": nothing, **calls}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter_ns()
            for _ in repeat(None, loops):
                call()
            times[name].append((time.perf_counter_ns() - start) / loops)
    medians = {name: statistics.median(found) for name, found in times.items()}
    return {name: medians[name] - medians["nothing"] for name in calls if name != "nothing"}


def table(shape: tuple[int, int]) -> dict[str, float]:
    found = measure(rows(*shape), max(1, 200 // shape[0]))
    return {
        "whole step": found["whole step"],
        "  admit": found["admit"],
        "  coefficients": found["coefficients"],
        "  run": found["run"],
        "    arithmetic": found["run"] - found["run 1"],
        "  glue": found["whole step"] - found["admit"] - found["coefficients"] - found["run"],
        "with schedule": found["with schedule"],
        "per tensor": found["whole step"] / shape[0],
    }


def main() -> None:
    print(f"{'ns per step':<16}" + "".join(f"{f'{tensors} x {elements}':>12}" for tensors, elements in SHAPES))
    columns = [table(shape) for shape in SHAPES]
    for name in columns[0]:
        print(f"{name:<16}" + "".join(f"{column[name]:>12,.0f}" for column in columns))


if __name__ == "__main__":
    main()
