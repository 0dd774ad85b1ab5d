"""One minimization, from x0 to its end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastopt.base.tree import Array
from fastopt.minimization.box import Box
from fastopt.minimization.descent import Descent
from fastopt.minimization.objective import Objective
from fastopt.minimization.result import CONVERGED, DIVERGED, ENDLESS, LIMIT, STOPPED, STUCK, Minimum


class Run:
    """One minimization: its tolerances and limits, and how far it has come."""

    def __init__(
        self,
        objective: Objective,
        gtol: float,
        ftol: float,
        max_iterations: int,
        max_evaluations: float,
        callback: Callable[[Minimum], Any] | None,
        box: Box | None = None,
    ) -> None:
        self.objective = objective
        self.gtol, self.ftol = gtol, ftol
        self.max_iterations, self.max_evaluations = max_iterations, max_evaluations
        self.callback, self.box = callback, box
        self.measure = "max|gradient|" if box is None else "max|projected gradient|"
        self.iterations = 0
        self.before = math.inf

    def descend(self, descent: Descent) -> Minimum:
        """The line-search methods: every iteration is lower than the last."""
        if self._left < 1:
            return self._without_gradient()
        v = descent.vectors
        v.x[...] = self.objective.start
        if not descent.start():
            raise self.objective.refuse_start(descent.value, v.g)
        try:
            while True:
                end = self._end(v.x, descent.value, v.g, descent.steepest)
                if end is None and not descent.iterate(self._left):
                    end = self._stuck(descent)
                if end is not None:
                    return self._result(v.x, descent.value, v.g, *end)
                self.iterations += 1
        except BaseException as error:
            self._give(error, v.x, descent.value, v.g)
            raise

    def steps(self, make: Callable[[Array], Any]) -> Minimum:
        """A first-order optimizer, which `make` makes of x: its loss goes up and down, so the lowest point is kept."""
        x = self.objective.start.copy()
        opt = make(x)
        if self._left < 1:
            return self._without_gradient()
        g = np.empty_like(x)
        lowest: tuple[Array, float, Array] = (x, math.inf, g)
        try:
            while True:
                value = self.objective(x, g)
                steepest = float(np.max(np.abs(g)))
                finite = math.isfinite(value + steepest)
                if not (finite or self.iterations):
                    raise self.objective.refuse_start(value, g)
                if finite and value < lowest[1]:
                    lowest = x.copy(), value, g.copy()
                end = self._end(x, value, g, steepest) if finite else self._diverged(value, steepest)
                if end is not None and end[0] == CONVERGED:
                    lowest = x, value, g
                if end is not None:
                    return self._result(*lowest, *end)
                opt.step(g, loss=value if opt.takes_loss else None)
                self.iterations += 1
        except BaseException as error:
            if self.iterations:
                self._give(error, *lowest)
            raise

    @property
    def _left(self) -> float:
        """How many more gradients may be evaluated."""
        return (self.max_evaluations - self.objective.calls) // self.objective.cost

    def _without_gradient(self) -> Minimum:
        """Where fewer evaluations are asked for than a numerical gradient takes."""
        x = self.objective.start
        value = self.objective.loss(x)
        if not math.isfinite(value):
            raise self.objective.refuse_start(value, x)
        why = f"max_evaluations={self.max_evaluations}, and a numerical gradient takes {self.objective.cost}"
        return self._result(x, value, np.full_like(x, math.nan), LIMIT, f"not converged: {why}")

    def _end(self, x: Array, value: float, g: Array, steepest: float) -> tuple[int, str] | None:
        """The status and message to end with here, or None."""
        before, self.before = self.before, value
        if steepest <= self.gtol:
            return CONVERGED, f"converged: {self.measure} is {steepest:.3g}, gtol {self.gtol:g}"
        if self.iterations and self.ftol > 0 and abs(before - value) <= self.ftol * max(abs(before), abs(value), 1.0):
            return CONVERGED, f"converged: the loss changed by {abs(before - value):.3g}, ftol is {self.ftol:g}"
        if self.callback is not None and self.iterations and self._stopped(x, value, g):
            return STOPPED, "stopped by the callback"
        if self.iterations >= self.max_iterations:
            return LIMIT, f"not converged after {self.iterations} iterations, max_iterations; {self._rest(steepest)}"
        if self._left < 1:
            return LIMIT, f"{self._out_of_evaluations()}; {self._rest(steepest)}"
        return None

    def _stuck(self, descent: Descent) -> tuple[int, str]:
        if descent.cut:
            status, why = LIMIT, self._out_of_evaluations()
        elif descent.without_bound:
            status, why = ENDLESS, descent.without_bound
        elif descent.all_nonfinite:
            status, why = STUCK, "the loss or its gradient is not finite at any step tried"
        else:
            status, why = STUCK, descent.why_not_lower()
        return status, f"{why}; {self._rest(descent.steepest)}"

    def _out_of_evaluations(self) -> str:
        return f"not converged after {self.objective.calls} evaluations, max_evaluations"

    def _diverged(self, value: float, steepest: float) -> tuple[int, str]:
        where = f"at iteration {self.iterations} the loss is {value:g}, {self._rest(steepest)}"
        if value == -math.inf:
            return ENDLESS, f"{where}: it seems to have no lower bound"
        return DIVERGED, f"{where}: take shorter steps (a smaller lr)"

    def _stopped(self, x: Array, value: float, g: Array) -> bool:
        assert self.callback is not None
        try:
            stop = self.callback(self._result(x, value, g, LIMIT, "under way"))
        except StopIteration:
            return True
        return isinstance(stop, bool | np.bool_) and bool(stop)

    def _give(self, error: BaseException, x: Array, value: float, g: Array) -> None:
        """What an error would lose, as its `so_far`, where it takes attributes."""
        message = f"ended at iteration {self.iterations} by {type(error).__name__}"
        with contextlib.suppress(AttributeError, TypeError):
            error.so_far = self._result(x, value, g, STOPPED, message)  # type: ignore[attr-defined]

    def _result(self, x: Array, value: float, g: Array, status: int, message: str) -> Minimum:
        shape = self.objective.shape
        active = None if self.box is None else self.box.active(x).reshape(shape)
        if self.objective.moved:
            message += "; x0 was outside the bounds, and moved to the nearest point within"
        x, g = (a.copy().reshape(shape) for a in (x, g))
        found = value, g, self.iterations, self.objective.calls, status == CONVERGED, status, message
        return Minimum(x, *found, active)

    def _rest(self, steepest: float) -> str:
        return f"{self.measure} is {steepest:.3g}"
