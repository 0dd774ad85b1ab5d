"""clip_grad_norm_, clip_grad_value_, global_norm on trees of gradients in any layout."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import fastopt
from fastopt import reference
from fastopt.app.selftest import random_array, same_bits
from fastopt.core import _core
from tests.cases import awkward_gradients, ordinary


def tree(rng: np.random.Generator, dtype: Any = np.float64) -> Any:
    return {"a": ordinary(rng, (30, 50), dtype), "b": [None, ordinary(rng, 2000, dtype)], "c": ordinary(rng, (), dtype)}


def flat(grads: Any) -> Any:
    return np.concatenate([np.ravel(x) for x in (grads["a"], grads["b"][1], grads["c"])]).astype(float)


ORDERS = {1: 1, 2: 2, math.inf: np.inf}


@pytest.mark.parametrize("norm_type", ORDERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_by_norm(norm_type: Any, dtype: Any, isa: str) -> None:
    grads = tree(np.random.default_rng(0), dtype)
    before = flat(grads)
    norm = np.linalg.norm(before, ORDERS[norm_type])
    assert fastopt.global_norm(grads, norm_type) == pytest.approx(norm, rel=1e-12)
    assert fastopt.clip_grad_norm_(grads, norm / 2, norm_type) == pytest.approx(norm, rel=1e-12)
    rtol = 1e-6 if dtype is np.float32 else 1e-14
    np.testing.assert_allclose(flat(grads), before / 2, rtol=rtol)
    assert grads["b"][0] is None


def test_a_norm_at_or_below_the_limit_changes_no_bit(isa: str) -> None:
    grads = tree(np.random.default_rng(1), np.float32)
    before = flat(grads)
    norm = fastopt.global_norm(grads)
    for limit in (norm, norm * 2, 1e30):
        assert fastopt.clip_grad_norm_(grads, limit) == norm
        assert np.array_equal(flat(grads), before)
    assert fastopt.clip_grad_norm_(grads, math.nextafter(norm, 0)) == norm


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping_in_place_has_the_bits_of_its_twins_in_every_layout(dtype: Any, flush: bool, isa: str) -> None:
    """What cannot be written in place, read-only or broadcast, does not come here."""
    g = random_array(np.random.default_rng(5), dtype, 3 * 700).reshape(3, 700)
    for bound, (max_norm, norm) in itertools.product((math.inf, 0.75), ((0.3, 1.0), (1.0, 2.0**130), (1e-200, 1e200))):
        expected = np.empty_like(g)
        with _core.subnormals(flush), np.errstate(all="ignore"):
            reference.load(expected, g, reference.factor_between(max_norm, norm))
            if math.isfinite(bound):
                reference.clamp(expected, 1.0, bound)
        for a in awkward_gradients(g).values():
            if a.flags.writeable and 0 not in a.strides:
                _core.rewrite([a], max_norm, norm, bound, flush)
                assert same_bits(np.ascontiguousarray(a), expected)


def test_clip_per_tensor() -> None:
    grads = {"a": np.array([3.0, 4.0]), "b": np.array([0.3, 0.4])}
    assert fastopt.clip_grad_norm_(grads, 1.0, per_tensor=True) == pytest.approx(math.sqrt(25.25))
    np.testing.assert_allclose(grads["a"], [0.6, 0.8])
    assert grads["b"].tolist() == [0.3, 0.4]


def test_clip_by_value(isa: str) -> None:
    for dtype in (np.float32, np.float64):
        grads = tree(np.random.default_rng(2), dtype)
        expected = np.clip(flat(grads), -0.5, 0.5)
        fastopt.clip_grad_value_(grads, 0.5)
        assert np.array_equal(flat(grads), expected)
    g = np.array([np.nan, np.inf, -np.inf, 0.1, -0.0])
    fastopt.clip_grad_value_(g, 0.5)
    assert same_bits(g, np.array([np.nan, 0.5, -0.5, 0.1, -0.0]))


@pytest.mark.parametrize("order", ["C", "F"])
def test_every_layout(order: Any, isa: str) -> None:
    g = np.asarray(ordinary(np.random.default_rng(3), (40, 70), np.float32), order=order)
    for layout, a in awkward_gradients(g).items():
        values = np.array(a)
        assert fastopt.global_norm(a) == pytest.approx(np.linalg.norm(values.astype(float)), rel=1e-12)
        if not a.flags.writeable:
            with pytest.raises(ValueError, match="'0' is read-only"):
                fastopt.clip_grad_norm_(a, 1.0)
            continue
        half = fastopt.global_norm(a) / 2
        around = None if a.base is None else a.base.copy()
        fastopt.clip_grad_norm_(a, half)
        np.testing.assert_allclose(a, values / 2, rtol=1e-6, err_msg=layout)
        fastopt.clip_grad_value_(a, 0.1)
        assert np.abs(a).max() == np.float32(0.1)
        if around is not None and around.dtype == a.dtype and around.size > a.size:
            assert np.count_nonzero(a.base) == np.count_nonzero(around), "wrote between the elements"


def test_the_optimizer_clips_as_the_function_does(isa: str) -> None:
    rng = np.random.default_rng(4)
    for dtype in (np.float32, np.float64):
        g = [ordinary(rng, 2000, dtype), ordinary(rng, (9, 5), dtype)]
        inside, outside = (
            [np.zeros(2000, dtype), np.zeros((9, 5), dtype)],
            [np.zeros(2000, dtype), np.zeros((9, 5), dtype)],
        )
        report = fastopt.SGD(inside, lr=1.0, clip_norm=0.5).step(g)
        assert fastopt.clip_grad_norm_(g, 0.5) == report.grad_norm
        fastopt.SGD(outside, lr=1.0).step(g)
        assert all(same_bits(a, b) for a, b in zip(inside, outside, strict=True))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("per_tensor", [False, True])
def test_a_nonfinite_norm_leaves_the_gradients_untouched(bad: float, per_tensor: bool) -> None:
    grads = [np.array([30.0, 40.0]), np.array([1.0, bad])]
    assert not math.isfinite(fastopt.clip_grad_norm_(grads, 1.0, per_tensor=per_tensor))
    assert grads[0].tolist() == [30.0, 40.0]
    with pytest.raises(ValueError, match="nothing was clipped"):
        fastopt.clip_grad_norm_(grads, 1.0, error_if_nonfinite=True, per_tensor=per_tensor)
    assert grads[0].tolist() == [30.0, 40.0]
    assert not math.isfinite(fastopt.global_norm(grads))


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf])
def test_limits_must_be_above_zero(limit: float) -> None:
    g = np.ones(2)
    with pytest.raises(ValueError, match="max_norm"):
        fastopt.clip_grad_norm_(g, limit)
    with pytest.raises(ValueError, match="clip_value"):
        fastopt.clip_grad_value_(g, limit)
    with pytest.raises(TypeError):
        fastopt.clip_grad_value_(g, "1")  # type: ignore[arg-type]
    assert g.tolist() == [1.0, 1.0]


def test_bad_gradients() -> None:
    a = np.ones(4)
    for grads, error, words in [
        ([a, a], ValueError, "same array"),
        ([a[:3], a[2:]], ValueError, "overlap"),
        ([1.0], TypeError, "'0' is a float"),
        ({"W": np.ones(3, int)}, TypeError, "'W' has dtype int64"),
        ({"W": np.ones(3, ">f8")}, TypeError, "byte order"),
    ]:
        for call in (lambda g: fastopt.clip_grad_norm_(g, 0.1), lambda g: fastopt.clip_grad_value_(g, 0.1)):
            with pytest.raises(error, match=words):
                call(grads)
    assert a.tolist() == [1.0] * 4
    assert fastopt.global_norm([a, a]) == math.sqrt(8)
    with pytest.raises(ValueError, match="norm_type is 3"):
        fastopt.global_norm(a, 3)


def test_nothing_to_clip() -> None:
    assert fastopt.global_norm([]) == 0.0
    assert fastopt.clip_grad_norm_([None, {}], 1.0) == 0.0
    assert fastopt.global_norm(np.zeros(5)) == 0.0
    assert fastopt.global_norm([np.zeros((0, 3)), np.array(-2.0)]) == 2.0


@pytest.mark.parametrize("unit_axis", [-1, 0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adaptive_clipping_unit_by_unit(unit_axis: int, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    params = {"W": ordinary(rng, (4, 3), dtype), "K": ordinary(rng, (2, 2, 3, 5), dtype), "b": np.zeros(3, dtype)}
    grads = {name: 0.1 * ordinary(rng, p.shape, dtype) for name, p in params.items()}
    before = {name: g.copy() for name, g in grads.items()}
    fastopt.clip_grad_adaptive_(grads, params, clipping=0.1, unit_axis=unit_axis)
    changed = 0
    for name, p in params.items():
        old, new = (np.moveaxis(g, unit_axis, 0) if p.ndim > 1 else g[None] for g in (before[name], grads[name]))
        units = np.moveaxis(p, unit_axis, 0) if p.ndim > 1 else p[None]
        for g, was, unit in zip(new, old, units, strict=True):
            limit = 0.1 * max(np.linalg.norm(unit.astype(float)), 1e-3)
            norm = np.linalg.norm(was.astype(float))
            if norm <= limit:
                assert same_bits(g, was)
            else:
                np.testing.assert_allclose(g, was * (limit / norm), rtol=1e-6 if dtype is np.float32 else 1e-14)
                changed += 1
    assert 3 < changed < 12


def test_adaptive_clipping_beside_optax() -> None:
    optax = pytest.importorskip("optax")
    rng = np.random.default_rng(4)
    params = {"W": ordinary(rng, (30, 20), np.float32), "b": ordinary(rng, 20, np.float32)}
    grads = {name: ordinary(rng, p.shape, np.float32) for name, p in params.items()}
    expected, _ = optax.adaptive_grad_clip(0.01).update(grads, optax.EmptyState(), params)
    fastopt.clip_grad_adaptive_(grads, params)
    for name, g in grads.items():
        np.testing.assert_allclose(g, np.asarray(expected[name]), rtol=1e-5)


def test_adaptive_clipping_refuses_before_it_writes() -> None:
    params = {"W": np.ones((2, 3)), "b": np.ones(3)}
    for bad, said in [
        ({"W": np.ones((2, 3)), "b": np.ones(2)}, "'b' has shape"),
        ({"W": np.ones((2, 3)), "b": np.full(3, np.nan)}, "'b' or its gradient"),
        ({"W": np.ones((2, 3))}, "no gradient for 'b'"),
    ]:
        with pytest.raises(ValueError, match=said):
            fastopt.clip_grad_adaptive_(bad, params)
        assert (bad["W"] == 1).all()
    frozen = np.full(2, 5.0)
    frozen.flags.writeable = False
    first = np.full(2, 5.0)
    with pytest.raises(ValueError, match="gradient '1' is read-only"):
        fastopt.clip_grad_adaptive_([first, frozen], [np.ones(2), np.ones(2)])
    assert (first == 5).all()
    with pytest.raises(ValueError, match="unit_axis is 1"):
        fastopt.clip_grad_adaptive_([np.ones(2)], [np.ones(2)], unit_axis=1)
    grads = {"W": np.ones((2, 3)), "b": None}
    fastopt.clip_grad_adaptive_(grads, params, 0.5)
    np.testing.assert_allclose(grads["W"], 0.5)


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1.0, 1e200])
def test_norms_of_the_reference(scale: float) -> None:
    x = np.array([3e-100, -12.0, 4.0, -3.0]) * scale
    for kind, expected in ((reference.sum_squares, 13.0), (reference.sum_abs, 19.0), (reference.max_abs, 12.0)):
        with np.errstate(over="ignore"):
            norm, finite = reference.norm([x], kind)
        assert finite
        assert norm == pytest.approx(expected * scale, rel=1e-14, abs=0)
        assert reference.norm([np.zeros(3)], kind) == (0, True)


def test_dot_products_of_the_reference_go_on_past_the_first_block() -> None:
    n = 3 * reference.CHUNK + 5
    assert reference.dot(np.arange(n, dtype=float), np.full(n, 2.0)) == n * (n - 1)


@pytest.mark.parametrize("backend", ["c", "numpy"])
@pytest.mark.parametrize(("dtype", "largest"), [(np.float32, 3e38), (np.float64, 8e307)])
def test_clipping_of_any_finite_norm_is_right_to_rounding(dtype: Any, largest: float, backend: Any) -> None:
    """Equal elements under a limit become limit / sqrt(n) each, though limit / norm may be no number of their type."""
    rtol, limits = (3e-7, (1.0, 1e-30, 1e30)) if dtype is np.float32 else (1e-15, (1.0, 1e-300, 1e300))
    for limit, size in itertools.product(limits, (largest, 1e-20 * largest, 1e20 / largest)):
        expected = dtype(min(size, limit / 2))
        grads = np.full(4, size, dtype)
        p = np.zeros(4, dtype)
        assert fastopt.SGD([p], lr=1.0, clip_norm=limit, backend=backend).step([grads])
        np.testing.assert_allclose(-p, expected, rtol=rtol)
        for per_tensor in (False, True):
            clipped = grads.copy()
            fastopt.clip_grad_norm_([clipped], limit, per_tensor=per_tensor)
            np.testing.assert_allclose(clipped, expected, rtol=rtol)
        clipped = np.full((4, 1), size, dtype)
        fastopt.clip_grad_adaptive_([clipped], [np.ones((4, 1), dtype)], limit / 2, eps=1e-30)
        np.testing.assert_allclose(clipped, expected, rtol=rtol)


@pytest.mark.parametrize("backend", ["c", "numpy"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loss_scale_of_any_size_is_divided_out_while_clipping(dtype: Any, backend: Any) -> None:
    """Four elements of 0.25, clipped from a norm of 0.5 to 0.125, with every scale that they can bear."""
    for exponent in range(-126, 127):
        p = np.zeros(4, dtype)
        opt = fastopt.SGD([p], lr=1.0, clip_norm=0.125, backend=backend)
        assert opt.step([np.full(4, 0.25 * 2.0**exponent, dtype)], grad_scale=2.0**exponent) or exponent < -124
        if exponent >= -124:
            assert np.all(p == -0.0625)
