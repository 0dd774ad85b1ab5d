"""Inputs for runs whose results were recorded once and for all: numbers made from integers, so that no library's
generator can change them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cases import Case

SHAPES = {"w": (40, 31), "b": (17,), "c": (2, 3, 5), "one": (1,), "long": (1100,)}
STEPS = 5


def numbers(seed: int, shape: tuple[int, ...], dtype: Any) -> Any:
    """Multiples of 2^-20 in (-2, 2), by a linear congruential generator's high bits."""
    x, found = (seed * 2654435761 + 12345) % 2**64, []
    for _ in range(int(np.prod(shape))):
        x = (6364136223846793005 * x + 1442695040888963407) % 2**64
        found.append(((x >> 42) - 2**21) * 2.0**-20)
    return np.array(found).reshape(shape).astype(dtype)


def parameters(dtype: Any) -> dict[str, Any]:
    return {name: numbers(i, shape, dtype) for i, (name, shape) in enumerate(SHAPES.items())}


def gradients(step: int, dtype: Any) -> dict[str, Any]:
    """Those of a step; of one tensor there is none at the third."""
    found = {name: numbers(1000 * (step + 1) + i, shape, dtype) for i, (name, shape) in enumerate(SHAPES.items())}
    return {**found, "b": None} if step == 2 else found


def run(case: Case, dtype: Any, flush: bool) -> Any:
    """(optimizer, parameters) after STEPS steps of a case."""
    params = parameters(dtype)
    opt = case.make(params, flush_subnormals=flush)
    for step in range(STEPS):
        opt.step(gradients(step, dtype))
    return opt, params
