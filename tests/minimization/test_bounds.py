"""Bounds and numerical gradients: the problems of Hock & Schittkowski with their published solutions, SciPy's L-BFGS-B
and nnls, and every evaluation looked at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.minimization.box_vectors import Model
from tests.minimization import mgh
from tests.minimization.hock_schittkowski import PROBLEMS, Bounded

every_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: str(problem.number))
SEARCHES = ["strong_wolfe", "backtracking", "bracketing"]


class Watched:
    """A function within bounds: refuses to be evaluated outside them, and counts."""

    def __init__(self, fun_and_grad: Any, bounds: Any, loss_alone: bool = False) -> None:
        self.fun_and_grad, self.loss_alone, self.calls = fun_and_grad, loss_alone, 0
        self.low = np.array([-math.inf if low is None else low for low, _ in bounds])
        self.high = np.array([math.inf if high is None else high for _, high in bounds])

    def __call__(self, x: Any) -> Any:
        self.calls += 1
        assert np.all((self.low <= x) & (x <= self.high)), x
        found = self.fun_and_grad(x)
        return found[0] if self.loss_alone else found

    def steepest(self, x: Any) -> float:
        """max|projected gradient|"""
        return float(np.abs(np.clip(x - self.fun_and_grad(x)[1], self.low, self.high) - x).max())


def is_published(fun: float, problem: Bounded) -> bool:
    return any(abs(fun - minimum) <= 1e-8 * max(1, abs(minimum)) for minimum in problem.minima)


@every_problem
def test_the_published_solution_is_one(problem: Bounded) -> None:
    watched = Watched(problem.fun_and_grad, problem.bounds)
    assert watched(problem.solution)[0] == pytest.approx(problem.minima[0], abs=1e-8)
    # That of 110 is published to 5 digits.
    assert watched.steepest(problem.solution) < 1e-4
    inside = np.clip(problem.x0, watched.low, watched.high) * 0.99 + 1e-3
    f, g = problem.fun_and_grad(inside)
    steps = 1e-6 * np.eye(len(inside))
    numeric = [(problem.fun_and_grad(inside + e)[0] - problem.fun_and_grad(inside - e)[0]) / 2e-6 for e in steps]
    np.testing.assert_allclose(g, numeric, atol=1e-6 * max(1, abs(f)))


@every_problem
def test_as_scipy(problem: Bounded) -> None:
    """Solved wherever SciPy's L-BFGS-B does, and in no more than 1.3 times its evaluations. 25 it does not solve."""
    optimize = pytest.importorskip("scipy.optimize")
    watched = Watched(problem.fun_and_grad, problem.bounds)
    ours = fastopt.minimize(watched, problem.x0, bounds=problem.bounds, gtol=1e-8)
    options = {"gtol": 1e-8, "ftol": 0, "maxfun": 100000}
    theirs = optimize.minimize(
        problem.fun_and_grad, problem.x0, jac=True, method="L-BFGS-B", bounds=problem.bounds, options=options
    )
    assert ours.nfev == watched.calls
    assert ours.success, ours
    assert is_published(ours.fun, problem)
    assert watched.steepest(ours.x) <= 1e-8
    if is_published(theirs.fun, problem):
        assert ours.nfev <= 1.3 * theirs.nfev
    else:
        assert problem.number == 25


@every_problem
@pytest.mark.parametrize("search", SEARCHES)
def test_every_search_stays_within(problem: Bounded, search: str) -> None:
    watched = Watched(problem.fun_and_grad, problem.bounds)
    found = fastopt.minimize(watched, problem.x0, bounds=problem.bounds, line_search=search, max_evaluations=2000)
    assert watched(found.x)[0] <= watched(np.clip(problem.x0, watched.low, watched.high))[0]
    # Backtracking learns no curvature where it is far from the minimum: 25 is flat there.
    assert is_published(found.fun, problem) or problem.number == 25 or found.fun < problem.minima[0] + 1e-4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("problem", mgh.PROBLEMS, ids=lambda problem: problem.id)
