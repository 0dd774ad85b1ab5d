"""minimize: the problems of Moré, Garbow & Hillstrom with their published minima, SciPy, and everything around."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt import optimizers
from tests.minimization.mgh import PROBLEMS, Problem

SEARCHES = ["strong_wolfe", "backtracking", "bracketing"]
BY_NAME = [name.lower() for name in optimizers.__all__]
every_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.id)


@every_problem
def test_the_jacobian_is_that_of_the_residuals(problem: Problem) -> None:
    rng = np.random.default_rng(0)
    x = problem.x0 * (1 + 0.1 * rng.standard_normal(problem.x0.size)) + 1e-3 * rng.standard_normal(problem.x0.size)
    J = problem.residuals(x)[1]
    h = 1e-6 * np.maximum(0.1, np.abs(x))
    numeric = np.empty_like(J)
    for j, e in enumerate(np.diag(h)):
        numeric[:, j] = (problem.residuals(x + e)[0] - problem.residuals(x - e)[0]) / (2 * h[j])
    np.testing.assert_allclose(J, numeric, atol=1e-5 * float(np.abs(J).max()))


def is_published(fun: float, problem: Problem) -> bool:
    """To the six digits of the paper; a minimum of 0 to 1e-9."""
    return any(abs(fun - minimum) <= 5e-6 * minimum + 1e-9 * (minimum == 0) for minimum in problem.minima)


@every_problem
def test_published_minima(problem: Problem) -> None:
    before = problem.x0.copy()
    found = fastopt.minimize(problem.fun_and_grad, problem.x0, gtol=1e-9)
    assert np.array_equal(problem.x0, before)
    fun, jac = problem.fun_and_grad(found.x)
    assert (found.fun, found.jac.tolist()) == (fun, jac.tolist())
    if problem.id == "20-Watson-12":
        # Its Hessian's condition number is 7e13: L-BFGS, SciPy's too, gets no further. Newton does, below.
        assert found.fun < 1e-8
        return
    assert is_published(found.fun, problem)
    assert found.success or found.status == 2, found


def numeric_hessian(problem: Problem) -> Any:
    def hess(x: Any) -> Any:
        h = 1e-5 * np.maximum(np.abs(x), 1e-3)
        rows = [
            (problem.fun_and_grad(x + e)[1] - problem.fun_and_grad(x - e)[1]) / (2 * step)
            for e, step in zip(np.diag(h), h, strict=True)
        ]
        return (np.array(rows) + np.array(rows).T) / 2

    return hess


def gauss_newton(problem: Problem) -> Any:
    def hess(x: Any) -> Any:
        J = problem.residuals(x)[1]
        return 2 * J.T @ J

    return hess


@pytest.mark.parametrize("search", ["strong_wolfe", "backtracking"])
@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.x0.size <= 12], ids=lambda problem: problem.id)
def test_published_minima_by_newton(problem: Problem, search: str) -> None:
    hess = gauss_newton(problem) if problem.id == "20-Watson-12" else numeric_hessian(problem)
    if problem.number in (33, 34):
        exact = gauss_newton(problem)
        with pytest.raises(np.linalg.LinAlgError, match=r"Hessian is singular .*method='lbfgs'"):
            fastopt.minimize(problem.fun_and_grad, problem.x0, "newton", hess=exact, line_search=search)
        return
    with np.errstate(over="ignore", invalid="ignore"):
        found = fastopt.minimize(problem.fun_and_grad, problem.x0, "newton", hess=hess, line_search=search)
    assert is_published(found.fun, problem), found


def rosenbrock(x: Any) -> tuple[float, Any]:
    a, b = x[1:] - x[:-1] ** 2, 1 - x[:-1]
    g = np.zeros_like(x)
    g[1:] = 200 * a
    g[:-1] -= 400 * x[:-1] * a + 2 * b
    return 100 * float(a @ a) + float(b @ b), g


def logistic(seed: int = 0) -> Any:
    """A regression on features of very different sizes, with a little L2: the loss in float64."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((200, 30)) * np.logspace(0, -1.5, 30)
    y = np.where(X @ rng.standard_normal(30) + rng.standard_normal(200) > 0, 1.0, -1.0)

    def fun_and_grad(w: Any) -> tuple[float, Any]:
        margin = y * (X @ w)
        loss = float(np.logaddexp(0, -margin).mean() + 5e-4 * w @ w)
        return loss, X.T @ (-y / (1 + np.exp(margin))) / len(y) + 1e-3 * w

    return fun_and_grad


