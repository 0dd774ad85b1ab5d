"""Gradients by differences, for functions that give their loss alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastopt.base.tree import Array

STEP = float(np.sqrt(np.finfo(np.float64).eps))


class Differences:
    """Forward differences: the slope from x to a point a part of 1.5e-8 further, one element at a time; backward where
    a bound is in the way, and 0 for a variable whose bounds are equal."""

    def __init__(self, loss: Callable[[Array], float], low: Array, high: Array) -> None:
        self._loss, self._low, self._high = loss, low, high
        self._free = np.flatnonzero(low < high)
        self.calls = len(self._free)

    def __call__(self, x: Array, value: float, g: Array) -> None:
        """Writes to g the gradient at x, where the loss is `value`."""
        g[...] = 0
        ahead, behind = self._high - x, x - self._low
        steps = STEP * np.maximum(1, np.abs(x))
        steps = np.where(ahead >= steps, steps, np.where(behind >= ahead, -np.minimum(steps, behind), ahead))
        for i in self._free:
            to = x.copy()
            to[i] = min(max(x[i] + steps[i], self._low[i]), self._high[i])
            with np.errstate(over="ignore", invalid="ignore"):
                g[i] = (np.float64(self._loss(to)) - value) / (to[i] - x[i])