def test_boxes_that_cut_the_way(problem: mgh.Problem, seed: int) -> None:
    """Random boxes around where SciPy comes to without: a minimum in the box, with the signs that it has at bounds."""
    optimize = pytest.importorskip("scipy.optimize")
    rng, n = np.random.default_rng(seed), problem.x0.size
    with np.errstate(all="ignore"):
        free = optimize.minimize(problem.fun_and_grad, problem.x0, jac=True, method="L-BFGS-B").x
    low = free + rng.normal(size=n) * (0.1 + 0.3 * np.abs(free))
    high = low + np.abs(rng.normal(size=n)) * (1 + np.abs(free))
    low, high = np.where(rng.random(n) < 0.3, -np.inf, low), np.where(rng.random(n) < 0.3, np.inf, high)
    bounds = list(zip(low, high, strict=True))
    watched = Watched(problem.fun_and_grad, bounds)
    with np.errstate(all="ignore"):
        found = fastopt.minimize(watched, problem.x0, bounds=bounds, max_evaluations=3000)
        assert found.fun <= watched(np.clip(problem.x0, low, high))[0]
        if found.success:
            assert watched.steepest(found.x) <= 1e-6
    assert found.active_mask is not None
    np.testing.assert_array_equal(found.active_mask == -1, found.x == low)
    np.testing.assert_array_equal(found.active_mask == 1, (found.x == high) & (found.x != low))


def bowl(x: Any) -> tuple[float, Any]:
    return float(np.sum((x - 3) ** 2)) / 2, x - 3


@pytest.mark.parametrize("seed", range(5))
def test_as_nnls(seed: int) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((60, 40)), rng.standard_normal(60)

    def squares(x: Any) -> tuple[float, Any]:
        r = A @ x - b
        return float(r @ r) / 2, A.T @ r

    found = fastopt.minimize(squares, np.ones(40), bounds=[(0, None)] * 40, gtol=1e-9)
    solution = optimize.nnls(A, b)[0]
    np.testing.assert_allclose(found.x, solution, atol=1e-7)
    np.testing.assert_array_equal(found.x == 0, solution == 0)
    np.testing.assert_array_equal(found.active_mask, np.where(solution == 0, -1, 0))


def test_all_forms_of_bounds() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    forms = [
        [(None, 2), (0, None), (4, 5)],
        ((-np.inf, 2.0), [0, np.inf], np.array([4, 5])),
        np.array([[-np.inf, 2], [0, np.inf], [4, 5]]),
        optimize.Bounds([-np.inf, 0, 4], [2, np.inf, 5]),
    ]
    for bounds in forms:
        found = fastopt.minimize(bowl, [0.0, 0.0, 0.0], bounds=bounds)
        np.testing.assert_allclose(found.x, [2, 3, 4], rtol=1e-14)
        assert found.active_mask.tolist() == [1, 0, -1]  # type: ignore[union-attr]
    matrix = fastopt.minimize(bowl, np.zeros((2, 2)), bounds=optimize.Bounds(-1, [[1, 2], [3, 4]]))
    assert matrix.x.tolist() == [[1, 2], [3, 3]]
    assert matrix.active_mask.tolist() == [[1, 1], [1, 0]]  # type: ignore[union-attr]
    number = fastopt.minimize(bowl, 0.0, bounds=[(None, 1)])
    assert (number.x.shape, float(number.x)) == ((), 1.0)
    pairs = np.zeros((2, 2, 2))
    pairs[..., 1] = [[1, 2], [3, 4]]
    assert fastopt.minimize(bowl, np.zeros((2, 2)), bounds=pairs).x.tolist() == [[1, 2], [3, 3]]


def test_no_bounds_are_no_bounds() -> None:
    plain = fastopt.minimize(mgh.PROBLEMS[0].fun_and_grad, [-1.2, 1.0])
    for bounds in (None, [(None, None), (-np.inf, None)]):
        assert str(fastopt.minimize(mgh.PROBLEMS[0].fun_and_grad, [-1.2, 1.0], bounds=bounds)) == str(plain)
    assert plain.active_mask is None
    assert "active" not in str(plain)


