"""Clipping of gradients on their own, in place, for loops that do not let the optimizer do it.

``clip_norm=`` and ``clip_value=`` of an optimizer do the same inside the step, without a pass of their own
and without writing to the gradients.
"""

from __future__ import annotations

import math

import numpy as np

from fastopt.base import tree
from fastopt.base.arguments import boolean, norm_order, positive, whole
from fastopt.base.tree import Array, Tree
from fastopt.core import _core

_KINDS: dict[float, _core.Reduction] = {1: "sum_abs", 2: "sum_squares", math.inf: "max_abs"}


def global_norm(grads: Tree, norm_type: float = 2) -> float:
    """The norm of all gradients together: an array or nested lists and dicts of arrays, None skipped.

    norm_type : 2, 1 or infinity.

    Computed in double over fixed blocks in the order of the tree, so the bits depend on nothing but the data.
    NaN or infinite where an element is.
    """
    _, arrays = _arrays(grads, write=False)
    return _core.norm(arrays, _kind(norm_type))[0]


def clip_grad_norm_(
    grads: Tree,
    max_norm: float,
    norm_type: float = 2,
    error_if_nonfinite: bool = False,
    *,
    per_tensor: bool = False,
) -> float:
    """Scales all gradients in place by max_norm/norm where their norm together is larger, and returns that norm.

    grads : an array or nested lists and dicts of writable float32 or float64 arrays; None is skipped.
    max_norm : > 0. Where the norm is max_norm or less, no gradient is written.
    norm_type : 2, 1 or infinity.
    error_if_nonfinite : raise ValueError for a norm that is not finite; else it is returned. Either way the
        gradients are then untouched.
    per_tensor : clip each array by its own norm instead (none is written if any norm is not finite); the norm
        over all is returned.

    PyTorch's function of this name divides by norm + 1e-6 instead.
    """
    limit = positive("max_norm", max_norm)
    kind = _kind(norm_type)
    error_if_nonfinite = boolean("error_if_nonfinite", error_if_nonfinite)
    per_tensor = boolean("per_tensor", per_tensor)
    names, arrays = _arrays(grads, write=True)
    parts = [[a] for a in arrays] if per_tensor else [arrays]
    norms = [_core.norm(part, kind)[0] for part in parts]
    total = _core.norm(arrays, kind)[0] if per_tensor else norms[0]
    for i, norm in enumerate(norms):
        if not math.isfinite(norm):
            if error_if_nonfinite:
                which = f"gradient {names[i]!r}" if per_tensor else "the gradients"
                raise ValueError(
                    f"the norm of {which} is {norm}: nothing was clipped; look for NaN or infinity in them, "
                    "or pass error_if_nonfinite=False to go on"
                )
            return total
    for part, norm in zip(parts, norms, strict=True):
        if norm > limit:
            _core.rewrite(part, limit, norm, math.inf)
    return total


def clip_grad_value_(grads: Tree, clip_value: float) -> None:
    """Clamps every gradient in place to [-clip_value, clip_value]; NaN stays NaN.

    grads : an array or nested lists and dicts of writable float32 or float64 arrays; None is skipped.
    """
    bound = positive("clip_value", clip_value)
    _, arrays = _arrays(grads, write=True)
    _core.rewrite(arrays, 1.0, 1.0, bound)


def clip_grad_adaptive_(
    grads: Tree, params: Tree, clipping: float = 0.01, eps: float = 1e-3, *, unit_axis: int = -1
) -> None:
    """Adaptive clipping (Brock et al., 2021): scales the gradient of each unit in place to a norm of at most
    clipping * max(norm of the unit's parameters, eps).

    grads : an array or nested lists and dicts of writable float32 or float64 arrays; None is skipped.
    params : the parameters, in the same structure and shapes; only read.
    clipping, eps : > 0. eps lets parameters that are 0 move.
    unit_axis : the axis that counts units, the outputs of a layer: the last for weights of shape (in, out) and
        (height, width, in, out), 0 for PyTorch's (out, in, ...). A scalar or vector, such as a bias, is one unit.

    Norms are computed in double. Raises ValueError, with nothing written, where one is NaN or infinite.
    """
    factor, floor = positive("clipping", clipping), positive("eps", eps)
    unit_axis = whole("unit_axis", unit_axis, -1, 0)
    _arrays(grads, write=True)
    leaves = tree.flatten(params)
    _core.check_gradients([name for name, _ in leaves], [p for _, p in leaves], False, "parameter")
    scales = []
    for (name, p), g in zip(leaves, tree.match(params, grads), strict=True):
        if g is None:
            continue
        if g.shape != p.shape:
            raise ValueError(
                f"gradient of {name!r} has shape {g.shape} and its parameter {p.shape}: they must be equal"
            )
        limit, norm = factor * np.maximum(_unit_norms(p, unit_axis), floor), _unit_norms(g, unit_axis)
        if not (np.isfinite(norm).all() and np.isfinite(limit).all()):
            raise ValueError(f"{name!r} or its gradient has a unit whose norm is not finite: nothing was clipped")
        if (norm > limit).any():
            scales.append((g, np.where(norm > limit, limit, 1.0), np.where(norm > limit, norm, 1.0)))
    for g, limit, norm in scales:
        _scale(g, limit, norm)


def _scale(g: Array, limit: Array, norm: Array) -> None:
    """g *= limit / norm, by a power of two apart, because the quotient may leave the range of g's type."""
    (upper, up), (lower, down) = np.frexp(limit), np.frexp(norm)
    g *= (upper / (2 * lower)).astype(g.dtype)
    np.ldexp(g, up - down + 1, out=g)


def _unit_norms(a: Array, unit_axis: int) -> Array:
    """The 2-norm of each unit, in the shape that multiplies the array."""
    axes = None if a.ndim <= 1 else tuple(range(1, a.ndim)) if unit_axis == 0 else tuple(range(a.ndim - 1))
    largest = np.max(np.abs(a), axis=axes, keepdims=True, initial=0)
    exponent = np.where(np.isfinite(largest), np.frexp(largest)[1], 0)
    near_one = np.ldexp(a, -exponent, dtype=np.float64)
    norms: Array = np.ldexp(np.sqrt(np.sum(np.square(near_one, out=near_one), axis=axes, keepdims=True)), exponent)
    return norms


def _arrays(grads: Tree, write: bool) -> tuple[list[str], list[Array]]:
    leaves = [(name, g) for name, g in tree.flatten(grads, what="gradient") if g is not None]
    names, arrays = [name for name, _ in leaves], [g for _, g in leaves]
    _core.check_gradients(names, arrays, write)
    return names, arrays


def _kind(norm_type: float) -> _core.Reduction:
    return _KINDS[float(norm_order("norm_type", norm_type))]
