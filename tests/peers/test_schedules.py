"""Schedules against those of PyTorch and optax, value for value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fastopt import schedules as s

STEPS = 60
LR = 0.3


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")


@pytest.fixture
def optax() -> Iterator[Any]:
    jax = pytest.importorskip("jax", reason="jax is not installed: nothing to compare with")
    optax = pytest.importorskip("optax", reason="optax is not installed: nothing to compare with")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield optax
    jax.config.update("jax_enable_x64", before)


def torch_walk(torch: Any, make: Callable[[Any, Any], Any], steps: int, key: str = "lr") -> list[float]:
    """What PyTorch's scheduler, made by make(lr_scheduler, optimizer), has at each of these steps."""
    opt = torch.optim.SGD([torch.zeros(1)], lr=LR, momentum=0.5)
    scheduler = make(torch.optim.lr_scheduler, opt)
    values = []
    for _ in range(steps):
        values.append(opt.param_groups[0][key])
        opt.step()
        scheduler.step()
    return values


# Ours, theirs, and up to which step they agree.
TORCH: dict[str, tuple[Any, Callable[[Any, Any], Any], int]] = {
    "constant": (s.constant(LR), lambda m, opt: m.ConstantLR(opt, factor=1.0), STEPS),
    "step_decay": (s.step_decay(LR, 0.5, 7), lambda m, opt: m.StepLR(opt, 7, gamma=0.5), STEPS),
    "exponential": (s.exponential(LR, gamma=0.9), lambda m, opt: m.ExponentialLR(opt, 0.9), STEPS),
    "exponential rate": (s.exponential(LR, rate=0.1), lambda m, opt: m.ExponentialLR(opt, math.exp(-0.1)), STEPS),
    # Past the end PyTorch's climbs again.
    "cosine": (s.cosine(LR, 50, 0.01), lambda m, opt: m.CosineAnnealingLR(opt, 50, eta_min=0.01), 51),
    "cosine_restarts": (
        s.cosine_restarts(LR, 7, eta_min=0.01),
        lambda m, opt: m.CosineAnnealingWarmRestarts(opt, 7, eta_min=0.01),
        STEPS,
    ),
    "cosine_restarts, longer": (
        s.cosine_restarts(LR, 5, 3),
        lambda m, opt: m.CosineAnnealingWarmRestarts(opt, 5, T_mult=3),
        3 * STEPS,
    ),
    "linear": (
        s.linear(0.25 * LR, 0.75 * LR, 20),
        lambda m, opt: m.LinearLR(opt, start_factor=0.25, end_factor=0.75, total_iters=20),
        STEPS,
    ),
    "polynomial": (s.polynomial(LR, 0, 40, 2.5), lambda m, opt: m.PolynomialLR(opt, 40, power=2.5), STEPS),
    "piecewise": (
        s.piecewise([5, 30], [LR, LR / 2, LR / 4]),
        lambda m, opt: m.MultiStepLR(opt, [5, 30], gamma=0.5),
        STEPS,
    ),
    # LinearLR from 1/steps up to 1 over steps - 1 is the warm-up that begins at (t + 1)/steps.
    "warmup": (
        s.warmup(8, s.cosine(LR, 40)),
        lambda m, opt: m.SequentialLR(
            opt, [m.LinearLR(opt, 1 / 8, 1, total_iters=7), m.CosineAnnealingLR(opt, 40)], milestones=[8]
        ),
        49,
    ),
    "joined": (
        s.joined([s.linear(0.1 * LR, LR, 5), s.exponential(LR, gamma=0.9), s.step_decay(LR, 0.5, 4)], [5, 30]),
        lambda m, opt: m.SequentialLR(
            opt,
            [m.LinearLR(opt, 0.1, 1, total_iters=5), m.ExponentialLR(opt, 0.9), m.StepLR(opt, 4, 0.5)],
            milestones=[5, 30],
        ),
        STEPS,
    ),
    **{
        f"cyclic, {mode}, {up} up, {down} down": (
            s.cyclic(0.1 * LR, LR, up, down, mode=mode, gamma=0.97 if mode == "exp_range" else None),
            lambda m, opt, mode=mode, up=up, down=down: m.CyclicLR(  # type: ignore[misc]
                opt, 0.1 * LR, LR, up, down, mode=mode, gamma=0.97, cycle_momentum=False
            ),
            3 * STEPS,
        )
        for mode in ("triangular", "triangular2", "exp_range")
        for up, down in ((7, None), (3, 8), (8, 3), (1, 1))
    },
    "inverse_sqrt": (
        s.inverse_sqrt(LR, 4),
        lambda m, opt: m.LambdaLR(opt, lambda t: (1 + t / 4) ** -0.5),
        STEPS,
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch(torch: Any, name: str) -> None:
    ours, theirs, steps = TORCH[name]
    expected = torch_walk(torch, theirs, steps)
    # PyTorch multiplies from one step to the next, which gathers roundings; towards 0 they are no longer relative.
    np.testing.assert_allclose([ours(t) for t in range(steps)], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize(("steps", "pct_start"), [(STEPS, 0.3), (STEPS, 0.5), (7, 0.1), (13, 0.25), (3, 0.0), (1, 0.3)])
def test_torch_one_cycle(torch: Any, strategy: str, three_phase: bool, steps: int, pct_start: float) -> None:
    ours = s.one_cycle(LR, steps, pct_start, strategy, three_phase=three_phase, div_factor=10, final_div_factor=100)

    def theirs(m: Any, opt: Any) -> Any:
        return m.OneCycleLR(
            opt,
            LR,
            total_steps=steps,
            pct_start=pct_start,
            anneal_strategy=strategy,
            three_phase=three_phase,
            div_factor=10,
            final_div_factor=100,
        )

    for part, key in ((ours.lr, "lr"), (ours.momentum, "momentum")):
        values, expected = [part(t) for t in range(steps)], torch_walk(torch, theirs, steps, key)
        if strategy == "linear":
            assert values == expected
        # The cosine is no longer libm's.
        np.testing.assert_allclose(values, expected, rtol=1e-15, atol=1e-16)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_torch_cyclic_momentum(torch: Any, mode: str) -> None:
    ours = s.cyclic(0.9, 0.8, 5, 9, mode=mode, gamma=0.98 if mode == "exp_range" else None)
    theirs = torch_walk(torch, lambda m, opt: m.CyclicLR(opt, 0.1, LR, 5, 9, mode, 0.98), STEPS, "momentum")
    np.testing.assert_allclose([ours(t) for t in range(STEPS)], theirs, rtol=1e-12)


def test_torch_one_cycle_defaults(torch: Any) -> None:
    ours = s.one_cycle(LR, STEPS)
    for part, key in ((ours.lr, "lr"), (ours.momentum, "momentum")):
        theirs = torch_walk(torch, lambda m, opt: m.OneCycleLR(opt, LR, total_steps=STEPS), STEPS, key)
        np.testing.assert_allclose([part(t) for t in range(STEPS)], theirs, rtol=1e-15, atol=1e-16)


PLATEAUS = list(itertools.product(["min", "max"], ["rel", "rel_torch", "abs"], [0, 2], [0, 3]))


@pytest.mark.parametrize(("mode", "threshold_mode", "patience", "cooldown"), PLATEAUS)
def test_torch_reduce_on_plateau(torch: Any, mode: str, threshold_mode: str, patience: int, cooldown: int) -> None:
    rng = np.random.default_rng([patience, cooldown])
    for factor, threshold, least, eps in [(0.1, 1e-4, 0.0, 1e-8), (0.5, 0.1, 1e-3, 1e-3), (0.9, 0.0, 0.05, 0.0)]:
        metrics = np.cumsum(rng.standard_normal(120) * rng.choice([0.01, 1], 120)) + rng.choice([-3, 0, 3])
        if threshold_mode == "rel":
            # Below 0 PyTorch's margin points the wrong way.
            metrics = abs(metrics)
        metrics[rng.random(120) < 0.05] = np.nan
        metrics[rng.random(120) < 0.05] = np.inf if mode == "min" else -np.inf
        repeated = rng.random(120) < 0.2
        metrics[1:][repeated[1:]] = metrics[:-1][repeated[1:]]
        common: dict[str, Any] = {"mode": mode, "threshold": threshold, "factor": factor, "patience": patience}
        common |= {"cooldown": cooldown, "eps": eps}
        ours = s.ReduceOnPlateau(LR, min_value=least, threshold_mode=threshold_mode, **common)
        opt = torch.optim.SGD([torch.zeros(1)], lr=LR)
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
            opt, min_lr=least, threshold_mode=threshold_mode.removesuffix("_torch"), **common
        )
        for t, metric in enumerate(metrics):
            theirs.step(metric)
            assert ours.update(metric) == opt.param_groups[0]["lr"]
            assert ours(t) == ours.value
            if t % 40 == 39:
                ours = s.from_config(s.to_config(ours))  # type: ignore[assignment]
        assert ours.value < LR


def test_torch_reduce_on_plateau_defaults(torch: Any) -> None:
    ours = s.ReduceOnPlateau(LR)
    opt = torch.optim.SGD([torch.zeros(1)], lr=LR)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(opt)
    for metric in [1.0] * 60:
        theirs.step(metric)
        assert ours.update(metric) == opt.param_groups[0]["lr"]
    assert ours.value == pytest.approx(LR * 1e-5)


OPTAX: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "constant": (s.constant(LR), lambda o: o.constant_schedule(LR)),
    "linear": (s.linear(LR, 0.1, 20), lambda o: o.linear_schedule(LR, 0.1, 20)),
    "polynomial": (s.polynomial(LR, 0.1, 20, 2.5), lambda o: o.polynomial_schedule(LR, 0.1, 2.5, 20)),
    "step_decay": (s.step_decay(LR, 0.5, 7), lambda o: o.exponential_decay(LR, 7, 0.5, staircase=True)),
    "exponential": (s.exponential(LR, gamma=0.9), lambda o: o.exponential_decay(LR, 1, 0.9)),
    "cosine": (s.cosine(LR, 40, 0.1 * LR), lambda o: o.cosine_decay_schedule(LR, 40, alpha=0.1)),
    "cosine_restarts": (
        s.cosine_restarts(LR, 5, 2, 0.1),
        lambda o: o.join_schedules(
            [o.cosine_decay_schedule(LR, 5 * 2**i, alpha=0.1 / LR) for i in range(4)], [5, 15, 35]
        ),
    ),
    "piecewise": (
        s.piecewise([5, 30], [LR, LR / 2, LR / 4]),
        lambda o: o.piecewise_constant_schedule(LR, {5: 0.5, 30: 0.5}),
    ),
    "warmup": (
        s.warmup(8, s.linear(LR, 0, 40)),
        lambda o: o.join_schedules([o.linear_schedule(LR / 8, LR, 7), o.linear_schedule(LR, 0, 40)], [8]),
    ),
    "warmup from a value": (
        s.warmup(8, s.cosine(LR, 40), start=0.1),
        lambda o: o.warmup_cosine_decay_schedule(0.1, LR, 8, 48),
    ),
    "joined": (
        s.joined([s.linear(0.1, LR, 5), s.exponential(LR, gamma=0.9), 0.01], [5, 30]),
        lambda o: o.join_schedules(
            [o.linear_schedule(0.1, LR, 5), o.exponential_decay(LR, 1, 0.9), o.constant_schedule(0.01)], [5, 30]
        ),
    ),
    "warmup_stable_decay": (
        s.warmup_stable_decay(LR, 50, 8, 20, 0.01, start=0.1),
        lambda o: o.join_schedules(
            [o.linear_schedule(0.1, LR, 8), o.constant_schedule(LR), o.linear_schedule(LR, 0.01, 20)], [8, 30]
        ),
    ),
}


@pytest.mark.parametrize("name", OPTAX)
def test_optax(optax: Any, name: str) -> None:
    ours, theirs = OPTAX[name]
    expected = theirs(optax)
    np.testing.assert_allclose(
        [ours(t) for t in range(STEPS)], [float(expected(t)) for t in range(STEPS)], rtol=1e-12, atol=1e-15
    )
