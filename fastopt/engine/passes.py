"""Parameters outside a step: their names, who steps them, and passes over them with plans of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import ref

from fastopt.base import tree
from fastopt.base.tree import Array, Tree
from fastopt.core import _core
from fastopt.engine.numpy_plan import ReferencePlan
from fastopt.engine.program import passed

if TYPE_CHECKING:
    from fastopt.engine.engine import Engine


class Plans:
    """Plans that are still there. Unlike a WeakSet, it can be listed while other threads add to it."""

    def __init__(self) -> None:
        self._refs: set[ref[_core.Plan]] = set()

    def add(self, plan: _core.Plan) -> None:
        self._refs.add(ref(plan, self._refs.discard))

    def touching(self, plan: _core.Plan) -> list[_core.Plan]:
        """Those that write or average a parameter of this plan."""
        found = [other for alive in self._refs.copy() if (other := alive()) is not None]
        return [other for other in found if not other.retired and plan.overlaps(other)]


STEPPED = Plans()
"""The plans of optimizers: who averages parameters, or puts other values into them, keeps these from stepping."""


def named(params: Tree) -> tuple[tuple[str, ...], tuple[Array, ...]]:
    """The names and arrays of parameters, checked as those of an optimizer."""
    leaves = tree.flatten(params)
    tree.check_leaves(leaves)
    if not leaves:
        raise ValueError("no parameters: pass at least one array")
    names, arrays = tuple(name for name, _ in leaves), tuple(a for _, a in leaves)
    _core.check_parameters(names, arrays)
    return names, arrays


def plan_beside(engine: Engine, averages: Sequence[Array | None] = ()) -> _core.Plan:
    """A plan over an engine's parameters for passes outside its step, on its backend and in its flush mode."""
    main = engine.plan
    backend = ReferencePlan if isinstance(main, ReferencePlan) else _core.Plan
    none = (None,) * len(main.names)
    plan = backend(main.template, main.names, main.params, ((),) * len(none), tuple(averages) or none, main.flush)
    for i in range(len(none)):
        plan.assign(i, 0)
    return plan


def prepare_pass(
    engine: Engine, plan: _core.Plan, programs: list[list[tuple[str, dict[str, float]]]], factor: float = 1.0
) -> None:
    """Makes a plan beside an engine's ready to run over what it has admitted, with gradients times a factor."""
    plan.configure(math.inf, False, engine.options["threads"] or 0)
    plan.set_programs([passed(calls) for calls in programs], [[]], [factor])


def stepping(plan: _core.Plan) -> list[_core.Plan]:
    """The plans of all optimizers of parameters of this plan."""
    return STEPPED.touching(plan)
