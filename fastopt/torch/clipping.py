"""Clipping of gradients on its own, in place: torch.nn.utils.clip_grad_norm_ in two walks of the core.

`clip_norm=` of an optimizer does the same inside the step, without a walk of its own and without writing to gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from fastopt.base.arguments import boolean, norm_order, number
from fastopt.core import _core
from fastopt.torch.binding import SOURCE, marked
from fastopt.torch.door import trouble

KINDS: dict[float, _core.Reduction] = {1: "sum_abs", 2: "sum_squares", math.inf: "max_abs"}
WAY_OUT = "torch.nn.utils.clip_grad_norm_ takes such gradients"


def global_norm(parameters: Any, norm_type: float = 2.0) -> torch.Tensor:
    """The norm of the gradients of all parameters together, as a tensor without dimensions; nothing is written.

    parameters : a tensor, or an iterable of tensors; those without a gradient are skipped.
    norm_type : 2, 1 or infinity.

    NaN or infinite where an element is; 0 without gradients. Computed in double over fixed blocks, in the order of the
    parameters, so that no bit depends on threads. Raises TypeError as `clip_grad_norm_`.
    """
    kind = _kind(norm_type)
    grads = _gradients(parameters)
    return _as_tensor(_views(grads).norm(kind)[0], grads)


def clip_grad_norm_(
    parameters: Any,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> torch.Tensor:
    """torch.nn.utils.clip_grad_norm_: scales all gradients in place by max_norm / (norm + 1e-6) where that is below 1,
    and returns their norm together, as a tensor without dimensions.

    parameters : a tensor, or an iterable of tensors; those without a gradient are skipped.
    max_norm : 0 or larger; infinity only measures.
    norm_type : 2, 1 or infinity.
    error_if_nonfinite : raise RuntimeError, with nothing written, for a norm that is not finite. Otherwise gradients
        are multiplied as PyTorch does, by 0 or NaN.
    foreach : accepted for PyTorch's sake; changes nothing.

    Raises TypeError, with nothing written, for gradients that are not dense float32 or float64 on the CPU, shards
    (DTensor) among them, whose norm is in other processes too, and ValueError for one that is expanded.
    """
    limit = number("max_norm", max_norm)
    if not limit >= 0:
        raise ValueError(f"max_norm is {limit!r}: expected a number, 0 or larger")
    kind = _kind(norm_type)
    error_if_nonfinite = boolean("error_if_nonfinite", error_if_nonfinite)
    grads = _gradients(parameters)
    views = _views(grads)
    repeated = views.repeated()
    if repeated is not None:
        raise ValueError(
            f"gradient {repeated} is expanded, so that several of its elements are one in memory: pass a clone in .grad"
        )
    norm, _ = views.norm(kind)
    if not math.isfinite(norm):
        if error_if_nonfinite:
            raise RuntimeError(
                f"the norm of the gradients is {norm}: nothing was clipped; look for NaN or infinity in them, or pass "
                "error_if_nonfinite=False to go on"
            )
        with torch.no_grad():
            torch._foreach_mul_(grads, min(limit / (norm + 1e-6), 1.0) if norm == norm else math.nan)
    elif norm + 1e-6 > limit:
        views.rewrite(limit, norm + 1e-6)
        marked(grads)
    return _as_tensor(norm, grads)


def _gradients(parameters: Any) -> list[torch.Tensor]:
    if isinstance(parameters, torch.Tensor):
        parameters = [parameters]
    elif not isinstance(parameters, Iterable):
        raise TypeError(f"parameters is {parameters!r}: expected a tensor or an iterable of tensors")
    try:
        return [g for p in parameters if (g := p.grad) is not None]
    except AttributeError:
        raise TypeError("parameters has something that is no tensor: expected tensors with gradients") from None


def _views(grads: list[torch.Tensor]) -> _core.TensorViews:
    try:
        return _core.TensorViews(SOURCE, grads)
    except TypeError:
        for i, g in enumerate(grads):
            found = trouble(f"gradient {i}", g)
            if found is not None:
                raise TypeError(f"{found}; {WAY_OUT}") from None
        raise


def _as_tensor(norm: float, grads: list[torch.Tensor]) -> torch.Tensor:
    double = any(g.dtype == torch.float64 for g in grads)
    return torch.tensor(norm, dtype=torch.float64 if double else torch.float32)


def _kind(norm_type: float) -> _core.Reduction:
    return KINDS[float(norm_order("norm_type", float(norm_type) if isinstance(norm_type, str) else norm_type))]
