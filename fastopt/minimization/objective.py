"""The function that is minimized, and what is refused of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastopt.base.arguments import doubles, function
from fastopt.base.nonfinite import NonFiniteError
from fastopt.base.tree import Array
from fastopt.minimization.line_search import loss_and_gradient


class Objective:
    """A function of x in x0's shape, as one of flat float64 vectors."""

    def __init__(self, fun_and_grad: Callable[[Array], Any], x0: Any) -> None:
        self._fun = function("fun_and_grad", fun_and_grad, "a function of x, giving (loss, gradient)")
        start = doubles("x0", x0)
        if start.size == 0:
            raise ValueError(f"x0 has shape {start.shape}: there is nothing to minimize over")
        self.start: Array = start.reshape(-1).copy()
        self.shape = start.shape

    def __call__(self, x: Array, g: Array) -> float:
        # A copy: the function may keep what it gets.
        value, gradient = loss_and_gradient(self._fun(x.copy().reshape(self.shape)), self.shape)
        g[...] = gradient.reshape(-1)
        return value

    def refuse_start(self, value: float, g: Array) -> NonFiniteError:
        """What is not finite at x0."""
        if not np.isfinite(value):
            return NonFiniteError(f"the loss of fun_and_grad at x0 is {value}: start where it is finite")
        i = int(np.argmin(np.isfinite(g)))
        index = ", ".join(str(int(k)) for k in np.unravel_index(i, self.shape))
        where = f" at [{index}]" if index else ""
        return NonFiniteError(f"the gradient of fun_and_grad at x0 is {g[i]}{where}: start where it is finite")
