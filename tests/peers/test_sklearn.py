"""fastopt against scikit-learn: the optimizers of its networks, SGDRegressor, and where its solvers end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastopt
from tests.peers.peers import (
    DTYPES,
    Arrays,
    assert_same_path,
    copied,
    gradients,
    largest_difference,
    walk,
    wavering,
    weights,
)

pytest.importorskip("sklearn", reason="scikit-learn is not installed: nothing to compare with")
linear_model = pytest.importorskip("sklearn.linear_model")
optimizers = pytest.importorskip(
    "sklearn.neural_network._stochastic_optimizers", reason="scikit-learn has moved its private optimizers"
)


def constant(t: int) -> float:
    return 0.1


def sklearn_walk(
    make: Callable[[list[Any]], Any], rate: str, start: Arrays, grads: list[Arrays], lr: Callable[[int], float]
) -> list[Arrays]:
    """Where scikit-learn's parameters are after each step. `rate` is the attribute that its step reads."""
    params = copied(start)
    opt = make(list(params.values()))
    path = []
    for t, g in enumerate(grads):
        setattr(opt, rate, lr(t))
        opt.update_params(list(params.values()), list(g.values()))
        path.append(copied(params))
    return path


@pytest.mark.parametrize("dtype", DTYPES)
def test_sgd(dtype: Any) -> None:
    """Its momentum is the velocity form."""
    start, grads = weights(dtype), gradients(dtype)
    ours = walk(lambda p: fastopt.SGD(p, wavering, momentum=0.9, momentum_form="velocity"), start, grads)
    theirs = sklearn_walk(lambda p: optimizers.SGDOptimizer(p, nesterov=False), "learning_rate", start, grads, wavering)
    assert_same_path(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nesterov(dtype: Any) -> None:
    """Velocities with the learning rate in them: the same as here while it is constant only."""
    start, grads = weights(dtype), gradients(dtype)

    def both(lr: Callable[[int], float]) -> tuple[list[Arrays], list[Arrays]]:
        return (
            walk(lambda p: fastopt.SGD(p, lr, momentum=0.9, nesterov=True), start, grads),
            sklearn_walk(optimizers.SGDOptimizer, "learning_rate", start, grads, lr),
        )

    assert_same_path(*both(constant), dtype)
    assert largest_difference(*both(wavering)) > 0.1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eps", [1e-8, 0.1])
def test_adam(eps: float, dtype: Any) -> None:
    """Its eps is beside the uncorrected root: eps_hat."""
    start, grads = weights(dtype), gradients(dtype)
    theirs = sklearn_walk(
        lambda p: optimizers.AdamOptimizer(p, epsilon=eps), "learning_rate_init", start, grads, wavering
    )
    assert_same_path(walk(lambda p: fastopt.Adam(p, wavering, eps=eps, eps_hat=True), start, grads), theirs, dtype)
    if eps == 0.1:
        assert largest_difference(walk(lambda p: fastopt.Adam(p, wavering, eps=eps), start, grads), theirs) > 0.1


def regression(seed: int = 0) -> tuple[Any, Any]:
    """More columns than matter, so that the l1 penalty has something to remove."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, 12))
    w = np.where(np.arange(12) % 3 == 0, rng.standard_normal(12), 0)
    return X, X @ w + 0.1 * rng.standard_normal(60)


@pytest.mark.parametrize("option", ["l2", "decoupled_decay"])
def test_sgd_regressor(option: str) -> None:
    """One pass of SGDRegressor, sample by sample under eta0/t^power_t: for plain SGD both decays are its l2 penalty."""
    X, y = regression()
    theirs = linear_model.SGDRegressor(
        penalty="l2",
        alpha=0.5,
        eta0=0.05,
        learning_rate="invscaling",
        power_t=0.25,
        shuffle=False,
        max_iter=1,
        tol=None,
    ).fit(X, y)
    params = {"w": np.zeros(12), "b": np.zeros(1)}
    opt = fastopt.SGD(
        [{"params": params["w"], option: 0.5}, {"params": params["b"]}], lr=lambda t: 0.05 / (t + 1) ** 0.25
    )
    for x, target in zip(X, y, strict=True):
        error = x @ params["w"] + params["b"] - target
        opt.step([error * x, error])
    np.testing.assert_allclose(params["w"], theirs.coef_, rtol=1e-12)
    np.testing.assert_allclose(params["b"], theirs.intercept_, rtol=1e-12)
    assert np.max(np.abs(params["w"])) > 0.1


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_proximal_descent_ends_where_coordinate_descent_does(l1_ratio: float) -> None:
    """Gradient descent with prox_l1 (and l2) solves Lasso and ElasticNet, with the same exact zeros."""
    X, y = regression()
    alpha = 0.2
    theirs = linear_model.ElasticNet(alpha=alpha, l1_ratio=l1_ratio, fit_intercept=False, tol=1e-14, max_iter=10**5)
    theirs.fit(X, y)
    w = np.ones(12)
    smoothness = np.linalg.eigvalsh(X.T @ X / len(y))[-1] + alpha
    opt = fastopt.SGD(w, 1 / smoothness, prox_l1=alpha * l1_ratio, l2=alpha * (1 - l1_ratio))
    for _ in range(1000):
        opt.step(X.T @ (X @ w - y) / len(y))
    np.testing.assert_allclose(w, theirs.coef_, rtol=1e-9, atol=1e-12)
    assert 0 < np.count_nonzero(w) < 12
    np.testing.assert_array_equal(w == 0, theirs.coef_ == 0)
