"""A mean of nothing: an error, or with empty="zero" 0 and a gradient of zeros."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastopt import losses
from tests.losses.loss_cases import CASES, Case

X, P = np.full((2, 3), -1.5), np.full((2, 3), 0.5)
ROWS = np.full((2, 3), 1 / 3)

NOTHING: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (losses.mse, (X, P), {"weight": X * 0}),
    (losses.mse, (X * 1e200, P), {"weight": X * 0}),
    (losses.mae, (X, P), {"weight": X * 0}),
    (losses.lp, (X, P, 3), {"weight": X * 0}),
    (losses.huber, (X, P), {"weight": X * 0}),
    (losses.gaussian_nll, (X, P, P), {"weight": X * 0}),
    (losses.binary_cross_entropy, (P, P), {"weight": X * 0}),
    (losses.binary_cross_entropy_with_logits, (X, P), {"weight": X * 0}),
    (losses.binary_cross_entropy_with_logits, (X, P), {"weight": X * 0, "pos_weight": 2}),
    (losses.cross_entropy, (X, ROWS), {"weight": [0, 0, 0]}),
    (losses.cross_entropy, (X, ROWS), {"sample_weight": [0, 0], "label_smoothing": 0.1}),
    (losses.sparse_cross_entropy, (X, [-100, -100]), {"ignore_index": -100}),
    (losses.sparse_cross_entropy, (X, [0, 0]), {"weight": [0, 1, 1]}),
    (losses.sparse_cross_entropy, (X, [7, 7]), {"ignore_index": 7, "label_smoothing": 0.1}),
    (losses.sequence_cross_entropy, (X[None], [[9, 9]], [[False, False]]), {}),
    (losses.kl_divergence, (X, ROWS), {"sample_weight": [0, 0]}),
    (losses.focal, (X, [0, 1]), {"sample_weight": [0, 0]}),
    (losses.focal, (X, [[0, 1, 1]] * 2), {"sample_weight": X * 0}),
    (losses.dice, (X * 0, X * 0, 0), {}),
    (losses.dice, (P, P > 0, 0), {"weight": X * 0}),
    (losses.dice, (P, P > 0), {"axis": 0, "class_weight": [0, 0, 0]}),
    (losses.iou, (X * 0, X * 0, 0), {}),
    (losses.tversky, (X * 0, X * 0, 0.5, 0.5, 0), {}),
    (losses.generalized_dice, (X * 0, X * 0, 0), {}),
    (losses.generalized_dice, (P, P > 0, 0), {"class_weight": [0, 0, 0]}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("loss", "args", "options"), NOTHING)
def test_a_mean_of_nothing(loss: Any, args: Any, options: Any, dtype: Any) -> None:
    x = np.clip(args[0], -1e38, 1e38).astype(dtype) if dtype is np.float32 else args[0]
    out = np.full_like(x, 7)
    for empty in ({}, {"empty": "error"}):
        with pytest.raises(ValueError, match=r'all weights are 0.*empty="zero"|all 0 where smooth is 0.*empty="zero"'):
            loss(x, *args[1:], out=out, **options, **empty)
        assert (out == 7).all()
    value, gradient = loss(x, *args[1:], empty="zero", out=out, **options)
    assert gradient is out
    assert type(value) is float
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_where_there_is_something_nothing_changes(case: Case) -> None:
    x, args, options = case.inputs()
    for reduction in ("mean", "sum", "none"):
        value, gradient = case.loss(x, *args, reduction=reduction, **options)
        other, slopes = case.loss(x, *args, reduction=reduction, empty="zero", **options)
        assert np.array_equal(value, other)
        assert gradient.tobytes() == slopes.tobytes()
    with pytest.raises(ValueError, match="empty is 'nan': expected one of 'error', 'zero'"):
        case.loss(x, *args, empty="nan", **options)


def test_an_empty_image_among_others() -> None:
    """Its loss is 0, and counts in the mean as one."""
    p, mask = np.array([[0.0, 0.0], [0.5, 1.0]]), np.array([[0, 0], [1, 1]])
    value, gradient = losses.dice(p, mask, 0, axis=1, empty="zero")
    other, slopes = losses.dice(p[1:], mask[1:], 0)
    assert value == other / 2
    assert gradient.tolist() == [[0, 0], (slopes[0] / 2).tolist()]


def test_var_gradient_of_nothing() -> None:
    found = losses.gaussian_nll(X, P, P, weight=X * 0, var_gradient=True, empty="zero")
    assert found[0] == 0
    assert not found[1].any()
    assert not found[2].any()
