"""Lion, LAMB, Adafactor and Prodigy against optax and PyTorch: 30 steps in float64, another lr at every step, a row of
zeros, a tensor of zeros, steps whose gradient is zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastopt

STEPS = 30
SHAPES = {"matrix": (7, 5), "vector": (11,), "cube": (2, 3, 4), "still": (3, 3)}


def rate(t: int) -> float:
    return 0.02 / (1 + 0.1 * t)


def slower(t: int) -> float:
    return 1 / (1 + 0.1 * t)


def start() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: np.zeros(s) if name == "still" else rng.standard_normal(s) for name, s in SHAPES.items()}


def gradients(agreeing: bool = False) -> list[dict[str, Any]]:
    """Random ones, or such as lead all parameters to 1, so that Prodigy's d grows."""
    rng = np.random.default_rng(1)
    found = []
    for t in range(STEPS):
        g = {name: rng.standard_normal(s) * (0.0 if t == 7 else 1.0) for name, s in SHAPES.items()}
        if agreeing:
            g = {name: np.sign(p - 1) + 0.1 * g[name] for name, p in start().items()}
        g["matrix"][2] = 0
        g["still"][...] = 0
        found.append(g)
    return found


def ours(make: Callable[[Any], fastopt.Optimizer], grads: list[dict[str, Any]]) -> tuple[dict[str, Any], Any]:
    params = start()
    opt = make(params)
    for g in grads:
        assert opt.step(g)
    return params, opt


def assert_near(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    before = start()
    for name, p in mine.items():
        moved = np.abs(np.asarray(theirs[name]) - before[name]).max()
        np.testing.assert_allclose(p, np.asarray(theirs[name]), rtol=0, atol=1e-9 * max(moved, 1e-9))


def by_optax(make: Callable[[Any], Any], grads: list[dict[str, Any]]) -> dict[str, Any]:
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        params = {name: jax.numpy.asarray(p) for name, p in start().items()}
        transform = make(optax)
        state = transform.init(params)
        for g in grads:
            updates, state = transform.update({k: jax.numpy.asarray(x) for k, x in g.items()}, state, params)
            params = optax.apply_updates(params, updates)
        return {name: np.asarray(p) for name, p in params.items()}
    finally:
        jax.config.update("jax_enable_x64", before)


def test_lion_is_optax_s() -> None:
    theirs = by_optax(lambda optax: optax.lion(rate, b1=0.9, b2=0.99, weight_decay=0.1), gradients())
    mine, _ = ours(lambda p: fastopt.Lion(p, rate, weight_decay=0.1), gradients())
    assert_near(mine, theirs)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lamb_is_optax_s(weight_decay: float) -> None:
    theirs = by_optax(lambda optax: optax.lamb(rate, weight_decay=weight_decay), gradients())
    mine, _ = ours(lambda p: fastopt.LAMB(p, rate, weight_decay=weight_decay), gradients())
    assert_near(mine, theirs)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("d", [1.0, 2.0])
def test_adafactor_is_pytorch_s(weight_decay: float, d: float) -> None:
    torch = pytest.importorskip("torch")
    params = {name: torch.nn.Parameter(torch.from_numpy(p)) for name, p in start().items()}
    theirs = torch.optim.Adafactor(params.values(), lr=1.0, weight_decay=weight_decay, d=d)
    for t, g in enumerate(gradients()):
        for name, p in params.items():
            p.grad = torch.from_numpy(g[name])
        theirs.param_groups[0]["lr"] = rate(t)
        theirs.step()
    mine, opt = ours(lambda p: fastopt.Adafactor(p, rate, weight_decay=weight_decay, d=d), gradients())
    assert_near(mine, {name: p.detach().numpy() for name, p in params.items()})
    assert [*opt.state["matrix"]] == ["t", "r", "c"]
    assert [*opt.state["vector"]] == ["t", "v"]


def test_prodigy_is_optax_s() -> None:
    grads = gradients(agreeing=True)
    theirs = by_optax(lambda optax: optax.contrib.prodigy(slower, weight_decay=0.01), grads)

    def make(params: Any) -> fastopt.Optimizer:
        return fastopt.Prodigy(params, slower, weight_decay=0.01, update="optax", bias_correction=True)

    mine, opt = ours(make, grads)
    assert opt.scalars["d"] > 100 * 1e-6
    assert_near(mine, theirs)
