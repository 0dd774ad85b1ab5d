"""The function that is minimized, and what is refused of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastopt.hyperparameters import number
from fastopt.nonfinite import NonFiniteError
from fastopt.tree import Array, kind


def pair(what: str, found: Any) -> tuple[float, Any]:
    """(loss, gradient) of what a user's function returned, the loss as a float."""
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        size = f" of {len(found)}" if isinstance(found, (tuple, list)) else ""
        raise TypeError(f"{what} returned {kind(found)}{size}: expected (loss, gradient)")
    return number(f"the loss that {what} returned", found[0]), found[1]


class Objective:
    """A function of x in x0's shape, as one of flat float64 vectors."""

    def __init__(self, fun_and_grad: Callable[[Array], Any], x0: Any) -> None:
        if not callable(fun_and_grad):
            raise TypeError(f"fun_and_grad is {kind(fun_and_grad)}: expected a function of x, giving (loss, gradient)")
        start = np.asarray(x0)
        if start.dtype.kind not in "fiu":
            raise TypeError(f"x0 is {kind(x0)}, as an array {start.dtype}: expected real numbers, or a list of them")
        if start.size == 0:
            raise ValueError(f"x0 has shape {start.shape}: there is nothing to minimize over")
        self.start: Array = np.array(start, np.float64).reshape(-1)
        self.shape = start.shape
        self._fun = fun_and_grad
        if not np.isfinite(self.start).all():
            i = int(np.argmin(np.isfinite(self.start)))
            raise ValueError(f"x0{self._index(i)} is {self.start[i]}: the start must be finite")

    def __call__(self, x: Array, g: Array) -> float:
        # A copy: the function may keep what it gets.
        value, gradient = pair("fun_and_grad", self._fun(x.copy().reshape(self.shape)))
        gradient = np.asarray(gradient)
        if gradient.shape != self.shape:
            raise ValueError(f"the gradient has shape {gradient.shape} and x {self.shape}: they must be equal")
        if gradient.dtype.kind not in "fiu":
            raise TypeError(f"the gradient is an array of {gradient.dtype}: expected real numbers")
        g[...] = gradient.reshape(-1)
        return value

    def refuse_start(self, value: float, g: Array) -> NonFiniteError:
        """What is not finite at x0."""
        if not np.isfinite(value):
            return NonFiniteError(f"the loss at x0 is {value}: start where it is finite")
        i = int(np.argmin(np.isfinite(g)))
        return NonFiniteError(f"the gradient at x0 is {g[i]}{self._index(i, ' at ')}: start where it is finite")

    def _index(self, i: int, word: str = "") -> str:
        index = ", ".join(str(int(k)) for k in np.unravel_index(i, self.shape))
        return f"{word}[{index}]" if index else ""
