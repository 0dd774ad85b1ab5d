"""The hot path of the losses, below their checks: finite, valid, contiguous arrays of one dtype.

`gradient` may be the prediction itself. Sums are taken in double, all else in the dtype of the arrays.
"""

from __future__ import annotations

import numpy as np

from fastopt.losses.reduction import BLOCK
from fastopt.tree import Array


def softmax_cross_entropy(
    logits: Array,
    classes: Array | None,
    probabilities: Array | None,
    weights: Array | None,
    gradient: Array | None,
    losses: Array,
) -> None:
    """Per row: losses = -sum_c p_c log softmax(logits)_c, unweighted, and gradient = weights * (softmax - p).

    logits : (n, k).
    classes : (n,) int64, for a p of 1 at that class; or None, with
    probabilities : (n, k).
    weights : (n,) float64, the factor of each gradient row; None is 1.
    gradient : (n, k), written; None leaves it out.
    losses : (n,) float64, written.
    """
    n, k = logits.shape
    step = max(1, BLOCK // k)
    spare = np.empty((min(step, n), k), logits.dtype) if gradient is None else None
    numbers = np.arange(min(step, n))
    with np.errstate(over="ignore", under="ignore"):
        for start in range(0, n, step):
            rows = slice(start, start + step)
            x = logits[rows]
            e = gradient[rows] if gradient is not None else spare[: len(x)]  # type: ignore[index]
            largest = x.max(axis=1)
            if classes is not None:
                at_class = numbers[: len(x)], classes[rows]
                losses[rows] = largest.astype(np.float64) - x[at_class]
                np.subtract(x, largest[:, None], out=e)
                mass: Array | float = 1.0
            else:
                p = probabilities[rows]  # type: ignore[index]
                np.subtract(x, largest[:, None], out=e)
                # An overflow to -inf would make NaN of a p of 0; the exponential of the lowest number is 0 too.
                np.maximum(e, np.finfo(e.dtype).min, out=e)
                losses[rows] = -np.einsum("ij,ij->i", p, e, dtype=np.float64)
                mass = p.sum(axis=1, dtype=np.float64)
            np.exp(e, out=e)
            sums = e.sum(axis=1, dtype=np.float64)
            losses[rows] += mass * np.log(sums)
            if gradient is None:
                continue
            factor = np.ones(len(x)) if weights is None else weights[rows]
            e *= (factor / sums).astype(e.dtype)[:, None]
            factor = factor.astype(e.dtype)
            if classes is not None:
                e[at_class] -= factor
            else:
                e -= factor[:, None] * p


def sigmoid_cross_entropy(logits: Array, targets: Array, scale: float, gradient: Array, losses: Array) -> None:
    """Per element: losses = -t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)), gradient = scale * (sigmoid(x) - t).

    logits, targets : (n,).
    gradient : (n,), written.
    losses : (n,) float64, written.
    """
    with np.errstate(under="ignore"):
        for start in range(0, logits.size, BLOCK):
            block = slice(start, start + BLOCK)
            x, t = logits[block], targets[block]
            wide = x.astype(np.float64)
            e = np.exp(-np.abs(x))
            losses[block] = np.maximum(wide, 0) - wide * t + np.log1p(e)
            # exp(min(x, 0)) is 1 or e, and faster than a choice between them.
            gradient[block] = scale * (np.exp(np.minimum(x, 0)) / (1 + e) - t)


def squared_error(prediction: Array, target: Array, scale: float, gradient: Array) -> float:
    """Returns sum (prediction - target)^2 and writes gradient = scale * (prediction - target); all (n,)."""
    total = 0.0
    with np.errstate(over="ignore", under="ignore"):
        for start in range(0, prediction.size, BLOCK):
            block = slice(start, start + BLOCK)
            difference = prediction[block] - target[block]
            total += float(np.square(difference, dtype=np.float64).sum())
            np.multiply(difference, scale, out=gradient[block])
    return total
