"""Twins of csrc/kernels/stages.h: what happens around a rule, and the passes outside a step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


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


def lookahead(p: Array, slow: Array, turn: float, alpha: float) -> None:
    if turn == 0:
        return
    x = slow + alpha * (p - slow)
    slow[...] = x
    p[...] = x


def bounds(p: Array, one: float, low: float, high: float, low_single: float, high_single: float) -> None:
    least, most = (low_single, high_single) if p.dtype == np.float32 else (low, high)
    x = one * p
    higher = np.where(x < least, least, x)
    p[...] = np.where(higher > most, most, higher)


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
