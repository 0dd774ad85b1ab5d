"""fastopt.losses against torch (values and autograd), optax and Keras."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastopt import losses
from fastopt.base.tree import Array
from tests.cases import DTYPES
from tests.losses.loss_cases import CASES, Case

BY_ID = {case.id: case for case in CASES}
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-13}


def weighted_mean(f: Callable[..., Any]) -> Callable[..., Any]:
    """Torch divides by the count in some losses, where fastopt divides by the sum of the weights."""

    def call(p: Any, *args: Any, reduction: str, weight: Any = None, **options: Any) -> Any:
        if weight is None or reduction != "mean":
            return f(p, *args, reduction=reduction, weight=weight, **options)
        return f(p, *args, reduction="sum", weight=weight, **options) / weight.sum()

    return call


def gaussian(functional: Any) -> Callable[..., Any]:
    return lambda mean, target, var, reduction: functional.gaussian_nll_loss(
        mean, target, var, full=True, reduction=reduction
    )


def kl(torch: Any) -> Callable[..., Any]:
    def call(logits: Any, p: Any, reduction: str) -> Any:
        if reduction == "none":
            return call_each(logits, p).sum(dim=1)
        return torch.nn.functional.kl_div(
            torch.log_softmax(logits, 1), p, reduction="batchmean" if reduction == "mean" else "sum"
        )

    def call_each(logits: Any, p: Any) -> Any:
        return torch.nn.functional.kl_div(torch.log_softmax(logits, 1), p, reduction="none")

    return call


def dense(functional: Any) -> Callable[..., Any]:
    def call(logits: Any, p: Any, reduction: str, weight: Any = None, label_smoothing: float = 0.0) -> Any:
        options = {"weight": weight, "label_smoothing": label_smoothing}
        if weight is None or reduction != "mean":
            return functional.cross_entropy(logits, p, reduction=reduction, **options)
        return functional.cross_entropy(logits, p, reduction="sum", **options) / (p * weight).sum()

    return call


def sequences(functional: Any) -> Callable[..., Any]:
    def call(logits: Any, classes: Any, mask: Any, reduction: str, **options: Any) -> Any:
        found = functional.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction=reduction, **options)
        return found.reshape(classes.shape) if reduction == "none" else found

    return call


def in_torch(functional: Any, torch: Any) -> dict[str, Callable[..., Any]]:
    return {
        "mse": functional.mse_loss,
        "mae": functional.l1_loss,
        "huber": weighted_mean(lambda p, t, delta=1.0, **options: functional.huber_loss(p, t, delta=delta, **options)),
        "gaussian_nll": gaussian(functional),
        "binary_cross_entropy": weighted_mean(functional.binary_cross_entropy),
        "with_logits": weighted_mean(functional.binary_cross_entropy_with_logits),
        "cross_entropy": dense(functional),
        "sparse": functional.cross_entropy,
        "kl": kl(torch),
        "sequence": sequences(functional),
    }


WITHOUT_TORCH = {"gaussian_nll-weight", "cross_entropy-rows", "sparse-rows", "kl-rows"}
"""Options that torch has not; lp, focal and the losses of overlaps are not in torch at all."""
NOT_IN_TORCH = "lp", "focal", "dice", "iou", "tversky", "generalized_dice"

TORCH = [case for case in CASES if case.id.split("-")[0] not in NOT_IN_TORCH and case.id not in WITHOUT_TORCH]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", TORCH, ids=lambda case: case.id)
def test_torch(case: Case, reduction: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")
    functional = torch.nn.functional
    x, args, options = case.inputs(dtype)
    value, gradient = case.loss(x, *args, reduction=reduction, **options)
    compare(torch, in_torch(functional, torch)[case.id.split("-")[0]], x, args, options, reduction, value, gradient)


def compare(
    torch: Any,
    theirs: Any,
    x: Array,
    args: Any,
    options: Any,
    reduction: str,
    value: Any,
    gradient: Array,
    tolerance: float | None = None,
) -> None:
    def tensor(a: Any) -> Any:
        if not isinstance(a, np.ndarray):
            return a
        return torch.tensor(a.astype(x.dtype) if a.dtype.kind == "f" else a)

    p = tensor(x).requires_grad_()
    found = theirs(p, *map(tensor, args), reduction=reduction, **{name: tensor(a) for name, a in options.items()})
    found.sum().backward()
    tolerance = tolerance or TOLERANCE[x.dtype.type]
    np.testing.assert_allclose(value, found.detach().numpy(), rtol=tolerance, atol=tolerance)
    slopes = p.grad.numpy()
    np.testing.assert_allclose(gradient, slopes, rtol=tolerance, atol=tolerance * np.abs(slopes).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_extreme_logits_in_torch(dtype: Any, size: float) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")
    functional = torch.nn.functional
    rng = np.random.default_rng(0)
    x = (rng.choice([-1, -0.5, 0, 1e-3, 1], size=(40, 5)) * size).astype(dtype)
    y = rng.integers(5, size=40)
    value, gradient = losses.sparse_cross_entropy(x, y)
    compare(torch, functional.cross_entropy, x, (y,), {}, "mean", value, gradient)
    value, gradient = losses.sparse_cross_entropy(x, y, label_smoothing=0.1)
    compare(torch, functional.cross_entropy, x, (y,), {"label_smoothing": 0.1}, "mean", value, gradient)
    t = rng.integers(2, size=(40, 5)).astype(dtype)
    value, gradient = losses.binary_cross_entropy_with_logits(x, t)
    compare(torch, functional.binary_cross_entropy_with_logits, x, (t,), {}, "mean", value, gradient)


@pytest.mark.parametrize("dtype", DTYPES)
def test_certain_probabilities_in_torch(dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")
    p = np.array([0, 1, 0, 1, 0, 1, 1e-7, 0.25], dtype)
    t = np.array([0, 1, 1, 0, 0.5, 0.5, 0.5, 0], dtype)
    value, gradient = losses.binary_cross_entropy(p, t)
    # Torch's 1e-12 is a float32 number.
    compare(torch, torch.nn.functional.binary_cross_entropy, p, (t,), {}, "mean", value, gradient, 1e-7)


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_in_optax(gamma: float, alpha: float | None) -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed: nothing to compare with")
    optax = pytest.importorskip("optax", reason="optax is not installed: nothing to compare with")
    x, (y, *_), _ = BY_ID["focal-yes_no"].inputs(np.float32)

    def total(x: Any) -> Any:
        return optax.sigmoid_focal_loss(x, y, alpha=alpha, gamma=gamma).sum()

    value, gradient = losses.focal(x, y, gamma, alpha, reduction="sum")
    theirs, slopes = jax.value_and_grad(total)(x)
    assert value == pytest.approx(float(theirs), rel=1e-5)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-6)


def test_dice_and_iou_in_keras() -> None:
    os.environ.setdefault("KERAS_BACKEND", "numpy")
    keras = pytest.importorskip("keras", reason="keras (or jax, which its NumPy backend needs) is not installed")
    p, (mask,), _ = BY_ID["dice"].inputs(np.float32)
    for axis in (None, (1, 2), (0, 1, 2)):
        options: dict[str, Any] = {"smooth": 0, "axis": axis, "reduction": "none"}
        expected = keras.ops.convert_to_numpy(keras.losses.dice(mask, p, axis=axis))
        np.testing.assert_allclose(losses.dice(p, mask, **options)[0], expected, rtol=1e-5)
        expected = keras.ops.convert_to_numpy(keras.losses.tversky(mask, p, alpha=1, beta=1, axis=axis))
        np.testing.assert_allclose(losses.iou(p, mask, **options)[0], expected, rtol=1e-5)
        # Keras multiplies what is missed by its alpha, though its documentation says false positives.
        expected = keras.ops.convert_to_numpy(keras.losses.tversky(mask, p, alpha=0.7, beta=0.3, axis=axis))
        np.testing.assert_allclose(losses.tversky(p, mask, 0.3, 0.7, **options)[0], expected, rtol=1e-5)


def overlaps(p: Any, m: Any, w: Any, axes: Any) -> Any:
    """In both, in the prediction alone and in the mask alone."""
    return [(w * x).sum(axes) for x in (p * m, p * (1 - m), (1 - p) * m)]


def in_autograd(torch: Any, p: Any, m: Any, w: Any, by_class: Any) -> dict[str, tuple[Any, Any]]:
    """Each beside the formula, images (n, h, w, k), one loss of each image and class or of each image."""
    both, alone, missed = overlaps(p, m, w, (1, 2))
    inverse = 1 / (w * m).sum((1, 2)) ** 2
    inverse = inverse / inverse.max(1, keepdim=True).values
    options: dict[str, Any] = {"axis": (1, 2), "weight": w.numpy()}
    a, b, c = p.detach().numpy(), m.numpy(), by_class.numpy()

    def mean(each: Any) -> Any:
        return (each * by_class).sum() / (len(p) * by_class.sum())

    def generalized(v: Any) -> Any:
        above = (2 * v * both).sum(1)
        return (1 - (above + 1) / (above + (v * (alone + missed)).sum(1) + 1)).mean()

    return {
        "dice": (
            losses.dice(a, b, class_weight=c, **options),
            mean(1 - (2 * both + 1) / (2 * both + alone + missed + 1)),
        ),
        "tversky": (
            losses.tversky(a, b, 0.3, 0.7, class_weight=c, **options),
            mean(1 - (both + 1) / (both + 0.3 * alone + 0.7 * missed + 1)),
        ),
        "generalized": (losses.generalized_dice(a, b, **options), generalized(inverse)),
        "generalized, weights": (
            losses.generalized_dice(a, b, class_weight=c, **options),
            generalized(by_class / by_class.max()),
        ),
    }


@pytest.mark.parametrize("name", ["dice", "tversky", "generalized", "generalized, weights"])
def test_overlaps_in_autograd(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")
    rng = np.random.default_rng(3)
    p, w = (torch.tensor(rng.uniform(size=(2, 5, 6, 3))) for _ in range(2))
    m = torch.tensor((rng.uniform(size=p.shape) > [0.3, 0.6, 0.9]).astype(np.float64))
    p.requires_grad_()
    (value, gradient), theirs = in_autograd(torch, p, m, w, torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64))[name]
    theirs.backward()
    assert value == pytest.approx(theirs.item(), rel=1e-14)
    np.testing.assert_allclose(gradient, p.grad.numpy(), rtol=1e-12)