def quadratic(x: Any) -> tuple[float, Any]:
    return float(np.sum((x - 3) ** 2)) / 2, x - 3


@pytest.mark.parametrize(
    ("fun_and_grad", "x0"),
    [(rosenbrock, np.tile([-1.2, 1.0], 50)), (logistic(0), np.zeros(30)), (logistic(1), np.ones(30))],
)
def test_as_few_evaluations_as_scipy(fun_and_grad: Any, x0: Any) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    ours = fastopt.minimize(fun_and_grad, x0)
    options = {"gtol": 1e-6, "ftol": 0, "maxiter": 15000, "maxfun": 100000}
    theirs = optimize.minimize(fun_and_grad, x0, jac=True, method="L-BFGS-B", options=options)
    assert ours.success
    assert ours.fun == pytest.approx(theirs.fun, abs=1e-9)
    np.testing.assert_allclose(ours.x, theirs.x, atol=1e-3)
    assert ours.nfev <= 1.3 * theirs.nfev
    assert {"x", "fun", "jac", "nit", "nfev", "success", "status", "message"} <= set(theirs)
    assert np.max(np.abs(ours.jac)) <= 1e-6


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("method", ["lbfgs", "gradient_descent", "newton"])
def test_every_search_with_every_method(method: str, search: str) -> None:
    more = {"hess": lambda x: np.diag([1.0, 10.0, 100.0])} if method == "newton" else {}
    losses = []

    def bowl(x: Any) -> tuple[float, Any]:
        return float(x @ (np.array([1, 10, 100]) * x)) / 2, np.array([1, 10, 100]) * x

    def watch(so_far: fastopt.Minimum) -> None:
        losses.append(so_far.fun)
        assert so_far.nit == len(losses)

    found = fastopt.minimize(bowl, [3, 2, 1], method, line_search=search, callback=watch, **more)
    assert found.success, found
    np.testing.assert_allclose(found.x, 0, atol=1e-5)
    assert sorted(losses, reverse=True) == losses
    assert found.nit <= {"newton": 2, "lbfgs": 25, "gradient_descent": 2000}[method]


@pytest.mark.parametrize("name", optimizers.__all__)
def test_first_order_optimizers_by_name(name: str) -> None:
    """The optimizer's own steps, bit for bit; the lowest point is what comes back."""
    iterates, losses, p = [], [], np.array([4.0, -2.0])
    opt = getattr(fastopt, name)(p, lr=0.1)
    for _ in range(30):
        iterates.append(p.copy())
        losses.append(quadratic(p)[0])
        opt.step(quadratic(p)[1], **({"loss": losses[-1]} if opt.takes_loss else {}))
    found = fastopt.minimize(quadratic, [4, -2], name.lower(), lr=0.1, max_iterations=29, gtol=0)
    best = int(np.argmin(losses))
    assert (found.nit, found.nfev, found.success, found.status) == (29, 30, False, 1)
    assert found.fun == losses[best]
    assert found.x.tobytes() == iterates[best].tobytes()


def test_a_first_order_run_that_converges_and_one_that_diverges() -> None:
    found = fastopt.minimize(quadratic, [4, -2], "sgd", lr=0.5, momentum=0.3)
    assert found.success
    assert max(abs(found.jac)) <= 1e-6
    with np.errstate(over="ignore", invalid="ignore"):
        found = fastopt.minimize(lambda x: (float((x**4).sum()), 4 * x**3), [1.0, 2.0], "sgd", lr=1.0)
    assert (found.success, found.status) == (False, 4)
    assert "lr" in found.message
    assert np.isfinite(found.x).all()
    falling = fastopt.minimize(lambda x: (-math.inf if x[0] > 5 else -float(x[0]), -np.ones(1)), [0.0], "sgd", lr=1.0)
    assert (falling.status, falling.fun, falling.x.tolist()) == (5, -5.0, [5.0])
    assert "no lower bound" in falling.message


