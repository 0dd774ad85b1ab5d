"""Accumulation: one step with the mean gradient of several micro-batches."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastopt.base import fitting, tree
from fastopt.base.arguments import positive, shown
from fastopt.base.memory import zeros_for
from fastopt.base.tree import Array, Tree
from fastopt.engine.passes import plan_beside, prepare_pass

if TYPE_CHECKING:
    from fastopt.core import _core
    from fastopt.engine.engine import Engine, Report


class _Accumulated:
    def __repr__(self) -> str:
        return "ACCUMULATED"


ACCUMULATED: Any = _Accumulated()
"""In place of gradients: what `accumulate` has gathered."""


EMPTY = "nothing is accumulated: pass gradients to step, or call accumulate(grads) before it"
APPLYING = "a step is applying what was accumulated: accumulate after it"


class Gathered(NamedTuple):
    """How many micro-batches there are, the sum of their weights, which parameters have had a gradient, and, where
    a rule needs it, the mean loss."""

    batches: int
    weight: float
    present: list[bool]
    loss: float | None


class Accumulation:
    """The memory for the mean of gradients, of one optimizer as it now is: an array for each parameter."""

    def __init__(self, engine: Engine) -> None:
        self.main = engine.plan
        self.means = zeros_for(self.main.params)
        self.plan = plan_beside(engine, self.means)

    def add(self, engine: Engine, weight: float, loss: Any) -> int:
        """Takes the admitted gradients in."""
        self._refuse_replaced(engine)
        if loss is not None or engine.takes_loss:
            loss = engine.admit_loss(loss)
        plan, before = self.plan, engine.accumulated
        total = weight if before is None else before.weight + weight
        if not math.isfinite(total):
            raise ValueError(f"the weights of the micro-batches add up to {total}: give smaller ones")
        present, count = [g is not None for g in plan.grads], 1
        if before is None:
            for mean in self.means:
                mean.fill(0)
        else:
            if not all(present):
                plan.exchange(self._filled(before.present))
            present, count = list(map(operator.or_, before.present, present)), before.batches + 1
        gain = weight / total
        if before is not None and loss is not None:
            loss = before.loss + gain * (loss - before.loss)
        prepare_pass(engine, plan, [[("mean", {"gain": gain})]])
        plan.run_and_publish([(engine, "accumulated", Gathered(count, total, present, loss))])
        return count

    def _filled(self, present: list[bool]) -> list[Array | None]:
        """The admitted gradients with a 0 for None where there has been a gradient before."""
        zeros = (np.broadcast_to(p.dtype.type(0), p.shape) for p in self.main.params)
        return [
            zero if g is None and there else g for g, there, zero in zip(self.plan.grads, present, zeros, strict=True)
        ]

    def step(self, engine: Engine, report: type[Report], unscale: float, loss: Any) -> Report:
        self._refuse_replaced(engine)
        gathered = engine.accumulated
        if gathered is None:
            raise RuntimeError(EMPTY)
        if loss is not None:
            raise TypeError(f"loss is {shown(loss)}, with what was accumulated: pass it to accumulate instead")
        # None where every micro-batch had None.
        leaves = [mean if there else None for mean, there in zip(self.means, gathered.present, strict=True)]
        done: Report = engine.step(tree.rebuild(self.main.template, leaves), report, unscale, True, gathered.loss)
        return done

    def _refuse_replaced(self, engine: Engine) -> None:
        if engine.accumulation is not self or engine.plan is not self.main:
            raise RuntimeError("another thread has loaded a state or added a group just now: accumulate again")

    def save(self, engine: Engine) -> dict[str, Any] | None:
        gathered = engine.accumulated
        if gathered is None:
            return None
        gradients = {
            name: np.copy(mean, order="K")
            for name, mean, there in zip(engine.plan.names, self.means, gathered.present, strict=True)
            if there
        }
        loss = {} if gathered.loss is None else {"loss": gathered.loss}
        return {"count": gathered.batches, "weight": gathered.weight, "gradients": gradients, **loss}


def accumulate(engine: Engine, grads: Tree, weight: float, loss: Any) -> int:
    weight = positive("weight", weight)
    memory = _memory(engine)
    return memory.plan.admitted(grads, engine.match, memory.add, engine, weight, loss)


def _memory(engine: Engine) -> Accumulation:
    """Made at the first use, and anew where groups were added."""
    return engine.accumulation or engine.plan.read(_made, engine)


def _made(engine: Engine) -> Accumulation:
    if engine.accumulation is None:
        engine.accumulation = Accumulation(engine)
    made: Accumulation = engine.accumulation
    return made


def refuse_pending(engine: Engine) -> None:
    if engine.accumulated is not None:
        raise RuntimeError(
            f"the gradients of {engine.accumulated.batches} micro-batches are accumulated and not applied: call step() "
            "without gradients to apply their mean, or discard_accumulated()"
        )


def step(engine: Engine, grads: Tree, report: type[Report], unscale: float, loss: Any) -> Report:
    """The step with what was accumulated, or why there is none."""
    if grads is not ACCUMULATED:
        refuse_pending(engine)
    memory = engine.accumulation
    if memory is None:
        raise RuntimeError(EMPTY)
    done: Report = memory.plan.during(APPLYING, memory.step, engine, report, unscale, loss)
    return done


def discard(engine: Engine) -> None:
    if engine.accumulation is not None:
        engine.accumulation.plan.during("what was accumulated is being discarded", setattr, engine, "accumulated", None)


def held(engine: Engine, why: str, function: Callable[..., None], *args: Any) -> None:
    """function(*args) while nothing is accumulated in other threads."""
    if engine.accumulation is None:
        function(*args)
    else:
        engine.accumulation.plan.during(why, function, *args)


def save(engine: Engine) -> dict[str, Any]:
    memory = engine.accumulation
    found = None if memory is None else memory.plan.read(memory.save, engine)
    return found or {"count": 0, "weight": 0.0, "gradients": {}}


def check(engine: Engine, saved: Mapping[str, Any]) -> list[str]:
    """What is wrong with a saved accumulation."""
    keys = {"count", "weight", "gradients"}
    if saved.keys() - {"loss"} != keys or not isinstance(saved["gradients"], Mapping):
        return [f"accumulation is {shown(saved)}: expected a dict with count, weight and gradients"]
    count, weight = saved["count"], saved["weight"]
    if not fitting.is_count(count) or not isinstance(weight, float):
        return [f"accumulation has the count {shown(count)} and the weight {shown(weight)}"]
    problems = []
    loss = saved.get("loss")
    if (type(loss) is float) != bool(count and engine.takes_loss) or (loss is None) != ("loss" not in saved):
        expected = "a number" if count and engine.takes_loss else "none, as no rule takes it or nothing is accumulated"
        problems.append(f"accumulation has the loss {shown(loss)}: expected {expected}")
    if not (0 < weight < math.inf if count else weight == 0):
        problems.append(f"accumulation has the count {shown(count)} and the weight {shown(weight)}")
    params = dict(zip(engine.plan.names, engine.plan.params, strict=True))
    for name, g in saved["gradients"].items():
        if name not in params or not count:
            problems.append(f"accumulation has a gradient of {name!r}, which is not known here")
        elif problem := fitting.wrong_entry(f"the accumulated gradient of {name!r}", params[name], g):
            problems.append(problem)
    return problems


def loaded(engine: Engine, saved: Mapping[str, Any]) -> _core.Values:
    """What `save` gave as attributes of the optimizer, with memory of their own."""
    if not saved["count"]:
        return [(engine, "accumulated", None)]
    memory, gradients = Accumulation(engine), saved["gradients"]
    for name, mean in zip(engine.plan.names, memory.means, strict=True):
        mean[...] = gradients.get(name, 0)
    gathered = Gathered(
        saved["count"], saved["weight"], [name in gradients for name in engine.plan.names], saved.get("loss")
    )
    return [(engine, "accumulation", memory), (engine, "accumulated", gathered)]
