"""fastopt against optax under float64: what is the same, and what optax means by the same name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastopt
from tests.peers.peers import (
    DTYPES,
    MIDDLING_NORM,
    Arrays,
    assert_same_path,
    copied,
    gradients,
    largest_difference,
    walk,
    wavering,
    weights,
)

jax = pytest.importorskip("jax", reason="jax is not installed: nothing to compare with")
optax = pytest.importorskip("optax", reason="optax is not installed: nothing to compare with")


@pytest.fixture(autouse=True)
def double_in_jax() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def problem(dtype: Any) -> tuple[Arrays, list[Arrays]]:
    """Two tensors only: jax takes its time to compile, tensor by tensor."""
    names = ("matrix", "long")
    start, grads = weights(dtype), gradients(dtype)
    return {name: start[name] for name in names}, [{name: g[name] for name in names} for g in grads]


def constant(t: Any) -> float:
    return 0.1


def optax_walk(transformation: Any, start: Arrays, grads: list[Arrays]) -> list[Arrays]:
    """Where optax's parameters are after each step."""

    @jax.jit
    def step(params: Any, state: Any, g: Any) -> Any:
        updates, state = transformation.update(g, state, params)
        return optax.apply_updates(params, updates), state

    params = {name: jax.numpy.asarray(p) for name, p in start.items()}
    state = transformation.init(params)
    path = []
    for g in grads:
        params, state = step(params, state, g)
        path.append(copied(params))
    return path


def descend(direction: Any, lr: Any = wavering) -> Any:
    return optax.chain(direction, optax.scale_by_learning_rate(lr))


def without_correction(t: int) -> float:
    """A learning rate that takes the factor sqrt(1 - b2^t)/(1 - b1^t) of eps-hat back out of the step."""
    return float(wavering(t)) * (1 - 0.8 ** (t + 1)) / (1 - 0.5 ** (t + 1)) ** 0.5


