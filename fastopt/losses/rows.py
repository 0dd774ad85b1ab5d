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
    lowest = np.finfo(logits.dtype).min
    for start in range(0, n, step):
        rows = slice(start, start + step)
        x, numbers = logits[rows], np.arange(min(step, n - start))
        largest = x.max(axis=1, keepdims=True)
        with np.errstate(over="ignore", under="ignore"):
            # Where the difference overflows, it is cut to a number whose exponential is just as much 0.
            e = np.maximum(x - largest, lowest)
            if probabilities is None:
                losses[rows] = largest[:, 0].astype(np.float64) - x[numbers, classes[rows]]  # type: ignore[index]
                mass: Array | float = 1.0
            else:
                p = probabilities[rows]
                losses[rows] = -np.einsum("ij,ij->i", p, e, dtype=np.float64)
                mass = p.sum(axis=1, dtype=np.float64)
            np.exp(e, out=e)
            sums = e.sum(axis=1, dtype=np.float64)
            losses[rows] += mass * np.log(sums)
            if gradient is None:
                continue
            factor = np.ones(len(x)) if weights is None else weights[rows]
            np.multiply(e, (factor / sums).astype(e.dtype)[:, None], out=gradient[rows])
            factor = factor.astype(e.dtype)
            if probabilities is None:
                gradient[start + numbers, classes[rows]] -= factor  # type: ignore[index]
            else:
                gradient[rows] -= factor[:, None] * p


def sigmoid_cross_entropy(logits: Array, targets: Array, scale: float, gradient: Array, losses: Array) -> None:
    """Per element: losses = -t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)), gradient = scale * (sigmoid(x) - t).

    logits, targets : (n,).
    gradient : (n,), written.
    losses : (n,) float64, written.
    """
    for start in range(0, logits.size, BLOCK):
        block = slice(start, start + BLOCK)
        x, t = logits[block], targets[block]
        with np.errstate(under="ignore"):
            e, exact = np.exp(-np.abs(x)), t.astype(np.float64)
            losses[block] = np.where(x > 0, 1 - exact, -exact) * x + np.log1p(e)
            gradient[block] = scale * (np.where(x > 0, 1.0, e) / (1 + e) - t)


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
