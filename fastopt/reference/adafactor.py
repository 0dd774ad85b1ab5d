"""Twins of csrc/kernels/rules/adafactor.h and csrc/kernels/factors.h: Adafactor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _at_least(v: Array, floor: float) -> Array:
    return np.where(v < floor, v.dtype.type(floor), v)


def adafactor_scaled(g: Array, c: Array, a: Array, u: Array, floor_v: float) -> None:
    u[...] = g / np.sqrt(_at_least(a * c, floor_v))


def adafactor(p: Array, g: Array, c: Array, a: Array, floor_v: float, step: float) -> None:
    p[...] = p - step * (g / np.sqrt(_at_least(a * c, floor_v)))


def adafactor_momentum(
    p: Array, g: Array, c: Array, a: Array, m: Array, floor_v: float, beta: float, gain_m: float, step: float
) -> None:
    m[...] = beta * m + gain_m * (step * (g / np.sqrt(_at_least(a * c, floor_v))))
    p[...] = p - m


def adafactor_unfactored_moment(
    g: Array, v: Array, u: Array, keep: float, gain: float, eps_add: float, floor_v: float
) -> None:
    v[...] = keep * v + gain * (g * g + eps_add)
    u[...] = g / np.sqrt(_at_least(v, floor_v))


def adafactor_unfactored(p: Array, g: Array, v: Array, floor_v: float, step: float) -> None:
    p[...] = p - step * (g / np.sqrt(_at_least(v, floor_v)))


def adafactor_unfactored_momentum(
    p: Array, g: Array, v: Array, m: Array, floor_v: float, beta: float, gain_m: float, step: float
) -> None:
    m[...] = beta * m + gain_m * (step * (g / np.sqrt(_at_least(v, floor_v))))
    p[...] = p - m


def adafactor_factors(
    row_sums: Array, column_sums: Array, r: Array, c: Array, a: Array,
    keep: float, gain: float, eps_add: float, floor_r: float,
) -> None:  # fmt: skip
    rows, columns = r.size, c.size
    r[...] = keep * r.astype(np.float64) + gain * (row_sums / columns + eps_add)
    c[...] = keep * c.astype(np.float64) + gain * (column_sums / rows + eps_add)
    total = 0.0
    for x in r.astype(np.float64):
        total += x
    mean = total / rows
    a[...] = r.astype(np.float64) / (floor_r if mean < floor_r else mean)