def test_x0_outside_is_moved_and_that_is_said() -> None:
    seen: list[Any] = []

    def watched(x: Any) -> tuple[float, Any]:
        seen.append(x.tolist())
        return bowl(x)

    x0 = np.array([9.0, -9.0])
    found = fastopt.minimize(watched, x0, bounds=[(0, 5), (-1, 2)])
    assert seen[0] == [5, -1]
    assert x0.tolist() == [9, -9]
    assert "x0 was outside the bounds, and moved to the nearest point within" in found.message
    assert "outside" not in fastopt.minimize(watched, [5.0, -1.0], bounds=[(0, 5), (-1, 2)]).message
    assert "active_mask: [0 1]" in str(found)


def test_variables_with_equal_bounds_stay() -> None:
    found = fastopt.minimize(bowl, [0.0, 0.0, 0.0], bounds=[(1, 1), (0, None), (7, 7)])
    assert found.success, found
    assert found.x.tolist() == [1, 3, 7]
    found = fastopt.minimize(bowl, [0.0, 0.0], bounds=[(1, 1), (2, 2)], jac=True)
    assert (found.x.tolist(), found.nfev, found.success) == ([1, 2], 1, True)


@pytest.mark.parametrize(
    ("bounds", "error", "words"),
    [
        ([(0, 1), (3, 1)], ValueError, r"the bounds of x\[1\] are 3 and 1: the low one must not be above"),
        ([(0, 1)], ValueError, "bounds has 1 pairs and x0 2 elements"),
        ([(0, 1), (0, 1), (0, 1)], ValueError, "bounds has 3 pairs and x0 2 elements"),
        ([(0, 1), 1], TypeError, r"bounds\[1\] is 1: expected a pair"),
        ([(0, 1), (0, 1, 2)], TypeError, r"bounds\[1\] is \(0, 1, 2\): expected a pair"),
        ([(0, 1), ("0", 1)], TypeError, r"bounds\[1\]\[0\] is '0'"),
        ([(0, 1), (math.nan, 1)], ValueError, r"bounds: the low one of x\[1\] is nan"),
        ([(0, 1), (math.inf, None)], ValueError, r"the bounds of x\[1\] are inf and inf"),
        (np.zeros((3, 2)), ValueError, "bounds has 3 pairs"),
        (3, TypeError, "bounds is 3: expected a pair"),
        ({0: (1, 2)}, TypeError, "bounds is"),
        (np.array(0.5), TypeError, "bounds is"),
        ([(0, 1), np.array(0.5)], TypeError, r"bounds\[1\] is"),
    ],
)
def test_bounds_that_are_none(bounds: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        fastopt.minimize(bowl, [1.0, 1.0], bounds=bounds)


def test_scipys_bounds_that_do_not_fit() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    with pytest.raises(ValueError, match=r"bounds.lb has shape \(3,\) and x0 \(2,\)"):
        fastopt.minimize(bowl, [1.0, 1.0], bounds=optimize.Bounds([0, 0, 0], 1))
    with pytest.raises(ValueError, match=r"the bounds of x\[0, 1\] are 2 and 1"):
        fastopt.minimize(bowl, [[1.0, 1.0]], bounds=optimize.Bounds([[0, 2]], 1))
    with pytest.raises(TypeError, match=r"bounds\.ub"):
        fastopt.minimize(bowl, [1.0, 1.0], bounds=type("Odd", (), {"lb": 0, "ub": "x"})())  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["gradient_descent", "newton", "adam"])
def test_other_methods_take_none(method: str) -> None:
    options: Any = {"newton": {"hess": lambda x: np.eye(1)}, "adam": {"lr": 0.1}}.get(method, {})
    with pytest.raises(TypeError, match=f"method='{method}' takes no bounds: use method='lbfgs'"):
        fastopt.minimize(bowl, [1.0], method, bounds=[(0, 1)], **options)


