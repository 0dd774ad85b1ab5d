"""Bounds on variables: what is admitted as such, and the box that they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from fastopt.base.arguments import number, reals, shown
from fastopt.base.tree import Array

EXPECTED = "expected a pair (low, high) for every element of x, None for no bound, or SciPy's Bounds"


@runtime_checkable
class HasBounds(Protocol):
    """As scipy.optimize.Bounds has them: numbers, or arrays of x's shape."""

    @property
    def lb(self) -> Any: ...
    @property
    def ub(self) -> Any: ...


Bounds: TypeAlias = HasBounds | Sequence[tuple[float | None, float | None]] | Array


class Box:
    """low <= x <= high, flat."""

    def __init__(self, low: Array, high: Array) -> None:
        self.low, self.high = low, high

    def project(self, x: Array) -> Array:
        found: Array = np.clip(x, self.low, self.high)
        return found

    def descent(self, x: Array, g: Array) -> Array:
        """Where -g leads from x within the box: 0 at a minimum."""
        with np.errstate(over="ignore"):
            return self.project(x - g) - x

    def active(self, x: Array) -> Array:
        """-1 at a low bound, 1 at a high one, 0 between them."""
        return np.where(x <= self.low, -1, np.where(x >= self.high, 1, 0))


def box(bounds: Any, shape: tuple[int, ...]) -> Box | None:
    """The box of bounds on x of this shape; None where there are none."""
    if bounds is None:
        return None
    n = int(np.prod(shape))
    if isinstance(bounds, HasBounds):
        low, high = (_side(f"bounds.{name}", getattr(bounds, name), shape) for name in ("lb", "ub"))
    else:
        low, high = _pairs(bounds, n, shape)
    for name, side in (("low", low), ("high", high)):
        if np.isnan(side).any():
            raise ValueError(
                f"bounds: the {name} one {_of(int(np.argmax(np.isnan(side))), shape)} is nan: expected a number"
            )
    crossed = (low > high) | (low == np.inf) | (high == -np.inf)
    if crossed.any():
        i = int(np.argmax(crossed))
        raise ValueError(
            f"the bounds {_of(i, shape)} are {low[i]:g} and {high[i]:g}: the low one must not be above the high one, "
            "and a number must lie between them"
        )
    return None if np.isinf(low).all() and np.isinf(high).all() else Box(low, high)


def _pairs(bounds: Any, n: int, shape: tuple[int, ...]) -> tuple[Array, Array]:
    if not _is_row(bounds):
        raise TypeError(f"bounds is {shown(bounds)}: {EXPECTED}")
    if isinstance(bounds, np.ndarray) and bounds.shape == (*shape, 2):
        bounds = bounds.reshape(n, 2)
    if len(bounds) != n:
        raise ValueError(f"bounds has {len(bounds)} pairs and x0 {n} elements: {EXPECTED}")
    sides = np.empty((2, n))
    for i, pair in enumerate(bounds):
        if not _is_row(pair) or len(pair) != 2:
            raise TypeError(f"bounds[{i}] is {shown(pair)}: expected a pair (low, high), None for no bound")
        for k, (bound, free) in enumerate(zip(pair, (-np.inf, np.inf), strict=True)):
            sides[k, i] = free if bound is None else number(f"bounds[{i}][{k}]", bound, "a number or None")
    return sides[0], sides[1]


def _is_row(x: Any) -> bool:
    return isinstance(x, (list, tuple)) or (isinstance(x, np.ndarray) and x.ndim > 0)


def _side(name: str, values: Any, shape: tuple[int, ...]) -> Array:
    a = reals(name, values).astype(np.float64)
    try:
        return np.broadcast_to(a, shape).reshape(-1).copy()
    except ValueError:
        raise ValueError(f"{name} has shape {a.shape} and x0 {shape}: expected x0's shape, or one number") from None


def _of(i: int, shape: tuple[int, ...]) -> str:
    index = ", ".join(str(int(k)) for k in np.unravel_index(i, shape))
    return f"of x[{index}]" if index else "of x"
