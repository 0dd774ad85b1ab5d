"""Pickling and copying an optimizer: with its parameters, so that a copy is as complete as the original.

Parameters are pickled as any array is: copied or pickled together with the model that holds them, both copies
hold the same arrays again. Everything that follows from the rest, as the plan and its memory, is made anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastopt.core import _core
from fastopt.engine.hyperparameters import hyperparameters
from fastopt.saving import state_dict as state

if TYPE_CHECKING:
    from fastopt.optimizers.base import Optimizer

MADE_ANEW = {
    "_accumulated",
    "_accumulation",
    "_changing",
    "_carrying",
    "_cohorts",
    "_current",
    "_current_options",
    "_groups",
    "_hyperparameters",
    "_lookahead",
    "_plan",
    "_schedules",
    "_skipped",
    "_stale",
    "_t",
}


class Unchanged:
    """Comes last in what is pickled or copied, whose arrays are the live ones: refuses it where they were written to
    meanwhile."""

    def __init__(self, plan: _core.Plan) -> None:
        self._plan, self._changes = plan, plan.changes

    def check(self) -> None:
        if self._plan.changes != self._changes:
            raise RuntimeError(
                "the optimizer was stepped or changed by another thread while it was pickled or copied: do this "
                "between steps, or save state_dict()"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        self.check()
        return bool, ()


def check(unchanged: Any) -> None:
    # In a shallow copy nothing was pickled.
    if isinstance(unchanged, Unchanged):
        unchanged.check()


def reduce(opt: Optimizer) -> tuple[Any, ...]:
    # Where the parameters hold other values for a while, a copy would take those for its own.
    reduced: tuple[Any, ...] = _core.undisturbed([opt._plan], _reduce, opt)
    return reduced


def _reduce(opt: Optimizer) -> tuple[Any, ...]:
    reduced: Any = object.__reduce_ex__(opt, 2)
    make, args, (attributes, slots), *_ = reduced
    kept = {name: x for name, x in {**slots, **(attributes or {})}.items() if name not in MADE_ANEW}
    groups = [dict(group) for group in opt.groups]
    return make, args, (kept, groups, state.save(opt, live=True), Unchanged(opt._plan))


def blank(cls: type[Any]) -> Any:
    """An instance that is yet to be restored."""
    return object.__new__(cls)


def restore(opt: Optimizer, saved: tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any], Any]) -> None:
    kept, groups, arrays, unchanged = saved
    for name, x in kept.items():
        # A shallow copy shares parameters with the original, and nothing else.
        setattr(opt, name, dict(x) if type(x) is dict else x)
    opt._hyperparameters = hyperparameters(type(opt))
    opt._begin(groups)
    state.write(opt, arrays)
    check(unchanged)
