"""The hot path of the losses: their kernels, for finite, valid, contiguous arrays of one dtype.

The kernels take no gradient that lies on what they read: where it is written over the prediction, they read a copy.
"""

from __future__ import annotations

import numpy as np

from fastopt.base.tree import Array
from fastopt.core import _core


def softmax_cross_entropy(
    logits: Array,
    classes: Array | None,
    probabilities: Array | None,
    weights: Array | None,
    gradient: Array | None,
    losses: Array,
) -> None:
    """Per row: losses = -sum_c p_c log softmax(logits)_c, unweighted, and gradient = weights * (sum(p) softmax - p).

    logits : (n, k).
    classes : (n,) int64, for a p of 1 at that class; or None, with
    probabilities : (n, k), rows of any sum.
    weights : (n,) float64, the factor of each gradient row; None is 1.
    gradient : (n, k), written; None leaves it out.
    losses : (n,) float64, written.
    """
    _core.softmax_cross_entropy(_apart(logits, gradient), classes, probabilities, weights, gradient, losses)


def sigmoid_cross_entropy(logits: Array, targets: Array, scale: float, gradient: Array, losses: Array) -> None:
    """Per element: losses = -t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)), gradient = scale * (sigmoid(x) - t).

    logits, targets : (n,).
    gradient : (n,), written.
    losses : (n,) float64, written.
    """
    _core.sigmoid_cross_entropy(_apart(logits, gradient), targets, scale, gradient, losses)


def squared_error(prediction: Array, target: Array, scale: float, gradient: Array) -> float:
    """Returns sum (prediction - target)^2 and writes gradient = scale * (prediction - target); all (n,)."""
    return _core.squared_error(_apart(prediction, gradient), target, scale, gradient)


def _apart(prediction: Array, gradient: Array | None) -> Array:
    return prediction.copy() if gradient is not None and np.may_share_memory(prediction, gradient) else prediction
