"""``fastopt.minimize``: a function of one array, from a starting point to a minimum."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastopt import optimizers
from fastopt.base.arguments import at_least_0, function, one_of, whole, within
from fastopt.base.tree import Array
from fastopt.minimization.descent import Descent, search_options
from fastopt.minimization.newton import newton
from fastopt.minimization.objective import Objective
from fastopt.minimization.result import CONVERGED, DIVERGED, ENDLESS, LIMIT, STOPPED, STUCK, Minimum
from fastopt.optimizers.base import Optimizer

FIRST_ORDER: dict[str, type[Optimizer]] = {name.lower(): getattr(optimizers, name) for name in optimizers.__all__}
METHODS = ("lbfgs", "gradient_descent", "newton", *FIRST_ORDER)


def minimize(
    fun_and_grad: Callable[[Array], Any],
    x0: Any,
    method: str = "lbfgs",
    gtol: float = 1e-6,
    ftol: float = 0.0,
    *,
    max_iterations: int = 15000,
    max_evaluations: int | None = None,
    callback: Callable[[Minimum], Any] | None = None,
    hess: Callable[[Array], Any] | None = None,
    **options: Any,
) -> Minimum:
    """Minimizes a function of one array.

    fun_and_grad : x -> (loss, gradient), the gradient in x's shape. It is given float64 copies of x, in x0's shape.
    x0 : where to start, of any shape, or a list; not written.
    method : "lbfgs", "gradient_descent" and "newton" by line searches, or a first-order optimizer by its name in lower
        case ("sgd", "adam", ...), one step of it an iteration.
    gtol : done when max|gradient| <= gtol.
    ftol : done when an iteration lowers the loss by no more than ftol * max(|before|, |after|, 1); 0: never.
    max_iterations, max_evaluations : limits, the second on calls of fun_and_grad; None: no limit.
    callback : called with a Minimum after every iteration; the descent stops where it returns True or raises
        StopIteration.
    hess : x -> the Hessian, (n, n) for n elements of x; for "newton", which needs it.
    options : for "lbfgs" history=10, the pairs remembered; for it, "gradient_descent" and "newton" line_search=
        "strong_wolfe" (with c1=1e-4, c2=0.9), "backtracking" (c1=1e-4, shrink=0.5) or "bracketing" (tolerance=0.1); for
        an optimizer its own keywords, such as lr.

    Returns a Minimum with SciPy's fields: the last point of a line-search method, or of an optimizer that did not
    converge the lowest one. Raises TypeError or ValueError for input that does not fit, NonFiniteError where
    loss or gradient at x0 is not finite, numpy.linalg.LinAlgError where the Hessian is singular at x0; what
    fun_and_grad, callback and hess raise comes through. An error after the first evaluation has the best point so far,
    a Minimum, as its `so_far`.
    """
    one_of("method", method, METHODS)
    gtol, ftol = within("gtol", gtol, at_least_0), within("ftol", ftol, at_least_0)
    whole("max_iterations", max_iterations)
    if max_evaluations is not None:
        whole("max_evaluations", max_evaluations)
    if (method == "newton") != (hess is not None):
        raise TypeError("method='newton' needs hess=, a function that gives the Hessian at x; no other method takes it")
    for name, f in (("callback", callback), ("hess", hess)):
        if f is not None:
            function(name, f, "a function")
    objective = Objective(fun_and_grad, x0)
    run = _Run(objective, gtol, ftol, max_iterations, max_evaluations or math.inf, callback)
    if method in FIRST_ORDER:
        return run.steps(FIRST_ORDER[method], options)
    own = ("history", "line_search") if method == "lbfgs" else ("line_search",)
    history = whole("history", options.pop("history", 10)) if method == "lbfgs" else 0
    search = options.pop("line_search", "strong_wolfe")
    options = search_options(f"minimize(method={method!r})", own, search, options)
    direct = None if hess is None else newton(hess, objective.shape)
    descent = Descent(objective.start.size, np.float64, objective, search, options, history=history, direct=direct)
    return run.descend(descent)


class _Run:
    """One minimization: its tolerances and limits, and how far it has come."""

    def __init__(
        self,
        objective: Objective,
        gtol: float,
        ftol: float,
        max_iterations: int,
        max_evaluations: float,
        callback: Callable[[Minimum], Any] | None,
    ) -> None:
        self.objective = objective
        self.gtol, self.ftol = gtol, ftol
        self.max_iterations, self.max_evaluations = max_iterations, max_evaluations
        self.callback = callback
        self.iterations = 0
        self.before = math.inf

    def descend(self, descent: Descent) -> Minimum:
        """The line-search methods: every iteration is lower than the last."""
        v = descent.vectors
        v.x[...] = self.objective.start
        if not descent.start():
            raise self.objective.refuse_start(descent.value, v.g)
        try:
            while True:
                end = self._end(v.x, descent.value, v.g, descent.steepest, descent.evaluations)
                if end is None and not descent.iterate(self.max_evaluations - descent.evaluations):
                    end = self._stuck(descent)
                if end is not None:
                    return self._result(v.x, descent.value, v.g, descent.evaluations, *end)
                self.iterations += 1
        except BaseException as error:
            self._give(error, v.x, descent.value, v.g, descent.evaluations)
            raise

    def steps(self, cls: type[Optimizer], options: dict[str, Any]) -> Minimum:
        """A first-order optimizer: its loss goes up and down, so the lowest point is kept."""
        x = self.objective.start.copy()
        opt = cls(x, **options)
        g = np.empty_like(x)
        lowest: tuple[Array, float, Array] = (x, math.inf, g)
        evaluations = 0
        try:
            while True:
                value = self.objective(x, g)
                evaluations += 1
                steepest = float(np.max(np.abs(g)))
                finite = math.isfinite(value + steepest)
                if not (finite or self.iterations):
                    raise self.objective.refuse_start(value, g)
                if finite and value < lowest[1]:
                    lowest = x.copy(), value, g.copy()
                end = self._end(x, value, g, steepest, evaluations) if finite else self._diverged(value, steepest)
                if end is not None and end[0] == CONVERGED:
                    lowest = x, value, g
                if end is not None:
                    return self._result(*lowest, evaluations, *end)
                opt.step(g)
                self.iterations += 1
        except BaseException as error:
            if self.iterations:
                self._give(error, *lowest, evaluations)
            raise

    def _end(self, x: Array, value: float, g: Array, steepest: float, evaluations: int) -> tuple[int, str] | None:
        """The status and message to end with here, or None."""
        before, self.before = self.before, value
        if steepest <= self.gtol:
            return CONVERGED, f"converged: max|gradient| is {steepest:.3g}, gtol {self.gtol:g}"
        if self.iterations and self.ftol > 0 and abs(before - value) <= self.ftol * max(abs(before), abs(value), 1.0):
            return CONVERGED, f"converged: the loss changed by {abs(before - value):.3g}, ftol is {self.ftol:g}"
        if self.callback is not None and self.iterations and self._stopped(x, value, g, evaluations):
            return STOPPED, "stopped by the callback"
        if self.iterations >= self.max_iterations:
            return LIMIT, f"not converged after {self.iterations} iterations, max_iterations; {_left(steepest)}"
        if evaluations >= self.max_evaluations:
            return LIMIT, f"not converged after {evaluations} evaluations, max_evaluations; {_left(steepest)}"
        return None

    def _stuck(self, descent: Descent) -> tuple[int, str]:
        if descent.cut:
            status, why = LIMIT, f"not converged after {descent.evaluations} evaluations, max_evaluations"
        elif descent.without_bound:
            status, why = ENDLESS, descent.without_bound
        elif descent.all_nonfinite:
            status, why = STUCK, "the loss or its gradient is not finite at any step tried"
        else:
            status, why = STUCK, descent.why_not_lower()
        return status, f"{why}; {_left(descent.steepest)}"

    def _diverged(self, value: float, steepest: float) -> tuple[int, str]:
        where = f"at iteration {self.iterations} the loss is {value:g}, {_left(steepest)}"
        if value == -math.inf:
            return ENDLESS, f"{where}: it seems to have no lower bound"
        return DIVERGED, f"{where}: take shorter steps (a smaller lr)"

    def _stopped(self, x: Array, value: float, g: Array, evaluations: int) -> bool:
        assert self.callback is not None
        try:
            stop = self.callback(self._result(x, value, g, evaluations, LIMIT, "under way"))
        except StopIteration:
            return True
        return isinstance(stop, bool | np.bool_) and bool(stop)

    def _give(self, error: BaseException, x: Array, value: float, g: Array, evaluations: int) -> None:
        """What an error would lose, as its `so_far`, where it takes attributes."""
        message = f"ended at iteration {self.iterations} by {type(error).__name__}"
        with contextlib.suppress(AttributeError, TypeError):
            error.so_far = self._result(x, value, g, evaluations, STOPPED, message)  # type: ignore[attr-defined]

    def _result(self, x: Array, value: float, g: Array, evaluations: int, status: int, message: str) -> Minimum:
        x, g = (a.copy().reshape(self.objective.shape) for a in (x, g))
        return Minimum(x, value, g, self.iterations, evaluations, status == CONVERGED, status, message)


def _left(steepest: float) -> str:
    return f"max|gradient| is {steepest:.3g}"
