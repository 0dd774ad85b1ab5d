"""Nesterov's momentum as he wrote it: the gradient is taken where the momentum alone would lead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from fastopt.parameters import Block, Displacement, plan_beside, run_pass

if TYPE_CHECKING:
    from fastopt import _core
    from fastopt.optimizer import Optimizer

WHY = "the parameters are at the look-ahead point until the `with opt.lookahead():` block ends: do this after it"


class LookAhead:
    """The way to the look-ahead point and back, with its memory, for one optimizer as it now is."""

    def __init__(self, opt: Optimizer) -> None:
        self.main = opt._plan
        self.plan = plan_beside(opt, "perturb")
        self.displacement = Displacement(self.main.params)

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
        self.plan.admit((), lambda _: buffers)
        try:
            run_pass(opt, self.plan, programs)
        finally:
            self.plan.release()


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
    return Block(lambda: _ahead(opt))


@contextmanager
def _ahead(opt: Optimizer) -> Iterator[None]:
    if opt._lookahead is None or opt._lookahead.main is not opt._plan:
        opt._lookahead = LookAhead(opt)
    ahead = opt._lookahead
    ahead.displacement.begin([opt._plan], WHY)
    try:
        ahead.move(opt)
        yield
    finally:
        ahead.displacement.end()
