"""Twins of csrc/kernels/scalars.c: what happens between the walks of a rule, on a few doubles."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np

Function = TypeVar("Function", bound=Callable[..., tuple[float, ...]])


def _flushing(function: Function) -> Function:
    """With subnormals flushed, where arithmetic flushes them, before a selection would pass them on."""

    @functools.wraps(function)
    def flushed(*values: float) -> tuple[float, ...]:
        return function(*(1.0 * x for x in values))

    return cast(Function, flushed)


def _smaller(a: float, b: float) -> float:
    return b if b < a else a


def _larger(a: float, b: float) -> float:
    return b if b > a else a


def _ratio(a: float, b: float) -> float:
    """a / b as C has it, where b may be 0."""
    with np.errstate(all="ignore"):
        return float(np.float64(a) / np.float64(b))


def _root(x: float) -> float:
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.float64(x)))


@_flushing
def trust(pp: float, uu: float, lr: float, largest: float, eps_norm: float, low: float, high: float) -> tuple[float]:
    p = _smaller(_root(pp), largest)
    u = _root(uu)
    found = _ratio(p, u + eps_norm)
    usable = p > 0 and u > 0 and math.isfinite(found)
    return (lr * (_smaller(_larger(found, low), high) if usable else 1.0),)


@_flushing
def polyak(
    gg: float, loss: float, f_min: float, scaling: float, eps: float, largest: float, positive: float
) -> tuple[float]:
    size = scaling * scaling * gg + eps
    gap = _larger(loss - f_min, 0.0) if positive != 0 else loss - f_min
    found = _smaller(_ratio(gap, size), largest)
    return (scaling * found if size > 2.0**-52 and math.isfinite(size) and math.isfinite(found) else 0.0,)


@_flushing
def adafactor_step(
    pp: float, uu: float, elements: float, rate: float, eps2: float, relative: float, clipping: float
) -> tuple[float]:
    rms_p = _root(_ratio(pp, elements))
    rms_u = _root(_ratio(uu, elements))
    size = (_larger(eps2, rms_p) if math.isfinite(rms_p) else eps2) if relative != 0 else 1.0
    excess = _larger(1.0, _ratio(rms_u, clipping)) if clipping > 0 and math.isfinite(rms_u) else 1.0
    return (_ratio(size * rate, excess),)


@_flushing
def prodigy_begin(
    d: float, d0: float, rate: float, beta1: float, beta2: float, safeguard: float
) -> tuple[float, float, float, float]:
    dlr = d * rate
    return d * (1 - beta1), d * d * (1 - beta2), _ratio(d, d0) * (d if safeguard != 0 else dlr), dlr


@_flushing
def prodigy_estimate(
    d: float, num: float, d_max: float, dot: float, den: float, d0: float, dlr: float, beta3: float,
    d_coef: float, growth: float, by_max: float, decay: float, eps: float,
) -> tuple[float, float, float, float, float, float, float]:  # fmt: skip
    total = beta3 * num + _ratio(d, d0) * dlr * dot
    d_hat = _ratio(d_coef * total, den)
    usable = den > 0 and math.isfinite(d_hat)
    start = _larger(d, d_hat) if by_max != 0 and d == d0 else d
    most = _larger(d_max, d_hat)
    found = _smaller(most, start * growth) if by_max != 0 else _larger(d, d_hat)
    new = found if usable else d
    kept = total if den > 0 and math.isfinite(total) else num
    return kept, most if usable else d_max, new, float(den > 0), dlr, decay * dlr, new * eps