@pytest.mark.parametrize(
    "x0", [[1, 2.5], np.ones((2, 3)), np.ones((3, 2), np.float32, order="F"), 5, np.float64(1), [[7]]]
)
@pytest.mark.parametrize("method", ["lbfgs", "adam"])
def test_x0_of_any_shape_is_never_written(x0: Any, method: str) -> None:
    start = np.array(x0)
    if isinstance(x0, np.ndarray):
        x0.flags.writeable = False
    seen: list[Any] = []

    def fun_and_grad(x: Any) -> tuple[float, Any]:
        seen.append(x)
        gradient = x - 3
        loss = float(np.sum(gradient**2)) / 2
        x[...] = np.nan
        return loss, gradient

    found = fastopt.minimize(fun_and_grad, x0, method, **({"lr": 0.3} if method == "adam" else {}))
    assert found.success, found
    assert np.array_equal(x0, start)
    assert {a.shape for a in [*seen, found.x, found.jac]} == {start.shape}
    assert {a.dtype for a in [*seen, found.x, found.jac]} == {np.dtype(np.float64)}
    np.testing.assert_allclose(found.x, 3, atol=1e-5)
    assert not any(np.shares_memory(a, b) for a, b in itertools.pairwise(seen))


def test_the_gradient_may_be_one_array_filled_again_and_again() -> None:
    g = np.empty(10)

    def fun_and_grad(x: Any) -> tuple[float, Any]:
        loss, g[...] = rosenbrock(x)
        return loss, g

    x0 = np.zeros(10)
    assert str(fastopt.minimize(fun_and_grad, x0)) == str(fastopt.minimize(rosenbrock, x0))


def test_at_the_minimum_already() -> None:
    found = fastopt.minimize(quadratic, [3.0, 3.0])
    assert (found.nit, found.nfev, found.success, found.status) == (0, 1, True, 0)
    assert found.message == "converged: max|gradient| is 0, gtol 1e-06"
    assert str(found).splitlines()[:3] == ["      x: [3. 3.]", "    fun: 0.0", "    jac: [0. 0.]"]


@pytest.mark.parametrize("how", [True, np.True_, StopIteration])
@pytest.mark.parametrize("method", ["lbfgs", "sgd"])
def test_the_callback_stops(how: Any, method: str) -> None:
    def callback(so_far: fastopt.Minimum) -> Any:
        so_far.x[...] = np.nan
        if so_far.nit == 3:
            if how is StopIteration:
                raise StopIteration
            return how
        return None

    found = fastopt.minimize(
        rosenbrock, np.zeros(5), method, callback=callback, **({"lr": 1e-4} if method == "sgd" else {})
    )
    assert (found.nit, found.success, found.status, found.message) == (3, False, 3, "stopped by the callback")
    assert np.isfinite(found.x).all()


@pytest.mark.parametrize("method", ["lbfgs", "gradient_descent", "adam"])
def test_limits(method: str) -> None:
    calls = 0

    def fun_and_grad(x: Any) -> tuple[float, Any]:
        nonlocal calls
        calls += 1
        return rosenbrock(x)

    found = fastopt.minimize(fun_and_grad, np.zeros(5), method, max_iterations=4)
    assert (found.nit, found.status, found.success, found.nfev) == (4, 1, False, calls)
    assert "4 iterations" in found.message
    for most in range(1, 12):
        calls = 0
        found = fastopt.minimize(fun_and_grad, np.zeros(5), method, max_evaluations=most)
        assert found.nfev == calls <= most
        assert (found.status, found.success) == (1, False)
        assert "max_evaluations" in found.message


