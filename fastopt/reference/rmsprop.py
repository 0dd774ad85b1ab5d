"""Twins of csrc/kernels/rules/rmsprop.h: RMSprop in its four forms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def rmsprop(p: Array, g: Array, v: Array, rho: float, gain: float, eps_in: float, eps_out: float, step: float) -> None:
    v[...] = rho * v + gain * (g * g)
    p[...] = p - step * (g / (np.sqrt(v + eps_in) + eps_out))


def rmsprop_momentum(
    p: Array, g: Array, v: Array, b: Array,
    rho: float, gain: float, eps_in: float, eps_out: float, mu: float, step: float,
) -> None:  # fmt: skip
    v[...] = rho * v + gain * (g * g)
    b[...] = mu * b + g / (np.sqrt(v + eps_in) + eps_out)
    p[...] = p - step * b


def rmsprop_centered(
    p: Array, g: Array, v: Array, m: Array,
    rho: float, gain: float, eps_in: float, eps_out: float, step: float,
) -> None:  # fmt: skip
    v[...] = rho * v + gain * (g * g)
    m[...] = rho * m + gain * g
    difference = v - m * m
    variance = np.where(difference < 0, 0, difference).astype(p.dtype)
    p[...] = p - step * (g / (np.sqrt(variance + eps_in) + eps_out))


def rmsprop_centered_momentum(
    p: Array, g: Array, v: Array, m: Array, b: Array,
    rho: float, gain: float, eps_in: float, eps_out: float, mu: float, step: float,
) -> None:  # fmt: skip
    v[...] = rho * v + gain * (g * g)
    m[...] = rho * m + gain * g
    difference = v - m * m
    variance = np.where(difference < 0, 0, difference).astype(p.dtype)
    b[...] = mu * b + g / (np.sqrt(variance + eps_in) + eps_out)
    p[...] = p - step * b
