"""Every rule's convention in float64, from formulas that see all gradients at once where fastopt keeps a state.

A moving average is a weighted sum over the past, the corrected one a weighted mean, a momentum buffer a
polynomial in mu: none of the recursions under test is repeated here, but where a beta changes in time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.base.tree import Array

STEPS, SIZE = 14, 37
TOLERANCE = 1e-12


def wavering(t: int) -> float:
    """A learning rate that changes at every step, up and down."""
    return 0.3 / (1 + t % 4)


def start(seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(SIZE)


def gradients(seed: int = 1) -> Array:
    """A row per step; elements from 1e-3 to 3 in size, shrinking in time, so that eps and maxima show."""
    rng = np.random.default_rng(seed)
    sizes = 10 ** rng.uniform(-3, 0.5, SIZE) * 0.7 ** np.arange(STEPS)[:, None]
    return np.asarray(sizes * rng.standard_normal((STEPS, SIZE)))


def path_of(make: Callable[[Array], fastopt.Optimizer], p0: Array, gs: Any) -> Array:
    p = p0.copy()
    opt = make(p)
    path = []
    for g in gs:
        opt.step(g)
        path.append(p.copy())
    return np.array(path)


def past(gs: Array, decay: float) -> Array:
    """The sum of decay^(age of g) g."""
    return np.asarray(np.tensordot(decay ** np.arange(len(gs))[::-1], gs, 1))


def average(gs: Array, beta: float) -> Array:
    """A moving average that starts at 0, like m and v."""
    return (1 - beta) * past(gs, beta)


def mean(gs: Array, beta: float) -> Array:
    """The same corrected for its start: weights beta^age that sum to 1."""
    return np.asarray(np.average(gs, axis=0, weights=beta ** np.arange(len(gs))[::-1]))


def each(direction: Callable[[Array], Array], gs: Array) -> Array:
    """What a direction was at each step so far."""
    return np.array([direction(gs[: i + 1]) for i in range(len(gs))])


def largest(gs: Array, quantity: Callable[[Array], Array]) -> Array:
    return np.asarray(np.max(each(quantity, gs), axis=0))


Direction = Callable[[Array], Array]


def along(direction: Direction, p0: Array, gs: Array, lr: Callable[[int], float] = wavering) -> Array:
    """The path p -= lr direction(gradients so far)."""
    rates = np.array([lr(t) for t in range(len(gs))])
    return np.asarray(p0 - np.cumsum(rates[:, None] * each(direction, gs), axis=0))


def mu(t: int, beta: float, psi: float) -> float:
    return float(beta * (1 - 0.5 * 0.96 ** (t * psi)))


def nadam(gs: Array, beta1: float, beta2: float, eps: float, psi: float) -> Array:
    t = len(gs)
    product = math.prod(mu(i, beta1, psi) for i in range(1, t + 1))
    ahead = mu(t + 1, beta1, psi)
    m = ahead * average(gs, beta1) / (1 - product * ahead) + (1 - mu(t, beta1, psi)) * gs[-1] / (1 - product)
    return np.asarray(m / (np.sqrt(mean(gs**2, beta2)) + eps))


RULES: dict[str, tuple[Callable[..., fastopt.Optimizer], dict[str, Any], Direction]] = {
    "gradient descent": (fastopt.SGD, {}, lambda gs: gs[-1]),
    "momentum, accumulate": (fastopt.SGD, {"momentum": 0.8}, lambda gs: past(gs, 0.8)),
    # The first gradient is taken in whole, dampening holds from the second on.
    "momentum, dampened": (
        fastopt.SGD,
        {"momentum": 0.8, "dampening": 0.3},
        lambda gs: 0.7 * past(gs, 0.8) + 0.3 * 0.8 ** (len(gs) - 1) * gs[0],
    ),
    "momentum, ema": (fastopt.SGD, {"momentum": 0.8, "momentum_form": "ema"}, lambda gs: average(gs, 0.8)),
    "nesterov": (fastopt.SGD, {"momentum": 0.8, "nesterov": True}, lambda gs: gs[-1] + 0.8 * past(gs, 0.8)),
    "adagrad": (
        fastopt.Adagrad,
        {"eps": 0.1, "initial_accumulator": 0.2},
        lambda gs: gs[-1] / (np.sqrt(0.2 + np.sum(gs**2, axis=0)) + 0.1),
    ),
    "adagrad, eps inside": (
        fastopt.Adagrad,
        {"eps": 0.1, "eps_inside_sqrt": True},
        lambda gs: gs[-1] / np.sqrt(np.sum(gs**2, axis=0) + 0.1),
    ),
    "adagrad, lr_decay": (
        fastopt.Adagrad,
        {"lr_decay": 0.3},
        lambda gs: gs[-1] / (np.sqrt(np.sum(gs**2, axis=0)) + 1e-10) / (1 + (len(gs) - 1) * 0.3),
    ),
    "rmsprop": (
        fastopt.RMSprop,
        {"rho": 0.8, "eps": 0.1},
        lambda gs: gs[-1] / (np.sqrt(average(gs**2, 0.8)) + 0.1),
    ),
    "rmsprop, eps inside": (
        fastopt.RMSprop,
        {"rho": 0.8, "eps": 0.1, "eps_inside_sqrt": True},
        lambda gs: gs[-1] / np.sqrt(average(gs**2, 0.8) + 0.1),
    ),
    "rmsprop, centered": (
        fastopt.RMSprop,
        {"rho": 0.8, "eps": 0.1, "centered": True},
        lambda gs: gs[-1] / (np.sqrt(average(gs**2, 0.8) - average(gs, 0.8) ** 2) + 0.1),
    ),
    "rmsprop, centered, eps inside": (
        fastopt.RMSprop,
        {"rho": 0.8, "eps": 0.1, "centered": True, "eps_inside_sqrt": True},
        lambda gs: gs[-1] / np.sqrt(average(gs**2, 0.8) - average(gs, 0.8) ** 2 + 0.1),
    ),
    "rmsprop, momentum": (
        fastopt.RMSprop,
        {"rho": 0.8, "eps": 0.1, "momentum": 0.7},
        lambda gs: past(each(lambda hs: hs[-1] / (np.sqrt(average(hs**2, 0.8)) + 0.1), gs), 0.7),
    ),
    "rmsprop, centered, momentum": (
        fastopt.RMSprop,
        {"rho": 0.8, "eps": 0.1, "centered": True, "momentum": 0.7},
        lambda gs: past(
            each(lambda hs: hs[-1] / (np.sqrt(average(hs**2, 0.8) - average(hs, 0.8) ** 2) + 0.1), gs), 0.7
        ),
    ),
    "rmsprop, momentum, eps inside": (
        fastopt.RMSprop,
        {"rho": 0.8, "eps": 0.1, "momentum": 0.7, "eps_inside_sqrt": True},
        lambda gs: past(each(lambda hs: hs[-1] / np.sqrt(average(hs**2, 0.8) + 0.1), gs), 0.7),
    ),
    "rmsprop, centered, momentum, eps inside": (
        fastopt.RMSprop,
        {"rho": 0.8, "eps": 0.1, "centered": True, "momentum": 0.7, "eps_inside_sqrt": True},
        lambda gs: past(each(lambda hs: hs[-1] / np.sqrt(average(hs**2, 0.8) - average(hs, 0.8) ** 2 + 0.1), gs), 0.7),
    ),
    "adam": (fastopt.Adam, {}, lambda gs: mean(gs, 0.9) / (np.sqrt(mean(gs**2, 0.999)) + 1e-8)),
    "adam, eps": (
        fastopt.Adam,
        {"betas": (0.7, 0.9), "eps": 0.1},
        lambda gs: mean(gs, 0.7) / (np.sqrt(mean(gs**2, 0.9)) + 0.1),
    ),
    "adam, eps hat": (
        fastopt.Adam,
        {"betas": (0.7, 0.9), "eps": 0.1, "eps_hat": True},
        lambda gs: mean(gs, 0.7) * np.sqrt(1 - 0.9 ** len(gs)) / (np.sqrt(average(gs**2, 0.9)) + 0.1),
    ),
    "normalised gradient": (
        fastopt.Adam,
        {"betas": (0, 0), "eps": 0.1},
        lambda gs: gs[-1] / (np.sqrt(gs[-1] ** 2) + 0.1),
    ),
    "amsgrad": (
        fastopt.Adam,
        {"betas": (0.7, 0.5), "eps": 1e-3, "amsgrad": True},
        lambda gs: mean(gs, 0.7) / (np.sqrt(largest(gs, lambda hs: average(hs**2, 0.5)) / (1 - 0.5 ** len(gs))) + 1e-3),
    ),
    "amsgrad, eps hat": (
        fastopt.Adam,
        {"betas": (0.7, 0.5), "eps": 1e-3, "amsgrad": True, "eps_hat": True},
        lambda gs: (
            mean(gs, 0.7) * np.sqrt(1 - 0.5 ** len(gs)) / (np.sqrt(largest(gs, lambda hs: average(hs**2, 0.5))) + 1e-3)
        ),
    ),
    "nadam": (
        fastopt.NAdam,
        {"betas": (0.7, 0.9), "eps": 0.1},
        lambda gs: (0.7 * mean(gs, 0.7) + 0.3 * gs[-1] / (1 - 0.7 ** len(gs))) / (np.sqrt(mean(gs**2, 0.9)) + 0.1),
    ),
    **{
        f"nadam, psi {psi}": (
            fastopt.NAdam,
            {"betas": (0.7, 0.9), "eps": 0.1, "momentum_decay": psi},
            lambda gs, psi=psi: nadam(gs, 0.7, 0.9, 0.1, psi),
        )
        for psi in (0, 0.004, 1)
    },
}


@pytest.mark.parametrize("backend", ["c", "numpy"])
@pytest.mark.parametrize("name", RULES)
def test_rule(name: str, backend: str) -> None:
    """Each rule, under a learning rate that multiplies today's direction and nothing of the past."""
    rule, options, direction = RULES[name]
    p0, gs = start(), gradients()
    found = path_of(lambda p: rule(p, lr=wavering, backend=backend, **options), p0, gs)
    np.testing.assert_allclose(found, along(direction, p0, gs), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("momentum, accumulate", "momentum, dampened"),
        ("adagrad", "adagrad, eps inside"),
        ("rmsprop", "rmsprop, eps inside"),
        ("rmsprop", "rmsprop, centered"),
        ("adam, eps", "adam, eps hat"),
        ("amsgrad", "amsgrad, eps hat"),
        ("nadam", "nadam, psi 0"),
        ("nadam, psi 0", "nadam, psi 0.004"),
        ("nadam, psi 0.004", "nadam, psi 1"),
    ],
)
def test_conventions_differ(name: str, other: str) -> None:
    """The gradients tell one convention from its neighbour: `test_rule` could not pass with the wrong one."""
    p0, gs = start(), gradients()
    one, two = (along(RULES[which][2], p0, gs) for which in (name, other))
    assert np.max(np.abs(one - two)) > 1e-4


