"""Twins of csrc/kernels/rules/prodigy.h: Prodigy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def prodigy_moments(
    g: Array, m: Array, v: Array, s: Array,
    beta1: float, gain1: float, beta2: float, gain2: float, beta3: float, gain3: float,
) -> None:  # fmt: skip
    m[...] = beta1 * m + gain1 * g
    v[...] = beta2 * v + gain2 * (g * g)
    s[...] = beta3 * s + gain3 * g


def prodigy(p: Array, m: Array, v: Array, shrink: float, eps_d: float, step: float) -> None:
    kept = p - shrink * p
    p[...] = kept - step * (m / (np.sqrt(v) + eps_d))
