"""Newton's direction -H^-1 g, for problems small enough for a dense Hessian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastopt.base.arguments import reals
from fastopt.base.tree import Array
from fastopt.minimization.descent import Direct


def newton(hess: Callable[[Array], Any], shape: tuple[int, ...]) -> Direct:
    """d = -H^-1 g where H is positive definite. Where it is not, its eigenvalues count by their absolute values, so
    that d leads downhill; a singular H raises numpy.linalg.LinAlgError."""

    def direct(x: Array, g: Array, d: Array) -> None:
        H = _checked(hess(x.copy().reshape(shape)), shape, x.size)
        try:
            np.linalg.cholesky(H)
            d[...] = np.linalg.solve(H, -g)
        except np.linalg.LinAlgError:
            eigenvalues, vectors = np.linalg.eigh(H)
            sizes = np.abs(eigenvalues)
            if not sizes.min() > x.size * np.finfo(np.float64).eps * sizes.max():
                raise np.linalg.LinAlgError(
                    f"the Hessian is singular (its eigenvalues go from {eigenvalues[0]:.3g} to {eigenvalues[-1]:.3g}, "
                    f"the smallest in size is {sizes.min():.3g}): Newton's step is not defined; use method='lbfgs', "
                    "or add a small multiple of the identity in hess"
                ) from None
            d[...] = -(vectors @ ((vectors.T @ g) / sizes))

    return direct


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
