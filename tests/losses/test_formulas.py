"""The losses' kernels against formulas: SciPy's, closed forms and limits, and the errors of exp, log1p and log."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

from fastopt.core import _core
from fastopt.reference import losses as reference_losses
from tests.losses.loss_inputs import called, every_dtype, every_flush, hard_and_soft, logits


def worst_ulp(function: Any, exact: Any, x: Any, wide: Any) -> float:
    value = exact(x.astype(wide))
    unit = np.spacing(np.abs(value).astype(x.dtype)).astype(wide)
    return float(np.max(np.abs(function(x).astype(wide) - value) / unit))


def samples(rng: np.random.Generator, low: float, high: float, dtype: Any, n: int = 400_000) -> Any:
    """Half uniform, half with uniform exponents."""
    magnitudes = np.exp2(rng.uniform(np.log2(low), np.log2(high), n))
    return np.concatenate([rng.uniform(low, high, n), np.minimum(magnitudes, high)]).astype(dtype)


@every_dtype
def test_errors_are_below_2_ulp(dtype: Any) -> None:
    """tools/ulp.py measures them over all of float32, and more of float64."""
    if dtype is np.float64 and np.finfo(np.longdouble).nmant < 60:
        pytest.skip("long double is no wider than double here")
    rng, wide = np.random.default_rng(6), np.float64 if dtype is np.float32 else np.longdouble
    lowest, highest = {np.float32: (87.336, 88.0), np.float64: (708.396, 709.0)}[dtype]
    exp = reference_losses.exp
    assert worst_ulp(exp, np.exp, -samples(rng, 1e-17, lowest, dtype), wide) < 1
    assert worst_ulp(exp, np.exp, samples(rng, 1e-17, highest, dtype), wide) < 1
    assert worst_ulp(reference_losses.log1p, np.log1p, samples(rng, 1e-30, 1.0, dtype), wide) < 1.5
    if dtype is np.float64:
        assert worst_ulp(reference_losses.log, np.log, samples(rng, 1.0, 2.0, dtype), wide) < 1.5
        assert worst_ulp(reference_losses.log, np.log, samples(rng, 1e-300, 1e300, dtype), wide) < 1.5
        for low, high in ((1e-30, 1.0), (1.0, 4.0), (1.0, 1e15)):
            assert worst_ulp(reference_losses.log1p_any, np.log1p, samples(rng, low, high, dtype), wide) < 1.5


@every_dtype
@every_flush
def test_limits(dtype: Any, flush: bool) -> None:
    tiny = np.finfo(dtype).tiny
    lowest = np.array(np.log(np.longdouble(tiny)), dtype)
    around = np.nextafter(lowest, dtype(0))
    x = np.array([-np.inf, np.finfo(dtype).min, -1e4, 2 * lowest, np.nan, 0.0, -0.0, around], dtype)
    with _core.subnormals(flush), np.errstate(all="ignore"):
        e = reference_losses.exp(x)
        assert np.isnan(reference_losses.log1p(x[4:5]))
        assert np.isnan(reference_losses.log(np.array([np.nan])))
        assert np.isnan(reference_losses.log1p_any(np.array([np.nan])))
        assert reference_losses.log(np.array([1.0])).tobytes() == bytes(8)
    assert e[:4].tobytes() == np.zeros(4, dtype).tobytes()
    assert np.isnan(e[4])
    assert e[5:7].tolist() == [1, 1]
    assert tiny <= e[7] < tiny * 1.001
    # Nothing between 0 and the smallest normal number, whatever the mode.
    with _core.subnormals(False):
        e = reference_losses.exp(np.linspace(1.02 * lowest, 0.98 * lowest, 10_001).astype(dtype))
    assert np.all((e == 0) | (e >= tiny))
    assert np.all(np.diff(e) >= 0)


@every_dtype
@pytest.mark.parametrize("columns", [1, 2, 10, 1000])
def test_softmax_against_scipy(dtype: Any, columns: int) -> None:
    rng = np.random.default_rng(7)
    x, classes, weights = logits(rng, (50, columns), dtype, 0), rng.integers(0, columns, 50), rng.random(50)
    any_sums = rng.random(x.shape).astype(dtype)
    p = (any_sums / any_sums.sum(axis=1, keepdims=True)).astype(dtype)
    wide = x.astype(np.float64)
    eps = float(np.finfo(dtype).eps)
    for c, q in [(classes, None), (None, p), (None, any_sums)]:
        target = np.eye(columns)[classes] if q is None else q.astype(np.float64)
        g, losses, _ = called(_core, "softmax_cross_entropy", (x, c, q, weights, None, None), True)
        # SciPy rounds the shifted logit, to the relative precision of exp's exponent. test_ulp.py has no such slack.
        reach = 4 + np.abs(wide).max(axis=1, keepdims=True)
        total = target.sum(axis=1, keepdims=True)
        expected_g = weights[:, None] * (total * softmax(wide, axis=1) - target)
        assert np.all(np.abs(g - expected_g) <= 4 * eps * reach * np.maximum(total, 1))
        expected = -(target * log_softmax(wide, axis=1)).sum(axis=1)
        assert np.all(np.abs(losses - expected) <= 4 * eps * (reach[:, 0] * np.maximum(total[:, 0], 1) + expected))


@every_dtype
def test_sigmoid_against_scipy(dtype: Any) -> None:
    rng = np.random.default_rng(8)
    x, z = logits(rng, (20, 101), dtype, 0), hard_and_soft(rng, (20, 101), dtype)
    g, losses, _ = called(_core, "sigmoid_cross_entropy", (x, z, 2.0, None, None), True)
    wide, target, eps = x.astype(np.float64), z.astype(np.float64), float(np.finfo(dtype).eps)
    assert np.all(np.abs(g - 2 * (expit(wide) - target)) <= 6 * eps)
    expected = np.logaddexp(0, wide) * (1 - target) + np.logaddexp(0, -wide) * target
    assert losses == pytest.approx(expected, rel=6 * eps, abs=1e-37)


@every_dtype
def test_squared_error_is_exact_where_numbers_are_small(dtype: Any) -> None:
    rng = np.random.default_rng(9)
    p, t = (rng.integers(-99, 99, 5000).astype(dtype) for _ in range(2))
    g = np.empty_like(p)
    assert _core.squared_error(p, t, 0.5, g) == float(np.sum((p - t).astype(np.int64) ** 2))
    assert np.array_equal(g, (p - t) / 2)


@every_dtype
def test_sure_predictions_keep_their_small_gradients(dtype: Any) -> None:
    """1 - p would be 0 long before the gradient is."""
    x, losses = np.array([[0.0, -30.0, -31.0]], dtype), np.empty(1)
    g = np.empty_like(x)
    _core.softmax_cross_entropy(x, np.array([0]), None, None, g, losses)
    small = np.exp(-30.0) + np.exp(-31.0)
    assert g[0] == pytest.approx(
        [-small, np.exp(-30.0), np.exp(-31.0)], rel=2e-3 if dtype is np.float64 else 1e-2, abs=0
    )
    assert losses[0] == pytest.approx(small, rel=2e-3, abs=0)
    x, z = np.array([30.0, -30.0], dtype), np.array([1.0, 0.0], dtype)
    g, losses = np.empty_like(x), np.empty(2)
    _core.sigmoid_cross_entropy(x, z, 1.0, g, losses)
    assert g == pytest.approx([-np.exp(-30.0), np.exp(-30.0)], rel=1e-5, abs=0)
    assert losses == pytest.approx([np.exp(-30.0)] * 2, rel=1e-5, abs=0)


@every_dtype
def test_infinite_logits(dtype: Any) -> None:
    """-infinity masks a class; a certain and wrong prediction costs infinity; +infinity in a row has no softmax."""
    x = np.array([[0, -np.inf, 0], [0, -np.inf, 0], [np.inf, 0, 0], [-np.inf] * 3], dtype)
    g, losses = np.empty_like(x), np.empty(4)
    _core.softmax_cross_entropy(x, np.array([0, 1, 0, 0]), None, None, g, losses)
    assert g[0].tolist() == [-0.5, 0, 0.5]
    assert losses[0] == pytest.approx(np.log(2), rel=1e-15)
    assert losses[1] == np.inf
    assert np.isnan(losses[2:]).all()
    _core.softmax_cross_entropy(x[:2], None, np.array([[0.5, 0, 0.5], [0.5, 0.5, 0]], dtype), None, g[:2], losses[:2])
    assert losses[:2].tolist() == [pytest.approx(np.log(2), rel=1e-15), np.inf]
    x, z = np.array([np.inf, np.inf, -np.inf, -np.inf], dtype), np.array([1, 0, 0, 1], dtype)
    g, losses = np.empty_like(x), np.empty(4)
    _core.sigmoid_cross_entropy(x, z, 1.0, g, losses)
    assert losses.tolist() == [0, np.inf, 0, np.inf]
    assert g.tolist() == [0, 1, 0, -1]
