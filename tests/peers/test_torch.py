"""fastopt against torch.optim: the same paths from the same gradients, whatever changes from step to step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastopt
from tests.peers.peers import (
    DTYPES,
    SHAPES,
    Arrays,
    assert_same_path,
    copied,
    gradients,
    largest_difference,
    walk,
    wavering,
    weights,
)

torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")


# NAdam keeps its product of mu in torch's default dtype: float32 would limit the comparison to 1e-7.
pytestmark = pytest.mark.usefixtures("double_by_default")


def tensors_of(arrays: Arrays) -> dict[str, Any]:
    return {name: torch.tensor(a) for name, a in arrays.items()}


def give_gradients(tensors: Mapping[str, Any], g: Arrays) -> None:
    for name, p in tensors.items():
        p.grad = None if g[name] is None else torch.tensor(g[name])


def arrays_of(tensors: Mapping[str, Any]) -> Arrays:
    return {name: p.detach().numpy().copy() for name, p in tensors.items()}


def torch_walk(
    make: Callable[[list[Any]], Any],
    start: Arrays,
    grads: list[Arrays],
    each_step: Mapping[str, Callable[[int], Any]],
    before_step: Callable[[list[Any]], object] = lambda tensors: None,
) -> list[Arrays]:
    """Where torch's parameters are after each step, its groups being set by `each_step` before it."""
    tensors = tensors_of(start)
    opt = make(list(tensors.values()))
    path = []
    for t, g in enumerate(grads):
        for group in opt.param_groups:
            group.update({name: value(t) for name, value in each_step.items()})
        give_gradients(tensors, g)
        before_step(list(tensors.values()))
        opt.step()
        path.append(arrays_of(tensors))
    return path


class Pair(NamedTuple):
    """A rule by its name in both libraries, with the keywords that should make it the same."""

    id: str
    rule: str
    ours: dict[str, Any]
    theirs: dict[str, Any]


