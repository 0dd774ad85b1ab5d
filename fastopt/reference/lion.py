"""Twin of csrc/kernels/rules/lion.h: Lion, Signum and Tiger."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def sign_momentum(
    p: Array, g: Array, m: Array, mix_m: float, mix_g: float, beta: float, gain: float, step: float
) -> None:
    x = mix_m * m + mix_g * g
    sign = np.where(x > 0, 1, np.where(x < 0, -1, x)).astype(p.dtype)
    p[...] = p - step * sign
    m[...] = beta * m + gain * g
