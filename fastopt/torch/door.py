"""What fastopt.torch refuses of parameters and gradients, and says of them."""

from __future__ import annotations

from typing import Any

import torch

from fastopt.torch import parts
from fastopt.torch.state import NUMPY

TYPES = (torch.Tensor, torch.nn.Parameter)
WAY_OUT = "pass fallback='torch' to let PyTorch step such parameters"


def names(groups: list[dict[str, Any]]) -> list[str]:
    """What each parameter is called in messages: by its name, or by its place in its group."""
    found = []
    for k, group in enumerate(groups):
        known = group.get("param_names") or ()
        for i, _ in enumerate(group["params"]):
            name = known[i] if i < len(known) else i
            found.append(f"parameter {name} of group {k}" if isinstance(name, int) else f"parameter {name!r}")
    return found


def halves(group: dict[str, Any], fallback: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """A group's parameters that PyTorch is to step, and the others, as groups that name them as the whole does."""
    known = group.get("param_names") or range(len(group["params"]))
    theirs: list[Any] = []
    ours: list[Any] = []
    for p, name in zip(group["params"], known, strict=True):
        (theirs if delegated(p, fallback) else ours).append((p, name))
    first, second = (
        {**group, "params": [p for p, _ in half], "param_names": [name for _, name in half]} for half in (theirs, ours)
    )
    return first, second


def trouble(what: str, tensor: torch.Tensor) -> str | None:
    """Why fastopt has no step for a tensor, or None."""
    if type(tensor) not in TYPES:
        return f"{what} is a {torch.typename(type(tensor))}: fastopt steps plain tensors"
    if tensor.device.type != "cpu":
        return (
            f"{what} is on {tensor.device}: fastopt computes on the CPU; move it with .cpu() or use torch.optim there"
        )
    if tensor.layout != torch.strided:
        return f"{what} is {str(tensor.layout).removeprefix('torch.')}: fastopt steps dense tensors"
    if tensor.is_complex():
        return f"{what} is {_dtype(tensor)}: pass torch.view_as_real(p) of it"
    if tensor.dtype not in NUMPY:
        return f"{what} is {_dtype(tensor)}: fastopt computes in float32 and float64"
    if tensor.is_meta or (tensor.numel() and not tensor.data_ptr()):
        return f"{what} has no memory of its own"
    return None


def delegated(p: torch.Tensor, fallback: str | None) -> bool:
    """Whether PyTorch is to step it: where its gradient is sparse, and with a fallback where fastopt cannot."""
    g = None if p.grad is None else parts.local(p.grad)
    p = parts.local(p)
    if g is not None and g.layout == torch.sparse_coo:
        return True
    return fallback == "torch" and (trouble("", p) is not None or (g is not None and trouble("", g) is not None))


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def refuse(params: list[torch.Tensor], called: list[str]) -> None:
    """Raises where a parameter, or the gradient that it has, cannot be stepped."""
    seen: dict[int, str] = {}
    for what, p in zip(called, params, strict=True):
        if id(p) in seen:
            raise ValueError(f"{what} is {seen[id(p)]} again: it would be stepped twice; pass it once")
        seen[id(p)] = what
        refuse_parameter(what, p)
        if p.grad is not None:
            _refuse_gradient(what, p, p.grad)


def refuse_parameter(what: str, p: torch.Tensor) -> None:
    """Raises where a parameter cannot be stepped."""
    found = trouble(what, p)
    if found is not None:
        raise TypeError(f"{found}; {WAY_OUT}")
    if any(stride == 0 and size > 1 for stride, size in zip(p.stride(), p.shape, strict=True)):
        raise ValueError(f"{what} is expanded, so that several of its elements are one in memory: pass p.clone()")


def _refuse_gradient(what: str, p: torch.Tensor, g: torch.Tensor) -> None:
    of = f"the gradient of {what}"
    found = trouble(of, g)
    if found is not None:
        raise TypeError(f"{found}; {WAY_OUT}")
    if g.dtype != p.dtype:
        raise TypeError(f"{of} is {_dtype(g)} and its parameter {_dtype(p)}: convert it with .to(p.dtype)")
    if g.shape != p.shape:
        raise ValueError(f"{of} has shape {tuple(g.shape)} and its parameter {tuple(p.shape)}: they must be equal")


def refuse_overlaps(source: Any, written: list[tuple[str, torch.Tensor]]) -> None:
    """Raises where what steps write overlaps."""
    found = source.overlap([t for _, t in written])
    if found is not None:
        first, second = (written[i][0] for i in found)
        raise ValueError(f"{first} and {second} share memory: elements would be stepped twice; pass views that do not")


def refuse_alias(source: Any, what: str, g: torch.Tensor, written: list[tuple[str, torch.Tensor]]) -> None:
    """Raises where a gradient shares an element with what steps write."""
    for name, t in written:
        if source.overlap([g, t]) is not None:
            raise ValueError(f"the gradient of {what} shares memory with {name}, which the step writes: pass a copy")
