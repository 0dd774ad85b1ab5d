"""Accumulation: the mean over micro-batches, the large batch to rounding, and one step for all of them."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastopt
from tests.cases import CASES, DTYPES, Case, awkward_gradients, halving, ordinary
from tests.lockstep import assert_same_bits, copies, loss_of, snapshot

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@every_dtype
def test_a_step_is_that_with_the_mean(case: Case, dtype: Any) -> None:
    """Micro-batches that differ by sign only, around a common part: their mean is exact."""
    rng = np.random.default_rng(0)
    params = [ordinary(rng, n, dtype) for n in (0, 3, 1041)]
    large, small = case.make(copies(params)), case.make(params)
    for _ in range(3):
        # A sum has no -0 of its own: 0 is added to the mean's.
        g = [np.round(16 * ordinary(rng, p.size, dtype)) / 16 + 0.0 for p in params]
        d = [np.round(16 * ordinary(rng, p.size, dtype)) / 16 for p in params]
        for sign in (1, -1):
            small.accumulate([a + sign * b for a, b in zip(g, d, strict=True)], **loss_of(small))
        assert small.step() == large.step(g, **loss_of(large))
        assert_same_bits(small, large)


def test_it_equals_the_large_batch_of_a_regression() -> None:
    """The gradient of a mean over 96 rows, and over them in micro-batches of other sizes, weighted by these."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((96, 5)), rng.standard_normal(96)
    whole, parts = {"w": np.zeros(5)}, {"w": np.zeros(5)}
    large = fastopt.Adam(whole, lr=halving, clip_norm=0.3)
    small = fastopt.Adam(parts, lr=halving, clip_norm=0.3)

    def gradient(w: Any, rows: slice) -> Any:
        return {"w": 2 * x[rows].T @ (x[rows] @ w - y[rows]) / len(y[rows])}

    for _ in range(10):
        expected = large.step(gradient(whole["w"], slice(0, 96)))
        for k, (start, stop) in enumerate([(0, 10), (10, 50), (50, 51), (51, 96)], 1):
            assert small.accumulate(gradient(parts["w"], slice(start, stop)), weight=stop - start) == k
        report = small.step()
        assert (report.step, report.applied) == (expected.step, True)
        assert report.grad_norm == pytest.approx(expected.grad_norm, rel=1e-12)
        np.testing.assert_allclose(parts["w"], whole["w"], rtol=1e-12, atol=1e-12)
    assert small.t == small.state["w"]["t"] == 10


def test_it_equals_what_torch_accumulates() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")
    rng = np.random.default_rng(2)
    params = {"W": rng.standard_normal((3, 4)), "b": rng.standard_normal(4), "unused": rng.standard_normal(2)}
    tensors = {name: torch.tensor(p.copy(), requires_grad=True) for name, p in params.items()}
    ours = fastopt.AdamW(params, lr=0.1, weight_decay=0.1)
    theirs = torch.optim.AdamW(list(tensors.values()), lr=0.1, weight_decay=0.1)
    for _ in range(5):
        theirs.zero_grad(set_to_none=True)
        for k in range(4):
            grads = {name: None if name == "unused" or (name == "b" and k != 2) else rng.standard_normal(p.shape)
                     for name, p in params.items()}  # fmt: skip
            ours.accumulate(grads)
            for name, g in grads.items():
                if g is not None:
                    (tensors[name] * torch.tensor(g / 4)).sum().backward()
        ours.step()
        theirs.step()
        for name, p in params.items():
            np.testing.assert_allclose(p, tensors[name].detach().numpy(), rtol=1e-12, atol=1e-12)
    assert ours.state["unused"]["t"] == 0


