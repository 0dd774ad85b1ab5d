"""Walks of the core's kernels over tensors outside a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastopt.core import _core
from fastopt.engine.program import passed
from fastopt.torch import state
from fastopt.torch.binding import SOURCE, marked

Calls = list[tuple[str, dict[str, float]]]


def average(
    params: list[torch.Tensor], averages: list[torch.Tensor], decay: float, threads: int | None
) -> list[torch.Tensor]:
    """averages = decay averages + (1 - decay) params; returns the averages, those anew that have to lie elsewhere."""
    calls: Calls = [("average", {"decay": decay, "gain": 1 - decay})]
    try:
        walk = _core.TensorPass(SOURCE, params, params, averages)
    except ValueError:
        params = [dense(p) for p in params]
        averages = [a if state.lies_as(a, p) else laid_out(a, p) for a, p in zip(averages, params, strict=True)]
        walk = _core.TensorPass(SOURCE, params, params, list(averages))
    walk.run(passed(calls), 1.0, threads or 0)
    marked(averages)
    return averages


def move(
    params: Sequence[torch.Tensor], grads: list[torch.Tensor], calls: Calls, factor: float, threads: int | None
) -> None:
    """Kernels over params, with these gradients times a factor."""
    homes = [dense(p) for p in params]
    _core.TensorPass(SOURCE, homes, grads, [None] * len(homes)).run(passed(calls), factor, threads or 0)
    with torch.no_grad():
        for p, home in zip(params, homes, strict=True):
            if home is not p:
                p.copy_(home)
    marked(params)


def dense(p: torch.Tensor) -> torch.Tensor:
    """Itself, or where it lies in memory with gaps a copy without."""
    return p if state.is_dense(p) else p.detach().clone(memory_format=torch.preserve_format)


def laid_out(tensor: torch.Tensor, home: torch.Tensor) -> torch.Tensor:
    """Its elements in memory as home lies."""
    made = state.zeros_like(home, state.room([home], 1))
    return made.copy_(tensor.detach())
