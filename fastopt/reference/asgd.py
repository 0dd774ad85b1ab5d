"""Twin of csrc/kernels/rules/asgd.h: averaged gradient descent."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


def asgd(p: Array, g: Array, ax: Array, keep: float, step: float, decay: float, gain: float) -> None:
    p[...] = keep * p - step * g
    ax[...] = decay * ax + gain * p
