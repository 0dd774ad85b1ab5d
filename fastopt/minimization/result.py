"""What a minimization gives back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastopt.base.tree import Array

CONVERGED, LIMIT, STUCK, STOPPED, DIVERGED, ENDLESS = range(6)


class Minimum(NamedTuple):
    """The fields of SciPy's result. `print(result)` shows them, a line each.

    x : the point, float64 in the shape of x0.
    fun, jac : the loss there, and its gradient, in the shape of x0.
    nit, nfev : iterations; evaluations of loss and gradient together.
    success : whether a tolerance was met.
    status : 0 for that, 1 for a limit reached, 2 for no lower point found, 3 for stopped by the callback, 4 for a loss
        or gradient that ceased to be finite, 5 for a loss that seems to have no lower bound.
    message : the same in words.
    active_mask : with bounds, for every element of x -1 where it is at the low one, 1 at the high one, 0 between them;
        without bounds None.

    A field is `result.x` or, as in SciPy, `result["x"]`.
    """

    x: Array
    fun: float
    jac: Array
    nit: int
    nfev: int
    success: bool
    status: int
    message: str
    active_mask: Array | None = None

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return tuple.__getitem__(self, key)
        if key not in self._fields:
            raise KeyError(f"a Minimum has no {key!r}: it has {', '.join(self._fields)}")
        return getattr(self, key)

    def __str__(self) -> str:
        with np.printoptions(threshold=10, precision=6):
            shown = [(name, value) for name, value in zip(self._fields, self, strict=True) if value is not None]
            width = max(len(name) for name, _ in shown)
            return "\n".join(f"{name:>{width}}: {value}" for name, value in shown)
