"""Twin of csrc/kernels/rules/rprop.h: Rprop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def rprop(
    p: Array, g: Array, prev: Array, size: Array, one: float, minus: float, plus: float, low: float, high: float
) -> None:
    x = one * g
    change = x * prev
    factor = np.where(change > 0, plus, np.where(change < 0, minus, one)).astype(p.dtype)
    wanted = size * factor
    least = np.where(wanted < low, p.dtype.type(low), wanted)
    following = np.where(least > high, p.dtype.type(high), least)
    h = np.where(change < 0, p.dtype.type(0), x)
    sign = np.where(h > 0, 1, np.where(h < 0, -1, h)).astype(p.dtype)
    size[...] = following
    prev[...] = h
    p[...] = p - following * sign
