"""Losses: value and gradient in one call.

    value, gradient = fastopt.losses.sparse_cross_entropy(logits, classes)

Predictions (the first argument) are non-empty float32 or float64 arrays in any memory layout; the gradient has their
shape and dtype. Targets and weights are anything that converts to numbers of the same shape, and are not rounded to
the predictions' dtype on the way. No input is written.

Keywords that all losses share:

reduction : "mean" (the default), "sum" or "none". The value is a Python float, added up in double; with "none" it is
    a float64 array of the separate losses, and the gradient that of their sum.
weight, sample_weight, mask : numbers >= 0; True and False are 1 and 0. A weighted mean divides by the sum of the
    weights, in every loss.
empty : what a mean is where all weights are 0, as when every class is ignored: "error" (the default), or "zero", which
    gives 0 and a gradient of zeros.
out : the array to write the gradient to: C-contiguous, of the prediction's shape and dtype. It may be the prediction
    itself and may overlap no other input.

What overflows is infinite or NaN in the value and the gradient, without NumPy's warnings. Raises TypeError or
ValueError, before anything is written, for shapes that do not match, predictions or targets that are not finite or out
of their range, and what else an argument does not allow.
"""

from fastopt.losses.classification import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    focal,
    kl_divergence,
    sequence_cross_entropy,
    sparse_cross_entropy,
)
from fastopt.losses.regression import gaussian_nll, huber, lp, mae, mse
from fastopt.losses.segmentation import dice, generalized_dice, iou, tversky

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "dice",
    "focal",
    "gaussian_nll",
    "generalized_dice",
    "huber",
    "iou",
    "kl_divergence",
    "lp",
    "mae",
    "mse",
    "sequence_cross_entropy",
    "sparse_cross_entropy",
    "tversky",
]
