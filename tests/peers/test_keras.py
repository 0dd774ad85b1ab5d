"""fastopt against Keras 3, run on its NumPy backend."""

from __future__ import annotations

import os
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

os.environ.setdefault("KERAS_BACKEND", "numpy")
keras = pytest.importorskip("keras", reason="keras (or jax, which its NumPy backend needs) is not installed")
if keras.backend.backend() != "numpy":
    pytest.skip("Keras runs on another backend than NumPy here", allow_module_level=True)
dtypes = pytest.importorskip("keras.src.backend.common.dtypes", reason="Keras has moved its private table of types")


@pytest.fixture(autouse=True)
def double_in_keras(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Outside TensorFlow Keras computes float64 variables in float32, by a table that is lifted here."""
    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


def constant(t: int) -> float:
    return 0.1


def keras_walk(
    make: Callable[..., Any], start: Arrays, grads: list[Arrays], lr: Callable[[int], float], averages: bool = False
) -> list[Arrays]:
    """Where Keras's variables, or its averages of them, are after each step."""
    variables = {name: keras.Variable(p, dtype=p.dtype, name=name) for name, p in start.items()}
    opt = make(learning_rate=lr(0))
    path = []
    for t, g in enumerate(grads):
        opt.learning_rate = lr(t)
        opt.apply(list(g.values()), list(variables.values()))
        found = opt._model_variables_moving_average if averages else variables.values()
        path.append({name: np.array(v.value) for name, v in zip(variables, found, strict=True)})
    return path


Case = tuple[str, dict[str, Any], str, dict[str, Any]]

# Keras raises beta to the power t in the variable's type. In float32 1 - 0.999^t is then off by 6e-5 at the first
# step; betas of 0.8 and 0.95 keep that below the roundings of the steps.
BETAS = {"betas": (0.8, 0.95)}
KERAS_BETAS = {"beta_1": 0.8, "beta_2": 0.95}
VELOCITY = {"momentum": 0.9, "momentum_form": "velocity"}

SAME: dict[str, Case] = {
    "sgd": ("SGD", {}, "SGD", {}),
    "momentum-is-velocity": ("SGD", VELOCITY, "SGD", {"momentum": 0.9}),
    "decay": ("SGD", {**VELOCITY, "decoupled_decay": 0.3}, "SGD", {"momentum": 0.9, "weight_decay": 0.3}),
    "clip-norm": (
        "SGD",
        {**VELOCITY, "clip_norm": MIDDLING_NORM},
        "SGD",
        {"momentum": 0.9, "global_clipnorm": MIDDLING_NORM},
    ),
    "clip-value": ("SGD", {**VELOCITY, "clip_value": 0.25}, "SGD", {"momentum": 0.9, "clipvalue": 0.25}),
    "adagrad": ("Adagrad", {"eps": 1e-7, "eps_inside_sqrt": True, "initial_accumulator": 0.1}, "Adagrad", {}),
    "adagrad-eps": (
        "Adagrad",
        {"eps": 0.1, "eps_inside_sqrt": True},
        "Adagrad",
        {"epsilon": 0.1, "initial_accumulator_value": 0.0},
    ),
    "rmsprop": ("RMSprop", {"eps": 1e-7, "eps_inside_sqrt": True}, "RMSprop", {}),
    "rmsprop-centered": (
        "RMSprop",
        {"rho": 0.8, "eps": 1e-3, "eps_inside_sqrt": True, "centered": True, "decoupled_decay": 0.3},
        "RMSprop",
        {"rho": 0.8, "epsilon": 1e-3, "centered": True, "weight_decay": 0.3},
    ),
    "adam": ("Adam", {**BETAS, "eps": 1e-7, "eps_hat": True}, "Adam", KERAS_BETAS),
    "adam-eps": ("Adam", {**BETAS, "eps": 0.1, "eps_hat": True}, "Adam", {**KERAS_BETAS, "epsilon": 0.1}),
    "adam-amsgrad": (
        "Adam",
        {"betas": (0.8, 0.5), "eps": 1e-3, "eps_hat": True, "amsgrad": True},
        "Adam",
        {"beta_1": 0.8, "beta_2": 0.5, "epsilon": 1e-3, "amsgrad": True},
    ),
    "adamw": (
        "AdamW",
        {**BETAS, "eps": 1e-7, "eps_hat": True, "weight_decay": 0.4},
        "AdamW",
        {**KERAS_BETAS, "weight_decay": 0.4},
    ),
    "adamw-amsgrad": (
        "AdamW",
        {"betas": (0.8, 0.5), "eps": 1e-3, "eps_hat": True, "weight_decay": 0.4, "amsgrad": True},
        "AdamW",
        {"beta_1": 0.8, "beta_2": 0.5, "epsilon": 1e-3, "weight_decay": 0.4, "amsgrad": True},
    ),
    # Unlike its Adam, Keras's Nadam has eps beside the corrected root.
    "nadam": (
        "NAdam",
        {**BETAS, "eps": 0.1, "momentum_decay": 1},
        "Nadam",
        {**KERAS_BETAS, "epsilon": 0.1},
    ),
    "nadam-decay": (
        "NAdam",
        {**BETAS, "eps": 1e-7, "momentum_decay": 1, "decoupled_decay": 0.4},
        "Nadam",
        {**KERAS_BETAS, "weight_decay": 0.4},
    ),
}

# With these Keras takes the learning rate into what momentum accumulates, and fastopt (like PyTorch) does not.
SAME_WHILE_LR_IS_CONSTANT: dict[str, Case] = {
    "momentum": ("SGD", {"momentum": 0.9}, "SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}, "SGD", {"momentum": 0.9, "nesterov": True}),
    "rmsprop-momentum": (
        "RMSprop",
        {"eps": 1e-3, "eps_inside_sqrt": True, "momentum": 0.8},
        "RMSprop",
        {"epsilon": 1e-3, "momentum": 0.8},
    ),
    "rmsprop-centered-momentum": (
        "RMSprop",
        {"eps": 1e-3, "eps_inside_sqrt": True, "momentum": 0.8, "centered": True},
        "RMSprop",
        {"epsilon": 1e-3, "momentum": 0.8, "centered": True},
    ),
}


def both(case: Case, dtype: Any, lr: Callable[[int], float]) -> tuple[list[Arrays], list[Arrays]]:
    ours, our_options, theirs, their_options = case
    start, grads = weights(dtype), gradients(dtype)
    return (
        walk(lambda params: getattr(fastopt, ours)(params, lr=lr, **our_options), start, grads),
        keras_walk(lambda **k: getattr(keras.optimizers, theirs)(**k, **their_options), start, grads, lr),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SAME)
def test_same(name: str, dtype: Any) -> None:
    """Keras's conventions by the names they have here, under a learning rate that changes."""
    assert_same_path(*both(SAME[name], dtype, wavering), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SAME_WHILE_LR_IS_CONSTANT)
def test_same_while_lr_is_constant(name: str, dtype: Any) -> None:
    assert_same_path(*both(SAME_WHILE_LR_IS_CONSTANT[name], dtype, constant), dtype)
    assert largest_difference(*both(SAME_WHILE_LR_IS_CONSTANT[name], dtype, wavering)) > 0.1


def test_eps_hat_is_needed() -> None:
    """Without eps_hat an eps of 0.1 leads elsewhere: the form is what `test_same` compares."""
    ours, options, theirs, their_options = SAME["adam-eps"]
    case = (ours, {**options, "eps_hat": False}, theirs, their_options)
    assert largest_difference(*both(case, np.float64, wavering)) > 0.1


@pytest.mark.parametrize("dtype", DTYPES)
def test_clipping_per_tensor(dtype: Any) -> None:
    """clipnorm is clip_grad_norm_(per_tensor=True)."""
    start, grads = weights(dtype), gradients(dtype)
    limit = 2.0
    norms = [fastopt.global_norm(g) for g in grads[0].values()]
    assert min(norms) < limit < max(norms)
    theirs = keras_walk(lambda **k: keras.optimizers.SGD(**k, clipnorm=limit), start, grads, wavering)
    clipped = [copied(g) for g in grads]
    for g in clipped:
        fastopt.clip_grad_norm_(g, limit, per_tensor=True)
    assert_same_path(walk(lambda params: fastopt.SGD(params, wavering), start, clipped), theirs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_average(dtype: Any) -> None:
    """Keras's average is of the parameters after the first step, not of the first ones: a decay that starts at 0."""
    start, grads = weights(dtype), gradients(dtype)
    theirs = keras_walk(
        lambda **k: keras.optimizers.SGD(**k, use_ema=True, ema_momentum=0.7), start, grads, wavering, averages=True
    )
    opt = fastopt.SGD(copied(start), wavering, average=lambda t: 0.7 if t else 0.0)
    ours = []
    for g in grads:
        opt.step(g)
        ours.append(copied(opt.averages))
    assert_same_path(ours, theirs, dtype)
