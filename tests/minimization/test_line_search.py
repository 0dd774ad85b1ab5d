"""Line searches: their conditions on the functions of Moré & Thuente, beside SciPy's; losses that misbehave."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastopt.minimization.line_search import Found, along, backtracking, bracketing, strong_wolfe

Phi = Callable[[float], tuple[float, float]]


def more_thuente_3(alpha: float) -> tuple[float, float]:
    beta, l = 0.01, 39
    if alpha <= 1 - beta:
        value, slope = 1 - alpha, -1.0
    elif alpha >= 1 + beta:
        value, slope = alpha - 1, 1.0
    else:
        value, slope = (alpha - 1) ** 2 / (2 * beta) + beta / 2, (alpha - 1) / beta
    angle = l * math.pi / 2 * alpha
    return value + 2 * (1 - beta) / (l * math.pi) * math.sin(angle), slope + (1 - beta) * math.cos(angle)


def yanai(b1: float, b2: float) -> Phi:
    def gamma(b: float) -> float:
        return math.sqrt(1 + b * b) - b

    def phi(alpha: float) -> tuple[float, float]:
        left, right = math.hypot(1 - alpha, b2), math.hypot(alpha, b1)
        return gamma(b1) * left + gamma(b2) * right, gamma(b1) * (alpha - 1) / left + gamma(b2) * alpha / right

    return phi


def more_thuente_1(alpha: float) -> tuple[float, float]:
    below = alpha * alpha + 2
    return -alpha / below, (alpha * alpha - 2) / below**2


def more_thuente_2(alpha: float) -> tuple[float, float]:
    a = alpha + 0.004
    return a**5 - 2 * a**4, 5 * a**4 - 8 * a**3


# "Line search algorithms with guaranteed sufficient decrease" (1994), with the c1 and c2 of its tables.
FUNCTIONS = {
    "1": (more_thuente_1, 0.001, 0.1),
    "2": (more_thuente_2, 0.1, 0.1),
    "3": (more_thuente_3, 0.1, 0.1),
    "4": (yanai(0.001, 0.001), 0.001, 0.001),
    "5": (yanai(0.01, 0.001), 0.001, 0.001),
    "6": (yanai(0.001, 0.01), 0.001, 0.001),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)
every_start = pytest.mark.parametrize("alpha", [1e-3, 1e-1, 1e1, 1e3])


class Counted:
    def __init__(self, phi: Phi) -> None:
        self.phi, self.seen = phi, list[float]()

    def __call__(self, alpha: float) -> tuple[float, float]:
        self.seen.append(alpha)
        return self.phi(alpha)

    def loss(self, alpha: float) -> float:
        return self(alpha)[0]


def is_consistent(found: Found, phi: Counted) -> None:
    assert found.evaluations == len(phi.seen)
    assert found.value == phi.phi(found.alpha)[0]


@every_function
@every_start
def test_strong_wolfe(name: str, alpha: float) -> None:
    function, c1, c2 = FUNCTIONS[name]
    phi = Counted(function)
    value, slope = function(0.0)
    found = strong_wolfe(phi, alpha, value=value, slope=slope, c1=c1, c2=c2)
    is_consistent(found, phi)
    assert found.success
    assert found.value <= value + c1 * found.alpha * slope
    assert abs(function(found.alpha)[1]) <= c2 * abs(slope)


@every_function
@every_start
def test_backtracking(name: str, alpha: float) -> None:
    function, c1, _ = FUNCTIONS[name]
    phi = Counted(function)
    value, slope = function(0.0)
    found = backtracking(phi.loss, alpha, value=value, slope=slope, c1=c1, shrink=0.5)
    is_consistent(found, phi)
    assert found.success
    assert found.value <= value + c1 * found.alpha * slope
    assert found.alpha == alpha * 0.5 ** (found.evaluations - 1)
    assert all(function(a)[0] > value + c1 * a * slope for a in phi.seen[:-1])


@every_function
@every_start
def test_bracketing(name: str, alpha: float) -> None:
    function, _, _ = FUNCTIONS[name]
    phi = Counted(function)
    found = bracketing(phi.loss, alpha, tolerance=1e-3)
    is_consistent(found, phi)
    assert found.success
    assert found.value < function(0.0)[0]
    if name in "12":
        # One minimum along the line: the search must come to it.
        minimum = {"1": math.sqrt(2), "2": 1.6 - 0.004}[name]
        assert found.alpha == pytest.approx(minimum, rel=1e-3)


def rosenbrock(x: Any) -> tuple[float, Any]:
    a, b = x[1] - x[0] ** 2, 1 - x[0]
    return 100 * a * a + b * b, np.array([-400 * x[0] * a - 2 * b, 200 * a])


@pytest.mark.filterwarnings("ignore:The line search algorithm did not converge")
def test_strong_wolfe_finds_a_step_where_scipy_does() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    ours = theirs = 0
    for _ in range(200):
        x = rng.uniform(-2, 2, 2)
        f, g = rosenbrock(x)
        d = -g / np.linalg.norm(g) ** rng.uniform(0, 1)
        phi = Counted(along(rosenbrock, x, d))
        found = strong_wolfe(phi, value=f, slope=float(g @ d))
        alpha, evaluations, *_ = optimize.line_search(
            lambda x: rosenbrock(x)[0], lambda x: rosenbrock(x)[1], x, d, g, f, maxiter=25
        )
        value, slope = phi.phi(found.alpha)
        assert found.success
        assert value <= f + 1e-4 * found.alpha * (g @ d)
        assert abs(slope) <= 0.9 * abs(g @ d)
        if alpha is not None:
            ours, theirs = ours + found.evaluations, theirs + evaluations
    assert ours <= theirs


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_too_far(bad: float) -> None:
    """A barrier at 0.003, beyond which there is no number, and a minimum before it."""

    def phi(alpha: float) -> tuple[float, float]:
        if alpha >= 0.003:
            return bad, bad
        return (alpha - 0.002) ** 2, 2 * (alpha - 0.002)

    for found in (
        strong_wolfe(phi),
        strong_wolfe(lambda alpha: (phi(alpha)[0], 2 * (alpha - 0.002))),
        backtracking(lambda alpha: phi(alpha)[0], slope=-0.004),
        bracketing(lambda alpha: phi(alpha)[0]),
    ):
        assert found.success
        assert found.alpha == pytest.approx(0.002, abs=0.001)


def test_a_slope_alone_that_is_not_finite_is_too_far() -> None:
    found = strong_wolfe(lambda alpha: (-alpha, -1.0 if alpha < 0.5 else math.nan), max_evaluations=10)
    assert not found.success
    assert 0 < found.alpha < 0.5


def test_failure_gives_the_lowest_point() -> None:
    found = strong_wolfe(lambda alpha: (-alpha, -1.0), max_evaluations=5)
    assert (found.success, found.evaluations) == (False, 5)
    assert found.value == -found.alpha < -1
    wrong_slope = strong_wolfe(lambda alpha: (alpha, 1.0), value=0.0, slope=-1.0)
    assert (wrong_slope.success, wrong_slope.alpha, wrong_slope.value) == (False, 0.0, 0.0)
    assert backtracking(lambda alpha: alpha, slope=-1.0) == Found(0.0, 0.0, 60, False)
    assert bracketing(lambda alpha: alpha, max_evaluations=20) == Found(0.0, 0.0, 20, False)


@every_function
@pytest.mark.parametrize("known", [True, False])
def test_no_search_overruns_its_evaluations(name: str, known: bool) -> None:
    function, c1, c2 = FUNCTIONS[name]
    value, slope = function(0.0) if known else (None, None)
    for most in range(1, 21):
        for alpha in (1e-3, 1.0, 1e3):
            phi = Counted(function)
            found = strong_wolfe(phi, alpha, value=value, slope=slope, c1=c1, c2=c2, max_evaluations=most)
            assert found.evaluations == len(phi.seen) <= most
            phi = Counted(function)
            found = backtracking(phi.loss, alpha, value=value, slope=function(0.0)[1], max_evaluations=most)
            assert found.evaluations == len(phi.seen) <= most
            phi = Counted(function)
            found = bracketing(phi.loss, alpha, value=value, tolerance=1e-9, max_evaluations=most)
            assert found.evaluations == len(phi.seen) <= most
            assert found.value == min(function(step)[0] for step in (0.0, *phi.seen))


def test_rounding_does_not_hide_a_minimum() -> None:
    """At 1e10 the loss cannot show a decrease of 1e-8, but slopes can."""
    found = strong_wolfe(lambda alpha: (1e10 + 1e-8 * (alpha - 1) ** 2, 2e-8 * (alpha - 1)), 0.01)
    assert found.success
    assert found.alpha > 0.05


def test_along() -> None:
    x, d = np.array([[1.0, 2.0]]), np.array([[3.0, 0.5]])
    phi = along(lambda x: (float((x**2).sum()), 2 * x), x, d)
    assert phi(2.0) == (49.0 + 9.0, 2 * (7 * 3 + 3 * 0.5))
    assert along(lambda x: (0.0, x), [1], [2])(0.0) == (0.0, 2.0)
    with pytest.raises(ValueError, match=r"x has shape \(2,\) and the direction d \(3,\)"):
        along(rosenbrock, [1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="the gradient that fun_and_grad returned has shape"):
        along(lambda x: (0.0, x[:1]), [1, 2], [1, 2])(0.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"c1": 0.0}, "c1 is 0.0"),
        ({"c2": 1.0}, "c2 is 1.0"),
        ({"c1": 0.5, "c2": 0.4}, "c1=0.5 must not be larger than c2=0.4"),
        ({"max_evaluations": 0}, "max_evaluations is 0"),
        ({"slope": 0.0, "value": 0.0}, "slope phi'.0. is 0.0"),
        ({"slope": math.nan, "value": 0.0}, "slope phi'.0. is nan"),
        ({"slope": -1.0, "value": math.nan}, "phi.0. is nan"),
    ],
)
def test_bad_input(options: Any, words: str) -> None:
    seen = Counted(more_thuente_1)
    with pytest.raises(ValueError, match=words):
        strong_wolfe(seen, **options)
    if "c2" not in options:
        with pytest.raises(ValueError, match=words):
            backtracking(seen.loss, **{"slope": -1.0, **options})
    assert seen.seen == []
    with pytest.raises(ValueError, match="tolerance is 0"):
        bracketing(seen.loss, tolerance=0)
    with pytest.raises(TypeError, match="alpha is '1'"):
        bracketing(seen.loss, "1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shrink is 1\.5"):
        backtracking(seen.loss, slope=-1.0, shrink=1.5)


WRONG: dict[str, tuple[Any, str]] = {
    "a pair": (lambda: backtracking(lambda alpha: (1.0, 1.0), slope=-1.0), "phi returned a tuple: .*the loss alone"),
    "a pair, bracketing": (lambda: bracketing(lambda alpha: (1.0, 1.0)), "phi returned a tuple: .*the loss alone"),
    "no loss": (lambda: backtracking(lambda alpha: None, slope=-1.0, value=1.0), "the loss that phi returned is None"),
    "no slope": (lambda: strong_wolfe(lambda alpha: 1.0), r"phi returned a float: expected \(loss, slope\)"),
    "three": (
        lambda: strong_wolfe(lambda alpha: (1.0, -1.0, 0.0)),
        r"phi returned a tuple of 3: expected \(loss, slope\)",
    ),
    "a vector": (lambda: strong_wolfe(lambda alpha: (1.0, np.ones(1))), "the slope that phi returned is array"),
    "no function": (lambda: bracketing(1.0), "phi is 1.0: expected a function of the step"),
    "slope None": (lambda: backtracking(abs, slope=None), "slope is None"),
    "along no function": (lambda: along(None, [1.0], [1.0]), "fun_and_grad is None: expected a function of x"),
    "along a loss": (
        lambda: strong_wolfe(along(lambda x: 1.0, [1.0], [1.0])),
        r"fun_and_grad returned a float: expected \(loss, gradient\)",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_functions_that_are_none_or_give_something_else(what: str) -> None:
    call, words = WRONG[what]
    with pytest.raises(TypeError, match=words):
        call()
