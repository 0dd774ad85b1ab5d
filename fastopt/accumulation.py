"""Accumulation: one step with the mean gradient of several micro-batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastopt import state, tree
from fastopt.hyperparameters import positive, shown
from fastopt.memory import zeros_for
from fastopt.parameters import plan_beside, run_pass
from fastopt.tree import Array, Tree

if TYPE_CHECKING:
    from fastopt.optimizer import Optimizer, Report


class _Accumulated:
    def __repr__(self) -> str:
        return "ACCUMULATED"


ACCUMULATED: Any = _Accumulated()
"""In place of gradients: what `accumulate` has gathered."""


class Accumulation:
    """The weighted mean of gradients so far, for one optimizer as it now is: an array for each parameter."""

    def __init__(self, opt: Optimizer) -> None:
        self.main = opt._plan
        self.means = zeros_for(self.main.params)
        self.plan = plan_beside(opt, "mean", self.means)
        self.present = [False] * len(self.means)
        self.count, self.weight = 0, 0.0

    def clear(self) -> None:
        for mean in self.means:
            mean.fill(0)
        self.present = [False] * len(self.means)
        self.count, self.weight = 0, 0.0

    def add(self, opt: Optimizer, grads: Tree, weight: float) -> None:
        plan, first = self.plan, not opt._accumulated
        total = weight if first else self.weight + weight
        if not math.isfinite(total):
            raise ValueError(f"the weights of the micro-batches add up to {total}: give smaller ones")
        missing = plan.admit(grads, opt._match)
        try:
            given = list(plan.grads)
            if first:
                self.clear()
            elif missing:
                plan.exchange(self._filled(given))
            run_pass(opt, plan, [[("mean", {"gain": weight / total})]])
        finally:
            plan.release()
        self.present = [there or g is not None for there, g in zip(self.present, given, strict=True)]
        self.count, self.weight = self.count + 1, total

    def _filled(self, given: list[Array | None]) -> list[Array | None]:
        """Gradients with a 0 for None where there has been a gradient before."""
        zeros = (np.broadcast_to(p.dtype.type(0), p.shape) for p in self.main.params)
        return [zero if g is None and there else g for g, there, zero in zip(given, self.present, zeros, strict=True)]

    def gradients(self) -> Tree:
        """The means in the structure that gradients have, None where every micro-batch had None."""
        leaves = [mean if there else None for mean, there in zip(self.means, self.present, strict=True)]
        return tree.rebuild(self.main.template, leaves)


def accumulate(opt: Optimizer, grads: Tree, weight: float) -> int:
    weight = positive("weight", weight)
    memory = _memory(opt)
    memory.add(opt, grads, weight)
    opt._accumulated = True
    return memory.count


def _memory(opt: Optimizer) -> Accumulation:
    """Made at the first use, and anew where groups were added."""
    if opt._accumulation is None or opt._accumulation.main is not opt._plan:
        opt._accumulation = Accumulation(opt)
    return opt._accumulation


def refuse_pending(opt: Optimizer) -> None:
    if opt._accumulated:
        raise RuntimeError(
            f"the gradients of {_memory(opt).count} micro-batches are accumulated and not applied: call step() without "
            "gradients to apply their mean, or discard_accumulated()"
        )


def step(opt: Optimizer, grads: Tree, grad_scale: float | None) -> Report:
    """The step with what was accumulated, or why there is none."""
    if grads is not ACCUMULATED:
        refuse_pending(opt)
    if not opt._accumulated:
        raise RuntimeError("nothing is accumulated: pass gradients to step, or call accumulate(grads) before it")
    memory, t = _memory(opt), opt.t
    memory.plan.hold("a step is applying what was accumulated: accumulate after it")
    opt._accumulated = False
    try:
        return opt.step(memory.gradients(), grad_scale=grad_scale)
    except BaseException:
        opt._accumulated = opt.t == t
        raise
    finally:
        memory.plan.let_go()


def save(opt: Optimizer) -> dict[str, Any]:
    if not opt._accumulated:
        return {"count": 0, "weight": 0.0, "gradients": {}}
    memory = _memory(opt)
    gradients = {
        name: np.copy(mean, order="K")
        for name, mean, there in zip(opt.names, memory.means, memory.present, strict=True)
        if there
    }
    return {"count": memory.count, "weight": memory.weight, "gradients": gradients}


def check(opt: Optimizer, saved: Mapping[str, Any]) -> list[str]:
    """What is wrong with a saved accumulation."""
    if saved.keys() != {"count", "weight", "gradients"} or not isinstance(saved["gradients"], Mapping):
        return [f"accumulation is {shown(saved)}: expected a dict with count, weight and gradients"]
    count, weight = saved["count"], saved["weight"]
    if not state._is_count(count) or not isinstance(weight, float):
        return [f"accumulation has the count {shown(count)} and the weight {shown(weight)}"]
    problems = []
    if not (0 < weight < math.inf if count else weight == 0):
        problems.append(f"accumulation has the count {shown(count)} and the weight {shown(weight)}")
    params = dict(zip(opt.names, opt._plan.params, strict=True))
    for name, g in saved["gradients"].items():
        if name not in params or not count:
            problems.append(f"accumulation has a gradient of {name!r}, which is not known here")
        elif problem := state._entry(f"the accumulated gradient of {name!r}", params[name], g):
            problems.append(problem)
    return problems


def load(opt: Optimizer, saved: Mapping[str, Any]) -> None:
    """Takes over what `save` gave."""
    opt._accumulated = saved["count"] > 0
    if opt._accumulated:
        memory = _memory(opt)
        memory.clear()
        memory.present = [name in saved["gradients"] for name in opt.names]
        memory.count, memory.weight = saved["count"], saved["weight"]
        for name, mean in zip(opt.names, memory.means, strict=True):
            mean[...] = saved["gradients"].get(name, 0)
