"""Losses of numbers against numbers: each has the value and gradient of a formula of its elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastopt.base.arguments import boolean, number, one_of, positive
from fastopt.base.tree import Array
from fastopt.losses import arguments, rows
from fastopt.losses.reduction import REDUCTIONS, Empty, Loss, Reduction, divisor, elementwise


@np.errstate(all="ignore")
def mse(
    prediction: Array,
    target: Any,
    *,
    weight: Any = None,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """Squared error, (prediction - target)^2, of each element; the mean over elements.

    weight : of the prediction's shape; the mean divides by its sum.
    reduction, empty, out : see `fastopt.losses`.
    """

    def squared(d: Array) -> tuple[Array, Array]:
        return d * d, 2 * d

    if weight is not None or one_of("reduction", reduction, REDUCTIONS) == "none":
        return _of_difference(squared, prediction, target, weight, reduction, empty, out)
    p = arguments.prediction("prediction", prediction)
    t = arguments.real_target("target", target, p, "prediction")
    if t.dtype != p.dtype:
        return _of_difference(squared, prediction, target, None, reduction, empty, out)
    over = divisor(reduction, None, p.size, empty)
    g = arguments.gradient(out, p, "prediction", target=target)
    return rows.squared_error(arguments.flat(p), t.reshape(-1), 2 / over, g.reshape(-1)) / over, g


@np.errstate(all="ignore")
def mae(
    prediction: Array,
    target: Any,
    *,
    weight: Any = None,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """Absolute error, |prediction - target|, of each element; the mean over elements. The gradient is 0 at 0.

    weight : of the prediction's shape; the mean divides by its sum.
    reduction, empty, out : see `fastopt.losses`.
    """
    return _of_difference(lambda d: (np.abs(d), np.sign(d)), prediction, target, weight, reduction, empty, out)


@np.errstate(all="ignore")
def lp(
    prediction: Array,
    target: Any,
    p: float,
    *,
    weight: Any = None,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """|prediction - target|^p of each element (no root is taken); the mean over elements.

    p : 1 or larger. 1 is mae, 2 is mse.
    weight : of the prediction's shape; the mean divides by its sum.
    reduction, empty, out : see `fastopt.losses`.
    """
    power = number("p", p)
    if not 1 <= power < math.inf:
        raise ValueError(
            f"p is {power!r}: expected a finite number, 1 or larger (below 1 the gradient is infinite at 0)"
        )

    def formula(d: Array) -> tuple[Array, Array]:
        size = np.abs(d)
        return size**power, power * size ** (power - 1) * np.sign(d)

    return _of_difference(formula, prediction, target, weight, reduction, empty, out)


@np.errstate(all="ignore")
def huber(
    prediction: Array,
    target: Any,
    delta: float = 1.0,
    *,
    weight: Any = None,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Loss:
    """d^2 / 2 where |d| <= delta and delta (|d| - delta / 2) beyond, d = prediction - target (Huber, 1964).

    delta : > 0, where the parabola ends.
    weight : of the prediction's shape; the mean divides by its sum (torch's huber_loss divides by the count).
    reduction, empty, out : see `fastopt.losses`.
    """
    bound = positive("delta", delta)

    def formula(d: Array) -> tuple[Array, Array]:
        slope = np.clip(d, -bound, bound)
        return slope * (d - slope / 2), slope

    return _of_difference(formula, prediction, target, weight, reduction, empty, out)


@np.errstate(all="ignore")
def gaussian_nll(
    mean: Array,
    target: Any,
    var: Any,
    *,
    var_gradient: bool = False,
    weight: Any = None,
    reduction: Reduction = "mean",
    empty: Empty = "error",
    out: Array | None = None,
) -> Any:
    """-log of the density of target under a normal distribution: (log(2 pi var) + (mean - target)^2 / var) / 2.

    var : variances, > 0, of the mean's shape (torch raises them to 1e-6 and leaves the half log 2 pi out).
    var_gradient : return (value, gradient by mean, gradient by var) instead of (value, gradient by mean).
    weight : of the mean's shape; the mean over elements divides by its sum.
    out : takes the gradient by mean.
    reduction, empty : see `fastopt.losses`.
    """
    m = arguments.prediction("mean", mean)
    t = arguments.real_target("target", target, m, "mean")
    v = arguments.real_target("var", var, m, "mean")
    arguments.above_0("var", v)
    w = arguments.weights("weight", weight, m.shape, "mean")
    over = divisor(reduction, w, m.size, empty)
    both = boolean("var_gradient", var_gradient)
    g = arguments.gradient(out, m, "mean", target=target, var=var, weight=weight)
    gradients = [g, np.empty(m.shape, m.dtype)] if both else [g]

    def formula(m: Array, t: Array, v: Array) -> tuple[Array, ...]:
        slope = (m - t) / v
        losses = (np.log(v) + math.log(2 * math.pi) + (m - t) * slope) / 2
        return (losses, slope, (1 / v - slope * slope) / 2) if both else (losses, slope)

    return elementwise(formula, [m, t, v], gradients, w, reduction, over), *gradients


def _of_difference(
    formula: Callable[[Array], tuple[Array, Array]],
    prediction: Any,
    target: Any,
    weight: Any,
    reduction: Reduction,
    empty: Empty,
    out: Array | None,
) -> Loss:
    """A loss of d = prediction - target; `formula` gives it and its derivative."""
    p = arguments.prediction("prediction", prediction)
    t = arguments.real_target("target", target, p, "prediction")
    w = arguments.weights("weight", weight, p.shape, "prediction")
    over = divisor(reduction, w, p.size, empty)
    g = arguments.gradient(out, p, "prediction", target=target, weight=weight)
    return elementwise(lambda p, t: formula(p - t), [p, t], [g], w, reduction, over), g
