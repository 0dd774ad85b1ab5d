"""Twin of csrc/run/factor.h: what gradients are multiplied by, in two factors where one would be out of range."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastopt.reference.stages import Array, decay, scale

Factor = tuple[float, float]


def factor_between(max_norm: float, norm: float) -> Factor:
    ratio = max_norm / norm
    return (ratio, 1.0) if ratio >= 2.0**-1022 else (max_norm * 2.0**1020 / norm, 2.0**-1020)


def factor_for(by: Factor, dtype: Any) -> Factor:
    product = by[0] * by[1]
    if dtype == np.float64:
        return (product, 1.0) if 2.0**-1022 <= abs(product) <= 2.0**1023 else by
    if abs(product) < 2.0**-126:
        return product * 2.0**126, 2.0**-126
    return (product * 2.0**-126, 2.0**126) if abs(product) > 2.0**127 else (product, 1.0)


def load(out: Array, g: Array, by: Factor) -> None:
    """out = by * g: csrc/run/views.c, view_load."""
    first, second = factor_for(by, g.dtype)
    scale(out, g, first)
    if second != 1:
        decay(out, second)
