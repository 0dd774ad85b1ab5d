"""Twins of csrc/kernels/rules/adagrad.h: AdaGrad."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def adagrad(p: Array, g: Array, s: Array, eps_in: float, eps_out: float, step: float) -> None:
    s[...] = s + g * g
    p[...] = p - step * (g / (np.sqrt(s + eps_in) + eps_out))
