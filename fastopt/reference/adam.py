"""Twins of csrc/kernels/rules/adam.h: Adam, AMSGrad, NAdam and Adamax."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def adam(
    p: Array, g: Array, m: Array, v: Array,
    beta1: float, gain1: float, beta2: float, gain2: float, unbias: float, eps: float, step: float,
) -> None:  # fmt: skip
    m[...] = beta1 * m + gain1 * g
    v[...] = beta2 * v + gain2 * (g * g)
    p[...] = p - step * (m / (np.sqrt(v) * unbias + eps))


def amsgrad(
    p: Array, g: Array, m: Array, v: Array, v_max: Array,
    beta1: float, gain1: float, beta2: float, gain2: float, one: float, unbias: float, eps: float, step: float,
) -> None:  # fmt: skip
    m[...] = beta1 * m + gain1 * g
    v[...] = beta2 * v + gain2 * (g * g)
    before = one * v_max
    larger = np.where(v > before, v, before)
    v_max[...] = np.where(v != v, v, larger)
    p[...] = p - step * (m / (np.sqrt(v_max) * unbias + eps))


def nadam(
    p: Array, g: Array, m: Array, v: Array,
    beta1: float, gain1: float, beta2: float, gain2: float, unbias: float, eps: float, step_m: float, step_g: float,
) -> None:  # fmt: skip
    m[...] = beta1 * m + gain1 * g
    v[...] = beta2 * v + gain2 * (g * g)
    p[...] = p - (step_m * m + step_g * g) / (np.sqrt(v) * unbias + eps)


def adamax(
    p: Array, g: Array, m: Array, u: Array, beta1: float, gain1: float, beta2: float, eps_in: float, eps_out: float,
    step: float,
) -> None:  # fmt: skip
    m[...] = beta1 * m + gain1 * g
    size = np.where(g < 0, -g, g) + eps_in
    before = beta2 * u
    u[...] = np.where(size != size, size, np.where(size > before, size, before))
    p[...] = p - step * (m / (u + eps_out))