@every_problem
def test_numerical_gradients_within_bounds(problem: Bounded) -> None:
    """At the start of 25 the loss is flat, and its gradient by differences 0."""
    watched = Watched(problem.fun_and_grad, problem.bounds, loss_alone=True)
    found = fastopt.minimize(watched, problem.x0, bounds=problem.bounds, jac="2-point", max_evaluations=20000)
    assert found.nfev == watched.calls
    if problem.number == 25:
        assert found.nfev == 4
        return
    assert any(abs(found.fun - minimum) <= 1e-5 * max(1, abs(minimum)) for minimum in problem.minima), found


@pytest.mark.parametrize("x", [[0.0, 1e6], [1e-9, -3.0], [0.5, 0.5]])
@pytest.mark.parametrize("bounds", [None, [(0, 1), (None, 1e6)], [(0, 1e-12), (-3, 1e6)]])
def test_numerical_gradients_are_right_to_half_the_digits(x: Any, bounds: Any) -> None:
    def loss(x: Any) -> float:
        return float(np.sin(x).sum() + x[0] * x[1])

    found = fastopt.minimize(loss, x, bounds=bounds, jac="2-point", max_evaluations=3)
    at = found.x
    exact = [math.cos(at[0]) + at[1], math.cos(at[1]) + at[0]]
    if bounds != [(0, 1e-12), (-3, 1e6)]:
        np.testing.assert_allclose(found.jac, exact, rtol=1e-6, atol=1e-6 * max(1, abs(at[1])))
    assert found.nfev == 3


@pytest.mark.parametrize("method", ["lbfgs", "gradient_descent", "newton", "adam"])
@pytest.mark.parametrize("bounded", [True, False])
def test_no_limit_is_overrun_with_bounds_or_differences(method: str, bounded: bool) -> None:
    options: Any = {"newton": {"hess": lambda x: np.eye(3)}, "adam": {"lr": 0.1}}.get(method, {})
    if bounded:
        if method != "lbfgs":
            return
        options["bounds"] = [(0, 2), (None, 4), (1, None)]
    for jac in (True, "2-point"):
        for most in range(1, 21):
            watched = Watched(quartic, options.get("bounds", [(None, None)] * 3), loss_alone=jac != True)  # noqa: E712
            found = fastopt.minimize(watched, [1.0, 0.0, 5.0], method, jac=jac, max_evaluations=most, gtol=0, **options)
            assert watched.calls == found.nfev <= most
            assert found.fun == quartic(found.x)[0] <= quartic(np.array([1.0, 0.0, 5.0]))[0]
            assert found.status == 1 or found.success
            assert np.isnan(found.jac).all() == (jac == "2-point" and most < 4)


def quartic(x: Any) -> tuple[float, Any]:
    return float(np.sum((x - 3) ** 4 + x**2)), 4 * (x - 3) ** 3 + 2 * x


@pytest.mark.parametrize(
    ("fun", "jac", "error", "words"),
    [
        (bowl, "2-point", TypeError, "returned a tuple: with jac='2-point' it gives the loss alone"),
        (lambda x: bowl(x)[0], True, TypeError, r"returned a float: expected \(loss, gradient\)"),
        (bowl, "3-point", ValueError, "jac is '3-point': expected True"),
        (bowl, None, ValueError, "jac is None"),
        (bowl, 1, ValueError, "jac is 1"),
        (bowl, bowl, ValueError, r"of two functions make one, lambda x: \(fun\(x\), jac\(x\)\)"),
        (lambda x: math.nan, "2-point", fastopt.NonFiniteError, "loss of fun_and_grad at x0 is nan"),
    ],
)
@pytest.mark.parametrize("most", [1, None])
def test_functions_and_jac_that_do_not_fit(fun: Any, jac: Any, error: Any, words: str, most: Any) -> None:
    with pytest.raises(error, match=words):
        fastopt.minimize(fun, [1.0, 2.0], jac=jac, max_evaluations=most)


