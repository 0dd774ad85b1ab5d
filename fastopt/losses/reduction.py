"""From the losses of elements or rows to the value, and how a loss that is a formula of elements is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from fastopt.base.arguments import one_of
from fastopt.base.tree import Array

Reduction: TypeAlias = Literal["mean", "sum", "none"]
REDUCTIONS = get_args(Reduction)
Loss: TypeAlias = tuple[Any, Array]
"""The value, a float or with reduction="none" an array, and the gradient."""

BLOCK = 1 << 16
"""Elements computed at a time: their temporaries stay in the second-level cache."""


def divisor(reduction: Reduction, weight: Array | None, count: int) -> float:
    """What the sum of the losses is divided by: for a mean, the sum of the weights; else 1."""
    one_of("reduction", reduction, REDUCTIONS)
    if reduction != "mean":
        return 1.0
    if weight is None:
        return float(count)
    total = float(weight.sum())
    if total == math.inf:
        raise ValueError("the weights add up to infinity: divide them by a constant")
    if total == 0:
        raise ValueError('all weights are 0: there is no mean of nothing (reduction="sum" gives 0)')
    return total


def reduced(losses: Array, reduction: Reduction, over: float, shape: tuple[int, ...]) -> Any:
    return losses.reshape(shape) if reduction == "none" else float(losses.sum()) / over


def elementwise(
    formula: Callable[..., tuple[Array, ...]],
    inputs: Sequence[Array],
    gradients: Sequence[Array],
    weight: Array | None,
    reduction: Reduction,
    over: float,
) -> Any:
    """Writes the derivatives and returns the value of `formula`: blocks in double -> losses and their derivatives."""
    shape, n = inputs[0].shape, inputs[0].size
    inputs, gradients = [x.reshape(-1) for x in inputs], [g.reshape(-1) for g in gradients]
    weight = None if weight is None else weight.reshape(-1)
    losses = np.empty(n)
    for start in range(0, n, BLOCK):
        block = slice(start, start + BLOCK)
        losses[block], *slopes = formula(*(x[block].astype(np.float64) for x in inputs))
        factor: Any = 1.0 if weight is None else weight[block]
        losses[block] *= factor
        for g, slope in zip(gradients, slopes, strict=True):
            g[block] = slope * (factor / over)
    return reduced(losses, reduction, over, shape)