@pytest.mark.parametrize("start", [np.zeros(4), np.array([-1.2, 1.0, 3.0, 1e3])], ids=["near", "far"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        *(
            (method, {"line_search": search})
            for method in ("lbfgs", "gradient_descent", "newton")
            for search in SEARCHES
        ),
        *((method, {"lr": 1e-3}) for method in BY_NAME),
    ],
    ids=str,
)
def test_no_method_overruns_its_evaluations(method: str, options: Any, start: Any) -> None:
    """And what was found so far comes back: no evaluation that was lower is forgotten."""
    if method == "newton":
        options = {**options, "hess": lambda x: 100 * np.eye(4)}
    for most in range(1, 21):
        losses: list[float] = []

        def fun_and_grad(x: Any, losses: Any = losses) -> tuple[float, Any]:
            with np.errstate(all="ignore"):
                losses.append(rosenbrock(x)[0])
                return rosenbrock(x)

        found = fastopt.minimize(fun_and_grad, start, method, max_evaluations=most, gtol=1e-12, **options)
        assert len(losses) == found.nfev <= most
        assert (found.fun, found.jac.tolist()) == (rosenbrock(found.x)[0], rosenbrock(found.x)[1].tolist())
        assert found.status == 1 or (found.status == 4 and method in BY_NAME), found
        assert found.fun == min(losses) or options.get("line_search") == "strong_wolfe"
        assert found.fun <= losses[0]


def test_ftol() -> None:
    loose = fastopt.minimize(rosenbrock, np.zeros(5), ftol=1e-3)
    tight = fastopt.minimize(rosenbrock, np.zeros(5), ftol=1e-12, gtol=0)
    assert loose.success
    assert "ftol is 0.001" in loose.message
    assert tight.success
    assert loose.nit < tight.nit
    assert tight.fun < 1e-10 < loose.fun


@pytest.mark.parametrize("method", ["lbfgs", "gradient_descent"])
def test_losses_that_are_not_finite_everywhere(method: str) -> None:
    """A barrier: log x is NaN where a first step of 1 leads."""

    def barrier(x: Any) -> tuple[float, Any]:
        with np.errstate(all="ignore"):
            return float(np.sum(x - 0.01 * np.log(x))), 1 - 0.01 / x

    found = fastopt.minimize(barrier, np.full(3, 0.5), method)
    assert found.success, found
    np.testing.assert_allclose(found.x, 0.01, rtol=1e-4)
    nowhere = fastopt.minimize(lambda x: (1.0 if x[0] == 1 else math.nan, np.ones(1)), [1.0], method)
    assert (nowhere.status, nowhere.success, nowhere.x.tolist()) == (2, False, [1.0])
    assert "not finite at any step tried" in nowhere.message


@pytest.mark.parametrize("method", ["lbfgs", "gradient_descent"])
@pytest.mark.parametrize("search", ["strong_wolfe", "bracketing"])
@pytest.mark.parametrize(
    ("loss", "evaluations"),
    [
        (lambda x: (-float(x.sum()), -np.ones(2)), 200),
        (lambda x: (-float(x @ x), -2 * x), 200),
        (lambda x: (-float(np.exp(x).sum()), -np.exp(x)), 400),
    ],
)
def test_a_loss_without_a_lower_bound_is_told(method: str, search: str, loss: Any, evaluations: int) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        found = fastopt.minimize(loss, [1.0, 2.0], method, line_search=search)
    assert (found.success, found.status) == (False, 5)
    assert "no lower bound" in found.message
    assert found.nfev <= evaluations
    assert -math.inf < found.fun < -1e12


def test_a_minimum_far_away_is_no_missing_lower_bound() -> None:
    """The first line search falls to its end: the next begins with what it has learned."""
    calls = []

    def basin(x: Any) -> tuple[float, Any]:
        calls.append(float(x[0]))
        return 1e-18 * float((x[0] - 1e10) ** 2), 2e-18 * (x - 1e10)

    found = fastopt.minimize(basin, [0.0], gtol=1e-12)
    assert calls[:26] == sorted(calls[:26])
    assert calls[25] < 1e9
    assert found.success, found
    np.testing.assert_allclose(found.x, 1e10, rtol=1e-3)


def test_losses_without_a_minimum_and_wrong_gradients_come_to_an_end() -> None:
    wrong = fastopt.minimize(lambda x: (quadratic(x)[0], -quadratic(x)[1]), [5.0, 6.0])
    assert (wrong.status, wrong.x.tolist()) == (2, [5.0, 6.0])
    assert "gradient is wrong" in wrong.message
    huge = fastopt.minimize(lambda x: (1e200 * float(x @ x), 2e200 * x), [1e50, 1.0])
    assert not huge.success