def test_amsgrad_takes_the_maximum_of_v_before_its_correction() -> None:
    """optax takes that of v/(1 - b2^t), whose first value no later one need reach."""
    p0, gs = start(), gradients()
    rule, options, _ = RULES["amsgrad"]
    found = path_of(lambda p: rule(p, lr=wavering, **options), p0, gs)
    corrected = along(lambda hs: mean(hs, 0.7) / (np.sqrt(largest(hs, lambda ks: mean(ks**2, 0.5))) + 1e-3), p0, gs)
    assert np.max(np.abs(found - corrected)) > 0.01


def test_first_step_of_adam_is_lr_long() -> None:
    """t counts from 1: both corrections divide by 1 - beta at the first step."""
    p = np.zeros(3)
    fastopt.Adam(p, lr=0.5, eps=0, flush_subnormals=False).step(np.array([1e-20, -3.0, 1e20]))
    np.testing.assert_allclose(p, [-0.5, 0.5, -0.5], rtol=1e-14)


@pytest.mark.parametrize("betas", [(lambda t: 0.5 + 0.03 * t, 0.9), (0.6, lambda t: 0.99 - 0.05 * t)])
def test_changing_beta(betas: Any) -> None:
    """The correction is the current beta to the power t, not a product of the betas that were."""
    p0, gs = start(), gradients()
    found = path_of(lambda p: fastopt.Adam(p, wavering, betas), p0, gs)
    p, m, v = p0, np.zeros(SIZE), np.zeros(SIZE)
    products = [1.0, 1.0]
    worst = 0.0
    for t, g in enumerate(gs):
        beta1, beta2 = (beta(t) if callable(beta) else beta for beta in betas)
        products = [products[0] * beta1, products[1] * beta2]
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        p = p - wavering(t) * m / (1 - beta1 ** (t + 1)) / (np.sqrt(v / (1 - beta2 ** (t + 1))) + 1e-8)
        np.testing.assert_allclose(found[t], p, rtol=TOLERANCE, atol=TOLERANCE)
        worst = max(worst, abs(products[0] - beta1 ** (t + 1)), abs(products[1] - beta2 ** (t + 1)))
    assert worst > 0.01


