"""What the losses' kernels are called on: random logits and targets with special values among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cases import DTYPES

SPECIAL = (
    0.0, -0.0, 1e-40, -1e-40, 1e-310, -1e-310, 1e30, -1e30, 17.0, -17.0, 87.3, -87.3, -87.34, -87.5, -88.5, 104.0,
    -104.0, 708.0, -708.39, -708.4, -745.2, 3e38, -3e38, np.inf, -np.inf, np.nan,
    float.fromhex("-0x1.5d589ep+6"), float.fromhex("-0x1.6232bdd7abcd2p+9"),
)  # fmt: skip

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
every_flush = pytest.mark.parametrize("flush", [True, False], ids=["flush", "keep"])


def logits(rng: np.random.Generator, shape: Any, dtype: Any, special: float) -> Any:
    """Of sizes from 0.01 to 100, a share of them replaced by special ones."""
    x = rng.standard_normal(shape) * 10 ** rng.uniform(-2, 2, (*shape[:-1], 1))
    chosen = rng.random(shape) < special
    x[chosen] = rng.choice(SPECIAL, int(chosen.sum()))
    with np.errstate(over="ignore"):
        return x.astype(dtype)


def hard_and_soft(rng: np.random.Generator, shape: Any, dtype: Any) -> Any:
    """Targets in [0, 1]; most are 0 or 1, some are subnormal."""
    z = rng.choice([0.0, 1.0, 1e-40, 1e-310, 0.5], shape, p=[0.4, 0.3, 0.02, 0.02, 0.26])
    return np.where(z == 0.5, rng.random(shape), z).astype(dtype)


def called(module: Any, name: str, given: Any, gradient: bool, **more: Any) -> list[Any]:
    """What a kernel writes and returns."""
    x = given[0]
    g = np.full_like(x, 7)
    losses = np.full(x.shape if name == "sigmoid_cross_entropy" else x.shape[:1], 7.0)
    written = (g if gradient else None,) + (() if name == "squared_error" else (losses,))
    with np.errstate(all="ignore"):
        result = getattr(module, name)(*given[: -len(written)], *written, **more)
    return [g, losses, np.array(0.0 if result is None else result)]
