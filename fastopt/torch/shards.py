"""DTensors, as FSDP2 makes parameters into: each process steps its own part, whose state is DTensors again.

Steps go over the parts as plain tensors. What needs more than a part, a norm over all elements say, is refused.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch

from fastopt.engine.program import Form, Walk
from fastopt.torch import door
from fastopt.torch.binding import marked
from fastopt.torch.parts import dtensor, is_parted, like, local


def refuse(name: str, p: torch.Tensor, form: Form, whole: Any) -> None:
    """Raises where a step of p needs more than the part of it in this process."""
    if any(x.is_partial() for x in p.placements):
        raise TypeError(f"{name} is a DTensor of sums that are still to be added up (Partial): call redistribute first")
    if not is_parted(p):
        return
    if not _is_elementwise(form):
        raise TypeError(
            f"{name} is a DTensor, of which this process has a part: this rule needs norms or sums over all of a "
            "tensor; take a rule that goes element by element, as AdamW, Lion or SGD"
        )
    if whole.clip_norm is not None:
        raise ValueError(
            f"clip_norm: {name} is a DTensor, and the norm of this process's parts is not that of the gradients; call "
            "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm) before the step, which adds all parts up"
        )
    if whole.on_nonfinite is not None:
        raise ValueError(
            f"on_nonfinite: {name} is a DTensor, and other processes do not know what this one finds in its parts; "
            "look at what torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm) returns, before the step"
        )


def _is_elementwise(form: Form) -> bool:
    return all(isinstance(x, Walk) and not x.sums and not x.factors for x in form.passes)


class Shards:
    """The parts of an optimizer's DTensors as plain tensors: the same from step to step, while their owners are."""

    def __init__(self) -> None:
        self._parts: dict[torch.Tensor, torch.Tensor] = {}
        self._states: dict[torch.Tensor, dict[str, Any]] = {}

    def step(self, engine: Any, groups: list[dict[str, Any]], states: Any, unscale: float, loss: Any = None) -> bool:
        """A step of these groups, over parts."""
        params = [p for group in groups for p in group["params"]]
        parts = self._parts_of(engine, groups)
        inside = [{**group, "params": [parts[p] for p in group["params"]]} for group in groups]
        try:
            for p in params:
                if parts[p] is not p:
                    parts[p].grad = _gradient(p)
            of_parts: Any = defaultdict(dict)
            of_parts.update({parts[p]: self._state(p, states[p]) for p in params if p in states})
            applied: bool = engine.step(inside, of_parts, unscale, loss)
        finally:
            for p in params:
                if parts[p] is not p:
                    parts[p].grad = None
        for mine, group in zip(inside, groups, strict=True):
            group.update({k: x for k, x in mine.items() if k != "params"})
        for p in params:
            if parts[p] in of_parts:
                self._show(p, of_parts[parts[p]], states, engine.translation.scalars)
        marked([p for p in params if p.grad is not None and parts[p] is not p])
        return applied

    def _parts_of(self, engine: Any, groups: list[dict[str, Any]]) -> dict[torch.Tensor, torch.Tensor]:
        """Every parameter's part, under a name of its own, so that its gradient is nobody else's."""
        found = {}
        each = [(p, group) for group in groups for p in group["params"]]
        for (p, group), name in zip(each, door.names(groups), strict=True):
            now, known = local(p), self._parts.get(p, p)
            if now is not p and (known is p or not _is_same(known, now)):
                door.refuse_parameter(name, now)
                refuse(name, p, engine.form_of(group, now), engine.whole)
                known = self._parts[p] = now.detach()
            found[p] = known
        return found

    def _state(self, p: torch.Tensor, of_p: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(p, dtensor()):
            return of_p
        mine = self._states.setdefault(p, {})
        now = {key: local(x) if isinstance(x, torch.Tensor) else x for key, x in of_p.items()}
        if mine.keys() != now.keys() or any(mine[key] is not x for key, x in now.items()):
            mine.clear()
            mine.update(now)
        return mine

    def _show(self, p: torch.Tensor, mine: dict[str, Any], states: Any, scalars: tuple[str, ...]) -> None:
        """State that a step has made, to whom it belongs."""
        if not isinstance(p, dtensor()):
            states[p] = mine
            return
        self._states[p], of_p = mine, states[p]
        for key, x in mine.items():
            if key not in of_p or local(of_p[key]) is not x:
                of_p[key] = x if key == "step" or key in scalars else like(x, p)


def _gradient(p: torch.Tensor) -> torch.Tensor | None:
    g = p.grad
    if g is None:
        return None
    if not isinstance(g, dtensor()):
        raise TypeError("the gradient of a DTensor is a plain tensor: expected a DTensor, as its parameter")
    if g.placements != p.placements or g.device_mesh != p.device_mesh:
        g = g.redistribute(p.device_mesh, p.placements)
    return local(g)


def _is_same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(
        a.shape == b.shape
        and a.dtype == b.dtype
        and a.device == b.device
        and a.stride() == b.stride()
        and a.data_ptr() == b.data_ptr()
    )