PAIRS = [
    Pair("sgd", "SGD", {}, {}),
    Pair("sgd-l2", "SGD", {"l2": 0.3}, {"weight_decay": 0.3}),
    Pair("momentum", "SGD", {"momentum": 0.9}, {"momentum": 0.9}),
    Pair("momentum-dampening", "SGD", *[{"momentum": 0.8, "dampening": 0.4}] * 2),
    Pair("momentum-l2", "SGD", {"momentum": 0.8, "l2": 0.3}, {"momentum": 0.8, "weight_decay": 0.3}),
    Pair("nesterov", "SGD", *[{"momentum": 0.9, "nesterov": True}] * 2),
    Pair(
        "nesterov-l2",
        "SGD",
        {"momentum": 0.8, "nesterov": True, "l2": 0.3},
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.3},
    ),
    Pair("adagrad", "Adagrad", {}, {}),
    Pair("adagrad-eps", "Adagrad", {"eps": 0.1}, {"eps": 0.1}),
    Pair("adagrad-lr-decay", "Adagrad", {"lr_decay": 0.3}, {"lr_decay": 0.3}),
    Pair("adagrad-accumulator", "Adagrad", {"initial_accumulator": 0.2}, {"initial_accumulator_value": 0.2}),
    Pair(
        "adagrad-l2",
        "Adagrad",
        {"lr_decay": 0.1, "initial_accumulator": 0.1, "eps": 1e-3, "l2": 0.3},
        {"lr_decay": 0.1, "initial_accumulator_value": 0.1, "eps": 1e-3, "weight_decay": 0.3},
    ),
    Pair("rmsprop", "RMSprop", {"rho": 0.99}, {}),
    Pair("rmsprop-eps", "RMSprop", {"rho": 0.8, "eps": 0.1}, {"alpha": 0.8, "eps": 0.1}),
    Pair("rmsprop-momentum", "RMSprop", {"rho": 0.9, "momentum": 0.7}, {"alpha": 0.9, "momentum": 0.7}),
    Pair("rmsprop-centered", "RMSprop", {"rho": 0.9, "centered": True}, {"alpha": 0.9, "centered": True}),
    Pair(
        "rmsprop-centered-momentum-l2",
        "RMSprop",
        {"rho": 0.9, "eps": 1e-3, "centered": True, "momentum": 0.7, "l2": 0.3},
        {"alpha": 0.9, "eps": 1e-3, "centered": True, "momentum": 0.7, "weight_decay": 0.3},
    ),
    Pair("adam", "Adam", {}, {}),
    Pair("adam-eps", "Adam", *[{"betas": (0.8, 0.95), "eps": 0.1}] * 2),
    Pair("adam-zero-betas", "Adam", *[{"betas": (0.0, 0.0), "eps": 0.1}] * 2),
    Pair("adam-amsgrad", "Adam", *[{"betas": (0.8, 0.5), "eps": 1e-3, "amsgrad": True}] * 2),
    Pair("adam-l2", "Adam", {"l2": 0.3}, {"weight_decay": 0.3}),
    Pair("adam-amsgrad-l2", "Adam", {"amsgrad": True, "l2": 0.3}, {"amsgrad": True, "weight_decay": 0.3}),
    Pair("adamw", "AdamW", {}, {}),
    Pair("adamw-decay", "AdamW", *[{"weight_decay": 0.4, "eps": 0.1}] * 2),
    Pair("adamw-amsgrad", "AdamW", *[{"betas": (0.8, 0.5), "weight_decay": 0.4, "amsgrad": True}] * 2),
    Pair("nadam", "NAdam", {"momentum_decay": 0.004}, {}),
    Pair("nadam-decay-0", "NAdam", *[{"momentum_decay": 0.0, "eps": 0.1}] * 2),
    Pair("nadam-decay-1", "NAdam", *[{"momentum_decay": 1.0, "betas": (0.8, 0.95)}] * 2),
    Pair("nadam-l2", "NAdam", {"momentum_decay": 0.004, "l2": 0.3}, {"weight_decay": 0.3}),
    Pair(
        "nadam-decoupled",
        "NAdam",
        {"momentum_decay": 0.004, "decoupled_decay": 0.4},
        {"weight_decay": 0.4, "decoupled_weight_decay": True},
    ),
    Pair("adadelta", "Adadelta", {}, {}),
    Pair(
        "adadelta-l2", "Adadelta", {"rho": 0.7, "eps": 1e-3, "l2": 0.3}, {"rho": 0.7, "eps": 1e-3, "weight_decay": 0.3}
    ),
    Pair("adamax", "Adamax", {}, {}),
    Pair(
        "adamax-l2",
        "Adamax",
        {"betas": (0.7, 0.8), "eps": 0.1, "l2": 0.3},
        {"betas": (0.7, 0.8), "eps": 0.1, "weight_decay": 0.3},
    ),
    Pair("radam", "RAdam", {}, {}),
    Pair("radam-betas", "RAdam", *[{"betas": (0.7, 0.9), "eps": 0.1}] * 2),
    Pair("radam-never", "RAdam", *[{"betas": (0.7, 0.5)}] * 2),
    Pair("radam-l2", "RAdam", {"l2": 0.3}, {"weight_decay": 0.3}),
    Pair("radam-decoupled", "RAdam", {"decoupled_decay": 0.3}, {"weight_decay": 0.3, "decoupled_weight_decay": True}),
    Pair("asgd", "ASGD", {}, {}),
    Pair("asgd-averaging", "ASGD", *[{"lambd": 0.1, "alpha": 0.6, "t0": 3.0}] * 2),
    Pair("asgd-l2", "ASGD", {"l2": 0.3, "lambd": 0.1}, {"weight_decay": 0.3, "lambd": 0.1}),
]