def test_a_run_at_the_limit_of_rounding_ends() -> None:
    """The loss cannot show a decrease below 1e-8, and the gradient is off by 1e-7: its steps lead nowhere."""
    scales = np.logspace(0, 3, 10)
    found = fastopt.minimize(
        lambda x: (1e8 + float(x @ (scales * x)) / 2, scales * x + 1e-7 * np.sin(1e9 * x)), np.ones(10), gtol=0
    )
    assert found.status == 2
    assert found.nit < 1000


def test_newton_away_from_a_saddle() -> None:
    """x^4/4 - x^2/2 + y^2/2: at the start the Hessian is indefinite, and its plain step leads to the saddle at 0."""

    def fun_and_grad(x: Any) -> tuple[float, Any]:
        return x[0] ** 4 / 4 - x[0] ** 2 / 2 + x[1] ** 2 / 2, np.array([x[0] ** 3 - x[0], x[1]])

    found = fastopt.minimize(fun_and_grad, [0.1, 1.0], "newton", hess=lambda x: np.diag([3 * x[0] ** 2 - 1, 1.0]))
    assert found.success
    np.testing.assert_allclose(found.x, [1, 0], atol=1e-6)


def test_newton_on_a_matrix() -> None:
    found = fastopt.minimize(quadratic, np.zeros((2, 2)), "newton", hess=lambda x: np.eye(4).reshape(2, 2, 2, 2))
    assert (found.nit, found.x.tolist()) == (1, [[3, 3], [3, 3]])


def good(x: Any) -> tuple[float, Any]:
    return quadratic(x)


BAD_INPUT: dict[str, tuple[Any, Any, dict[str, Any], type[Exception], str]] = {
    "no function": (3, [1.0], {}, TypeError, "fun_and_grad is 3"),
    "only a loss": (lambda x: 1.0, [1.0], {}, TypeError, r"returned a float: expected \(loss, gradient\)"),
    "three things": (lambda x: (1.0, x, x), [1.0], {}, TypeError, "returned a tuple of 3"),
    "a loss that is an array": (lambda x: (x, x), [1.0], {}, TypeError, "the loss that fun_and_grad returned"),
    "None": (lambda x: None, [1.0], {}, TypeError, "returned None"),
    "a gradient of another shape": (lambda x: (1.0, x[:1]), [1.0, 2.0], {}, ValueError, r"shape \(1,\) and x \(2,\)"),
    "a column": (lambda x: (1.0, x[:, None]), [1.0, 2.0], {}, ValueError, r"\(2, 1\) and x \(2,\)"),
    "a complex gradient": (lambda x: (1.0, x * 1j), [1.0], {}, TypeError, "complex128"),
    "a NaN loss": (lambda x: (math.nan, x), [1.0], {}, fastopt.NonFiniteError, "loss of fun_and_grad at x0 is nan"),
    "an infinite gradient": (
        lambda x: (1.0, np.where(x > 1, np.inf, x)),
        [[1.0, 2.0]],
        {},
        fastopt.NonFiniteError,
        r"gradient of fun_and_grad at x0 is inf at \[0, 1\]",
    ),
    "x0 with NaN": (good, [1.0, math.nan], {}, ValueError, r"x0\[1\] is nan"),
    "x0 of words": (good, ["a"], {}, TypeError, "x0 is a list"),
    "x0 complex": (good, [1j], {}, TypeError, "complex128"),
    "x0 empty": (good, [], {}, ValueError, "nothing to minimize"),
    "a method": (good, [1.0], {"method": "bfgs"}, ValueError, "method is 'bfgs': expected one of 'lbfgs'"),
    "gtol": (good, [1.0], {"gtol": -1}, ValueError, "gtol is -1"),
    "ftol": (good, [1.0], {"ftol": "0"}, TypeError, "ftol is '0'"),
    "iterations": (good, [1.0], {"max_iterations": 0}, ValueError, "max_iterations is 0"),
    "evaluations": (good, [1.0], {"max_evaluations": 1.5}, TypeError, "max_evaluations is 1.5"),
    "history": (good, [1.0], {"history": 0}, ValueError, "history is 0"),
    "callback": (good, [1.0], {"callback": 1}, TypeError, "callback is 1"),
    "a line search": (
        good,
        [1.0],
        {"line_search": "wolfe"},
        ValueError,
        "line_search is 'wolfe': expected one of 'strong",
    ),
    "an option": (good, [1.0], {"memory": 5}, TypeError, "has no 'memory': it takes history, line_search, c1, c2"),
    "scipy's name": (good, [1.0], {"maxiter": 5}, TypeError, "called max_iterations here"),
    "lr": (good, [1.0], {"lr": 0.1}, TypeError, "the line search finds the step"),
    "another search's option": (good, [1.0], {"shrink": 0.5}, TypeError, "has no 'shrink'"),
    "c1": (good, [1.0], {"c1": 2}, ValueError, "c1 is 2"),
    "history elsewhere": (good, [1.0], {"method": "gradient_descent", "history": 3}, TypeError, "has no 'history'"),
    "an optimizer's option": (good, [1.0], {"method": "adam", "alpha": 1}, TypeError, "Adam has no 'alpha'"),
    "an lr missing": (good, [1.0], {"method": "sgd"}, TypeError, "lr"),
    "hess elsewhere": (good, [1.0], {"hess": lambda x: x}, TypeError, "no other method takes it"),
    "no hess": (good, [1.0], {"method": "newton"}, TypeError, "needs hess="),
    "hess of a shape": (good, [1.0], {"method": "newton", "hess": lambda x: x}, ValueError, r"expected \(1, 1\)"),
    "hess with NaN": (
        good,
        [1.0],
        {"method": "newton", "hess": lambda x: x[:, None] * math.nan},
        ValueError,
        r"nan at \(0, 0\)",
    ),
    "hess asymmetric": (
        good,
        [1.0, 2.0],
        {"method": "newton", "hess": lambda x: np.array([[1.0, 2.0], [0.0, 1.0]])},
        ValueError,
        "a Hessian is symmetric",
    ),
    "hess singular": (
        good,
        [1.0, 2.0],
        {"method": "newton", "hess": lambda x: np.ones((2, 2))},
        np.linalg.LinAlgError,
        "Hessian is singular",
    ),
}


