"""What state starts at: a number, the parameter, or the first gradient of its own tensor."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt.core import _core
from fastopt.engine.hyperparameters import Hyperparameter
from fastopt.engine.program import Form, Slot, Sum, Walk
from tests.cases import DTYPES, ordinary
from tests.lockstep import assert_same_bits, copies, snapshot


class Heavy(fastopt.Optimizer):
    """b = 0.5 b + 0.25 g; p -= lr b, with b that starts as the first gradient."""

    __slots__ = ()
    lr = Hyperparameter(fastopt.SGD.lr.check, 0.1)

    @staticmethod
    def kernel(h: Any) -> str:
        return "momentum"

    @staticmethod
    def starts(h: Any) -> dict[str, float | str]:
        return {"b": "g"}

    @staticmethod
    def described(h: Any) -> str:
        return "momentum"

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        return {"mu": 0.5, "gain": 0.25, "step": h.lr}


class HeavyAfterASum(Heavy):
    """The same in two walks."""

    __slots__ = ()

    @classmethod
    def form(cls, h: Any, p: Any) -> Form:
        walks = Walk(None, (Sum("sum_squares", ("g",), "gg"),)), Walk("momentum")
        return Form(walks, (Slot("b", start="g"),), tensor=("gg",))


every_class = pytest.mark.parametrize("cls", [Heavy, HeavyAfterASum])
every_backend = pytest.mark.parametrize("backend", ["c", "numpy"])
MISSING = {0: {"late", "later"}, 1: {"later"}, 2: {"early"}}
"""Which tensors have no gradient at a step."""


def gradients(t: int, dtype: Any = np.float64) -> dict[str, Any]:
    rng = np.random.default_rng(t)
    found: dict[str, Any] = {name: ordinary(rng, (3, _core.CHUNK), dtype) for name in ("early", "late", "later")}
    return {name: None if name in MISSING.get(t, ()) else g for name, g in found.items()}


@every_class
@every_backend
def test_it_is_the_first_gradient_of_each_tensor_as_the_stages_leave_it(cls: Any, backend: str) -> None:
    p = {name: np.full((3, _core.CHUNK), 2.0) for name in ("early", "late", "later")}
    mine, b = copies(p), dict.fromkeys(p)
    opt = cls(mine, l2=0.3, clip_value=0.75, maximize=True, decoupled_decay=0.5, backend=backend)
    for t in range(5):
        report = opt.step({name: None if g is None else 4 * g for name, g in gradients(t).items()}, grad_scale=4.0)
        assert report.step == t + 1
        for name, g in gradients(t).items():
            if g is None:
                assert b[name] is not None or not opt.state[name]["b"].any()
                continue
            x = np.clip(-g, -0.75, 0.75) + 0.3 * p[name]
            b[name] = 0.5 * (x if b[name] is None else b[name]) + 0.25 * x
            p[name] = p[name] * (1 - 0.1 * 0.5) - 0.1 * b[name]
            np.testing.assert_allclose(opt.state[name]["b"], b[name], rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(mine[name], p[name], rtol=1e-12, atol=1e-12)


@every_class
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_bits(cls: Any, dtype: Any, threads: int, isa: str) -> None:
    """Of all stages at once, scaled by numbers that are no powers of two."""
    more = {"l1": 0.1, "l2": 0.2, "prox_l1": 0.1, "clip_norm": 0.3, "average": 0.9, "decoupled_decay": 0.1}
    start = {name: np.ones((3, _core.CHUNK), dtype) for name in gradients(0)}
    for own in ({}, {"clip_norm": 0.3}, more):
        ours = cls(copies(start), **own, threads=threads)
        theirs = cls(copies(start), **own, backend="numpy")
        ours._engine.plan.split(1, 100)
        for t in range(5):
            g = gradients(t, dtype)
            assert ours.step(g, grad_scale=3.0) == theirs.step(g, grad_scale=3.0)
            assert_same_bits(ours, theirs)


@every_class
@every_backend
def test_a_run_that_is_restored_or_skips_begins_as_it_would_have(cls: Any, backend: str) -> None:
    opt = cls({name: np.ones((3, _core.CHUNK)) for name in gradients(0)}, backend=backend, on_nonfinite="skip")
    bad = {name: np.full((3, _core.CHUNK), np.nan) for name in gradients(0)}
    for t in range(5):
        other, copied = cls(copies(opt._engine.plan.template), on_nonfinite="skip"), copy.deepcopy(opt)
        other.load_state_dict(opt.state_dict())
        before = snapshot(opt)
        assert not opt.step(bad)
        assert snapshot(opt) == before
        for each in (opt, other, copied):
            assert each.step(gradients(t))
        assert_same_bits(opt, other)
        assert_same_bits(opt, copied)


@every_backend
def test_beside_a_number_and_the_parameter(backend: str) -> None:
    p = np.full(3, 2.0)
    assert fastopt.Adagrad(p, initial_accumulator=0.5, backend=backend).state["0"]["s"].tolist() == [0.5] * 3
    assert fastopt.Prodigy(p, backend=backend).state["0"]["start"].tolist() == [2.0] * 3
    assert Heavy(p, backend=backend).state["0"]["b"].tolist() == [0.0] * 3
