"""Losses of the overlap of a predicted with a true mask."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastopt.base.arguments import at_least_0, within
from fastopt.base.tree import Array
from fastopt.losses import arguments
from fastopt.losses.reduction import Loss, Reduction, divisor, reduced


@np.errstate(all="ignore")
def dice(
    probabilities: Array,
    mask: Any,
    smooth: float = 1.0,
    *,
    axis: int | tuple[int, ...] | None = None,
    weight: Any = None,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> Loss:
    """1 - (2 I + smooth) / (P + M + smooth), with I = sum p m, P = sum p and M = sum m (Milletari et al., 2016).

    probabilities : p, in [0, 1].
    mask : m, of the same shape, in [0, 1].
    smooth : 0 or larger; keeps the gradient of an empty mask finite.
    axis : the axes that the sums run over, one loss for each position along the others; None is all axes and one loss
        of the whole batch. Of images (n, h, w), axis=(1, 2) is a loss each, and their mean.
    weight : of the same shape, multiplies every term of the three sums; 0 leaves a pixel out.
    reduction, out : see `fastopt.losses`.
    """

    def fraction(p: Array, m: Array, total: Any) -> tuple[Array, Array, Array | float, Array | float]:
        return 2 * total(p * m), total(p) + total(m), 2 * m, 1.0

    return _overlap(fraction, probabilities, mask, smooth, axis, weight, reduction, out)


@np.errstate(all="ignore")
def iou(
    probabilities: Array,
    mask: Any,
    smooth: float = 1.0,
    *,
    axis: int | tuple[int, ...] | None = None,
    weight: Any = None,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> Loss:
    """1 - (I + smooth) / (P + M - I + smooth), the soft Jaccard loss (Rahman & Wang, 2016); arguments as for `dice`."""

    def fraction(p: Array, m: Array, total: Any) -> tuple[Array, Array, Array | float, Array | float]:
        both = total(p * m)
        return both, total(p) + total(m) - both, m, 1 - m

    return _overlap(fraction, probabilities, mask, smooth, axis, weight, reduction, out)


def _overlap(
    fraction: Any,
    probabilities: Any,
    mask: Any,
    smooth: float,
    axis: int | tuple[int, ...] | None,
    weight: Any,
    reduction: Reduction,
    out: Array | None,
) -> Loss:
    """1 - (a + smooth) / (b + smooth); `fraction` gives a, b and their derivatives by p, but for the weight."""
    p = arguments.prediction("probabilities", probabilities)
    arguments.from_0_to_1("probabilities", p)
    m = arguments.unit_target("mask", mask, p, "probabilities")
    w = arguments.weights("weight", weight, p.shape, "probabilities")
    extra = within("smooth", smooth, at_least_0)

    over_axes = arguments.axes("axis", axis, p.ndim)

    def total(x: Array) -> Array:
        summed: Array = np.sum(x if w is None else x * w, axis=over_axes, keepdims=True)
        return summed

    above, below, by_above, by_below = fraction(p.astype(np.float64), m.astype(np.float64), total)
    above, below = above + extra, below + extra
    if not below.min() > 0:
        raise ValueError("probabilities and mask are all 0 where smooth is 0: there is no overlap to speak of")
    over = divisor(reduction, None, below.size)
    g = arguments.gradient(out, p, "probabilities", mask=mask, weight=weight)
    slope = (above / below * by_below - by_above) / (below * over)
    g[...] = slope if w is None else slope * w
    shape = np.squeeze(below, over_axes).shape
    return reduced(1 - above / below, reduction, over, shape), g