@pytest.mark.parametrize("what", BAD_INPUT)
def test_bad_input(what: str) -> None:
    fun_and_grad, x0, options, error, words = BAD_INPUT[what]
    with pytest.raises(error, match=words):
        fastopt.minimize(fun_and_grad, x0, **options)


@pytest.mark.parametrize("method", ["lbfgs", "adam"])
def test_what_the_function_raises_comes_through(method: str) -> None:
    def fun_and_grad(x: Any) -> tuple[float, Any]:
        raise ZeroDivisionError("of mine")

    with pytest.raises(ZeroDivisionError, match="of mine"):
        fastopt.minimize(fun_and_grad, [1.0], method)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8, 1e100])
@pytest.mark.parametrize("search", SEARCHES)
def test_the_scale_of_a_variable_is_no_singularity(scale: float, search: str) -> None:
    """cos x + x^2/20 has its minimum where sin x = x/10, which brentq has. Its curvature is negative at the start."""
    optimize = pytest.importorskip("scipy.optimize")
    minimum = optimize.brentq(lambda x: math.sin(x) - x / 10, 2, 3, xtol=1e-14)

    def fun_and_grad(x: Any) -> tuple[float, Any]:
        y = scale * x[1]
        return math.cos(x[0]) + x[0] ** 2 / 20 + y**2 / 2, np.array([x[0] / 10 - math.sin(x[0]), scale * y])

    def hess(x: Any) -> Any:
        return np.diag([0.1 - math.cos(x[0]), scale**2])

    found = fastopt.minimize(fun_and_grad, [0.5, 1 / scale], "newton", hess=hess, line_search=search, gtol=1e-7 * scale)
    found = fastopt.minimize(fun_and_grad, found.x, "newton", hess=hess, line_search=search, gtol=1e-7)
    np.testing.assert_allclose(found.x * [1, scale], [minimum, 0], atol=1e-5)
    assert found.x[0] == pytest.approx(2.852, abs=1e-3)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("seed", range(10))