SAME: dict[str, tuple[Callable[[Any], fastopt.Optimizer], Callable[[], Any]]] = {
    "sgd": (
        lambda p: fastopt.SGD(p, wavering),
        lambda: optax.sgd(wavering),
    ),
    "sgd-momentum": (
        lambda p: fastopt.SGD(p, wavering, momentum=0.9),
        lambda: optax.sgd(wavering, momentum=0.9),
    ),
    "sgd-nesterov": (
        lambda p: fastopt.SGD(p, wavering, momentum=0.9, nesterov=True),
        lambda: optax.sgd(wavering, momentum=0.9, nesterov=True),
    ),
    "trace-of-steps": (
        lambda p: fastopt.SGD(p, wavering, momentum=0.9, momentum_form="velocity"),
        lambda: optax.chain(optax.scale_by_learning_rate(wavering), optax.trace(0.9)),
    ),
    "ema-of-gradients": (
        lambda p: fastopt.SGD(p, wavering, momentum=0.9, momentum_form="ema"),
        lambda: descend(optax.ema(0.9, debias=False)),
    ),
    "l2": (
        lambda p: fastopt.SGD(p, wavering, momentum=0.9, l2=0.3),
        lambda: optax.chain(optax.add_decayed_weights(0.3), optax.sgd(wavering, momentum=0.9)),
    ),
    "decoupled-decay": (
        lambda p: fastopt.SGD(p, wavering, momentum=0.9, decoupled_decay=0.3),
        lambda: descend(optax.chain(optax.trace(0.9), optax.add_decayed_weights(0.3))),
    ),
    "decay-free-of-lr": (
        lambda p: fastopt.Adam(p, wavering, decoupled_decay=0.1, decay_by_lr=False),
        lambda: optax.chain(optax.adam(wavering), optax.add_decayed_weights(-0.1)),
    ),
    "maximize": (
        lambda p: fastopt.SGD(p, wavering, momentum=0.9, maximize=True, l2=0.3),
        lambda: optax.chain(optax.scale(-1.0), optax.add_decayed_weights(0.3), optax.sgd(wavering, momentum=0.9)),
    ),
    "clip-norm": (
        lambda p: fastopt.SGD(p, wavering, momentum=0.9, clip_norm=MIDDLING_NORM),
        lambda: optax.chain(optax.clip_by_global_norm(MIDDLING_NORM), optax.sgd(wavering, momentum=0.9)),
    ),
    "clip-value": (
        lambda p: fastopt.SGD(p, wavering, momentum=0.9, clip_value=0.25),
        lambda: optax.chain(optax.clip(0.25), optax.sgd(wavering, momentum=0.9)),
    ),
    "adagrad": (
        lambda p: fastopt.Adagrad(p, wavering, eps=1e-7, eps_inside_sqrt=True, initial_accumulator=0.1),
        lambda: optax.adagrad(wavering),
    ),
    "adagrad-eps": (
        lambda p: fastopt.Adagrad(p, wavering, eps=0.1, eps_inside_sqrt=True),
        lambda: optax.adagrad(wavering, initial_accumulator_value=0.0, eps=0.1),
    ),
    "rmsprop-eps-inside": (
        lambda p: fastopt.RMSprop(p, wavering, rho=0.8, eps=1e-3, eps_inside_sqrt=True),
        lambda: optax.rmsprop(wavering, decay=0.8, eps=1e-3),
    ),
    "rmsprop-eps-outside": (
        lambda p: fastopt.RMSprop(p, wavering, rho=0.8, eps=1e-3),
        lambda: optax.rmsprop(wavering, decay=0.8, eps=1e-3, eps_in_sqrt=False),
    ),
    "rmsprop-centered-eps-inside": (
        lambda p: fastopt.RMSprop(p, wavering, rho=0.8, eps=1e-3, centered=True, eps_inside_sqrt=True),
        lambda: optax.rmsprop(wavering, decay=0.8, eps=1e-3, centered=True),
    ),
    "rmsprop-centered-eps-outside": (
        lambda p: fastopt.RMSprop(p, wavering, rho=0.8, eps=1e-3, centered=True),
        lambda: optax.rmsprop(wavering, decay=0.8, eps=1e-3, centered=True, eps_in_sqrt=False),
    ),
    "rmsprop-momentum-after-lr": (
        lambda p: fastopt.RMSprop(p, constant, rho=0.8, momentum=0.9, eps_inside_sqrt=True),
        lambda: optax.rmsprop(constant, decay=0.8, momentum=0.9),
    ),
    "rmsprop-momentum-before-lr": (
        lambda p: fastopt.RMSprop(p, wavering, rho=0.8, momentum=0.9, eps_inside_sqrt=True),
        lambda: descend(optax.chain(optax.scale_by_rms(decay=0.8), optax.trace(0.9))),
    ),
    "rmsprop-corrected-is-adam": (
        lambda p: fastopt.Adam(p, wavering, betas=(0.0, 0.8), eps=1e-3),
        lambda: optax.rmsprop(wavering, decay=0.8, eps=1e-3, eps_in_sqrt=False, bias_correction=True),
    ),
    "adam": (
        lambda p: fastopt.Adam(p, wavering),
        lambda: optax.adam(wavering),
    ),
    "adam-eps": (
        lambda p: fastopt.Adam(p, wavering, betas=(0.8, 0.95), eps=0.1),
        lambda: optax.adam(wavering, b1=0.8, b2=0.95, eps=0.1),
    ),
    "adamw": (
        lambda p: fastopt.AdamW(p, wavering, weight_decay=0.3, eps=1e-3),
        lambda: optax.adamw(wavering, weight_decay=0.3, eps=1e-3),
    ),
    "adamw-scheduled-decay": (
        lambda p: fastopt.AdamW(p, wavering, weight_decay=lambda t: 0.1 * (t % 3)),
        lambda: optax.adamw(wavering, weight_decay=lambda t: 0.1 * (t % 3)),
    ),
    "amsgrad-uncorrected": (
        lambda p: fastopt.Adam(p, without_correction, betas=(0.8, 0.5), eps=1e-3, amsgrad=True, eps_hat=True),
        lambda: optax.amsgrad(wavering, b1=0.8, b2=0.5, eps=1e-3, bias_correction_mu=False, bias_correction_nu=False),
    ),
    # optax has b1 m/(1 - b1^(t+1)): what the schedule of mu becomes once 0.96^(t psi) is 0, and not its form without.
    "nadam": (
        lambda p: fastopt.NAdam(p, wavering, betas=(0.8, 0.95), momentum_decay=1e6),
        lambda: optax.nadam(wavering, b1=0.8, b2=0.95),
    ),
    "nadamw": (
        lambda p: fastopt.NAdam(p, wavering, momentum_decay=1e6, decoupled_decay=0.3),
        lambda: optax.nadamw(wavering, weight_decay=0.3),
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SAME)
def test_same(name: str, dtype: Any) -> None:
    """Compositions of optax that are one optimizer here, under a learning rate that changes."""
    make, transformation = SAME[name]
    start, grads = problem(dtype)
    assert_same_path(walk(make, start, grads), optax_walk(transformation(), start, grads), dtype)


DIFFERENT: dict[str, tuple[Callable[[Any], fastopt.Optimizer], Callable[[], Any]]] = {
    # The learning rate goes into optax's trace: the past keeps the one of its day.
    "rmsprop-momentum": (
        lambda p: fastopt.RMSprop(p, wavering, rho=0.8, momentum=0.9, eps_inside_sqrt=True),
        lambda: optax.rmsprop(wavering, decay=0.8, momentum=0.9),
    ),
    # optax takes the maximum of v after its correction.
    "amsgrad": (
        lambda p: fastopt.Adam(p, wavering, betas=(0.8, 0.5), amsgrad=True),
        lambda: optax.amsgrad(wavering, b1=0.8, b2=0.5),
    ),
    # 1 - b1^t under both terms here, b1^(t+1) under optax's first.
    "nadam": (
        lambda p: fastopt.NAdam(p, wavering, betas=(0.8, 0.95)),
        lambda: optax.nadam(wavering, b1=0.8, b2=0.95),
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_by_the_same_name(name: str) -> None:
    """Where names agree and formulas do not; the tests of formulas pin this side, `test_same` its nearest relative."""
    make, transformation = DIFFERENT[name]
    start, grads = problem(np.float64)
    assert largest_difference(walk(make, start, grads), optax_walk(transformation(), start, grads)) > 0.01


def test_amsgrad_takes_the_corrected_maximum_in_optax() -> None:
    """p -= lr mh/(sqrt(max of v/(1 - b2^i) for i <= t) + eps) is optax's; raw v under the maximum is fastopt's."""
    beta1, beta2, eps = 0.8, 0.5, 1e-3
    start, grads = problem(np.float64)

    def expected(corrected_inside: bool) -> list[Arrays]:
        path = []
        p, m, v, largest = copied(start), *(dict.fromkeys(start, 0.0) for _ in range(3))
        for t, g in enumerate(grads, 1):
            for name in p:
                m[name] = beta1 * m[name] + (1 - beta1) * g[name]
                v[name] = beta2 * v[name] + (1 - beta2) * g[name] ** 2
                before, after = (1 - beta2**t, 1) if corrected_inside else (1, 1 - beta2**t)
                largest[name] = np.maximum(largest[name], v[name] / before)
                root = np.sqrt(largest[name] / after)
                p[name] = p[name] - wavering(t - 1) * m[name] / (1 - beta1**t) / (root + eps)
            path.append(copied(p))
        return path

    theirs = optax_walk(optax.amsgrad(wavering, b1=beta1, b2=beta2, eps=eps), start, grads)
    assert_same_path(theirs, expected(corrected_inside=True), np.float64)
    ours = walk(lambda p: fastopt.Adam(p, wavering, betas=(beta1, beta2), eps=eps, amsgrad=True), start, grads)
    assert_same_path(ours, expected(corrected_inside=False), np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("k", "alpha"), [(1, 0.3), (3, 0.5), (4, 1.0)])
def test_lookahead(k: int, alpha: float, dtype: Any) -> None:
    """The fast and the slow points of optax.lookahead around the same rule, after each step."""
    start, grads = problem(dtype)
    params = copied(start)
    opt = fastopt.SGD(params, wavering, momentum=0.9)
    lookahead = fastopt.Lookahead(opt, k, alpha)
    found, slow = [], []
    for g in grads:
        opt.step(g)
        found.append(copied(params))
        slow.append(copied(lookahead.slow))
    transformation = optax.lookahead(optax.sgd(wavering, momentum=0.9), k, alpha)
    theirs = optax.LookaheadParams.init_synced({name: jax.numpy.asarray(p) for name, p in start.items()})
    state = transformation.init(theirs)
    fast_path, slow_path = [], []
    for g in grads:
        updates, state = transformation.update(g, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
        fast_path.append(copied(theirs.fast))
        slow_path.append(copied(theirs.slow))
    assert_same_path(found, fast_path, dtype)
    assert_same_path(slow, slow_path, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bounds(dtype: Any) -> None:
    """`bounds=` is optax's projection onto a box after every update."""
    start, grads = problem(dtype)
    start = {name: np.clip(p, -0.5, 0.75) for name, p in start.items()}
    transformation, expected = optax.adam(wavering), []
    low, high = (dict.fromkeys(start, x) for x in (-0.5, 0.75))
    theirs: Any = {name: jax.numpy.asarray(p) for name, p in start.items()}
    state = transformation.init(theirs)
    for g in grads:
        updates, state = transformation.update(g, state, theirs)
        theirs = optax.projections.projection_box(optax.apply_updates(theirs, updates), low, high)
        expected.append(copied(theirs))
    assert_same_path(walk(lambda p: fastopt.Adam(p, wavering, bounds=(-0.5, 0.75)), start, grads), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_average(dtype: Any) -> None:
    """`average=` is incremental_update with step_size 1 - average, begun at the first parameters."""
    start, grads = problem(dtype)
    params = copied(start)
    opt = fastopt.AdamW(params, wavering, average=0.7)
    theirs, found, expected = copied(start), [], []
    for g, there in zip(grads, optax_walk(optax.adamw(wavering, weight_decay=1e-2), start, grads), strict=True):
        opt.step(g)
        found.append(copied(opt.averages))
        theirs = copied(optax.incremental_update(there, theirs, step_size=1 - 0.7))
        expected.append(theirs)
    assert_same_path(found, expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_skipping_what_is_not_finite(dtype: Any) -> None:
    """on_nonfinite="skip" is apply_if_finite: neither state nor the count of the schedule advances."""
    start, grads = problem(dtype)
    for t, bad in [(0, np.nan), (4, np.inf), (5, -np.inf), (9, np.nan)]:
        grads[t]["long"][t] = bad
    ours = walk(lambda p: fastopt.Adam(p, wavering, on_nonfinite="skip"), start, grads)
    theirs = optax_walk(optax.apply_if_finite(optax.adam(wavering), max_consecutive_errors=10), start, grads)
    assert_same_path(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_global_norm(dtype: Any) -> None:
    grads = gradients(dtype)[0]
    norm = optax.tree.norm({name: jax.numpy.asarray(g) for name, g in grads.items()})
    assert fastopt.global_norm(grads) == pytest.approx(float(norm), rel=1e-14 if dtype == np.float64 else 1e-6)


POLYAKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sps": {"f_min": 1000.0},
    "sps+": {"f_min": 1000.0, "variant": "sps+"},
    "all": {"lr": 0.02, "scaling": lambda t: 1 / (2 + t), "f_min": -2.0, "eps": 0.5},
}


@pytest.mark.parametrize("backend", ["c", "numpy"])
@pytest.mark.parametrize("name", POLYAKS)
def test_polyak_sgd(name: str, backend: str) -> None:
    """Thirty steps down a valley, each with the loss and gradient of its own parameters."""
    given = {"max_learning_rate" if key == "lr" else key: x for key, x in POLYAKS[name].items()}
    start, _ = problem(np.float64)
    params = copied(start)
    opt = fastopt.PolyakSGD(params, **POLYAKS[name], backend=backend)
    transformation = optax.polyak_sgd(**given)
    theirs = {key: jax.numpy.asarray(p) for key, p in start.items()}
    state = transformation.init(theirs)

    @jax.value_and_grad
    def valley(p: Any) -> Any:
        return sum(jax.numpy.sum(jax.numpy.sqrt(1 + x * x) - 0.5) for x in p.values())

    for _ in range(30):
        loss, grads = valley(params)
        opt.step({key: np.asarray(g) for key, g in grads.items()}, loss=loss)
        loss, grads = valley(theirs)
        updates, state = transformation.update(grads, state, theirs, value=loss)
        theirs = optax.apply_updates(theirs, updates)
        for key, p in params.items():
            np.testing.assert_allclose(p, theirs[key], rtol=1e-9, atol=1e-9)
    assert (largest_difference([params], [start]) > 0.01) == (name != "sps+")
