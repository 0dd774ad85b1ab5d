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
Empty: TypeAlias = Literal["error", "zero"]
Loss: TypeAlias = tuple[Any, Array]
"""The value, a float or with reduction="none" an array, and the gradient."""

BLOCK = 1 << 16
"""Elements computed at a time: their temporaries stay in the second-level cache."""


def divisor(reduction: Reduction, weight: Array | None, count: int, empty: Empty = "error") -> float:
    """What the sum of the losses is divided by: for a mean the sum of the weights; 1 for others, and where all weights
    are 0 and `empty` allows it."""
    one_of("reduction", reduction, REDUCTIONS)
    one_of("empty", empty, get_args(Empty))
    if reduction != "mean":
        return 1.0
    if weight is None:
        return float(count)
    total = float(weight.sum())
    if total == math.inf:
        raise ValueError("the weights add up to infinity: divide them by a constant")
    if total == 0 and empty == "error":
        raise ValueError(
            'all weights are 0: there is no mean of nothing (empty="zero" makes it 0, as reduction="sum" is)'
        )
    return total or 1.0


def weighted(x: Array, weight: Array) -> Array:
    """x times the weight, and 0 where that is 0, whatever x."""
    found: Array = np.where(weight > 0, x * weight, 0)
    return found


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
        if weight is not None:
            losses[block] = weighted(losses[block], weight[block])
        for g, slope in zip(gradients, slopes, strict=True):
            g[block] = slope / over if weight is None else weighted(slope, weight[block] / over)
    return reduced(losses, reduction, over, shape)
