"""The function that is minimized, and what is refused of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastopt.base.arguments import doubles, function, number
from fastopt.base.nonfinite import NonFiniteError
from fastopt.base.tree import Array, kind
from fastopt.minimization.box import Box
from fastopt.minimization.differences import Differences
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
        self.calls, self.cost = 0, 1
        self.moved = False
        self._differences: Differences | None = None

    def admit(self, box: Box | None, differences: bool) -> None:
        """Moves the start into the box, and with `differences` takes the function for one that gives its loss alone."""
        if box is not None:
            within = box.project(self.start)
            self.moved = not np.array_equal(within, self.start)
            self.start = within
        if differences:
            ends = np.full_like(self.start, np.inf)
            low, high = (-ends, ends) if box is None else (box.low, box.high)
            self._differences = Differences(self.loss, low, high)
            self.cost = 1 + self._differences.calls

    def __call__(self, x: Array, g: Array) -> float:
        if self._differences is not None:
            value = self.loss(x)
            self._differences(x, value, g)
            return value
        value, gradient = loss_and_gradient(self._call(x), self.shape)
        g[...] = gradient.reshape(-1)
        return value

    def loss(self, x: Array) -> float:
        """By a function that gives nothing else."""
        found = self._call(x)
        if isinstance(found, (tuple, list)):
            raise TypeError(
                f"fun_and_grad returned {kind(found)}: with jac='2-point' it gives the loss alone; leave jac out for "
                "one that gives (loss, gradient)"
            )
        return number("the loss that fun_and_grad returned", found)

    def _call(self, x: Array) -> Any:
        self.calls += 1
        # A copy: the function may keep what it gets.
        return self._fun(x.copy().reshape(self.shape))

    def refuse_start(self, value: float, g: Array) -> NonFiniteError:
        """What is not finite at x0."""
        if not np.isfinite(value):
            return NonFiniteError(f"the loss of fun_and_grad at x0 is {value}: start where it is finite")
        i = int(np.argmin(np.isfinite(g)))
        index = ", ".join(str(int(k)) for k in np.unravel_index(i, self.shape))
        where = f" at [{index}]" if index else ""
        return NonFiniteError(f"the gradient of fun_and_grad at x0 is {g[i]}{where}: start where it is finite")
