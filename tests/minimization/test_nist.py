"""The nonlinear regressions of NIST, with their certified parameters."""

from __future__ import annotations

import numpy as np
import pytest

import fastopt
from tests.minimization.nist import REGRESSIONS, Regression

every_regression = pytest.mark.parametrize("regression", REGRESSIONS, ids=lambda regression: regression.name)


def test_there_are_all() -> None:
    assert len(REGRESSIONS) == 27


@every_regression
def test_the_certified_parameters_are_a_minimum(regression: Regression) -> None:
    """So the models and the data are NIST's. The residuals of Lanczos1 are rounding errors."""
    loss, g = regression.fun_and_grad(regression.certified)
    r, J = regression.residuals(regression.certified)
    if regression.name != "Lanczos1":
        assert loss == pytest.approx(regression.sum_of_squares, rel=1e-9)
    # Of cosines between the residuals and the columns of J, as Bates and Watts measure convergence.
    cosines = np.abs(g) / 2 / np.linalg.norm(J, axis=0) / np.linalg.norm(r)
    assert cosines.max() < (1 if regression.name == "Lanczos1" else 1e-4)


@pytest.mark.parametrize(
    ("method", "hess", "least"), [("lbfgs", None, 46), ("newton", "hess", 50), ("newton", "gauss_newton", 50)]
)
def test_how_many_are_solved(method: str, hess: str | None, least: int) -> None:
    """To six digits in every parameter, of 54: 27 from two starts each."""
    solved = 0
    for regression in REGRESSIONS:
        more = {} if hess is None else {"hess": getattr(regression, hess)}
        for x0 in regression.starts:
            with np.errstate(all="ignore"):
                found = fastopt.minimize(regression.fun_and_grad, x0, method, gtol=0, max_evaluations=3000, **more)
            solved += regression.is_solved(found.x)
    assert solved >= least
