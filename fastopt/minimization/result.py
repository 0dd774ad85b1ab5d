"""What a minimization gives back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastopt.base.tree import Array

CONVERGED, LIMIT, STUCK, STOPPED, DIVERGED, ENDLESS = range(6)


class Minimum(NamedTuple):
    """The fields of SciPy's result. `print(result)` shows them, a line each.

    x : the point, float64 in the shape of x0.
    fun, jac : the loss there, and its gradient, in the shape of x0.
    nit, nfev : iterations; evaluations of loss and gradient together.
    success : whether a tolerance was met.
    status : 0 for that, 1 for a limit reached, 2 for no lower point found, 3 for stopped by the callback, 4 for a loss
        or gradient that ceased to be finite, 5 for a loss that seems to have no lower bound.
    message : the same in words.
    """

    x: Array
    fun: float
    jac: Array
    nit: int
    nfev: int
    success: bool
    status: int
    message: str

    def __str__(self) -> str:
        with np.printoptions(threshold=10, precision=6):
            return "\n".join(f"{name:>7}: {value}" for name, value in zip(self._fields, self, strict=True))
