"""Newton's direction -H^-1 g, for problems small enough for a dense Hessian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastopt.base.arguments import reals
from fastopt.base.tree import Array
from fastopt.minimization.descent import Direct

EPS = float(np.finfo(np.float64).eps)
SMALLEST = 1e-3
"""Where variables have been scaled, no eigenvalue counts as less than this part of the largest."""
COMPARABLE = 1e-8
"""Eigenvalues no further apart than this are used as they are."""
ROUNDS = 8
"""Of scaling. A positive semidefinite H needs one."""


def newton(hess: Callable[[Array], Any], shape: tuple[int, ...]) -> Direct:
    """d = -H^-1 g where H is positive definite. Where it is not, its eigenvalues count by their absolute values, so
    that d leads downhill; if they are far apart, those in variables scaled so that the diagonal of H is 1, and such
    near 0 as larger. An H that is singular at the first point, whatever the scales of x, raises LinAlgError."""
    first = True

    def direct(x: Array, g: Array, d: Array) -> None:
        nonlocal first
        H = _checked(hess(x.copy().reshape(shape)), shape, x.size)
        scale = scales(H)
        scaled, slope = scale[:, None] * H * scale, scale * g
        if _is_positive_definite(scaled):
            d[...] = -scale * np.linalg.solve(scaled, slope)
        else:
            eigenvalues, vectors = np.linalg.eigh(H)
            sizes = np.abs(eigenvalues)
            if sizes.min() > COMPARABLE * sizes.max():
                d[...] = -(vectors @ ((vectors.T @ g) / sizes))
            else:
                eigenvalues, vectors = np.linalg.eigh(scaled)
                if first:
                    _refuse_singular(eigenvalues)
                sizes = np.abs(eigenvalues)
                sizes = np.maximum(sizes, SMALLEST * sizes.max() or 1.0)
                d[...] = -scale * (vectors @ ((vectors.T @ slope) / sizes))
        first = False

    return direct


def _refuse_singular(eigenvalues: Array) -> None:
    sizes = np.abs(eigenvalues)
    if not sizes.min() > len(sizes) * EPS * sizes.max():
        raise np.linalg.LinAlgError(
            f"the Hessian is singular at x0 (with the variables scaled to equal sizes, its eigenvalues go from "
            f"{eigenvalues[0]:.3g} to {eigenvalues[-1]:.3g}, the smallest in size is {sizes.min():.3g}): "
            "Newton's step is not defined; use method='lbfgs', or add a small multiple of the identity in hess"
        )


def _is_positive_definite(scaled: Array) -> bool:
    """Beyond rounding: no pivot is 0 but for that."""
    try:
        pivots = np.diag(np.linalg.cholesky(scaled)) ** 2
    except np.linalg.LinAlgError:
        return False
    return bool(pivots.min() > len(scaled) * EPS)


def scales(H: Array) -> Array:
    """s for which s_i H_ii s_i is 1, or less where another entry of s_i H_ij s_j would be much larger."""
    diagonal, rows = np.abs(np.diag(H)), np.abs(H).max(axis=1)
    found = _root(np.where(diagonal > 0, diagonal, rows))
    for _ in range(ROUNDS):
        found *= _root(np.maximum(np.abs(found[:, None] * H * found).max(axis=1), 1))
    return found


def _root(sizes: Array) -> Array:
    """1 / sqrt, and 1 for 0."""
    return 1 / np.sqrt(np.where(sizes > 0, sizes, 1))


def _checked(found: Any, shape: tuple[int, ...], n: int) -> Array:
    H = reals("what hess returned", found)
    if H.shape not in ((n, n), shape + shape):
        raise ValueError(f"hess returned the shape {H.shape}: expected {(n, n)} for x of shape {shape}")
    H = H.reshape(n, n).astype(np.float64)
    if not np.isfinite(H).all():
        i, j = np.argwhere(~np.isfinite(H))[0]
        raise ValueError(f"hess returned {H[i, j]} at ({i}, {j}): a Hessian is finite")
    if not np.allclose(H, H.T, rtol=1e-6, atol=1e-8 * float(np.abs(H).max())):
        i, j = np.unravel_index(np.argmax(np.abs(H - H.T)), H.shape)
        raise ValueError(f"hess returned {H[i, j]} at ({i}, {j}) and {H[j, i]} at ({j}, {i}): a Hessian is symmetric")
    return H
