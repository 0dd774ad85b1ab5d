"""Parameters that hold other values for a while: no optimizer of PyTorch steps them then, its own or fastopt's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

_away: dict[int, tuple[torch.Tensor, str]] = {}
"""By id, which the tensor in it keeps from being another's."""
_handle: Any = None


def refuse(params: Sequence[torch.Tensor]) -> None:
    """Raises RuntimeError where one of these holds other values."""
    for p in params:
        if id(p) in _away:
            raise RuntimeError(_away[id(p)][1])


def send_away(params: Sequence[torch.Tensor], why: str) -> None:
    """From now on steps of these raise RuntimeError, which says why."""
    global _handle
    refuse(params)
    _away.update({id(p): (p, why) for p in params})
    if _handle is None:
        # There only while something is away, as a hook costs every optimizer's step.
        _handle = register_optimizer_step_pre_hook(_before_step)


def bring_back(params: Sequence[torch.Tensor]) -> None:
    """They hold their own values again."""
    global _handle
    for p in params:
        _away.pop(id(p), None)
    if not _away and _handle is not None:
        _handle.remove()
        _handle = None


def _before_step(opt: Any, args: Any, kwargs: Any) -> None:
    refuse([p for group in opt.param_groups for p in group["params"]])
