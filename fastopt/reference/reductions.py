"""Twins of csrc/kernels/reductions.h and csrc/run/reduce.c: a block of at most CHUNK elements, 16 lanes in double, and
the blocks added in index order."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CHUNK = 1024
LANES = 16


def lanes(g: Array, unit: float) -> Array:
    x = np.zeros(-(-g.size // LANES) * LANES)
    x[: g.size] = unit * g.astype(np.float64)
    return x.reshape(-1, LANES)


def add_up(terms: Array) -> float:
    lane = np.zeros(LANES)
    for row in terms:
        lane = lane + row
    while lane.size > 1:
        lane = lane[: lane.size // 2] + lane[lane.size // 2 :]
    return float(lane[0])


def sum_squares(g: Array, unit: float) -> float:
    x = lanes(g, unit)
    return add_up(x * x)


def sum_abs(g: Array, unit: float) -> float:
    return add_up(np.abs(lanes(g, unit)))


def max_abs(g: Array, unit: float) -> float:
    return float(np.max(np.abs(lanes(g, unit)), initial=0.0))


def _reduce(arrays: list[Array], kind: Any, unit: float) -> float:
    total = 0.0
    for g in arrays:
        for start in range(0, g.size, CHUNK):
            part = kind(g[start : start + CHUNK], unit)
            if kind is not max_abs:
                total += part
            elif part > total or part != part:
                total = part
    return total


def norm(arrays: Iterable[Array], kind: Any = sum_squares) -> tuple[float, bool]:
    """The norm over flat arrays together, and whether every element is finite: csrc/step.c, norm_of."""
    flat = list(arrays)
    total, unit = _reduce(flat, kind, 1.0), 1.0
    if not math.isfinite(total) or (kind is sum_squares and total < 2.0**-900):
        largest = _reduce(flat, max_abs, 1.0)
        if not math.isfinite(largest):
            return largest, False
        if largest == 0:
            return 0.0, True
        unit = math.ldexp(1.0, -max(-1022, min(1022, math.frexp(largest)[1] - 1)))
        total = _reduce(flat, kind, unit)
    return (math.sqrt(total) if kind is sum_squares else total) / unit, True