@pytest.mark.parametrize(
    ("method", "called"),
    [
        ("L-BFGS-B", "lbfgs"),
        ("BFGS", "lbfgs"),
        ("LBFGS", "lbfgs"),
        ("SLSQP", "lbfgs"),
        ("Newton-CG", "newton"),
        ("trust-exact", "newton"),
        ("Adam", "adam"),
        ("AdamW", "adamw"),
        ("GD", "gradient_descent"),
    ],
)
def test_methods_of_others_are_told_what_they_are_called(method: str, called: str) -> None:
    with pytest.raises(ValueError, match=f"expected one of 'lbfgs', .*; instead of '{method}' take '{called}'"):
        fastopt.minimize(bowl, [1.0], method)
    with pytest.raises(ValueError, match=r"method is 'Nelder-Mead': expected one of [^;]*$"):
        fastopt.minimize(bowl, [1.0], "Nelder-Mead")


def test_a_result_is_read_as_scipys() -> None:
    found = fastopt.minimize(bowl, [1.0])
    assert all(found[name] is getattr(found, name) for name in found._fields)
    assert found["x"].tolist() == [3]
    assert found[0] is found.x
    assert found[1:3] == (found.fun, found.jac)
    with pytest.raises(KeyError, match="a Minimum has no 'hess_inv': it has x, fun, jac"):
        found["hess_inv"]


def pairs(rng: Any, n: int, m: int) -> tuple[Any, Any]:
    """Steps and gradient changes of a random convex quadratic, with s.y = 1."""
    A = rng.standard_normal((n, n))
    s = rng.standard_normal((m, n))
    y = s @ (A @ A.T + 0.1 * np.eye(n))
    scale = 1 / np.sqrt(np.sum(s * y, axis=1))[:, None]
    return scale * s, scale * y


@pytest.mark.parametrize("m", [0, 1, 4, 10])
def test_the_model_is_bfgss(m: int) -> None:
    """B by the updates one after another (Nocedal & Wright, 6.19), from theta I."""
    rng = np.random.default_rng(m)
    s, y = pairs(rng, 8, m)
    model = Model(s, y)
    B = model.theta * np.eye(8)
    for a, b in zip(s, y, strict=True):
        B = B - np.outer(B @ a, B @ a) / (a @ B @ a) + np.outer(b, b)
    p, free = rng.standard_normal(8), np.arange(8) % 3 > 0
    np.testing.assert_allclose(model.product(p), B @ p, rtol=1e-8, atol=1e-8 * np.abs(B).max())
    np.testing.assert_allclose(model.solve(free, p[free]), np.linalg.solve(B[np.ix_(free, free)], p[free]), rtol=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_the_minimum_of_the_model_has_multipliers_of_the_right_signs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, g = Model(*pairs(rng, 12, 5)), rng.standard_normal(12)
    low, high = -rng.exponential(0.3, 12), rng.exponential(0.3, 12)
    low[:3], high[3:6], low[6], high[7] = 0, 0, -np.inf, np.inf
    p, at_low, at_high = model.minimum(g, low, high)
    multipliers = g + model.product(p)
    assert np.all((low <= p) & (p <= high))
    assert np.all(multipliers[at_low] >= 0)
    assert np.all(multipliers[at_high] <= 0)
    np.testing.assert_allclose(multipliers[~at_low & ~at_high], 0, atol=1e-8)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("seed", range(20))
def test_a_step_to_a_bound_ends_at_it(seed: int, sign: int) -> None:
    """To the bit, though x + (bound - x) is rounded: else it would not count as active."""
    rng = np.random.default_rng(seed)
    bound = rng.standard_normal(50)
    slope = 20 * rng.exponential(1.0, 50) + 20
    found = fastopt.minimize(
        lambda x: (sign * float(slope @ x), sign * slope),
        bound + sign * rng.exponential(1.0, 50),
        bounds=[(b, b + 9) if sign > 0 else (b - 9, b) for b in bound],
    )
    assert (found.success, found.nfev) == (True, 2), found
    assert found.x.tolist() == bound.tolist()
    assert found.active_mask.tolist() == [-sign] * 50  # type: ignore[union-attr]
