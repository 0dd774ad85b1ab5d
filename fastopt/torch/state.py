"""State as tensors: memory of fastopt's own, laid out as the parameter is, under PyTorch's keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fastopt.base.memory import Memory
from fastopt.engine.program import LIKE_P, ROWS, Slot

NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether its elements lie one after another in memory, in whatever order of its axes."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether memory shows its elements: they are aligned, and not read with the other sign."""
    return not tensor.is_neg() and tensor.data_ptr() % tensor.element_size() == 0


def lies_as(tensor: torch.Tensor, home: torch.Tensor) -> bool:
    """Whether elements of both lie in the same order, without gaps."""
    pairs = zip(tensor.stride(), home.stride(), home.shape, strict=True)
    return tensor.shape == home.shape and all(a == b or size < 2 for a, b, size in pairs)


def room(tensors: Sequence[torch.Tensor], each: int) -> Memory:
    """Memory for `each` tensors like every one of these."""
    return Memory(each * len(tensors), each * sum(t.numel() * t.element_size() for t in tensors))


def zeros_like(home: torch.Tensor, memory: Memory) -> torch.Tensor:
    """Zeros laid out in memory as home is, aligned as it is."""
    flat = memory.zeros((home.numel(),), NUMPY[home.dtype], place=home.data_ptr() % 64)
    storage = torch.from_numpy(flat).untyped_storage()
    return torch.empty(0, dtype=home.dtype).set_(storage, 0, home.shape, home.stride())


def started(slot: Slot, home: torch.Tensor, memory: Memory) -> torch.Tensor:
    """A buffer of state at its start."""
    if slot.extent != LIKE_P:
        shape = (*home.shape[:-1], 1) if slot.extent == ROWS else (*home.shape[:-2], 1, home.shape[-1])
        return torch.zeros(shape, dtype=home.dtype)
    made = zeros_like(home, memory)
    if slot.start == "p":
        made.copy_(home.detach())
    elif slot.start and slot.start != "g":
        made.fill_(float(slot.start))
    return made


def elements(slot: Slot, home: torch.Tensor) -> int:
    """How many elements a buffer has."""
    if slot.extent == LIKE_P:
        return int(home.numel())
    return math.prod(home.shape[:-1] if slot.extent == ROWS else (*home.shape[:-2], home.shape[-1]))


def scalar(x: float) -> torch.Tensor:
    """A tensor without dimensions, of the type in which PyTorch counts steps."""
    double = torch.get_default_dtype() == torch.float64
    return torch.tensor(x, dtype=torch.float64 if double else torch.float32)


def counted(found: Any, name: str) -> torch.Tensor:
    """A count of steps that can be written in place: the one found, or one like it."""
    if found is None:
        return scalar(0.0)
    is_tensor = isinstance(found, torch.Tensor)
    if not isinstance(found, (int, float)) and not (is_tensor and found.numel() == 1):
        raise TypeError(f"the step of {name} is {found!r}: expected a tensor that holds one number")
    x = float(found)
    if not (0 <= x < 2**53 and x == int(x)):
        raise ValueError(f"the step of {name} is {x:g}: expected how many steps it has had, a whole number from 0 on")
    in_place = is_tensor and found.dtype in NUMPY and found.device.type == "cpu" and is_plain(found)
    return found if in_place else scalar(x)


def home(p: torch.Tensor, by_rows: bool) -> torch.Tensor:
    """What is stepped: itself where it lies without gaps, and in rows where these count, else room for a copy."""
    if is_plain(p) and (p.is_contiguous() if by_rows else is_dense(p)):
        return p
    order = torch.contiguous_format if by_rows else torch.preserve_format
    return torch.empty_like(p.detach(), memory_format=order)


def stands(found: Any, slot: Slot, home: torch.Tensor, name: str) -> bool:
    """Whether a buffer is there and lies as it is to be stepped; raises where it is no state of the parameter."""
    if found is None:
        return False
    if not isinstance(found, torch.Tensor):
        raise TypeError(
            f"the state {name} is a {type(found).__name__}: expected a tensor, or del opt.state[p] to begin anew"
        )
    if found.dtype != home.dtype or found.device.type != "cpu":
        raise TypeError(
            f"the state {name} is {found.dtype} on {found.device}: expected {home.dtype}, its parameter's, on the CPU; "
            "opt.load_state_dict(opt.state_dict()) converts it"
        )
    if found.layout != torch.strided or (found.numel() and not found.data_ptr()):
        raise TypeError(f"the state {name} is {found.layout}, or has lost its memory: expected a dense tensor")
    if found.numel() != elements(slot, home) or (slot.extent == LIKE_P and found.shape != home.shape):
        raise ValueError(
            f"the state {name} has shape {tuple(found.shape)} and its parameter {tuple(home.shape)}: "
            "del opt.state[p] to begin anew, or load the state of this parameter"
        )
    return is_plain(found) and (lies_as(found, home) if slot.extent == LIKE_P else found.is_contiguous())