@given(
    weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6), seed=st.integers(0, 1000),
    missing=st.sets(st.tuples(st.integers(0, 5), st.sampled_from("ab"))), dtype=st.sampled_from(DTYPES),
    backend=st.sampled_from(["c", "numpy"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_mean_is_weighted_and_none_counts_as_zero(
    weights: Any, seed: int, missing: Any, dtype: Any, backend: str
) -> None:
    rng = np.random.default_rng(seed)
    params = {name: np.zeros(7, dtype) for name in "ab"}
    opt = fastopt.SGD(params, lr=1.0, backend=backend)
    opt.accumulate({name: np.full(7, np.nan, dtype) for name in "ab"})
    opt.discard_accumulated()
    sums = {name: np.zeros(7) for name in "ab"}
    for k, weight in enumerate(weights):
        grads: Any = {name: None if (k, name) in missing else ordinary(rng, 7, dtype) for name in "ab"}
        opt.accumulate(grads, weight)
        for name, g in grads.items():
            sums[name] += 0 if g is None else weight * g.astype(np.float64)
    report = opt.step()
    eps = float(np.finfo(dtype).eps)
    there = {name: any((k, name) not in missing for k in range(len(weights))) for name in "ab"}
    assert report.applied == any(there.values())
    for name, p in params.items():
        np.testing.assert_allclose(-p, sums[name] / sum(weights), rtol=0, atol=30 * eps)
        assert opt.state[name]["t"] == int(there[name])


@every_dtype
def test_backends_agree_bit_for_bit(dtype: Any, isa: str) -> None:
    rng = np.random.default_rng(3)
    params = [ordinary(rng, (5, 7), dtype), np.asfortranarray(ordinary(rng, (40, 70), dtype))]
    ours = fastopt.Adam(params, lr=0.1)
    theirs = fastopt.Adam(copies(params), lr=0.1, backend="numpy")
    for name, small in awkward_gradients(ordinary(rng, (5, 7), dtype)).items():
        wide = awkward_gradients(ordinary(rng, (40, 70), dtype))[name]
        for g in ([small, wide], [small, None], [None, wide]):
            before = [None if a is None else a.tobytes() for a in g]
            ours.accumulate(g, 0.3)
            theirs.accumulate(g, 0.3)
            assert [None if a is None else a.tobytes() for a in g] == before
        assert ours.step() == theirs.step()
        assert_same_bits(ours, theirs)


def test_memory_is_taken_once_and_equal_micro_batches_are_exactly_one() -> None:
    params = [np.ones(1000, np.float32)]
    opt, plain = fastopt.SGD(params, lr=0.1), fastopt.SGD(copies(params), lr=0.1)
    g = [np.random.default_rng(4).standard_normal(1000).astype(np.float32)]
    for _ in range(2):
        for _ in range(7):
            opt.accumulate(g, 0.1)
        opt.step()
        plain.step(g)
        assert_same_bits(opt, plain)
    first = opt._engine.accumulation
    opt.accumulate(g)
    assert opt._engine.accumulation is first


def test_what_is_refused_and_changes_nothing() -> None:
    params = {"W": np.ones((2, 3)), "b": np.ones(2)}
    opt = fastopt.Adam(params)
    g = {"W": np.ones((2, 3)), "b": np.ones(2)}
    with pytest.raises(RuntimeError, match="nothing is accumulated"):
        opt.step()
    opt.accumulate(g)
    before, saved = snapshot(opt), pickle.dumps(opt.state_dict())
    for bad, error, words in [
        ({**g, "W": np.ones((3, 2))}, ValueError, r"gradient of 'W' has shape \(3, 2\).*transposed"),
        ({**g, "W": np.ones((2, 3), np.float32)}, TypeError, "gradient of 'W' has dtype float32"),
        ({**g, "W": [1.0]}, TypeError, "gradient of 'W' is a list"),
        ({"W": g["W"]}, ValueError, "no gradient for 'b'"),
        ({**g, "b": params["b"]}, ValueError, "shares memory with parameter 'b'"),
    ]:
        with pytest.raises(error, match=words):
            opt.accumulate(bad)
    for weight in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="weight is"):
            opt.accumulate(g, weight)
    with pytest.raises(ValueError, match="add up to inf"):
        opt.accumulate(g, 1.7e308) and opt.accumulate(g, 1.7e308)
    opt.discard_accumulated()
    opt.accumulate(g)
    with pytest.raises(RuntimeError, match=r"1 micro-batches are accumulated.*step\(\)"):
        opt.step(g)
    with pytest.raises(RuntimeError, match="accumulated"):
        opt.add_group({"params": [np.ones(2)]})
    assert (snapshot(opt), pickle.dumps(opt.state_dict())) == (before, saved)
    opt.discard_accumulated()
    opt.add_group({"params": [np.ones(2)]})
    opt.accumulate([g, [np.ones(2)]])
    assert opt.step().applied
    assert opt.step([g, [np.ones(2)]]).applied


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_a_nonfinite_micro_batch_is_met_at_the_step(bad: float, backend: str) -> None:
    params = {"W": np.ones(3)}
    opt = fastopt.Adam(params, on_nonfinite="raise", backend=backend)
    unused = snapshot(opt)
    opt.accumulate({"W": np.array([1, bad, 1])})
    opt.accumulate({"W": np.ones(3)})
    before = snapshot(opt)
    with pytest.raises(fastopt.NonFiniteError, match=r"gradient of 'W' is (nan|inf) at index \(1,\)"):
        opt.step()
    assert snapshot(opt) == before
    assert opt.state_dict()["accumulation"]["count"] == 2
    opt.on_nonfinite = "skip"
    assert not opt.step().applied
    assert snapshot(opt) == unused
    opt.accumulate({"W": np.ones(3)})
    assert opt.step().applied


@pytest.mark.parametrize("case", [case for case in CASES if case.plain], ids=lambda case: case.id)
@pytest.mark.parametrize("backend", ["c", "numpy"])
def test_a_run_restored_between_micro_batches_is_the_same_run(case: Case, backend: str) -> None:
    rng = np.random.default_rng(5)

    def gradients() -> Any:
        return {"W": ordinary(rng, (5, 7), np.float32), "b": ordinary(rng, 3, np.float64), "c": None}

    params = {**gradients(), "W": np.ones((5, 7), np.float32, order="F"), "c": np.ones(2)}
    opt = case.make(params)
    opt.step(gradients(), **loss_of(opt))
    opt.accumulate(gradients(), 3.0, **loss_of(opt))
    opt.accumulate(gradients(), 2.0, **loss_of(opt))
    saved = pickle.loads(pickle.dumps(opt.state_dict()))
    assert saved["accumulation"]["gradients"].keys() == {"W", "b"}
    restored = case.make(copies(params), backend=backend)
    restored.accumulate({**gradients(), "c": np.ones(2)}, **loss_of(restored))
    restored.load_state_dict(saved)
    g = gradients()
    for each in (opt, restored):
        each.accumulate(g, **loss_of(each))
    assert opt.step() == restored.step()
    assert_same_bits(opt, restored)
    opt.accumulate(g, **loss_of(opt))
    opt.load_state_dict(restored.state_dict())
    assert opt.step(g, **loss_of(opt)).applied


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": -1}, "count -1"),
        ({"count": 0}, "count 0"),
        ({"weight": 0.0}, "weight 0.0"),
        ({"weight": math.nan}, "weight nan"),
        ({"weight": "1"}, "weight '1'"),
        ({"gradients": None}, "expected a dict with count"),
        ({"more": 1}, "expected a dict with count"),
        ({"gradients": {"V": np.ones(3)}}, "gradient of 'V'"),
        ({"gradients": {"W": np.ones(4)}}, r"accumulated gradient of 'W' is float64 \(4,\)"),
        ({"gradients": {"W": np.ones(3, np.float32)}}, "accumulated gradient of 'W' is float32"),
    ],
)
def test_a_saved_accumulation_that_does_not_fit_changes_nothing(change: Any, words: str) -> None:
    opt = fastopt.Adam({"W": np.ones(3)})
    opt.accumulate({"W": np.ones(3)})
    saved = copy.deepcopy(opt.state_dict())
    before = pickle.dumps(saved)
    saved["accumulation"] |= change
    with pytest.raises(ValueError, match=words):
        opt.load_state_dict(saved)
    assert pickle.dumps(opt.state_dict()) == before


def test_a_single_array_and_none() -> None:
    p = np.ones(3)
    opt = fastopt.SGD(p, lr=1.0)
    assert opt.accumulate(None) == 1
    assert opt.accumulate(np.ones(3)) == 2
    opt.step()
    assert p.tolist() == [0.5] * 3
    opt.accumulate(None)
    assert not opt.step().applied
    assert opt.step(np.ones(3)).step == 2
