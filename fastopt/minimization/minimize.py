"""``fastopt.minimize``: a function of one array, from a starting point to a minimum."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastopt import optimizers
from fastopt.base.arguments import at_least_0, function, shown, whole, within
from fastopt.base.tree import Array
from fastopt.minimization.box import Bounds, box
from fastopt.minimization.box_vectors import BoxVectors
from fastopt.minimization.descent import Descent, search_options
from fastopt.minimization.newton import newton
from fastopt.minimization.objective import Objective
from fastopt.minimization.result import Minimum
from fastopt.minimization.run import Run
from fastopt.optimizers.base import Optimizer

FIRST_ORDER: dict[str, type[Optimizer]] = {name.lower(): getattr(optimizers, name) for name in optimizers.__all__}
METHODS = ("lbfgs", "gradient_descent", "newton", *FIRST_ORDER)
CALLED = {
    **dict.fromkeys(["l-bfgs-b", "l-bfgs", "lbfgsb", "bfgs", "cg", "tnc", "slsqp", "trust-constr"], "lbfgs"),
    **dict.fromkeys(["newton-cg", "dogleg", "trust-exact", "trust-ncg", "trust-krylov"], "newton"),
    **dict.fromkeys(["gd", "gradient descent", "steepest_descent"], "gradient_descent"),
}
"""Methods of SciPy and others, in lower case, and which one here to take in their place."""


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
    bounds: Bounds | None = None,
    jac: bool | str = True,
    **options: Any,
) -> Minimum:
    """Minimizes a function of one array.

    fun_and_grad : x -> (loss, gradient), the gradient in x's shape. It is given float64 copies of x, in x0's shape.
    x0 : where to start, of any shape, or a list; not written.
    method : "lbfgs", "gradient_descent" and "newton" by line searches, or a first-order optimizer by its name in lower
        case ("sgd", "adam", ...), one step of it an iteration.
    gtol : done when max|gradient| <= gtol.
    ftol : done when an iteration lowers the loss by no more than ftol * max(|before|, |after|, 1); 0: never.
    max_iterations, max_evaluations : limits, the second on calls of fun_and_grad, never overrun; None: no limit.
    callback : called with a Minimum after every iteration; the descent stops where it returns True or raises
        StopIteration.
    hess : x -> the Hessian, (n, n) for n elements of x; for "newton", which needs it.
    bounds : for "lbfgs": a pair (low, high) for every element of x, None for no bound, or SciPy's Bounds. The function
        is never evaluated outside them; an x0 that is outside is moved to the nearest point within, which the message
        says. Then gtol is on the step along -gradient within the bounds, and the result has `active_mask`.
    jac : True for a function that gives (loss, gradient); "2-point" for one that gives the loss alone, with a gradient
        by forward differences, which takes an evaluation for every element of x.
    options : for "lbfgs" history=10, the pairs remembered; for it, "gradient_descent" and "newton" line_search=
        "strong_wolfe" (with c1=1e-4, c2=0.9), "backtracking" (c1=1e-4, shrink=0.5) or "bracketing" (tolerance=0.1); for
        an optimizer its own keywords, such as lr.

    Returns a Minimum with SciPy's fields: the last point of a line-search method, or of an optimizer that did not
    converge the lowest one. Raises TypeError or ValueError for input that does not fit, NonFiniteError where
    loss or gradient at x0 is not finite, numpy.linalg.LinAlgError where the Hessian is singular at x0; what
    fun_and_grad, callback and hess raise comes through. An error after the first evaluation has the best point so far,
    a Minimum, as its `so_far`.
    """
    if not isinstance(method, str) or method not in METHODS:
        _refuse_method(method)
    gtol, ftol = within("gtol", gtol, at_least_0), within("ftol", ftol, at_least_0)
    whole("max_iterations", max_iterations)
    if max_evaluations is not None:
        whole("max_evaluations", max_evaluations)
    if (method == "newton") != (hess is not None):
        raise TypeError("method='newton' needs hess=, a function that gives the Hessian at x; no other method takes it")
    for name, f in (("callback", callback), ("hess", hess)):
        if f is not None:
            function(name, f, "a function")
    if jac is not True and not (isinstance(jac, str) and jac == "2-point"):
        raise ValueError(
            f"jac is {shown(jac)}: expected True, for a function that gives (loss, gradient), or '2-point', for one "
            "that gives the loss alone; of two functions make one, lambda x: (fun(x), jac(x))"
        )
    objective = Objective(fun_and_grad, x0)
    within_box = box(bounds, objective.shape)
    if bounds is not None and method != "lbfgs":
        raise TypeError(f"method={method!r} takes no bounds: use method='lbfgs'")
    objective.admit(within_box, differences=jac is not True)
    run = Run(objective, gtol, ftol, max_iterations, max_evaluations or math.inf, callback, within_box)
    if method in FIRST_ORDER:
        return run.steps(lambda x: FIRST_ORDER[method](x, **options))
    own = ("history", "line_search") if method == "lbfgs" else ("line_search",)
    history = whole("history", options.pop("history", 10)) if method == "lbfgs" else 0
    search = options.pop("line_search", "strong_wolfe")
    options = search_options(f"minimize(method={method!r})", own, search, options)
    direct = None if hess is None else newton(hess, objective.shape)
    n = objective.start.size
    vectors = None if within_box is None else BoxVectors(n, history, within_box)
    descent = Descent(n, np.float64, objective, search, options, history=history, direct=direct, within=vectors)
    return run.descend(descent)


def _refuse_method(method: Any) -> None:
    """Raises, with what a method of another library is called here."""
    name = method.lower() if isinstance(method, str) else ""
    called = name if name in METHODS else CALLED.get(name)
    hint = f"; instead of {method!r} take {called!r}" if called else ""
    raise ValueError(f"method is {shown(method)}: expected one of {', '.join(map(repr, METHODS))}{hint}")