def constant(t: int) -> float:
    return 0.1


def test_velocity_form() -> None:
    """v = mu v + lr g: every gradient keeps the learning rate of its day."""
    p0, gs = start(), gradients()
    found = path_of(lambda p: fastopt.SGD(p, wavering, momentum=0.8, momentum_form="velocity"), p0, gs)
    steps = np.array([wavering(t) for t in range(STEPS)])[:, None] * gs
    np.testing.assert_allclose(found, along(lambda hs: past(hs, 0.8), p0, steps, lambda t: 1.0), rtol=TOLERANCE)


@pytest.mark.parametrize("lr", [constant, wavering], ids=["constant", "changing"])
@pytest.mark.parametrize(("form", "scale"), [("velocity", 1.0), ("ema", 1 / (1 - 0.8))])
def test_forms_of_momentum(form: str, scale: float, lr: Callable[[int], float]) -> None:
    """velocity = accumulate while lr is constant; ema = accumulate with lr (1 - mu) whatever lr does."""
    p0, gs = start(), gradients()
    found = path_of(lambda p: fastopt.SGD(p, lambda t: scale * lr(t), momentum=0.8, momentum_form=form), p0, gs)
    accumulated = path_of(lambda p: fastopt.SGD(p, lr, momentum=0.8), p0, gs)
    if form == "velocity" and lr is wavering:
        assert np.max(np.abs(found - accumulated)) > 0.1
    else:
        np.testing.assert_allclose(found, accumulated, rtol=TOLERANCE, atol=TOLERANCE)


def test_forms_of_momentum_under_one_changing_lr() -> None:
    """The same lr in all three: three different paths."""
    p0, gs = start(), gradients()
    forms = ["accumulate", "velocity", "ema"]
    paths = [path_of(lambda p, f=f: fastopt.SGD(p, wavering, momentum=0.8, momentum_form=f), p0, gs) for f in forms]
    for i, one in enumerate(paths):
        for two in paths[:i]:
            assert np.max(np.abs(one - two)) > 0.1


def test_a_changing_momentum_tells_ema_from_accumulate() -> None:
    """No factor on lr makes them equal then: ema weighs each gradient by the 1 - mu of its day."""
    p0, gs = start(), gradients()

    def momentum(t: int) -> float:
        return 0.5 + 0.03 * t

    found = path_of(lambda p: fastopt.SGD(p, constant, momentum=momentum, momentum_form="ema"), p0, gs)
    scaled = path_of(lambda p: fastopt.SGD(p, lambda t: 0.1 * (1 - momentum(t)), momentum=momentum), p0, gs)
    weights = [
        np.array([math.prod(momentum(k) for k in range(i + 1, t + 1)) for i in range(t + 1)]) for t in range(STEPS)
    ]
    ema = [w @ ((1 - np.array([momentum(i) for i in range(len(w))]))[:, None] * gs[: len(w)]) for w in weights]
    np.testing.assert_allclose(found, p0 - 0.1 * np.cumsum(ema, axis=0), rtol=TOLERANCE, atol=TOLERANCE)
    assert np.max(np.abs(found - scaled)) > 0.01


def test_nesterov_walks_the_look_ahead_points() -> None:
    """By definition g is taken at p - lr mu b; nesterov=True keeps that point as its parameter."""
    curvature, lr, momentum = 10 ** np.linspace(-2, 0.9, SIZE), 0.1, 0.9
    p, b = start(), np.zeros(SIZE)
    q = p.copy()
    opt = fastopt.SGD(q, lr, momentum=momentum, nesterov=True)
    for _ in range(50):
        ahead = p - lr * momentum * b
        np.testing.assert_allclose(q, ahead, rtol=1e-10, atol=1e-12)
        b = momentum * b + curvature * ahead
        p = p - lr * b
        opt.step(curvature * q)
    assert np.max(np.abs(q - p)) > 1e-3


