"""Every kernel of csrc/ once more, in NumPy: same names, same order, same brackets.

Each function updates its arrays in place and equals the compiled kernel bit for bit (any NaN equals
any NaN) when both run under the same flush mode, see :func:`fastopt.subnormals`. Buffers come first,
coefficients after them, in the order of csrc/registry.h; coefficients are Python floats, which NumPy
casts once to the arrays' type. These functions are for reading and for comparing; they check nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "adagrad", "adam", "amsgrad", "average", "axpby", "clamp", "decay", "dot", "l1", "l2", "max_abs", "mean",
    "momentum", "nadam", "nesterov", "norm", "perturb", "perturb_adaptive", "prox_l1", "rmsprop",
    "rmsprop_centered", "rmsprop_centered_momentum", "rmsprop_momentum", "scale", "sgd", "sign", "sum_abs",
    "sum_squares",
]  # fmt: skip

Array = NDArray[Any]

CHUNK = 1024
LANES = 16


# Stages, csrc/stages.h


def scale(out: Array, g: Array, scale: float) -> None:
    out[...] = scale * g


def clamp(g: Array, one: float, bound: float) -> None:
    x = one * g
    lower = np.where(x < -bound, -bound, x)
    g[...] = np.where(lower > bound, bound, lower)


def l1(g: Array, p: Array, one: float, l1: float) -> None:
    x = one * p
    g[...] = g + np.where(x > 0, l1, np.where(x < 0, -l1, 0)).astype(g.dtype)


def l2(g: Array, p: Array, l2: float) -> None:
    g[...] = g + l2 * p


def decay(p: Array, keep: float) -> None:
    p[...] = keep * p


def prox_l1(p: Array, one: float, threshold: float) -> None:
    x = one * p
    lower = np.where(x < -threshold, -threshold, x)
    p[...] = x - np.where(lower > threshold, threshold, lower)


def average(average: Array, p: Array, decay: float, gain: float) -> None:
    average[...] = decay * average + gain * p


def sign(g: Array, one: float) -> None:
    x = one * g
    g[...] = np.where(x > 0, 1, np.where(x < 0, -1, x))


def perturb(p: Array, g: Array, scale: float) -> None:
    p[...] = p + scale * g


def perturb_adaptive(p: Array, g: Array, scale: float) -> None:
    p[...] = p + scale * (p * g)


def mean(average: Array, g: Array, gain: float) -> None:
    average[...] = average + gain * (g - average)


# Update rules, csrc/rules.h


def sgd(p: Array, g: Array, step: float) -> None:
    p[...] = p - step * g


def momentum(p: Array, g: Array, b: Array, mu: float, gain: float, step: float) -> None:
    b[...] = mu * b + gain * g
    p[...] = p - step * b


def nesterov(p: Array, g: Array, b: Array, mu: float, gain: float, step: float) -> None:
    b[...] = mu * b + gain * g
    p[...] = p - step * (g + mu * b)


def adagrad(p: Array, g: Array, s: Array, eps_in: float, eps_out: float, step: float) -> None:
    s[...] = s + g * g
    p[...] = p - step * (g / (np.sqrt(s + eps_in) + eps_out))


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


# Reductions, csrc/reductions.h: a block of at most CHUNK elements, 16 lanes in double


def _lanes(g: Array, unit: float) -> Array:
    x = np.zeros(-(-g.size // LANES) * LANES)
    x[: g.size] = unit * g.astype(np.float64)
    return x.reshape(-1, LANES)


def _add_up(terms: Array) -> float:
    lane = np.zeros(LANES)
    for row in terms:
        lane = lane + row
    while lane.size > 1:
        lane = lane[: lane.size // 2] + lane[lane.size // 2 :]
    return float(lane[0])


def sum_squares(g: Array, unit: float) -> float:
    x = _lanes(g, unit)
    return _add_up(x * x)


def sum_abs(g: Array, unit: float) -> float:
    return _add_up(np.abs(_lanes(g, unit)))


def max_abs(g: Array, unit: float) -> float:
    return float(np.max(np.abs(_lanes(g, unit)), initial=0.0))


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


# Vectors that are no parameters, csrc/vectors.c


def axpby(y: Array, a: float, x: Array, b: float) -> None:
    y[...] = a * y + b * x


def dot(a: Array, b: Array) -> float:
    total = 0.0
    for start in range(0, a.size, CHUNK):
        block = slice(start, start + CHUNK)
        total += _add_up(_lanes(a[block], 1.0) * _lanes(b[block], 1.0))
    return total
