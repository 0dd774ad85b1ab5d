"""fastopt for PyTorch on the CPU: `from fastopt.torch import AdamW` in place of `from torch.optim import AdamW`.

Every optimizer here is a torch.optim.Optimizer whose step is one call of the core, over the tensors where they lie.
This package alone imports torch. See docs/torch.md.
"""

from __future__ import annotations

from typing import Any

try:
    import torch as _torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "fastopt.torch needs PyTorch: pip install 'fastopt[torch]' (or torch, from where you have it)", name="torch"
    ) from error

from fastopt.torch.averaging import EMA
from fastopt.torch.classes import CLASSES
from fastopt.torch.clipping import clip_grad_norm_, global_norm
from fastopt.torch.optimizer import Fast
from fastopt.torch.sam import SAM

globals().update(CLASSES)
LBFGS = _torch.optim.LBFGS

__all__ = ["EMA", "LBFGS", "SAM", "Fast", "clip_grad_norm_", "global_norm", *CLASSES]


def __getattr__(name: str) -> Any:
    if hasattr(_torch.optim, name):
        raise AttributeError(f"fastopt.torch has no {name} yet: use torch.optim.{name}")
    raise AttributeError(f"module 'fastopt.torch' has no attribute {name!r}")
