"""Losses and parameters of every precision, offset and scale: a long step ends where short ones do, at the minimum in
closed form or SciPy's in double; what can come no further says so, and ends."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.app.selftest import same_bits
from fastopt.minimization.rounding import DOUBLE, ULPS, Rounding, significant_bits


@pytest.mark.parametrize(("dtype", "bits"), [(np.float16, 11), (np.float32, 24), (np.float64, 53)])
def test_values_tell_their_precision(dtype: Any, bits: int) -> None:
    values = np.random.default_rng(0).standard_normal(200).astype(dtype)
    assert max(significant_bits(float(x)) for x in values) == bits
    rounding = Rounding()
    for x in values:
        rounding.note(float(x))
    assert rounding.relative == ULPS * float(np.finfo(dtype).eps)
    assert rounding.of(-3.0) == 3 * rounding.relative


def test_few_bits_are_those_of_any_type() -> None:
    assert [significant_bits(x) for x in (0.0, 1.0, -1024.0, 12.0, 5e-324, 1 / 3)] == [0, 1, 1, 2, 1, 53]
    rounding = Rounding()
    for known in (False, False, False, True):
        rounding.note(1e6)
        assert (rounding.relative > ULPS * DOUBLE) == known
    rounding.note(math.nan)
    rounding.note(0.1)
    assert rounding.relative == ULPS * DOUBLE


class Rosenbrock:
    start, minimum = np.tile([-1.2, 1.0], 3), np.ones(6)

    def __call__(self, x: Any) -> tuple[Any, Any]:
        """Terms of the loss, and the gradient, in the type of x."""
        a, b = x[1::2] - x[::2] ** 2, 1 - x[::2]
        g = np.empty_like(x)
        g[::2], g[1::2] = -400 * x[::2] * a - 2 * b, 200 * a
        return np.concatenate([100 * a * a, b * b]), g


class Logistic:
    start = np.zeros(10)

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.X = rng.standard_normal((200, 10))
        self.y = (rng.random(200) < 1 / (1 + np.exp(-self.X @ rng.standard_normal(10)))).astype(float)

    @functools.cached_property
    def minimum(self) -> Any:
        optimize = pytest.importorskip("scipy.optimize")

        def summed(x: Any) -> tuple[float, Any]:
            terms, g = self(x)
            return float(terms.sum()), g

        return optimize.minimize(summed, self.start, jac=True, method="BFGS", options={"gtol": 1e-10}).x

    def __call__(self, w: Any) -> tuple[Any, Any]:
        X, y = self.X.astype(w.dtype), self.y.astype(w.dtype)
        z, l2 = X @ w, w.dtype.type(0.02)
        terms = np.logaddexp(w.dtype.type(0), z) - y * z + l2 / 2 * (w @ w) / len(y)
        return terms, X.T @ (1 / (1 + np.exp(-z)) - y) + l2 * w


class Closure:
    """A loss in a precision of its own, whatever that of the parameters: "single" is a NumPy scalar, "single as float"
    the same as a Python float, "summed in double" has terms in single."""

    def __init__(self, terms: Any, dtype: Any, loss: str, offset: float = 0.0, scale: float = 1.0) -> None:
        self.terms, self.dtype, self.loss, self.offset, self.scale = terms, dtype, loss, offset, scale
        self.p = terms.start.astype(dtype)
        self.calls = 0

    def __call__(self) -> tuple[Any, Any]:
        self.calls += 1
        terms, g = self.terms(self.p.astype(float if self.loss == "double" else np.float32))
        g = (g.astype(float) * self.scale).astype(self.dtype)
        if self.loss in ("double", "summed in double"):
            return float(terms.astype(float).sum()) * self.scale + self.offset, g
        loss = np.float32(terms.sum()) * np.float32(self.scale) + np.float32(self.offset)
        return (loss if self.loss == "single" else float(loss)), g


LOSSES = ["double", "single", "single as float", "summed in double"]
LOGISTIC = Logistic()


def run(closure: Closure, most: int, search: str = "strong_wolfe") -> list[fastopt.LBFGSReport]:
    """The idiom of the docs: steps of so many iterations until one is `done`."""
    opt = fastopt.LBFGS(closure.p, max_iterations=most, line_search=search)
    reports = [opt.step(closure)]
    while not reports[-1].done:
        reports.append(opt.step(closure))
        assert closure.calls < 3000, "it does not end"
    return reports


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6, -1e6, 1e9])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("terms", [Rosenbrock(), LOGISTIC], ids=["rosenbrock", "logistic"])
def test_a_long_step_ends_where_short_ones_do(terms: Any, dtype: Any, loss: str, offset: float, scale: float) -> None:
    for most in (1000, 20, 5):
        closure = Closure(terms, dtype, loss, offset, scale)
        last = run(closure, most)[-1]
        # gtol=1e-6 of a loss scaled by 1e-4 is met 0.01 from the minimum, in Rosenbrock's valley 0.02.
        np.testing.assert_allclose(closure.p, terms.minimum, atol=3e-2 if scale < 1 else 2e-3)
        assert last.converged == (last.max_grad <= 1e-6)
        assert last.converged or "no lower loss was found" in last.message or "nothing improves" in last.message


@pytest.mark.parametrize("search", ["backtracking", "bracketing"])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_searches_by_losses_alone(dtype: Any, offset: float, search: str) -> None:
    """They see no more than the loss shows: within its rounding error the minimum is anywhere."""
    closure = Closure(LOGISTIC, dtype, "double", offset)
    run(closure, 20, search)
    np.testing.assert_allclose(closure.p, LOGISTIC.minimum, atol=2e-3)


def test_the_report_of_the_field() -> None:
    """float32 parameters, loss and gradient in double, Rosenbrock + 1e6."""
    rosenbrock = Rosenbrock()
    rosenbrock.start, rosenbrock.minimum = np.array([-1.2, 1.0]), np.ones(2)
    closure = Closure(rosenbrock, np.float32, "double", 1e6)
    report = fastopt.LBFGS(closure.p, max_iterations=500).step(closure)
    assert report.converged
    assert closure.p.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("most", [1, 5, 20, 500])
def test_a_loop_ends_where_gtol_is_out_of_reach(most: int) -> None:
    """A sum of 200 losses in float32, times 1e4: its gradient is rounded at 0.01."""
    closure = Closure(LOGISTIC, np.float32, "single", scale=1e4)
    last = run(closure, most)[-1]
    assert not last.converged
    assert last.max_grad < 0.1
    assert closure.calls < 1000
    calls, p = closure.calls, closure.p.copy()
    opt = fastopt.LBFGS(closure.p, max_iterations=most)
    opt.step(closure)
    while not opt.step(closure).done:
        pass
    assert closure.calls - calls < 1000
    np.testing.assert_allclose(closure.p, p, atol=1e-3)


def test_after_the_last_step_another_costs_one_evaluation_and_says_the_same() -> None:
    closure = Closure(LOGISTIC, np.float32, "double", scale=1e6)
    opt = fastopt.LBFGS(closure.p, max_iterations=1000)
    first = opt.step(closure)
    assert first.done
    assert not first.converged
    p = closure.p.tobytes()
    again = opt.step(closure)
    assert (again.done, again.converged, again.iterations, again.evaluations) == (True, False, 0, 1)
    assert again.loss == first.loss
    assert closure.p.tobytes() == p
    closure.p += 0.1
    assert opt.step(closure).iterations > 0


def test_another_batch_begins_anew() -> None:
    closure = Closure(LOGISTIC, np.float32, "double", scale=1e6)
    opt = fastopt.LBFGS(closure.p, max_iterations=1000)
    assert opt.step(closure).done
    closure.scale = 2e6
    closure.offset = -1e6
    assert opt.step(closure).evaluations > 1


def test_what_ends_a_descent_is_saved() -> None:
    """Where it was idle for some iterations, a resumed one goes on counting: its reports are the same."""
    a, b = (Closure(LOGISTIC, np.float32, "single", scale=1e4) for _ in range(2))
    opt = fastopt.LBFGS(a.p, max_iterations=5)
    for _ in range(6):
        opt.step(a)
    b.p[...] = a.p
    again = fastopt.LBFGS(b.p, max_iterations=5)
    saved = opt.state_dict()
    again.load_state_dict(saved)
    assert same_bits(again.state_dict()["progress"], saved["progress"])
    while not (report := opt.step(a)).done:
        assert again.step(b) == report
    assert again.step(b) == report
    saved.pop("progress")
    opt.load_state_dict(saved)
    assert opt.step(a).evaluations > 1


@pytest.mark.parametrize("bad", [None, np.zeros(7), np.zeros(8, np.float32), [0.0] * 8])
def test_a_progress_that_does_not_fit(bad: Any) -> None:
    opt = fastopt.LBFGS(np.ones(2))
    with pytest.raises(ValueError, match=r"progress is .*expected an array of 8 numbers"):
        opt.load_state_dict({**opt.state_dict(), "progress": bad})


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("search", ["strong_wolfe", "backtracking", "bracketing"])
def test_a_loop_of_steps_that_may_not_move_ends(most: int, search: str) -> None:
    """A first step of length 1 that leads uphill: with so few evaluations no step can come lower."""
    p = np.array([1e-3])
    opt = fastopt.LBFGS(p, max_evaluations=most, line_search=search, gtol=1e-12)
    for _ in range(100):
        report = opt.step(lambda: (float(np.abs(p[0])), np.sign(p)))
        assert report.evaluations <= most
        if report.done:
            break
    assert report.done
    assert "max_evaluations" in report.message or report.converged


def test_a_wrong_gradient_is_named() -> None:
    p = np.array([5.0, 6.0])
    report = fastopt.LBFGS(p).step(lambda: (float(p @ p), -2 * p))
    assert (report.done, report.converged, p.tolist()) == (True, False, [5.0, 6.0])
    assert "so the gradient is wrong" in report.message
    closure = Closure(LOGISTIC, np.float32, "double", scale=1e6)
    report = fastopt.LBFGS(closure.p, max_iterations=1000).step(closure)
    assert report.done
    assert "so the gradient is wrong" not in report.message


def test_a_minimize_with_a_loss_in_float32() -> None:
    """x in float64 and a model in float32: slopes lead on where the loss is too coarse."""

    def single(x: Any) -> tuple[float, Any]:
        terms, g = LOGISTIC(x.astype(np.float32))
        return float(terms.sum() + np.float32(1e6)), g

    found = fastopt.minimize(single, LOGISTIC.start, gtol=1e-4)
    assert found.success, found
    np.testing.assert_allclose(found.x, LOGISTIC.minimum, atol=1e-3)
