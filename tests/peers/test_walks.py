"""Lion, LAMB, Adafactor and Prodigy against optax, PyTorch, Keras and prodigyopt: 30 steps in float64, another lr at
every step, a row of zeros, a tensor of zeros, steps whose gradient is zero."""

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


def assert_near(mine: dict[str, Any], theirs: dict[str, Any], tolerance: float = 1e-9) -> None:
    before = start()
    for name, p in mine.items():
        moved = np.abs(np.asarray(theirs[name]) - before[name]).max()
        np.testing.assert_allclose(p, np.asarray(theirs[name]), rtol=0, atol=tolerance * max(moved, 1e-9))


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


@pytest.mark.parametrize("more", [{}, {"clip_threshold": 2.0, "beta_2_decay": -0.5, "epsilon_2": 0.3}], ids=str)
@pytest.mark.parametrize("weight_decay", [None, 0.1])
def test_adafactor_is_keras_s(
    weight_decay: float | None, more: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schedule of Keras takes away `relative_step`, but the step is never above 1 / sqrt(t)."""
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    keras = pytest.importorskip("keras", reason="keras (or jax, which its NumPy backend needs) is not installed")
    if keras.backend.backend() != "numpy":
        pytest.skip("Keras runs on another backend than NumPy here")
    dtypes = pytest.importorskip("keras.src.backend.common.dtypes", reason="Keras has moved its private table of types")
    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        variables = {name: keras.Variable(p, dtype="float64", name=name) for name, p in start().items()}
        theirs = keras.optimizers.Adafactor(learning_rate=0.02, weight_decay=weight_decay, **more)
        for t, g in enumerate(gradients()):
            theirs.learning_rate = rate(t)
            theirs.apply(list(g.values()), list(variables.values()))
        found = {name: np.array(v.value) for name, v in variables.items()}
    finally:
        keras.config.set_floatx(before)
    names = {"clip_threshold": "d", "beta_2_decay": "beta2_decay"}
    own: dict[str, Any] = {names[key]: x for key, x in more.items() if key in names}

    def make(params: Any) -> fastopt.Optimizer:
        eps = 1e-30, more.get("epsilon_2", 1e-3)
        return fastopt.Adafactor(
            params, rate, weight_decay=weight_decay or 0.0, add_eps=True, eps=eps, decay_first=True, **own
        )

    mine, _ = ours(make, gradients())
    assert_near(mine, found)


@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize("factored", [True, False])
def test_adafactor_is_optax_s(momentum: float | None, factored: bool) -> None:
    """optax computes t^beta2_decay in float32."""
    theirs = by_optax(
        lambda optax: optax.adafactor(rate, min_dim_size_to_factor=4, momentum=momentum, factored=factored), gradients()
    )

    def make(params: Any) -> fastopt.Optimizer:
        own: dict[str, Any] = {"add_eps": True, "eps": (1e-30, 1e-3), "relative_step": False}
        return fastopt.Adafactor(params, rate, momentum=momentum, factored=factored, least_factored=4, **own)

    mine, _ = ours(make, gradients())
    assert_near(mine, theirs, 1e-6)


PRODIGYOPT = {
    "defaults": {},
    "corrected": {"use_bias_correction": True, "weight_decay": 0.1},
    "safe": {"safeguard_warmup": True, "d_coef": 0.5, "beta3": 0.9},
    "slow": {"growth_rate": 1.3, "d0": 1e-3, "betas": (0.8, 0.9)},
}


@pytest.mark.parametrize("name", PRODIGYOPT)
def test_prodigy_is_its_authors(name: str) -> None:
    torch = pytest.importorskip("torch")
    prodigyopt = pytest.importorskip("prodigyopt", reason="prodigyopt is not installed")
    more: dict[str, Any] = dict(PRODIGYOPT[name])
    grads = gradients(agreeing=True)
    params = {name: torch.nn.Parameter(torch.from_numpy(p)) for name, p in start().items()}
    theirs = prodigyopt.Prodigy(params.values(), **more)
    for t, g in enumerate(grads):
        for key, p in params.items():
            p.grad = torch.from_numpy(g[key])
        theirs.param_groups[0]["lr"] = slower(t)
        theirs.step()
    own = {("bias_correction" if key == "use_bias_correction" else key): x for key, x in more.items()}
    mine, opt = ours(lambda p: fastopt.Prodigy(p, slower, **own), grads)
    assert opt.scalars["d"] == pytest.approx(theirs.param_groups[0]["d"], rel=1e-9)
    assert opt.scalars["d"] > 10 * more.get("d0", 1e-6)
    assert_near(mine, {key: p.detach().numpy() for key, p in params.items()})


def test_a_group_of_prodigy_with_lr_0_is_its_authors() -> None:
    """It is in no sum, and stays where it is."""
    torch = pytest.importorskip("torch")
    prodigyopt = pytest.importorskip("prodigyopt", reason="prodigyopt is not installed")
    still = next(iter(start()))
    params = {name: torch.nn.Parameter(torch.from_numpy(p)) for name, p in start().items()}
    moving = [p for name, p in params.items() if name != still]
    theirs = prodigyopt.Prodigy([{"params": moving}, {"params": [params[still]], "lr": 0.0}])
    mine = start()
    opt = fastopt.Prodigy(
        [{"params": [p for name, p in mine.items() if name != still]}, {"params": mine[still], "lr": 0.0}]
    )
    for g in gradients(agreeing=True):
        for key, p in params.items():
            p.grad = torch.from_numpy(g[key])
        theirs.step()
        opt.step([[x for name, x in g.items() if name != still], g[still]])
    assert opt.scalars["d"] == pytest.approx(theirs.param_groups[0]["d"], rel=1e-9)
    assert (mine[still] == start()[still]).all()
    assert_near(mine, {key: p.detach().numpy() for key, p in params.items()})


def test_prodigy_is_optax_s() -> None:
    grads = gradients(agreeing=True)
    theirs = by_optax(lambda optax: optax.contrib.prodigy(slower, weight_decay=0.01), grads)

    def make(params: Any) -> fastopt.Optimizer:
        return fastopt.Prodigy(params, slower, weight_decay=0.01, update="optax", bias_correction=True)

    mine, opt = ours(make, grads)
    assert opt.scalars["d"] > 100 * 1e-6
    assert_near(mine, theirs)