@pytest.mark.parametrize("momentum", [0, 0.5])
@pytest.mark.parametrize("eps_inside_sqrt", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centered_variance_is_never_negative(dtype: Any, eps_inside_sqrt: bool, momentum: float) -> None:
    """On constant gradients v - m^2 rounds below 0, where a plain root, as PyTorch takes, gives NaN."""
    g = np.random.default_rng(0).standard_normal(2000).astype(dtype)
    p = np.zeros(2000, dtype)
    opt = fastopt.RMSprop(
        p, 1e-12, rho=0.9, eps=1e-8, centered=True, eps_inside_sqrt=eps_inside_sqrt, momentum=momentum
    )
    negative = 0
    for _ in range(3000):
        opt.step(g)
        state = opt.state["0"]
        negative += int(np.count_nonzero(state["v"] < state["m"] * state["m"]))
        assert np.isfinite(p).all()
    assert negative > 0
    # In the end the variance is a few roundings of g^2 or 0, so that a step is at most lr g/eps (or /sqrt(eps)).
    before = p.copy()
    opt.step(g)
    bound = 1e-12 * np.abs(g) / (1e-4 if eps_inside_sqrt else 1e-8) / (1 - momentum)
    assert np.all(np.abs(p - before) <= bound * (1 + 1e-5) + np.spacing(np.abs(before)))
    assert np.all(np.sign(p) == -np.sign(g))


def adam_direction(gs: Array) -> Array:
    return np.asarray(mean(gs, 0.9) / (np.sqrt(mean(gs**2, 0.999)) + 1e-8))


DECAYING = {
    "adamw": lambda p, **k: fastopt.AdamW(p, wavering, weight_decay=0.4, **k),
    "decoupled": lambda p, **k: fastopt.Adam(p, wavering, decoupled_decay=0.4, **k),
}


@pytest.mark.parametrize("by_lr", [True, False])
@pytest.mark.parametrize("name", DECAYING)
def test_decay_and_step_are_of_the_same_parameter(name: str, by_lr: bool) -> None:
    """p - lr direction - lr lambda p (or lambda p), not the decay of what the step left."""
    p0, gs = start(), gradients()
    found = path_of(lambda p: DECAYING[name](p, decay_by_lr=by_lr), p0, gs)
    p = after = p0
    for t in range(STEPS):
        decay = 0.4 * wavering(t) if by_lr else 0.4
        step = wavering(t) * adam_direction(gs[: t + 1])
        p, after = p - step - decay * p, (after - step) * (1 - decay)
        np.testing.assert_allclose(found[t], p, rtol=TOLERANCE, atol=TOLERANCE)
    assert np.max(np.abs(p - after)) > 0.01


def test_l2_goes_through_the_rule_and_decay_does_not() -> None:
    """l2 adds lambda p to the gradient (of lambda/2 p^2); for plain SGD, and only there, that is decoupled decay."""
    p0, gs = start(), gradients()
    l2, decayed = ({"l2": 0.4}, {"decoupled_decay": 0.4})
    sgd = [path_of(lambda p, k=k: fastopt.SGD(p, wavering, **k), p0, gs) for k in (l2, decayed)]
    np.testing.assert_allclose(*sgd, rtol=TOLERANCE, atol=TOLERANCE)
    adam = [path_of(lambda p, k=k: fastopt.Adam(p, wavering, **k), p0, gs) for k in (l2, decayed)]
    assert np.max(np.abs(adam[0] - adam[1])) > 0.1
    penalised = [gs[0] + 0.4 * p0]
    for t in range(STEPS):
        expected = p0 - sum(wavering(i) * adam_direction(np.array(penalised[: i + 1])) for i in range(t + 1))
        np.testing.assert_allclose(adam[0][t], expected, rtol=1e-11, atol=1e-11)
        if t + 1 < STEPS:
            penalised.append(gs[t + 1] + 0.4 * expected)


def test_l1_subgradient() -> None:
    """lambda sign(p), and 0 at both zeros."""
    p = np.array([2.0, -3.0, 0.0, -0.0, 5e-324, -1e-300])
    opt = fastopt.SGD(p, 0.5, l1=0.4, flush_subnormals=False)
    opt.step(np.zeros(6))
    np.testing.assert_array_equal(p, [1.8, -2.8, 0, 0, -0.2, 0.2])


def soft(x: Array, threshold: float) -> Array:
    return np.asarray(np.sign(x) * np.maximum(np.abs(x) - threshold, 0))


def test_proximal_l1() -> None:
    """The soft threshold by lr lambda of what the rule leaves, reaching exact zeros and staying there."""
    p0, gs = start(), 0.05 * gradients()
    found = path_of(lambda p: fastopt.SGD(p, wavering, prox_l1=1.5), p0, gs)
    p = p0
    for t in range(STEPS):
        p = soft(p - wavering(t) * gs[t], 1.5 * wavering(t))
        np.testing.assert_allclose(found[t], p, rtol=TOLERANCE, atol=TOLERANCE)
    zeros = np.count_nonzero(found == 0, axis=1)
    assert zeros[0] < zeros[-1]
    np.testing.assert_array_equal(found == 0, np.abs(found) < 1e-12)
    subgradient = path_of(lambda p: fastopt.SGD(p, wavering, l1=1.5), p0, gs)
    assert np.count_nonzero(subgradient == 0) == 0


def test_average() -> None:
    """d^t p_0 + (1 - d) sum of d^(t - i) p_i: it starts at the first parameters and follows those after each step."""
    p0, gs = start(), gradients()
    p = p0.copy()
    opt = fastopt.Adam(p, wavering, average=0.8)
    np.testing.assert_array_equal(opt.averages, p0)
    visited = [p0]
    for t in range(1, STEPS + 1):
        opt.step(gs[t - 1])
        visited.append(p.copy())
        expected = 0.8**t * p0 + average(np.array(visited[1:]), 0.8)
        np.testing.assert_allclose(opt.averages, expected, rtol=TOLERANCE, atol=TOLERANCE)


def tensors(seed: int = 2) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {"a": rng.standard_normal((5, 3)), "b": rng.standard_normal(1500), "c": rng.standard_normal(())[...]}


def norm_of(arrays: dict[str, Array], order: float = 2) -> float:
    return float(np.linalg.norm(np.concatenate([np.ravel(a) for a in arrays.values()]), order))


@pytest.mark.parametrize("order", [1, 2, math.inf])
@pytest.mark.parametrize("factor", [0.3, 1.0, 1.0 + 1e-12, 4.0])
def test_clipping_by_norm(factor: float, order: float) -> None:
    """g c/norm(g) where the norm of all together is above c; at c and below not a bit changes, nothing is enlarged."""
    g = tensors()
    norm = fastopt.global_norm(g, order)
    assert norm == pytest.approx(norm_of(g, order), rel=1e-14)
    clipped = {name: a.copy() for name, a in g.items()}
    assert fastopt.clip_grad_norm_(clipped, factor * norm, order) == norm
    for name, a in g.items():
        if factor >= 1:
            assert clipped[name].tobytes() == a.tobytes()
        else:
            np.testing.assert_allclose(clipped[name], factor * a, rtol=1e-14)


def test_clipping_per_tensor() -> None:
    """Each by its own norm; the norm over all is returned."""
    g = tensors()
    clipped = {name: a.copy() for name, a in g.items()}
    assert fastopt.clip_grad_norm_(clipped, 3.0, per_tensor=True) == pytest.approx(norm_of(g), rel=1e-14)
    norms = {name: float(np.linalg.norm(a)) for name, a in g.items()}
    assert min(norms.values()) < 3 < max(norms.values())
    for name, a in g.items():
        np.testing.assert_allclose(clipped[name], a * min(1, 3 / norms[name]), rtol=1e-14)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_clipping_by_norm_inside_the_step(factor: float) -> None:
    """The same bits as without clipping at the limit and below it; the report has the norm before clipping."""
    g = tensors()
    limit = factor * fastopt.global_norm(g)
    p, q = tensors(3), tensors(3)
    report = fastopt.SGD(p, 0.1, clip_norm=limit).step(g)
    fastopt.SGD(q, 0.1).step(g)
    assert report.grad_norm == pytest.approx(norm_of(g), rel=1e-14)
    for name, a in tensors(3).items():
        np.testing.assert_allclose(p[name], a - 0.1 * min(1, factor) * g[name], rtol=1e-13)
        assert (p[name].tobytes() == q[name].tobytes()) == (factor >= 1)


def test_clipping_by_value() -> None:
    """Element by element to [-c, c], in place and inside the step; NaN stays NaN."""
    g = np.array([-np.inf, -0.26, -0.25, 0.1, -0.0, 0.25, 3.0, np.inf, np.nan])
    expected = np.array([-0.25, -0.25, -0.25, 0.1, -0.0, 0.25, 0.25, 0.25, np.nan])
    p = np.zeros(9)
    fastopt.SGD(p, 1.0, clip_value=0.25).step(g)
    np.testing.assert_array_equal(p, -expected)
    fastopt.clip_grad_value_(g, 0.25)
    np.testing.assert_array_equal(g, expected)
    np.testing.assert_array_equal(np.signbit(g), np.signbit(expected))


@pytest.mark.parametrize("clip", [{"clip_norm": 0.5}, {"clip_value": 0.2}], ids=["norm", "value"])
@pytest.mark.parametrize("maximize", [False, True])
def test_order_inside_a_step(clip: dict[str, float], maximize: bool) -> None:
    """Clipping, maximize, penalties, decay, rule, proximal step, average: the penalties are not clipped, nor turned
    around by maximize, and are those of the parameter before its decay."""
    p0, gs = 3 * start(), gradients()
    l1, l2, prox, decay, momentum, keep = 0.7, 0.9, 0.05, 0.4, 0.8, 0.6
    p = p0.copy()
    opt = fastopt.SGD(
        p, wavering, momentum=momentum, l1=l1, l2=l2, decoupled_decay=decay, prox_l1=prox, average=keep,
        maximize=maximize, **clip,
    )  # fmt: skip
    q = averaged = p0
    b = np.zeros(SIZE)
    for t, g in enumerate(gs):
        opt.step(g)
        lr = wavering(t)
        if "clip_norm" in clip:
            clipped = g * min(1, clip["clip_norm"] / float(np.linalg.norm(g)))
        else:
            clipped = np.clip(g, -clip["clip_value"], clip["clip_value"])
        b = momentum * b + (-clipped if maximize else clipped) + l1 * np.sign(q) + l2 * q
        q = soft((1 - lr * decay) * q - lr * b, lr * prox)
        averaged = keep * averaged + (1 - keep) * q
        np.testing.assert_allclose(p, q, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(opt.averages, averaged, rtol=1e-11, atol=1e-11)


GATED = {
    "momentum": lambda p, lr: fastopt.SGD(p, lr, momentum=0.8, dampening=0.5),
    "adagrad": lambda p, lr: fastopt.Adagrad(p, lr, lr_decay=0.5),
    "rmsprop": lambda p, lr: fastopt.RMSprop(p, lr, centered=True, momentum=0.5),
    "adam": lambda p, lr: fastopt.Adam(p, lr, decoupled_decay=0.1, average=0.5),
    "amsgrad": lambda p, lr: fastopt.Adam(p, lr, amsgrad=True, l2=0.1),
    "nadam": lambda p, lr: fastopt.NAdam(p, lr, momentum_decay=0.5),
}


@pytest.mark.parametrize("name", GATED)
def test_no_gradient(name: str) -> None:
    """None leaves a tensor alone, decay and average too, and its own count makes its next corrections; only the
    schedule goes by the steps of all. So a tensor walks as if it were alone at the steps where it has a gradient."""
    gs = gradients()
    given = [t for t in range(STEPS) if t % 3 not in (0, 2) or t == 8]
    other, p = np.zeros(SIZE), start()
    opt = GATED[name]({"p": p, "other": other}, wavering)
    alone = start()
    lonely = GATED[name](alone, lambda i: wavering(given[i]))
    for t in range(STEPS):
        before = {key: np.copy(x) for key, x in opt.state["p"].items()}
        at, averaged = p.copy(), opt.averages["p"].copy() if name == "adam" else None
        opt.step({"p": gs[t] if t in given else None, "other": gs[t]})
        if t in given:
            lonely.step(gs[t])
        else:
            np.testing.assert_array_equal(p, at)
            assert all(np.array_equal(opt.state["p"][key], x) for key, x in before.items())
            assert averaged is None or np.array_equal(opt.averages["p"], averaged)
        np.testing.assert_array_equal(p, alone)
        assert opt.state["p"]["t"] == sum(i <= t for i in given)
        assert opt.state["other"]["t"] == opt.t == t + 1
    assert np.max(np.abs(p - start())) > 0.1


def test_no_gradient_and_the_correction() -> None:
    """Adam's weighted means run over the tensor's own gradients, and so does the count under 1 - beta^t."""
    p0, gs = start(), gradients()
    given = [1, 2, 5, 6, 7, 11]
    p = p0.copy()
    opt = fastopt.Adam([p, np.zeros(1)], wavering)
    found = []
    for t in range(STEPS):
        opt.step([gs[t] if t in given else None, np.ones(1)])
        found.append(p.copy())
    own = along(adam_direction, p0, gs[given], lambda i: wavering(given[i]))
    np.testing.assert_allclose(np.array(found)[given], own, rtol=TOLERANCE, atol=TOLERANCE)


def test_no_gradient_at_all() -> None:
    """A step without any gradient is none: nothing is counted, the schedule stays."""
    p = start()
    opt = fastopt.SGD([p], wavering)
    assert opt.step([None]) == fastopt.Report(applied=False, grad_norm=None, step=0, skipped=0)
    opt.step([np.ones(SIZE)])
    np.testing.assert_allclose(p, start() - wavering(0), rtol=1e-15)


def test_lion() -> None:
    p, opt_p = start(), start()
    opt = fastopt.Lion([opt_p], wavering, betas=(0.6, 0.8), weight_decay=0.1)
    m, gs = np.zeros(SIZE), gradients()
    # The sign of 0 is 0: these only decay.
    gs[:, :3] = 0
    for t, g in enumerate(gs):
        opt.step([g])
        p = p * (1 - wavering(t) * 0.1) - wavering(t) * np.sign(0.6 * m + 0.4 * g)
        m = 0.8 * m + 0.2 * g
        np.testing.assert_allclose(opt_p, p, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("limits", [(0.0, math.inf), (0.5, 0.7)])
def test_lamb(limits: tuple[float, float]) -> None:
    p, opt_p = start(), start()
    opt = fastopt.LAMB([opt_p], wavering, betas=(0.6, 0.8), eps=0.01, weight_decay=0.1, ratio_limits=limits)
    m, v = np.zeros(SIZE), np.zeros(SIZE)
    for t, g in enumerate(gradients(), 1):
        opt.step([g])
        m, v = 0.6 * m + 0.4 * g, 0.8 * v + 0.2 * g**2
        u = m / (1 - 0.6**t) / (np.sqrt(v / (1 - 0.8**t)) + 0.01) + 0.1 * p
        ratio = np.clip(np.linalg.norm(p) / np.linalg.norm(u), *limits)
        p = p - wavering(t - 1) * ratio * u
        np.testing.assert_allclose(opt_p, p, rtol=TOLERANCE, atol=TOLERANCE)


def test_adadelta() -> None:
    p, opt_p = start(), start()
    opt = fastopt.Adadelta([opt_p], wavering, rho=0.7, eps=0.01)
    v, u = np.zeros(SIZE), np.zeros(SIZE)
    for t, g in enumerate(gradients()):
        opt.step([g])
        v = 0.7 * v + 0.3 * g**2
        d = np.sqrt((u + 0.01) / (v + 0.01)) * g
        u = 0.7 * u + 0.3 * d**2
        p = p - wavering(t) * d
        np.testing.assert_allclose(opt_p, p, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("outside", [False, True])
def test_adamax(outside: bool) -> None:
    p, opt_p = start(), start()
    opt = fastopt.Adamax([opt_p], wavering, betas=(0.6, 0.8), eps=0.01, eps_outside=outside)
    m, u = np.zeros(SIZE), np.zeros(SIZE)
    for t, g in enumerate(gradients(), 1):
        opt.step([g])
        m = 0.6 * m + 0.4 * g
        u = np.maximum(0.8 * u, np.abs(g) + (0 if outside else 0.01))
        p = p - wavering(t - 1) * m / (1 - 0.6**t) / (u + (0.01 if outside else 0))
        np.testing.assert_allclose(opt_p, p, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("eps_hat", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("beta2", [0.9, 0.5])
def test_radam(beta2: float, nesterov: bool, eps_hat: bool) -> None:
    p, opt_p = start(), start()
    opt = fastopt.RAdam([opt_p], wavering, betas=(0.6, beta2), eps=0.01, eps_hat=eps_hat, nesterov=nesterov)
    m, v, rectified = np.zeros(SIZE), np.zeros(SIZE), 0
    top = 2 / (1 - beta2) - 1
    for t, g in enumerate(gradients(), 1):
        opt.step([g])
        m, v = 0.6 * m + 0.4 * g, beta2 * v + (1 - beta2) * g**2
        n = top - 2 * t * beta2**t / (1 - beta2**t)
        mean = m / (1 - 0.6**t)
        if nesterov:
            mean = 0.6 * m / (1 - 0.6 ** (t + 1)) + 0.4 * g / (1 - 0.6**t)
        u = mean
        if n > 5:
            root = math.sqrt(1 - beta2**t)
            u = mean * math.sqrt((n - 4) * (n - 2) * top / ((top - 4) * (top - 2) * n))
            u = u * root / (np.sqrt(v) + 0.01) if eps_hat else u / (np.sqrt(v) / root + 0.01)
            rectified += 1
        p = p - wavering(t - 1) * u
        np.testing.assert_allclose(opt_p, p, rtol=1e-11, atol=1e-11)
    assert rectified == (STEPS - 5 if beta2 == 0.9 else 0)


def test_rprop() -> None:
    p, opt_p = start(), start()
    opt = fastopt.Rprop([opt_p], 0.1, etas=(0.5, 1.5), step_sizes=(0.04, 0.3))
    size, before, rested = np.full(SIZE, 0.1), np.zeros(SIZE), 0
    for g in gradients():
        opt.step([g])
        turned = g * before < 0
        factor = np.where(turned, 0.5, np.where(g * before > 0, 1.5, 1))
        size = np.clip(size * factor, 0.04, 0.3)
        before = np.where(turned, 0, g)
        rested += int(turned.sum())
        p = p - size * np.sign(before)
        np.testing.assert_allclose(opt_p, p, rtol=TOLERANCE, atol=TOLERANCE)
    assert rested > STEPS


def test_asgd() -> None:
    p, opt_p = start(), start()
    opt = fastopt.ASGD([opt_p], wavering, lambd=0.1, alpha=0.6, t0=3.0)
    ax, lr = np.zeros(SIZE), wavering(0)
    for t, g in enumerate(gradients(), 1):
        opt.step([g])
        eta = lr / (1 + 0.1 * lr * (t - 1)) ** 0.6
        p = (1 - 0.1 * eta) * p - eta * g
        mu = 1 / max(1, t - 4)
        ax = (1 - mu) * ax + mu * p
        lr = wavering(t - 1)
        np.testing.assert_allclose(opt_p, p, rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(opt.state["0"]["ax"], ax, rtol=TOLERANCE, atol=TOLERANCE)


def test_rprop_s_lr_is_no_schedule() -> None:
    with pytest.raises(ValueError, match="lr of Rprop is where its step sizes start"):
        fastopt.Rprop([np.ones(2)], wavering)
    opt = fastopt.Rprop([np.ones(2)])
    with pytest.raises(ValueError, match="no schedule"):
        opt.lr = wavering


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: fastopt.Rprop(p, etas=(0.5, 0.9)), r"etas is \(0.5, 0.9\): expected 0 < shrinking factor < 1"),
        (lambda p: fastopt.Rprop(p, step_sizes=(1.0, 0.1)), "step_sizes is"),
        (lambda p: fastopt.RAdam(p, threshold=3), "threshold is 3.0: expected a number, 4 or larger"),
        (lambda p: fastopt.Adadelta(p, eps=0), "eps is 0.0: expected a finite number larger than 0"),
        (lambda p: fastopt.ASGD(p, t0=math.nan), "t0 is nan"),
    ],
)
def test_what_these_rules_refuse(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make([np.ones(2)])


MATRICES = {"matrix": (6, 4), "cube": (2, 3, 5), "vector": (9,)}
LONG = 30


def of_matrices(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in MATRICES.items()}


def rms(x: Array) -> float:
    return math.sqrt(float(np.mean(x**2)))


ADAFACTORS: dict[str, dict[str, Any]] = {
    "paper": {"eps": (1e-30, 1e-3), "add_eps": True, "decay_first": True, "weight_decay": 0.1},
    "floors": {"eps": (0.3, 1e-3), "d": 1.3},
    "rare": {"eps": (0.02, 0.9), "add_eps": True, "beta2_decay": -0.5, "relative_step": False, "d": None},
    "momentum": {"momentum": 0.7, "scale_parameter": False, "weight_decay": 0.2},
    "unfactored": {"factored": False, "eps": (0.4, 1e-3), "momentum": 0.6},
    "some": {"least_factored": 4, "d": 1.1},
}


@pytest.mark.parametrize("name", ADAFACTORS)
def test_adafactor(name: str) -> None:
    """Algorithms 4 to 6 of the paper, and what PyTorch and optax have instead of their parts."""
    given: dict[str, Any] = {
        "beta2_decay": -0.8, "eps": (None, 1e-3), "d": 1.0, "add_eps": False, "relative_step": True,
        "scale_parameter": True, "decay_first": False, "momentum": None, "weight_decay": 0.0, "factored": True,
        "least_factored": 0, **ADAFACTORS[name],
    }  # fmt: skip
    p, mine = of_matrices(4), of_matrices(4)
    opt = fastopt.Adafactor(mine, wavering, **ADAFACTORS[name])
    eps1, eps2 = given["eps"]
    eps1 = 2.0**-52 if eps1 is None else eps1
    added, least = (eps1, 0.0) if given["add_eps"] else (0.0, eps1)
    rows, columns, full, m = ({key: np.zeros(1) for key in p} for _ in range(4))
    clipped = 0
    for t in range(1, LONG + 1):
        g = of_matrices(100 + t)
        g["cube"][1] = 0
        assert opt.step(g)
        lr, b = wavering(t - 1), 1 - t ** given["beta2_decay"]
        rho = min(lr, 1 / math.sqrt(t)) if given["relative_step"] else lr
        for key, x in g.items():
            square = x**2 + added
            if given["factored"] and x.ndim > 1 and min(x.shape[-2:]) >= given["least_factored"]:
                rows[key] = b * rows[key] + (1 - b) * square.mean(-1, keepdims=True)
                columns[key] = b * columns[key] + (1 - b) * square.mean(-2, keepdims=True)
                means = np.maximum(rows[key].mean(-2, keepdims=True), least)
                with np.errstate(invalid="ignore"):
                    v = rows[key] / means * columns[key]
            else:
                v = full[key] = b * full[key] + (1 - b) * square
            u = x / np.sqrt(np.maximum(v, least**2))
            size = p[key] * (1 - lr * given["weight_decay"]) if given["decay_first"] else p[key]
            alpha = rho * (max(eps2, rms(size)) if given["scale_parameter"] else 1.0)
            if given["d"] is not None:
                clipped += rms(u) > given["d"]
                u = u / max(1.0, rms(u) / given["d"])
            p[key] = p[key] * (1 - lr * given["weight_decay"])
            if given["momentum"] is None:
                p[key] = p[key] - alpha * u
            else:
                m[key] = given["momentum"] * m[key] + (1 - given["momentum"]) * alpha * u
                p[key] = p[key] - m[key]
            np.testing.assert_allclose(mine[key], p[key], rtol=1e-10, atol=1e-10, err_msg=f"{key} after step {t}")
    assert clipped or given["d"] is None


PRODIGIES: dict[str, dict[str, Any]] = {
    "authors": {},
    "correction": {"bias_correction": True, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 0.01},
    "safeguard": {"safeguard_warmup": True, "d_coef": 0.7, "beta3": 0.9},
    "growth": {"growth_rate": 1.2, "d0": 0.01},
    "optax": {"update": "optax", "bias_correction": True, "d0": 1e-4},
    "momentum-less": {"betas": (0.0, 0.9), "d_coef": 2.0, "d0": 0.001},
}


@pytest.mark.parametrize("name", PRODIGIES)
def test_prodigy(name: str) -> None:
    """Algorithm 4 of the paper as its authors implement it, down a valley towards 1, with gradients that also vary."""
    given: dict[str, Any] = {
        "betas": (0.9, 0.999), "eps": 1e-8, "beta3": None, "weight_decay": 0.0, "d0": 1e-6, "d_coef": 1.0,
        "growth_rate": math.inf, "bias_correction": False, "safeguard_warmup": False, "update": "authors",
        **PRODIGIES[name],
    }  # fmt: skip
    p, mine, begun = of_matrices(4), of_matrices(4), of_matrices(4)
    opt = fastopt.Prodigy(mine, lambda t: 3 * wavering(t), **PRODIGIES[name])
    (b1, b2), d0 = given["betas"], given["d0"]
    b3 = math.sqrt(b2) if given["beta3"] is None else given["beta3"]
    m, v, s = ({key: np.zeros(shape) for key, shape in MATRICES.items()} for _ in range(3))
    d = d_max = d0
    numerator = 0.0
    ds = []
    for t in range(1, LONG + 1):
        noise = of_matrices(100 + t)
        g = {key: np.sign(x - 1) + 0.3 * noise[key] for key, x in begun.items()}
        assert opt.step(g)
        correction = math.sqrt(1 - b2**t) / (1 - b1**t) if given["bias_correction"] else 1.0
        dlr = d * 3 * wavering(t - 1) * correction
        # The sum is of gradients times the way that has been gone.
        gone = sum(float(np.sum(x * (begun[key] - p[key]))) for key, x in g.items())
        numerator = b3 * numerator + d / d0 * dlr * gone
        for key, x in g.items():
            m[key] = b1 * m[key] + d * (1 - b1) * x
            v[key] = b2 * v[key] + d**2 * (1 - b2) * x**2
            s[key] = b3 * s[key] + d / d0 * (d if given["safeguard_warmup"] else dlr) * x
        estimate = given["d_coef"] * numerator / sum(float(np.sum(np.abs(x))) for x in s.values())
        if given["update"] == "optax":
            d = max(d, estimate)
        else:
            d = max(d, estimate) if d == d0 else d
            d_max = max(d_max, estimate)
            d = min(d_max, d * given["growth_rate"])
        for key in p:
            p[key] = p[key] - dlr * given["weight_decay"] * p[key]
            p[key] = p[key] - dlr * m[key] / (np.sqrt(v[key]) + d * given["eps"])
            np.testing.assert_allclose(mine[key], p[key], rtol=1e-10, atol=1e-10, err_msg=f"{key} after step {t}")
        assert opt.scalars["d"] == pytest.approx(d, rel=1e-10)
        ds.append(d)
    assert len(set(ds)) > 5


@pytest.mark.parametrize("rule", ["Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "LAMB", "Prodigy"])
def test_eps_of_0_where_squares_are_flushed_is_refused(rule: str) -> None:
    """A gradient of 1e-20 in float32 has a square that is flushed: m over the root of it is infinite."""
    cls = getattr(fastopt, rule)
    p = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match=f"{rule} with eps=0 and flush_subnormals=True"):
        cls([p], lr=1e-3, eps=0)
    opt = cls([p], lr=1e-3)
    for change in (lambda: setattr(opt, "eps", 0), lambda: opt.groups[0].update(eps=0.0)):
        with pytest.raises(ValueError, match="flushed to 0"):
            change()
    cls([p], lr=1e-3, eps=0, flush_subnormals=False)


def test_adam_without_flushing_needs_no_eps() -> None:
    p = np.zeros(1, np.float32)
    opt = fastopt.Adam([p], lr=1e-3, eps=0, flush_subnormals=False)
    for _ in range(10):
        opt.step([np.full(1, 1e-18, np.float32)])
    np.testing.assert_allclose(p, -0.01, rtol=1e-2)
