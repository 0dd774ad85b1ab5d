"""Losses of probabilities and logits against classes, their distributions and 0/1 targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastopt.base.arguments import LARGEST, at_least_0, from_0_to_1, reals, whole, within
from fastopt.base.tree import Array
from fastopt.losses import arguments, rows
from fastopt.losses.reduction import BLOCK, Empty, Loss, Reduction, divisor, elementwise, reduced, weighted

LOG_FLOOR, VARIANCE_FLOOR = -100.0, 1e-12
"""What torch's binary_cross_entropy cuts log p, and p (1 - p) in its gradient, to."""


@np.errstate(all="ignore")
def binary_cross_entropy(
    probabilities: Array,
    target: Any,
    *,
    weight: Any = None,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """-t log p - (1 - t) log(1 - p) of each element; the mean over elements.

    probabilities : p, in [0, 1]. As in torch, logarithms are cut at -100 and the p (1 - p) under the gradient at
        1e-12; where p is the sigmoid of something, `binary_cross_entropy_with_logits` needs neither.
    target : t, of the same shape, in [0, 1].
    weight : of the same shape; the mean divides by its sum (torch divides by the count).
    reduction, empty, out : see `fastopt.losses`.
    """
    p = arguments.prediction("probabilities", probabilities)
    arguments.from_0_to_1("probabilities", p)
    t = arguments.unit_target("target", target, p, "probabilities")
    w = arguments.weights("weight", weight, p.shape, "probabilities")
    over = divisor(reduction, w, p.size, empty)
    g = arguments.gradient(out, p, "probabilities", target=target, weight=weight)

    def formula(p: Array, t: Array) -> tuple[Array, Array]:
        yes, no = np.maximum(np.log(p), LOG_FLOOR), np.maximum(np.log1p(-p), LOG_FLOOR)
        return -t * yes - (1 - t) * no, (p - t) / np.maximum(p * (1 - p), VARIANCE_FLOOR)

    return elementwise(formula, [p, t], [g], w, reduction, over), g


@np.errstate(all="ignore")
def binary_cross_entropy_with_logits(
    logits: Array,
    target: Any,
    *,
    weight: Any = None,
    pos_weight: Any = None,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """-t log s - (1 - t) log(1 - s) of each element, s = sigmoid(logits); the mean over elements.

    logits : any finite numbers; neither value nor gradient loses anything at the extremes.
    target : t, of the same shape, in [0, 1].
    weight : of the same shape; the mean divides by its sum (torch divides by the count).
    pos_weight : multiplies the first term; >= 0, a number or an array that broadcasts to the shape, as one per class
        does. It does not count in the mean.
    reduction, empty, out : see `fastopt.losses`.
    """
    x = arguments.prediction("logits", logits)
    t = arguments.unit_target("target", target, x, "logits")
    w = arguments.weights("weight", weight, x.shape, "logits")
    over = divisor(reduction, w, x.size, empty)
    positive: Any = None
    if pos_weight is not None:
        positive = arguments.broadcast_weights("pos_weight", pos_weight, x.shape, "logits")
    g = arguments.gradient(out, x, "logits", target=target, weight=weight, pos_weight=pos_weight)
    if positive is None and t.dtype == x.dtype:
        losses, scale = np.empty(x.size), 1 / over if w is None else 1.0
        rows.sigmoid_cross_entropy(arguments.flat(x), t.reshape(-1), scale, g.reshape(-1), losses)
        if w is not None:
            losses = weighted(losses, w.reshape(-1))
            g *= w / over
        return reduced(losses, reduction, over, x.shape), g

    def formula(x: Array, t: Array, positive: Any = 1.0) -> tuple[Array, Array]:
        yes, slope_yes = _sigmoid(x, 1.0)
        no, slope_no = _sigmoid(x, 0.0)
        a, b = t * positive, 1 - t
        return a * yes + b * no, a * slope_yes + b * slope_no

    inputs = [x, t] if positive is None else [x, t, positive]
    return elementwise(formula, inputs, [g], w, reduction, over), g


@np.errstate(all="ignore")
def cross_entropy(
    logits: Array,
    probabilities: Any,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """-sum_c p_c log softmax(logits)_c of each row; the mean over rows.

    logits : (n, k), any finite numbers.
    probabilities : p, (n, k), each row >= 0 with the sum 1 (within 1e-5).
    weight : (k,), one factor per class c in the sum. The mean divides by the sum of weight_c p_c over all rows, so that
        one-hot rows give what `sparse_cross_entropy` gives (torch divides by n here).
    sample_weight : (n,), one factor per row; the mean divides by its sum.
    label_smoothing : e in [0, 1]: p becomes (1 - e) p + e / k.
    reduction, empty, out : see `fastopt.losses`.
    """
    x = arguments.prediction("logits", logits, 2)
    p = arguments.distributions("probabilities", probabilities, x, "logits")
    by_class = arguments.weights("weight", weight, x.shape[1:], "logits")
    by_row = arguments.weights("sample_weight", sample_weight, x.shape[:1], "logits")
    smoothing = within("label_smoothing", label_smoothing, from_0_to_1)
    counts = by_row if by_class is None else _times(np.einsum("ij,j->i", p, by_class), by_row)
    over = divisor(reduction, counts, len(x), empty)
    g = arguments.gradient(out, x, "logits", probabilities=probabilities, weight=weight, sample_weight=sample_weight)
    losses = _softmax(x, p, by_class, by_row, smoothing, over, g)
    return reduced(losses, reduction, over, losses.shape), g


@np.errstate(all="ignore")
def sparse_cross_entropy(
    logits: Array,
    classes: Any,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """-log softmax(logits)_y of each row, y being its class; the mean over rows.

    logits : (n, k), any finite numbers.
    classes : y, (n,) integers, 0 to k - 1.
    weight : (k,), one factor per class; the mean divides by the sum of weight_y.
    sample_weight : (n,), one factor per row; the mean divides by its sum (with `weight`: of the products). A row
        of weight 0 may have any class.
    ignore_index : rows of this class do not count, their gradient is 0. None: there are none (torch: -100).
    label_smoothing : e in [0, 1]: the target is 1 - e + e / k at y and e / k at the other classes, each times its
        class weight.
    reduction, empty, out : see `fastopt.losses`.
    """
    x = arguments.prediction("logits", logits, 2)
    y = arguments.integers("classes", classes, x.shape[:1], "logits")
    by_row = arguments.weights("sample_weight", sample_weight, x.shape[:1], "logits")
    if ignore_index is not None:
        ignored = whole("ignore_index", ignore_index, -LARGEST, expected="a whole number")
        by_row = _times((y != ignored).astype(np.float64), by_row)
    g = arguments.gradient(out, x, "logits", classes=classes, weight=weight, sample_weight=sample_weight)
    return _sparse(x, y, weight, by_row, label_smoothing, reduction, empty, g)


@np.errstate(all="ignore")
def sequence_cross_entropy(
    logits: Array,
    classes: Any,
    mask: Any,
    *,
    weight: Any = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """`sparse_cross_entropy` of every step of padded sequences; the mean over the steps that count.

    logits : (sequences, steps, k), any finite numbers, in the padding too.
    classes : (sequences, steps) integers, 0 to k - 1; in the padding anything.
    mask : (sequences, steps), True for steps that count and False for padding, or weights: with an array of lengths,
        np.arange(steps) < lengths[:, None]. Longer sequences weigh more; for an equal say each, divide the mask by
        the lengths.
    weight : (k,), one factor per class; the mean divides by the sum of mask times weight_y.
    label_smoothing, reduction, empty, out : as for `sparse_cross_entropy`; with "none" the value is (sequences, steps).
    """
    x = arguments.prediction("logits", logits, 3)
    y = arguments.integers("classes", classes, x.shape[:2], "logits")
    by_step = arguments.weights("mask", mask, x.shape[:2], "logits")
    if by_step is None:
        raise TypeError("mask is None: of sequences without padding it is np.ones(classes.shape)")
    g = arguments.gradient(out, x, "logits", classes=classes, mask=mask, weight=weight)
    return _sparse(x, y, weight, by_step, label_smoothing, reduction, empty, g)


@np.errstate(all="ignore")
def kl_divergence(
    logits: Array,
    probabilities: Any,
    *,
    sample_weight: Any = None,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """sum_c p_c log(p_c / softmax(logits)_c) of each row; the mean over rows (torch: reduction="batchmean").

    It is the cross-entropy less the entropy of p, with the same gradient.

    logits : (n, k), any finite numbers.
    probabilities : p, (n, k), each row >= 0 with the sum 1 (within 1e-5); a p_c of 0 adds 0.
    sample_weight : (n,), one factor per row; the mean divides by its sum.
    reduction, empty, out : see `fastopt.losses`.
    """
    x = arguments.prediction("logits", logits, 2)
    p = arguments.distributions("probabilities", probabilities, x, "logits")
    by_row = arguments.weights("sample_weight", sample_weight, x.shape[:1], "logits")
    over = divisor(reduction, by_row, len(x), empty)
    g = arguments.gradient(out, x, "logits", probabilities=probabilities, sample_weight=sample_weight)

    def formula(x: Array, block: slice, g: Array) -> Array:
        t = p[block].astype(np.float64)
        losses = np.empty(len(x))
        rows.softmax_cross_entropy(x, None, t, None, g, losses)
        losses += np.sum(t * np.log(np.where(t > 0, t, 1)), axis=1)
        return losses

    losses = _in_double(formula, x, by_row, over, g)
    return reduced(losses, reduction, over, losses.shape), g


@np.errstate(all="ignore")
def focal(
    logits: Array,
    classes: Any,
    gamma: float = 2.0,
    alpha: Any = None,
    *,
    sample_weight: Any = None,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """-alpha_y (1 - q)^gamma log q, q being the probability of the true class y (Lin et al., 2017).

    logits : (n, k) for one class of k in each row, q = softmax(logits)_y; or any shape for yes and no in each element,
        q = sigmoid(logits) where y is 1 and 1 - sigmoid(logits) where it is 0.
    classes : y, integers; (n,), 0 to k - 1, or of the shape of the logits, 0 or 1.
    gamma : >= 0. 0 is cross-entropy.
    alpha : (k,), one factor per class; for yes and no a number in [0, 1]: alpha where y is 1, 1 - alpha where it is 0.
        None is 1. It does not count in the mean.
    sample_weight : of the shape of classes; the mean, over rows or elements, divides by its sum.
    reduction, empty, out : see `fastopt.losses`.
    """
    x = arguments.prediction("logits", logits)
    power = within("gamma", gamma, at_least_0)
    found = reals("classes", classes, "biuf")
    binary = found.shape == x.shape
    if not binary and x.ndim != 2:
        raise ValueError(
            f"classes has shape {found.shape} and logits {x.shape}: expected the same shape for yes and no in "
            "each element, or (n,) and (n, k)"
        )
    shape, k = (x.shape, 2) if binary else (x.shape[:1], x.shape[1])
    y = arguments.class_indices("classes", arguments.integers("classes", found, shape, "logits"), k)
    if binary and alpha is not None:
        share = within("alpha", alpha, from_0_to_1)
        alpha = (1 - share, share)
    by_class = arguments.weights("alpha", alpha, (k,), "the number of classes")
    w = arguments.weights("sample_weight", sample_weight, shape, "logits")
    over = divisor(reduction, w, y.size, empty)
    g = arguments.gradient(out, x, "logits", classes=classes, alpha=alpha, sample_weight=sample_weight)
    shares = np.ones(shape) if by_class is None else by_class.take(y)

    def modulated(l: Array) -> tuple[Array, Array]:
        """What l = -log q and its gradient are multiplied by."""
        missing = -np.expm1(-l)
        factor = missing**power
        # Of losses beyond 1e4, exp(-l) is 0; not for an infinite one, 0 times infinity.
        ratio = np.divide(np.minimum(l, 1e4), missing, out=np.ones_like(l), where=missing > 0)
        return factor, factor * (1 + power * np.exp(-l) * ratio)

    def formula(x: Array, y: Array, share: Array) -> tuple[Array, Array]:
        l, slope = np.empty(x.size), np.empty(x.size)
        rows.sigmoid_cross_entropy(x, y, 1.0, slope, l)
        by_loss, by_slope = modulated(l)
        return share * by_loss * l, share * by_slope * slope

    if binary:
        return elementwise(formula, [x, y, shares], [g], w, reduction, over), g
    losses = np.empty(y.size)
    rows.softmax_cross_entropy(arguments.contiguous(x), y, None, None, g, losses)
    by_loss, by_slope = modulated(losses)
    factor = shares if w is None else shares * w
    g *= (by_slope * factor / over)[:, None]
    return reduced(losses * by_loss * factor, reduction, over, shape), g


def _sparse(
    x: Array,
    y: Array,
    weight: Any,
    by_row: Array | None,
    label_smoothing: float,
    reduction: Reduction,
    empty: Empty,
    g: Array,
) -> Loss:
    """Cross-entropy with the classes y over all axes of the logits but the last."""
    k = x.shape[-1]
    y = arguments.class_indices("classes", y if by_row is None else np.where(by_row > 0, y, 0), k)
    by_class = arguments.weights("weight", weight, (k,), "the number of classes")
    smoothing = within("label_smoothing", label_smoothing, from_0_to_1)
    counts = by_row if by_class is None else _times(by_class.take(y), by_row)
    over = divisor(reduction, counts, y.size, empty)
    if smoothing == 0:
        by_class, by_row = None, counts
    by_row = None if by_row is None else by_row.reshape(-1)
    losses = _softmax(x.reshape(-1, k), y.reshape(-1), by_class, by_row, smoothing, over, g.reshape(-1, k))
    return reduced(losses, reduction, over, y.shape), g


def _softmax(
    logits: Array,
    target: Array,
    by_class: Array | None,
    by_row: Array | None,
    smoothing: float,
    over: float,
    gradient: Array,
) -> Array:
    """Returns the weighted losses of the rows, and writes the gradient of their sum divided by `over`.

    target : (n,) classes or (n, k) probabilities.
    """
    logits = arguments.contiguous(logits)
    n, k = logits.shape
    if by_class is None and smoothing == 0:
        losses = np.empty(n)
        factor = np.full(n, 1 / over) if by_row is None else by_row / over
        classes, probabilities = (target, None) if target.ndim == 1 else (None, target.astype(logits.dtype, copy=False))
        rows.softmax_cross_entropy(logits, classes, probabilities, factor, gradient, losses)
        return losses if by_row is None else weighted(losses, by_row)

    def formula(x: Array, block: slice, g: Array) -> Array:
        t = _one_hot(target[block], k) if target.ndim == 1 else target[block].astype(np.float64)
        t = (1 - smoothing) * t + smoothing / k
        if by_class is not None:
            t *= by_class
        losses = np.empty(len(x))
        rows.softmax_cross_entropy(x, None, t, None, g, losses)
        return losses

    return _in_double(formula, logits, by_row, over, gradient)


def _in_double(
    formula: Callable[[Array, slice, Array], Array], x: Array, by_row: Array | None, over: float, gradient: Array
) -> Array:
    """The weighted losses of rows that are computed in double, a block at a time, and the gradient of their sum divided
    by `over`. `formula` takes a block of x, where it is, and an array for its gradient, and returns its losses.

    What is mixed (targets with weights of classes, powers of probabilities) would lose digits if it were rounded to
    float32 on its way.
    """
    x = arguments.contiguous(x)
    n, columns = x.shape
    losses = np.empty(n)
    step = max(1, BLOCK // columns)
    for start in range(0, n, step):
        block = slice(start, start + step)
        g = np.empty(x[block].shape)
        losses[block] = formula(x[block].astype(np.float64), block, g)
        if by_row is None:
            gradient[block] = g / over
        else:
            losses[block] = weighted(losses[block], by_row[block])
            gradient[block] = weighted(g, by_row[block, None] / over)
    return losses


def _sigmoid(x: Array, target: float) -> tuple[Array, Array]:
    """Losses and slopes of the logits x, of float64, against one target."""
    losses, slopes = np.empty(x.size), np.empty(x.size)
    rows.sigmoid_cross_entropy(x, np.full(x.size, target), 1.0, slopes, losses)
    return losses, slopes


def _one_hot(classes: Array, k: int) -> Array:
    # Compared, not indexed: NumPy looks at indices twice, and another thread may change them in between.
    target: Array = (classes[:, None] == np.arange(k)).astype(np.float64)
    return target


def _times(a: Array, b: Array | None) -> Array:
    return a if b is None else a * b
