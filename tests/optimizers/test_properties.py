"""Properties that hold for every optimizer: elements do not know each other (but through clip_norm)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastopt
from fastopt.app.selftest import same_bits
from tests.cases import CASES, Case, elementwise
from tests.lockstep import written

ELEMENTWISE = [
    case for case in CASES if elementwise(case) and "clip_norm" not in case.kwargs and "on_nonfinite" not in case.kwargs
]
every_case = pytest.mark.parametrize("case", ELEMENTWISE, ids=lambda case: case.id)
some = settings(max_examples=15, deadline=None, derandomize=True)


@st.composite
def problems(draw: Any, steps: int = 3) -> Any:
    """A parameter and a few gradients: any floats at all, of one type and any length."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    n = draw(st.integers(1, 80))
    array = hnp.arrays(dtype, n, elements=hnp.from_dtype(np.dtype(dtype)))
    return draw(array), [draw(array) for _ in range(steps)]


def run(case: Case, params: list[Any], gradients: list[list[Any]]) -> dict[str, Any]:
    opt = case.make([p.copy() for p in params])
    for g in gradients:
        opt.step(g)
    return written(opt)


@every_case
@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
@some
def test_permuting_the_elements_permutes_the_result(case: Case, problem: Any, seed: int) -> None:
    p, gradients = problem
    order = np.random.default_rng(seed).permutation(p.size)
    whole = run(case, [p], [[g] for g in gradients])
    permuted = run(case, [p[order]], [[g[order]] for g in gradients])
    assert all(same_bits(whole[name][order], permuted[name]) for name in whole)


@every_case
@given(problem=problems(), at=st.floats(0, 1))
@some
def test_splitting_the_elements_splits_the_result(case: Case, problem: Any, at: float) -> None:
    p, gradients = problem
    k = int(at * p.size)
    whole = run(case, [p], [[g] for g in gradients])
    split = run(case, [p[:k], p[k:]], [[g[:k], g[k:]] for g in gradients])
    for name, a in whole.items():
        parts = [split[name.replace("0", str(i), 1)] for i in (0, 1)]
        assert same_bits(a, np.concatenate(parts))


@every_case
@given(problem=problems(steps=1))
@some
def test_a_step_of_lr_0_moves_nothing_but_what_does_not_depend_on_it(case: Case, problem: Any) -> None:
    if case.kwargs.get("decay_by_lr") is False:
        pytest.skip("a decay that is not multiplied by lr goes on at lr 0")
    if case.optimizer is fastopt.Rprop:
        pytest.skip("lr is where sizes start, and these have a least one")
    p, (g,) = problem
    p = case.inside(p.copy())
    finite = np.isfinite(p) & np.isfinite(g) & (np.abs(g) < 1e15)
    after = run(Case(case.id, case.optimizer, {**case.kwargs, "lr": 0.0}), [p], [[g]])["0"]
    with fastopt.subnormals():
        assert np.array_equal(after[finite], (p * np.ones_like(p))[finite])


@given(problem=problems(steps=1), limit=st.floats(1e-3, 1e3))
@some
def test_clipping_never_scales_up(problem: Any, limit: float) -> None:
    _, (g,) = problem
    before = g.copy()
    norm = fastopt.clip_grad_norm_(g, limit)
    if not np.isfinite(norm) or norm <= limit:
        assert g.tobytes() == before.tobytes()
    else:
        assert np.all(np.abs(g) <= np.abs(before))


@given(problem=problems(steps=1))
@some
def test_the_norm_is_that_of_numpy(problem: Any) -> None:
    _, (g,) = problem
    wide = g.astype(np.longdouble)
    expected = np.sqrt(np.sum(wide * wide)) if np.isfinite(wide).all() else None
    norm = fastopt.global_norm(g)
    if expected is None:
        assert not np.isfinite(norm)
    elif 1e-290 < expected < 1e308:
        assert norm == pytest.approx(float(expected), rel=1e-13)


@given(
    tree=st.recursive(
        st.integers(1, 3),
        lambda inner: (
            st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner, min_size=1)
        ),
        max_leaves=8,
    )
)
@some
def test_any_nest_of_parameters_takes_gradients_of_the_same_nest(tree: Any) -> None:
    def build(node: Any, value: float) -> Any:
        if isinstance(node, dict):
            return {key: build(item, value) for key, item in node.items()}
        if isinstance(node, list):
            return [build(item, value) for item in node]
        return np.full(node, value)

    params = build(tree, 1.0)
    opt = fastopt.SGD(params, lr=0.25)
    opt.step(build(tree, 2.0))
    assert all(np.all(p == 0.5) for p in opt._engine.plan.params)
    assert len(set(opt.names)) == len(opt.names)
