"""Nesterov's momentum as he wrote it: the gradient is taken where the momentum alone would lead."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from fastopt.core import _core
from fastopt.engine.passes import plan_beside, prepare_pass, stepping

if TYPE_CHECKING:
    from fastopt.optimizers.base import Optimizer

WHY = "the parameters are at the look-ahead point until the `with opt.lookahead():` block ends: do this after it"


class LookAhead:
    """The way to the look-ahead point and back, with its memory, for one optimizer as it now is."""

    def __init__(self, opt: Optimizer) -> None:
        self.main = opt._plan
        self.plan = plan_beside(opt, "perturb")
        self.displacement = _core.Displacement(self.main.params, lasting=True)

    def move(self, opt: Optimizer) -> None:
        """p -= step mu b, which is what the coming step does to p with a gradient of 0 and no damping of b."""
        opt._prepare()
        programs: list[_core.Program] = []
        for cohort in opt._cohorts:
            coefficients = opt.coefficients(cohort.h)
            programs.append([("perturb", {"scale": -(coefficients["step"] * coefficients["mu"])})])
            for i in cohort.members:
                self.plan.assign(i, cohort.index)
        buffers = [b for (b,) in self.main.states]
        prepare_pass(opt, self.plan, programs)
        self.plan.admitted((), lambda _: buffers, self.plan.run)


def lookahead(opt: Optimizer) -> AbstractContextManager[None]:
    if opt.rule != "momentum":
        if opt.rule == "nesterov":
            raise TypeError(
                "this SGD has nesterov=True, whose parameters are look-ahead points already: make it with "
                "nesterov=False to use lookahead()"
            )
        raise TypeError(
            f"lookahead() is for SGD with momentum, and this is {type(opt).__name__} ({opt.formula}): "
            "use fastopt.SGD(params, lr, momentum=0.9)"
        )
    ahead = opt._lookahead
    if ahead is None or ahead.main is not opt._plan:
        opt._lookahead = ahead = LookAhead(opt)
    return _core.Displaced(ahead.displacement, partial(stepping, ahead.main), WHY, ahead.move, opt)
