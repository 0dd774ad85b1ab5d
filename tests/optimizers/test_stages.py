"""Stages and rules of any number of walks: what a stage does to a gradient may as well be done before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastopt.base.tree import Array
from tests.cases import DTYPES, RULES, Case, ordinary
from tests.lockstep import assert_same_bits, loss_of

# By hand as the kernels have it, in the parameter's type.
BY_HAND: dict[str, tuple[float, Callable[[Array, Array, Any], Array]]] = {
    "clip_value": (0.25, lambda g, p, bound: np.clip(g, -bound, bound)),
    "l1": (0.1, lambda g, p, l1: g + l1 * np.sign(p)),
    "l2": (0.1, lambda g, p, l2: g + l2 * p),
    "maximize": (True, lambda g, p, _: -g),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize(
    ("case", "stage"),
    [
        pytest.param(case, stage, id=f"{case.id}-{stage}")
        for case in RULES
        for stage in BY_HAND
        if not (stage == "maximize" and case.optimizer.needs_loss)
    ],
)
def test_every_walk_of_a_rule_sees_the_gradient_as_stages_leave_it(case: Case, stage: str, dtype: Any) -> None:
    value, by_hand = BY_HAND[stage]
    rng = np.random.default_rng(2)
    start = {"matrix": ordinary(rng, (5, 7), dtype), "vector": ordinary(rng, 9, dtype)}
    p, q = ({name: a.copy() for name, a in start.items()} for _ in range(2))
    staged, plain = case.make(p, **{stage: value}), case.make(q)
    for _ in range(3):
        grads = {name: ordinary(rng, a.shape, dtype) for name, a in p.items()}
        changed = {name: by_hand(g, q[name], dtype(value)) for name, g in grads.items()}
        staged.step(grads, **loss_of(staged))
        plain.step(changed, **loss_of(plain))
        assert_same_bits(staged, plain)
