"""Losses of the overlap of a predicted with a true mask.

With I = sum p m, what is in both, FP = sum p (1 - m), in the prediction alone, and FN = sum (1 - p) m, in the mask
alone, each is (a FP + b FN) / (c I + a FP + b FN + smooth): sums of what is 0 or larger, in which nothing cancels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastopt.base.arguments import at_least_0, within
from fastopt.base.tree import Array
from fastopt.losses import arguments
from fastopt.losses.reduction import Empty, Loss, Reduction, divisor, reduced, weighted


@np.errstate(all="ignore")
def dice(
    probabilities: Array,
    mask: Any,
    smooth: float = 1.0,
    *,
    axis: int | tuple[int, ...] | None = None,
    class_weight: Any = None,
    weight: Any = None,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """1 - (2 I + smooth) / (P + M + smooth), with I = sum p m, P = sum p and M = sum m (Milletari et al., 2016).

    probabilities : p, in [0, 1].
    mask : m, of the same shape, in [0, 1].
    smooth : 0 or larger; keeps the gradient of an empty mask finite.
    axis : the axes that the sums run over, one loss for each position along the others; None is all axes and one loss
        of the whole batch. Of images (n, h, w), axis=(1, 2) is a loss each, and their mean; of images (n, h, w, k) of k
        classes, a loss of each image and class.
    class_weight : (k,), one factor per class, which lie along the last axis; `axis` must leave that out. The mean
        divides by the sum of the factors.
    weight : of the same shape, multiplies every term of the three sums; 0 leaves a pixel out.
    reduction, empty, out : see `fastopt.losses`. With empty="zero", a loss is 0 also where p and m are all 0 and so is
        smooth.
    """
    overlap = Overlap(2.0, 1.0, 1.0)
    return _loss(overlap, probabilities, mask, smooth, axis, class_weight, weight, reduction, empty, out)


@np.errstate(all="ignore")
def iou(
    probabilities: Array,
    mask: Any,
    smooth: float = 1.0,
    *,
    axis: int | tuple[int, ...] | None = None,
    class_weight: Any = None,
    weight: Any = None,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """1 - (I + smooth) / (P + M - I + smooth), the soft Jaccard loss (Rahman & Wang, 2016); arguments as for `dice`."""
    overlap = Overlap(1.0, 1.0, 1.0)
    return _loss(overlap, probabilities, mask, smooth, axis, class_weight, weight, reduction, empty, out)


@np.errstate(all="ignore")
def tversky(
    probabilities: Array,
    mask: Any,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 1.0,
    *,
    axis: int | tuple[int, ...] | None = None,
    class_weight: Any = None,
    weight: Any = None,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """1 - (I + smooth) / (I + alpha FP + beta FN + smooth), with I = sum p m, FP = sum p (1 - m) and FN = sum (1 - p) m
    (Salehi et al., 2017).

    alpha, beta : 0 or larger: what a false positive and a false negative cost. Halves are dice with twice the smooth,
        ones are iou; a beta above alpha finds more of what is rare.
    Other arguments as for `dice`.
    """
    overlap = Overlap(1.0, within("alpha", alpha, at_least_0), within("beta", beta, at_least_0))
    return _loss(overlap, probabilities, mask, smooth, axis, class_weight, weight, reduction, empty, out)


@np.errstate(all="ignore")
def generalized_dice(
    probabilities: Array,
    mask: Any,
    smooth: float = 1.0,
    *,
    axis: int | tuple[int, ...] | None = None,
    class_weight: Any = None,
    weight: Any = None,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """1 - (2 sum_c w_c I_c + smooth) / (sum_c w_c (P_c + M_c) + smooth), with I, P and M of each class c as for `dice`:
    one loss in which classes of few pixels count as much as those of many (Sudre et al., 2017).

    probabilities, mask : of the same shape, classes along the last axis.
    smooth : 0 or larger, in pixels of the class of the largest w.
    axis : the axes besides the last that the sums run over; None is all of them. Of images (n, h, w, k), axis=(1, 2) is
        a loss of each image, and their mean.
    class_weight : w, (k,), one factor per class; only their ratios count. None is 1 / M_c^2 of each loss, and for
        classes that its mask has not, the largest of the others.
    weight, reduction, empty, out : as for `dice`.
    """
    p, m, pixels = _masks(probabilities, mask, weight)
    k = p.shape[-1] if p.ndim else 1
    inner = tuple(range(p.ndim - 1)) if axis is None else arguments.axes("axis", axis, p.ndim)
    if p.ndim - 1 in inner or p.ndim == 0:
        raise ValueError(f"axis is {axis} of shape {p.shape}: expected axes besides the last, that of the classes")
    by_class = arguments.weights("class_weight", class_weight, (k,), "the number of classes")
    if by_class is None:
        counts = np.sum(m if pixels is None else m * pixels, axis=inner, keepdims=True, dtype=np.float64)
        least = np.min(counts, axis=-1, keepdims=True, initial=np.inf, where=counts > 0)
        by_class = np.where(counts > 0, (least / np.where(counts > 0, counts, 1)) ** 2, 1.0)
    elif (largest := by_class.max()) > 0:
        by_class = by_class / largest
    pixels = np.broadcast_to(by_class if pixels is None else by_class * pixels, p.shape)
    axes = (*inner, p.ndim - 1)
    return _of_masks(
        Overlap(2.0, 1.0, 1.0),
        p,
        m,
        pixels,
        smooth,
        axes,
        None,
        reduction,
        empty,
        out,
        mask=mask,
        class_weight=class_weight,
        weight=weight,
    )


class Overlap(NamedTuple):
    """What a pixel costs: c of I, a of FP, and b of FN."""

    both: float
    false_positive: float
    false_negative: float


def _masks(probabilities: Any, mask: Any, weight: Any) -> tuple[Array, Array, Array | None]:
    p = arguments.prediction("probabilities", probabilities)
    arguments.from_0_to_1("probabilities", p)
    m = arguments.unit_target("mask", mask, p, "probabilities")
    return p, m, arguments.weights("weight", weight, p.shape, "probabilities")


def _loss(
    overlap: Overlap,
    probabilities: Any,
    mask: Any,
    smooth: float,
    axis: Any,
    class_weight: Any,
    weight: Any,
    reduction: Reduction,
    empty: Empty,
    out: Array | None,
) -> Loss:
    p, m, pixels = _masks(probabilities, mask, weight)
    axes = arguments.axes("axis", axis, p.ndim)
    by_class = None
    if class_weight is not None:
        if p.ndim == 0 or p.ndim - 1 in axes:
            raise ValueError(
                f"class_weight is given and axis is {axis} of shape {p.shape}: expected axes besides the last, that of "
                "the classes"
            )
        by_class = arguments.weights("class_weight", class_weight, p.shape[-1:], "the number of classes")
    return _of_masks(
        overlap,
        p,
        m,
        pixels,
        smooth,
        axes,
        by_class,
        reduction,
        empty,
        out,
        mask=mask,
        class_weight=class_weight,
        weight=weight,
    )


def _of_masks(
    overlap: Overlap,
    p: Array,
    m: Array,
    pixels: Array | None,
    smooth: float,
    axes: tuple[int, ...],
    by_class: Array | None,
    reduction: Reduction,
    empty: Empty,
    out: Array | None,
    **inputs: Any,
) -> Loss:
    """The losses along `axes`, weighted by the last of the other axes with `by_class`. `inputs` is what out must not
    overlap."""
    extra = within("smooth", smooth, at_least_0)
    both, false_positive, false_negative = overlap
    true, mask = p.astype(np.float64), m.astype(np.float64)

    def total(x: Array) -> Array:
        summed: Array = np.sum(x if pixels is None else x * pixels, axis=axes, keepdims=True)
        return summed

    wrong = total(false_positive * (true * (1 - mask)) + false_negative * ((1 - true) * mask))
    right = both * total(true * mask) + extra
    below = right + wrong
    counts = below > 0
    shape = np.squeeze(below, axes).shape
    w = None if by_class is None else np.broadcast_to(by_class, shape)
    over = divisor(reduction, w, below.size, empty)
    if empty == "error" and not counts.all():
        raise ValueError(
            'probabilities and mask are all 0 where smooth is 0: there is no overlap to speak of (empty="zero" makes '
            "the loss 0)"
        )
    g = arguments.gradient(out, p, "probabilities", **inputs)
    below = np.where(counts, below, 1)
    by_right = both * mask
    by_below = by_right + (false_positive * (1 - mask) - false_negative * mask)
    factor = counts / (below * over) if w is None else counts * w.reshape(below.shape) / (below * over)
    slope = (right / below * by_below - by_right) * factor
    g[...] = slope if pixels is None else weighted(slope, pixels)
    losses = wrong / below
    return reduced(losses if w is None else losses * w.reshape(below.shape), reduction, over, shape), g