def test_newton_finds_a_minimum_in_variables_of_any_scale(seed: int, search: str) -> None:
    """SciPy's BFGS from there, in variables of one scale, does not move."""
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(seed)
    scale = np.exp2(rng.integers(-40, 40, 4))

    def fun_and_grad(z: Any) -> tuple[float, Any]:
        loss, g = coupled(z * scale)
        return loss, g * scale

    def hess(z: Any) -> Any:
        return coupled_hessian(z * scale) * scale[:, None] * scale

    x0 = 3 * rng.standard_normal(4) / scale
    found = fastopt.minimize(fun_and_grad, x0, "newton", hess=hess, gtol=0, line_search=search)
    x = found.x * scale
    assert np.abs(coupled(x)[1]).max() < 1e-6
    assert np.linalg.eigvalsh(coupled_hessian(x)).min() > 0
    np.testing.assert_allclose(optimize.minimize(coupled, x, jac=True, method="BFGS").x, x, atol=1e-5)


def coupled(x: Any) -> tuple[float, Any]:
    """Cosines, indefinite in places, in a bowl."""
    total = float(x.sum())
    return float(np.cos(x).sum()) + 0.3 * float(x @ x) + 0.1 * total**2, -np.sin(x) + 0.6 * x + 0.2 * total


def coupled_hessian(x: Any) -> Any:
    return np.diag(0.6 - np.cos(x)) + 0.2


def test_a_hessian_that_becomes_singular_on_the_way() -> None:
    """x^4 + (y - 1)^2: the Hessian goes to diag(0, 2), and is diag(0, 2) on the axis where x underflows."""

    def fun_and_grad(x: Any) -> tuple[float, Any]:
        return float(x[0] ** 4 + (x[1] - 1) ** 2), np.array([4 * x[0] ** 3, 2 * (x[1] - 1)])

    seen = []

    def hess(x: Any) -> Any:
        seen.append(x.copy())
        return np.diag([12 * x[0] ** 2 if len(seen) < 3 else 0.0, 2.0])

    found = fastopt.minimize(fun_and_grad, [1.0, 0.0], "newton", hess=hess)
    assert found.success, found
    assert len(seen) >= 3


@pytest.mark.parametrize("method", ["lbfgs", "gradient_descent", "newton", "sgd"])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("who", ["fun_and_grad", "callback"])
def test_an_error_has_the_best_point_so_far(method: str, error: Any, who: str) -> None:
    best: list[fastopt.Minimum] = []
    calls = 0

    def fun_and_grad(x: Any) -> tuple[float, Any]:
        nonlocal calls
        calls += 1
        if who == "fun_and_grad" and calls > 6:
            raise error("of mine")
        return coupled(x)

    def callback(so_far: fastopt.Minimum) -> None:
        best.append(so_far)
        if who == "callback" and so_far.nit == 2:
            raise error("of mine")

    options: Any = {"newton": {"hess": coupled_hessian}, "sgd": {"lr": 0.01}}.get(method, {})
    with pytest.raises(error, match="of mine") as raised:
        fastopt.minimize(fun_and_grad, [3.0, 2.0, 0.1, -4.0], method, gtol=0, callback=callback, **options)
    so_far = raised.value.so_far  # type: ignore[attr-defined]
    assert (so_far.x.tolist(), so_far.fun) == (best[-1].x.tolist(), best[-1].fun)
    assert so_far.success is False
    assert so_far.nit - len(best) in ((0, 1) if method == "sgd" else (0,))
    assert error.__name__ in so_far.message


def test_a_hessian_that_fails_on_the_way_has_the_best_point_so_far() -> None:
    def hess(x: Any) -> Any:
        return np.full((4, 4), math.nan) if coupled(x)[0] < coupled(start)[0] - 1 else coupled_hessian(x)

    start = np.array([3.0, 2.0, 0.1, -4.0])
    with pytest.raises(ValueError, match=r"hess returned nan at \(0, 0\)") as raised:
        fastopt.minimize(coupled, start, "newton", hess=hess)
    assert raised.value.so_far.fun < coupled(start)[0] - 1  # type: ignore[attr-defined]
    assert raised.value.so_far.nit >= 1  # type: ignore[attr-defined]
