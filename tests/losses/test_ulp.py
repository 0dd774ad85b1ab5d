"""Values and gradients within a few units of the last place of the exact ones: tools/ulp_losses.py tries more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastopt import losses
from tests.cases import DTYPES
from tests.losses import exact
from tests.losses.loss_inputs import every_dtype

LIMIT = 4.0
POWERS_AND_SUMS = 8.0
"""Of focal's powers of a probability, and of quotients of sums over many pixels, in float64: nothing is wider there."""


def few_ulp(dtype: Any) -> float:
    return float(4 * np.finfo(dtype).eps)


@every_dtype
@pytest.mark.parametrize("case", exact.CASES, ids=lambda case: case.id)
def test_errors_are_a_few_ulp(case: Any, dtype: Any) -> None:
    wide = dtype is np.float64 and case.loss in (losses.focal, losses.dice, losses.iou, losses.tversky)
    for kind in exact.KINDS:
        found = exact.measure(case, kind, 40, dtype, 1)
        assert max(found) <= (POWERS_AND_SUMS if wide else LIMIT), kind


def test_every_loss_is_measured() -> None:
    # A sum of overlaps that dice's measure covers; the same function on flattened rows.
    elsewhere = {"generalized_dice", "sequence_cross_entropy"}
    assert {case.loss.__name__ for case in exact.CASES} | elsewhere == set(losses.__all__)


@every_dtype
@pytest.mark.parametrize("weight", [100, 1e4, 1e6])
def test_pos_weight_of_a_confident_logit(dtype: Any, weight: float) -> None:
    x, t = np.array([15.0], dtype), [0.95]
    value, gradient = losses.binary_cross_entropy_with_logits(x, t, pos_weight=weight)
    a, b = 0.95 * weight, 1 - 0.95
    assert value == pytest.approx(a * np.log1p(np.exp(-15.0)) + b * (15 + np.log1p(np.exp(-15.0))), rel=1e-15)
    assert gradient[0] == pytest.approx((b - a * np.exp(-15.0)) / (1 + np.exp(-15.0)), rel=few_ulp(dtype))


@every_dtype
def test_a_sure_row_keeps_what_is_left(dtype: Any) -> None:
    """Beside 1 it is nothing."""
    p = np.exp(-40.0)
    for size in (0.0, 1000.0, -1000.0):
        x = np.array([[40.0, 0.0]], dtype) + dtype(size)
        for value, gradient in (
            losses.sparse_cross_entropy(x, [0]),
            losses.cross_entropy(x, [[1, 0]]),
            losses.sparse_cross_entropy(x, [0], weight=[3, 1]),
            losses.focal(x, [0], 0),
        ):
            assert value == pytest.approx(p, rel=few_ulp(dtype), abs=0)
            assert gradient[0, 1] == pytest.approx(p, rel=few_ulp(dtype), abs=0)
            assert gradient[0, 0] == -gradient[0, 1]
    assert losses.sparse_cross_entropy(np.array([[40.0, 0.0]], dtype), [1])[1].tolist() == [[1, -1]]


@every_dtype
def test_rows_of_a_gradient_sum_to_0(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    for columns in (2, 7, 100):
        x = (rng.normal(size=(200, columns)) * 10 ** rng.uniform(-1, 1.5, (200, 1))).astype(dtype)
        y, p = rng.integers(columns, size=200), rng.dirichlet(np.ones(columns), 200).astype(dtype)
        by_class = rng.uniform(size=columns)
        for _, gradient in (
            losses.sparse_cross_entropy(x, y),
            losses.sparse_cross_entropy(x, y, weight=by_class, label_smoothing=0.1),
            losses.cross_entropy(x, p),
            losses.cross_entropy(x, np.eye(columns)[y]),
            losses.cross_entropy(x, p, weight=by_class),
            losses.focal(x, y),
        ):
            sums = np.abs(gradient.sum(axis=1, dtype=np.longdouble))
            largest = np.abs(gradient).max(axis=1)
            assert (sums <= (8 + columns / 2) * np.finfo(dtype).eps * largest + np.finfo(dtype).tiny).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_targets_are_not_rounded(reduction: Any) -> None:
    """A target in double beside a prediction in float32 has digits that its difference needs."""
    x, t = np.array([1.0, 2.0], np.float32), np.array([1 + 2.0**-40, 2 - 2.0**-40])
    for loss in (losses.mse, losses.mae, losses.huber):
        value, gradient = loss(x, t, reduction=reduction)
        wide, wide_gradient = loss(x.astype(np.float64), t, reduction=reduction)
        assert np.array_equal(value, wide)
        assert np.any(value)
        assert np.array_equal(gradient, wide_gradient.astype(np.float32))


def test_a_target_in_double_may_round_to_1() -> None:
    x = np.zeros(2, np.float32)
    assert losses.binary_cross_entropy_with_logits(x, [1 + 1e-12, -1e-50])[0] == pytest.approx(np.log(2), rel=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weight_of_0_leaves_out_what_overflows(dtype: Any) -> None:
    x = np.array([np.finfo(dtype).max, 1.0], dtype)
    for loss in (losses.mse, losses.mae):
        value, gradient = loss(x, -x, weight=[0, 1])
        assert np.isfinite(value)
        assert gradient[0] == 0
