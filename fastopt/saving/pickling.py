"""Pickling and copying an optimizer: with its parameters, so that a copy is as complete as the original.

Parameters are pickled as any array is: copied or pickled together with the model that holds them, both copies
hold the same arrays again. Everything that follows from the rest, as the plan and its memory, is made anew.
"""

from __future__ import annotations

from typing import Any

from fastopt.core import _core
from fastopt.saving import state_dict as state


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


def reduce(opt: Any) -> tuple[Any, ...]:
    # Where the parameters hold other values for a while, a copy would take those for its own.
    reduced: tuple[Any, ...] = _core.undisturbed([opt._engine.plan], _reduce, opt)
    return reduced


def _reduce(opt: Any) -> tuple[Any, ...]:
    reduced: Any = object.__reduce_ex__(opt, 2)
    make, args, (attributes, slots), *_ = reduced
    kept = {name: x for name, x in {**slots, **(attributes or {})}.items() if name != "_engine"}
    engine = opt._engine
    made = (dict(engine.options), dict(engine.fixed), dict(engine.common), engine.grouped, engine.lookahead)
    groups = [_group(engine, group) for group in engine.groups]
    return make, args, (kept, made, groups, state.save(opt, live=True), Unchanged(engine.plan))


def _group(engine: Any, group: Any) -> dict[str, Any]:
    """A group as it is passed to make another."""
    outline: dict[str, Any] = {"frozen": True} if group.frozen else {}
    if group.rule is not engine.cls:
        outline |= {name: x for name, x in group._fixed.items() if name in _own_fixed(group.rule)}
        outline["rule"] = group.rule
    return {**group, **outline}


def _own_fixed(rule: Any) -> list[str]:
    return [name for name, option in rule.own_options().items() if option.fixed and not option.derived]


def blank(cls: type[Any]) -> Any:
    """An instance that is yet to be restored."""
    return object.__new__(cls)


def restore(opt: Any, saved: tuple[Any, ...]) -> None:
    kept, (options, fixed, common, grouped, lookahead), groups, arrays, unchanged = saved
    for name, x in kept.items():
        # A shallow copy shares parameters with the original, and nothing else.
        setattr(opt, name, dict(x) if type(x) is dict else x)
    engine = opt._engine_class(opt, type(opt), options, fixed, common, grouped)
    opt._engine = engine
    engine.lookahead = lookahead
    engine.add([dict(group) for group in groups], anywhere=True)
    state.write(opt, arrays)
    check(unchanged)