@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.id)
def test_rule(pair: Pair, dtype: Any, maximize: bool) -> None:
    """Every option of torch, under a learning rate that changes, with one tensor that skips steps."""
    start, grads = weights(dtype), gradients(dtype, missing=True)
    ours = walk(
        lambda params: getattr(fastopt, pair.rule)(params, lr=wavering, maximize=maximize, **pair.ours), start, grads
    )
    theirs = torch_walk(
        lambda params: getattr(torch.optim, pair.rule)(params, maximize=maximize, **pair.theirs),
        start,
        grads,
        {"lr": wavering},
    )
    # RAdam's n subtracts numbers near 2/(1 - beta2), in both.
    loose = pair.rule == "RAdam" and dtype == np.float64
    assert_same_path(ours, theirs, dtype, 1e-11 if loose else None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rprop(dtype: Any) -> None:
    """lr counts at a tensor's first step alone. Some gradients turn, rest, and are 0; sizes reach both limits."""
    start, grads = weights(dtype), gradients(dtype, missing=True)
    turned = 0

    def first_only(t: int) -> float:
        return wavering(0) if t < 4 else 7.0

    for options in ({}, {"etas": (0.3, 1.7), "step_sizes": (0.08, 0.15)}):
        params = copied(start)
        opt = fastopt.Rprop(params, wavering(0), **options)
        ours = []
        for g in grads:
            opt.step(g)
            turned += sum(int((s["prev"] == 0).sum()) for s in opt.state.values())
            ours.append(copied(params))
        theirs = torch_walk(lambda tensors: torch.optim.Rprop(tensors, **options), start, grads, {"lr": first_only})  # noqa: B023
        assert_same_path(ours, theirs, dtype)
        sizes = np.concatenate([s["size"].ravel() for s in opt.state.values()])
        if options:
            assert {np.float32(0.08), np.float32(0.15)} <= set(sizes.astype(np.float32))
    assert turned > 100


@pytest.mark.parametrize("implementation", ["foreach", "fused"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rule", "ours", "theirs"),
    [
        ("SGD", {"momentum": 0.8, "nesterov": True, "l2": 0.3}, {"momentum": 0.8, "nesterov": True}),
        ("Adagrad", {"eps": 1e-3, "lr_decay": 0.1, "l2": 0.3}, {"eps": 1e-3, "lr_decay": 0.1}),
        ("Adam", {"eps": 1e-3, "amsgrad": True, "l2": 0.3}, {"eps": 1e-3, "amsgrad": True}),
        ("AdamW", {"eps": 1e-3, "weight_decay": 0.3}, {"eps": 1e-3}),
    ],
    ids=["sgd", "adagrad", "adam", "adamw"],
)
def test_other_implementations(
    rule: str, ours: dict[str, Any], theirs: dict[str, Any], dtype: Any, implementation: str
) -> None:
    """torch's foreach and fused kernels are code of their own; the rules are the same."""
    # Not from the first step on: torch's fused SGD raises where only some tensors have momentum yet.
    start, grads = weights(dtype), gradients(dtype, missing=True)[1:]
    expected = torch_walk(
        lambda params: getattr(torch.optim, rule)(params, weight_decay=0.3, **theirs, **{implementation: True}),
        start,
        grads,
        {"lr": wavering},
    )
    found = walk(lambda params: getattr(fastopt, rule)(params, lr=wavering, **ours), start, grads)
    assert_same_path(found, expected, dtype)


def rising(t: int) -> float:
    return 0.5 + 0.02 * t


def falling(t: int) -> float:
    return 0.99 - 0.03 * t


def small(t: int) -> float:
    return 0.01 * (1 + t)


SCHEDULED = [
    Pair(
        "sgd",
        "SGD",
        {"momentum": rising, "dampening": small, "l2": falling},
        {"momentum": rising, "dampening": small, "weight_decay": falling},
    ),
    Pair("adagrad", "Adagrad", {"eps": small, "l2": falling}, {"eps": small, "weight_decay": falling}),
    Pair(
        "rmsprop",
        "RMSprop",
        {"rho": falling, "eps": small, "momentum": rising, "l2": small},
        {"alpha": falling, "eps": small, "momentum": rising, "weight_decay": small},
    ),
    Pair(
        "adam",
        "Adam",
        {"betas": (rising, falling), "eps": small, "l2": small},
        {"betas": lambda t: (rising(t), falling(t)), "eps": small, "weight_decay": small},
    ),
    Pair(
        "adamw",
        "AdamW",
        {"betas": (falling, rising), "weight_decay": falling},
        {"betas": lambda t: (falling(t), rising(t)), "weight_decay": falling},
    ),
    Pair(
        "nadam",
        "NAdam",
        {"betas": (rising, falling), "momentum_decay": 0.3},
        {"betas": lambda t: (rising(t), falling(t))},
    ),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pair", SCHEDULED, ids=lambda pair: pair.id)
def test_every_hyperparameter_changes(pair: Pair, dtype: Any) -> None:
    """At each step today's values hold: the current beta to the power t, not a product of the betas so far."""
    start, grads = weights(dtype), gradients(dtype, missing=True)
    fixed = {"SGD": {"momentum": 0.5}, "RMSprop": {"momentum": 0.5}, "NAdam": {"momentum_decay": 0.3}}
    ours = walk(lambda params: getattr(fastopt, pair.rule)(params, lr=wavering, **pair.ours), start, grads)
    theirs = torch_walk(
        lambda params: getattr(torch.optim, pair.rule)(params, **fixed.get(pair.rule, {})),
        start,
        grads,
        {"lr": wavering, **pair.theirs},
    )
    assert_same_path(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_groups(dtype: Any) -> None:
    """Groups of one optimizer that differ in every hyperparameter."""
    start, grads = weights(dtype), gradients(dtype, missing=True)
    first, second = ["matrix", "bias"], ["scalar", "long"]
    theirs = torch_walk(
        lambda tensors: torch.optim.AdamW(
            [
                {"params": tensors[:2], "lr": 0.1, "weight_decay": 0.5},
                {"params": tensors[2:], "lr": 0.2, "betas": (0.5, 0.8), "eps": 0.1},
            ],
            weight_decay=0.2,
        ),
        start,
        grads,
        {},
    )
    params = copied(start)
    opt = fastopt.AdamW(
        [
            {"params": {name: params[name] for name in first}, "lr": 0.1, "weight_decay": 0.5},
            {"params": {name: params[name] for name in second}, "lr": 0.2, "betas": (0.5, 0.8), "eps": 0.1},
        ],
        weight_decay=0.2,
    )
    ours = []
    for g in grads:
        opt.step([{name: g[name] for name in first}, {name: g[name] for name in second}])
        ours.append(copied(params))
    assert_same_path(ours, theirs, dtype)


# torch scales by max_norm/(norm + 1e-6). Beside a norm of 1e5 that is 1e-11 of the gradient.
LARGE = 1e5


def scaled_to_norm(grads: Arrays, norm: float) -> Arrays:
    total = math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in grads.values()))
    return {name: np.array(g * (norm / total), g.dtype) for name, g in grads.items()}


@pytest.mark.parametrize("max_norm", [LARGE / 50, LARGE * 1e4], ids=["clips", "leaves"])
@pytest.mark.parametrize("norm_type", [1, 2, math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_grad_norm(dtype: Any, norm_type: float, max_norm: float) -> None:
    grads = scaled_to_norm(gradients(dtype)[0], LARGE)
    tensors = tensors_of(grads)
    give_gradients(tensors, grads)
    expected = float(torch.nn.utils.clip_grad_norm_(list(tensors.values()), max_norm, norm_type))
    clipped = copied(grads)
    tolerance = 1e-10 if dtype == np.float64 else 1e-6
    assert fastopt.clip_grad_norm_(clipped, max_norm, norm_type) == pytest.approx(expected, rel=tolerance)
    assert fastopt.global_norm(grads, norm_type) == pytest.approx(expected, rel=tolerance)
    changed = fastopt.global_norm(grads, norm_type) > max_norm
    assert changed == (max_norm < LARGE)
    for name, p in tensors.items():
        np.testing.assert_allclose(clipped[name], p.grad.numpy(), rtol=tolerance, atol=0)
        assert np.array_equal(clipped[name], grads[name]) != changed


def test_clip_grad_norm_at_the_limit() -> None:
    """A norm of exactly max_norm: torch still shrinks by 1e-6 of it, here the bits stay."""
    g = np.array([0.36, 0.48])
    p = torch.zeros(2)
    p.grad = torch.tensor(g)
    limit = fastopt.global_norm([g])
    torch.nn.utils.clip_grad_norm_([p], limit)
    ours = g.copy()
    assert fastopt.clip_grad_norm_([ours], limit) == limit
    assert ours.tobytes() == g.tobytes()
    np.testing.assert_allclose(p.grad.numpy(), g * (limit / (limit + 1e-6)), rtol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_grad_value(dtype: Any) -> None:
    grads = gradients(dtype)[0]
    grads["long"][[3, 40, 1030]] = [np.inf, -np.inf, np.nan]
    tensors = tensors_of(grads)
    give_gradients(tensors, grads)
    torch.nn.utils.clip_grad_value_(list(tensors.values()), 0.05)
    fastopt.clip_grad_value_(grads, 0.05)
    for name, p in tensors.items():
        np.testing.assert_array_equal(grads[name], p.grad.numpy())


@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("by", ["clip_norm", "clip_value"])
def test_clipping_inside_the_step(by: str, dtype: Any, maximize: bool) -> None:
    """Clipped first, by the norm of the tensors that have gradients, then penalised, as in a torch loop."""
    start = weights(dtype)
    # Norms on both sides of the limit.
    grads = [
        {name: None if a is None else np.array(a * (LARGE / 10) * 10 ** (t % 3), dtype) for name, a in g.items()}
        for t, g in enumerate(gradients(dtype, missing=True))
    ]
    norms = [fastopt.global_norm(g) for g in grads]
    limit = sorted(norms)[len(norms) // 2] * 0.9
    clip = torch.nn.utils.clip_grad_norm_ if by == "clip_norm" else torch.nn.utils.clip_grad_value_
    options = {"momentum": 0.8, "maximize": maximize}
    lr = {"lr": lambda t: wavering(t) / limit}
    theirs = torch_walk(
        lambda params: torch.optim.SGD(params, weight_decay=0.1 * limit, **options),
        start,
        grads,
        lr,
        lambda tensors: clip(tensors, limit),
    )
    ours = walk(lambda params: fastopt.SGD(params, l2=0.1 * limit, **options, **lr, **{by: limit}), start, grads)
    # torch's 1e-6 in the divisor, accumulated by momentum.
    assert_same_path(ours, theirs, dtype, 1e-10 if dtype == np.float64 else None)
    unclipped = walk(lambda params: fastopt.SGD(params, l2=0.1 * limit, **options, **lr), start, grads)
    assert largest_difference(ours, unclipped) > 0.1


@pytest.mark.parametrize("dtype", DTYPES)
def test_average(dtype: Any) -> None:
    """AveragedModel copies the weights at its first update: done before the first step, that is `average=`."""
    start, grads, decay = weights(dtype), gradients(dtype), 0.7
    params = copied(start)
    opt = fastopt.Adam(params, lr=wavering, average=decay)

    model = torch.nn.Module()
    for name, p in tensors_of(start).items():
        model.register_parameter(name, torch.nn.Parameter(p))
    theirs = torch.optim.Adam(model.parameters())
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    )
    averaged.update_parameters(model)

    found, expected = [], []
    for t, g in enumerate(grads):
        opt.step(g)
        found.append(copied(opt.averages))
        theirs.param_groups[0]["lr"] = wavering(t)
        give_gradients(dict(model.named_parameters()), g)
        theirs.step()
        averaged.update_parameters(model)
        expected.append(arrays_of(dict(averaged.module.named_parameters())))
    assert_same_path(found, expected, dtype)
    assert found[0].keys() == SHAPES.keys()
