"""The losses of overlaps by their definitions, and what one is of another. Their gradients: test_losses.py."""

from __future__ import annotations

import numpy as np
import pytest

from fastopt import losses

RNG = np.random.default_rng(1)
P, M = RNG.uniform(size=(2, 5, 6, 3)), RNG.uniform(size=(2, 5, 6, 3)) > np.array([0.3, 0.6, 0.95])
PIXELS = RNG.uniform(size=P.shape)


def parts(p: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In both, in the prediction alone, in the mask alone, of each image and class."""
    return tuple(x.sum(axis=(1, 2)) for x in (p * m, p * (1 - m), (1 - p) * m))  # type: ignore[return-value]


def test_tversky_is_its_definition() -> None:
    both, alone, missed = parts(P, M)
    for alpha, beta, smooth in ((0.3, 0.7, 1.0), (2.0, 0.0, 0.5), (0.0, 0.0, 0.0)):
        value, _ = losses.tversky(P, M, alpha, beta, smooth, axis=(1, 2), reduction="none")
        expected = 1 - (both + smooth) / (both + alpha * alone + beta * missed + smooth)
        np.testing.assert_allclose(value, expected, rtol=1e-13, atol=1e-15)


def test_tversky_is_dice_and_iou() -> None:
    for options in ({}, {"axis": (1, 2)}, {"axis": 1, "class_weight": [1, 2, 0]}, {"weight": PIXELS}):
        for (value, gradient), (other, slopes) in (
            (losses.tversky(P, M, 0.5, 0.5, 1.0, **options), losses.dice(P, M, 2.0, **options)),
            (losses.tversky(P, M, 1, 1, **options), losses.iou(P, M, **options)),
        ):
            assert value == pytest.approx(other, rel=1e-14)
            np.testing.assert_allclose(gradient, slopes, rtol=1e-13)


def test_generalized_dice_is_its_definition() -> None:
    both, alone, missed = parts(P, M)
    inverse = 1 / M.sum(axis=(1, 2)) ** 2
    for by_class, scale in ((None, inverse), ([1.0, 2.0, 0.5], np.array([1.0, 2.0, 0.5]))):
        w = scale / scale.max(axis=-1, keepdims=True)
        for smooth in (0.0, 1.0):
            value, _ = losses.generalized_dice(P, M, smooth, axis=(1, 2), class_weight=by_class, reduction="none")
            above, below = (w * 2 * both).sum(axis=1), (w * (2 * both + alone + missed)).sum(axis=1)
            np.testing.assert_allclose(value, 1 - (above + smooth) / (below + smooth), rtol=1e-13)


def test_generalized_dice_with_equal_weights_is_dice() -> None:
    value, gradient = losses.generalized_dice(P, M, class_weight=[3, 3, 3], weight=PIXELS)
    other, slopes = losses.dice(P, M, weight=PIXELS)
    assert value == pytest.approx(other, rel=1e-14)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-13)


def test_generalized_dice_of_a_class_that_is_not_there() -> None:
    """It has the largest weight of the others; what is predicted of it costs something."""
    p, m = P[:1].copy(), M[:1].copy()
    m[..., 2] = False
    value, gradient = losses.generalized_dice(p, m, 0)
    rare = m.sum(axis=(0, 1, 2))[:2].min()
    w = np.array([*(1 / m[..., :2].sum(axis=(0, 1, 2)) ** 2), 1 / rare**2])
    other, slopes = losses.generalized_dice(p, m, 0, class_weight=w)
    assert value == pytest.approx(other, rel=1e-14)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-13)
    assert (gradient[..., 2] > 0).all()
    value, gradient = losses.generalized_dice(p, m & False, 0)
    assert value == 1
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", [losses.dice, losses.iou, losses.tversky])
def test_class_weights_are_of_a_weighted_mean(loss: object) -> None:
    by_class = np.array([1.0, 0.0, 3.0])
    each, _ = loss(P, M, axis=(1, 2), reduction="none")  # type: ignore[operator]
    value, gradient = loss(P, M, axis=(1, 2), class_weight=by_class)  # type: ignore[operator]
    assert value == pytest.approx((each * by_class).sum() / (2 * by_class.sum()), rel=1e-14)
    assert not gradient[..., 1].any()
    weighted, _ = loss(P, M, axis=(1, 2), class_weight=by_class, reduction="none")  # type: ignore[operator]
    np.testing.assert_allclose(weighted, each * by_class, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_perfect_prediction_costs_nothing(dtype: type) -> None:
    p = M.astype(dtype)
    for loss in (losses.dice, losses.iou, losses.tversky, losses.generalized_dice):
        assert loss(p, M)[0] == 0
    close = p * dtype(1 - 2.0**-20)
    assert losses.dice(close, M, 0)[0] == pytest.approx(2.0**-20 / (2 - 2.0**-20), rel=1e-12)
