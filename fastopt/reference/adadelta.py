"""Twin of csrc/kernels/rules/adadelta.h: Adadelta."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def adadelta(p: Array, g: Array, v: Array, u: Array, rho: float, gain: float, eps: float, step: float) -> None:
    v[...] = rho * v + gain * (g * g)
    d = np.sqrt(u + eps) / np.sqrt(v + eps) * g
    u[...] = rho * u + gain * (d * d)
    p[...] = p - step * d
