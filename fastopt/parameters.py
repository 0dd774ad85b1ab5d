"""Parameters outside a step: passes over them with plans of their own, and other values in them for a while."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from fastopt import _core, state, tree
from fastopt.hyperparameters import shown
from fastopt.memory import copies_of
from fastopt.numpy_backend import ReferencePlan
from fastopt.tree import Array, Tree

if TYPE_CHECKING:
    from fastopt.minimization import LBFGS
    from fastopt.optimizer import Optimizer

STEPPED: WeakSet[_core.Plan] = WeakSet()
"""The plans that step or average parameters: who puts other values into these holds them meanwhile."""


def named(params: Tree) -> tuple[tuple[str, ...], tuple[Array, ...]]:
    """The names and arrays of parameters, checked as those of an optimizer."""
    leaves = tree.flatten(params)
    tree.check_leaves(leaves)
    if not leaves:
        raise ValueError("no parameters: pass at least one array")
    names, arrays = tuple(name for name, _ in leaves), tuple(a for _, a in leaves)
    _core.check_parameters(names, arrays)
    return names, arrays


def take_named(what: str, names: Sequence[str], targets: Sequence[Array], saved: Any) -> None:
    """Copies saved arrays by name; raises ValueError with all that do not fit, before anything is changed."""
    mine = dict(zip(names, targets, strict=True))
    if not isinstance(saved, Mapping):
        raise ValueError(f"{what}s are {shown(saved)}: expected a dict of name -> array")
    problems = state._keys(f"{what}s of parameters", mine, saved)
    for name, target in mine.items() if not problems else ():
        problems += [problem for problem in [state._entry(f"{what} of {name!r}", target, saved[name])] if problem]
    if problems:
        raise ValueError("this state does not fit; nothing was changed:\n  " + "\n  ".join(problems))
    copy_all([saved[name] for name in names], targets)


def plan_beside(opt: Optimizer, kernel: str, averages: Sequence[Array | None] = ()) -> _core.Plan:
    """A plan over an optimizer's parameters for passes outside its step, on its backend and in its flush mode."""
    main, backend = opt._plan, _core.Plan if opt.backend == "c" else ReferencePlan
    none = (None,) * len(main.names)
    plan = backend(
        kernel, main.template, main.names, main.params, ((),) * len(none), tuple(averages) or none, main.flush
    )
    for i in range(len(none)):
        plan.assign(i, 0)
    return plan


def run_pass(opt: Optimizer, plan: _core.Plan, programs: list[_core.Program], factor: float = 1.0) -> None:
    """Runs a plan beside an optimizer's over what it has admitted, with gradients multiplied by a factor."""
    plan.configure(math.inf, factor, False, opt.threads or 0)
    plan.set_programs(programs)
    plan.run()


@contextmanager
def held(opt: Optimizer | LBFGS, why: str) -> Iterator[None]:
    """Keeps steps away for the length of a block; raises RuntimeError where something else does."""
    plan = opt._plan
    plan.hold(why)
    try:
        yield
    finally:
        plan.let_go()


class Block(AbstractContextManager[None]):
    """A with block that `make` makes, anew each time that it is entered."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        block = self._make()
        block.__enter__()
        self._entered.append(block)

    def __exit__(self, *error: Any) -> bool | None:
        return self._entered.pop().__exit__(*error)


class Displacement:
    """Parameters that hold other values for a while, and get their own back from copies, bit for bit.

    Plans that step them are held from `begin` to `end`.
    """

    def __init__(self, params: Sequence[Array]) -> None:
        self.params = params
        self.begun = False
        self._kept = copies_of(params)
        self._held: list[_core.Plan] = []

    def begin(self, plans: Sequence[_core.Plan], why: str) -> None:
        """Raises RuntimeError where a plan is held or inside a step already."""
        held: list[_core.Plan] = []
        try:
            for plan in plans:
                plan.hold(why)
                held.append(plan)
            copy_all(self.params, self._kept)
        except BaseException:
            _let_go(held)
            raise
        self._held, self.begun = held, True

    def end(self) -> None:
        copy_all(self._kept, self.params)
        self.begun = False
        _let_go(self._held)


def copy_all(sources: Sequence[Array], targets: Sequence[Array]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target[...] = source


def _let_go(plans: Sequence[_core.Plan]) -> None:
    for plan in plans:
        plan.let_go()
