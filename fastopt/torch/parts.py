"""DTensors and their parts: what of a tensor this process has. Nothing of torch.distributed is imported here."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch


def dtensor() -> Any:
    """The class of DTensors, or () where nobody has imported it: then there is none."""
    return getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", ())


def any_in(groups: list[dict[str, Any]]) -> bool:
    """Whether some parameter is one."""
    cls = dtensor()
    return cls != () and any(isinstance(p, cls) for group in groups for p in group["params"])


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process has: all of it, but of a DTensor."""
    if not isinstance(tensor, dtensor()):
        return tensor
    part: torch.Tensor = tensor._local_tensor
    # What a collective has not brought yet.
    return part.wait() if hasattr(part, "wait") else part


def locals_of(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """`local` of each."""
    return list(tensors) if dtensor() == () else [local(tensor) for tensor in tensors]


def like(part: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """A DTensor whose part in this process is this one, spread as p is; itself where p is none."""
    cls = dtensor()
    if not isinstance(p, cls):
        return part
    made: torch.Tensor = cls.from_local(
        part, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
    )
    return made


def is_parted(p: torch.Tensor) -> bool:
    """Whether other processes have elements of it that this one has not."""
    if not isinstance(p, dtensor()):
        return False
    return any(x.is_shard() and p.device_mesh.size(k) > 1 for k, x in enumerate(p.placements))
