"""Twins of csrc/kernels/rules/lamb.h: LAMB."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def lamb_moments(
    p: Array, g: Array, m: Array, v: Array, u: Array,
    beta1: float, gain1: float, beta2: float, gain2: float, correct: float, unbias: float, eps: float, decay: float,
) -> None:  # fmt: skip
    m[...] = beta1 * m + gain1 * g
    v[...] = beta2 * v + gain2 * (g * g)
    u[...] = correct * (m / (np.sqrt(v) * unbias + eps)) + decay * p


def lamb(p: Array, m: Array, v: Array, correct: float, unbias: float, eps: float, decay: float, step: float) -> None:
    u = correct * (m / (np.sqrt(v) * unbias + eps)) + decay * p
    p[...] = p - step * u
