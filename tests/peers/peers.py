"""Random walks that fastopt takes side by side with another library, and the comparison of the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastopt
from fastopt.base.tree import Array

DTYPES = [np.float64, np.float32]
STEPS = 15
SHAPES: dict[str, tuple[int, ...]] = {"matrix": (9, 7), "bias": (7,), "scalar": (), "long": (1031,)}

# The parameters are near 1, and so is the way they go: as absolute errors these are a few roundings a step.
TOLERANCE = {np.float64: 1e-13, np.float32: 5e-6}

# The norms of the gradients are between 23 and 30: clipped to this, some are and some are not.
MIDDLING_NORM = 25.0

Arrays = dict[str, Any]


def wavering(t: Any) -> Any:
    """A learning rate that changes at every step, up and down; of a number or of a traced array."""
    return 0.3 / (1 + t % 4)


def weights(dtype: Any, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: np.array(rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def gradients(dtype: Any, seed: int = 1, steps: int = STEPS, missing: bool = False) -> list[Arrays]:
    """One dict per step, each element with a size of its own from 1e-3 to 3, so that the place of eps shows.

    missing : the bias has no gradient at a third of the steps, the first among them.
    """
    rng = np.random.default_rng(seed)
    sizes = {name: 10 ** rng.uniform(-3, 0.5, shape) for name, shape in SHAPES.items()}
    grads: list[Arrays] = [
        {name: np.array(sizes[name] * rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}
        for _ in range(steps)
    ]
    if missing:
        for g in grads[::3]:
            g["bias"] = None
    return grads


def copied(arrays: Arrays) -> dict[str, Array]:
    return {name: np.array(a) for name, a in arrays.items()}


def walk(make: Callable[[Arrays], fastopt.Optimizer], start: Arrays, grads: list[Arrays]) -> list[Arrays]:
    """Where fastopt's parameters are after each step."""
    params = copied(start)
    opt = make(params)
    path = []
    for g in grads:
        opt.step(g)
        path.append(copied(params))
    return path


def largest_difference(path: list[Arrays], other: list[Arrays]) -> float:
    return max(float(np.max(np.abs(a[name] - b[name]))) for a, b in zip(path, other, strict=True) for name in a)


def assert_same_path(ours: list[Arrays], theirs: list[Arrays], dtype: Any, tolerance: float | None = None) -> None:
    """At every step, every tensor: equal but for rounding, and of the same dtype."""
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    assert len(ours) == len(theirs) > 0
    for t, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype == dtype
            np.testing.assert_allclose(
                a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=f"{name} after step {t + 1}"
            )
