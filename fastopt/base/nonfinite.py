"""Gradients that are not finite: what may be done, the error, and where the first of them is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

POLICIES = None, "raise", "skip"
"""What `on_nonfinite` may be."""


class NonFiniteError(ValueError):
    """A gradient holds NaN or infinity, its norm overflows, or the loss is not finite; parameters and state are as they
    were."""


def first_nonfinite(plan: Any, loss: float | None = None) -> str:
    """Where the first NaN or infinity is, the loss or among the gradients of a plan, for the error."""
    if loss is not None and not math.isfinite(loss):
        return f"the loss is {loss}: the step was not applied, nothing has changed"
    for name, g in zip(plan.names, plan.grads, strict=True):
        if g is not None and not np.isfinite(g).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(g))[0])
            where = f" at index {index}" if index else ""
            return f"the gradient of {name!r} is {g[index]}{where}: the step was not applied, nothing has changed"
    return "the norm of the gradients overflows float64: the step was not applied, nothing has changed"
