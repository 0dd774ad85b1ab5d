"""Nesterov's momentum as he wrote it: the gradient is taken where the momentum alone would lead."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastopt.core import _core
from fastopt.engine.passes import plan_beside, prepare_pass, stepping

if TYPE_CHECKING:
    from fastopt.engine.engine import Engine

WHY = "the parameters are at the look-ahead point until the `with opt.nesterov_point():` block ends: do this after it"


class NesterovPoint:
    """The way to Nesterov's point and back, with its memory, for one engine as it now is."""

    def __init__(self, engine: Engine) -> None:
        self.main = engine.plan
        self.plan = plan_beside(engine)
        self.displacement = _core.Displacement(self.main.params, lasting=True)

    def move(self, engine: Engine) -> None:
        """p -= step mu b, which is what the coming step does to p with a gradient of 0 and no damping of b."""
        engine.prepare()
        programs: list[list[tuple[str, dict[str, float]]]] = []
        for cohort in engine.cohorts:
            coefficients = engine.groups[cohort.group].rule.coefficients(cohort.h)
            programs.append([("perturb", {"scale": -(coefficients["step"] * coefficients["mu"])})])
            for i in cohort.members:
                self.plan.assign(i, cohort.index)
        buffers = [state[0] if state else None for state in self.main.states]
        prepare_pass(engine, self.plan, programs)
        self.plan.admitted((), lambda _: buffers, self.plan.run)


def nesterov_point(opt: Any) -> AbstractContextManager[None]:
    engine = opt._engine
    kernels = {cohort.form.kernel for cohort in engine.cohorts}
    if kernels - {"momentum"}:
        if kernels == {"nesterov"}:
            raise TypeError(
                "this SGD has nesterov=True, whose parameters are look-ahead points already: make it with "
                "nesterov=False to use nesterov_point()"
            )
        raise TypeError(
            f"nesterov_point() is for SGD with momentum, and this is {type(opt).__name__} ({opt.formula}): "
            "use fastopt.SGD(params, lr, momentum=0.9)"
        )
    point = engine.point
    if point is None or point.main is not engine.plan:
        engine.point = point = NesterovPoint(engine)
    return _core.Displaced(point.displacement, partial(stepping, point.main), WHY, point.move, engine)
