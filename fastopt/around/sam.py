"""Sharpness-aware minimization: a step takes its gradient from where the loss nearby is highest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastopt.around import accumulation
from fastopt.base.arguments import at_least_0, boolean, function, norm_order, shown
from fastopt.base.memory import zeros_for
from fastopt.base.nonfinite import NonFiniteError, first_nonfinite
from fastopt.base.tree import Array, Tree
from fastopt.core import _core
from fastopt.engine.engine import Engine, Report
from fastopt.engine.hyperparameters import Own, show
from fastopt.engine.passes import plan_beside, prepare_pass, stepping
from fastopt.schedules.base import Scalar

WHY = (
    "the parameters are at SAM's perturbed point: go on with second_step(grads) of the SAM, or give this step up with "
    "its restore()"
)


class SAM:
    """Sharpness-aware minimization around an optimizer: the gradient at p + e is used for a step from p.

    opt : any optimizer. It takes the step, and is used directly for all else: groups, hyperparameters, state, saving.
    rho : the size of e in the norm below, >= 0; a number, or a schedule (a callable of `opt.t`).
    norm : with w the gradients of all parameters together, e is
        2          rho w / |w|, |w| the 2-norm
        infinity   rho sign(w)
        1          rho sign(w) where |w| is largest (at the first of several), 0 elsewhere
    adaptive : w is p times the gradient g, and e the above times p, element by element: with norm 2 it is
        rho p^2 g / |p g|, with infinity rho |p| sign(g), with 1 rho |p| sign(g) where |p g| is largest.

    e is 0 where a gradient is None, and everywhere if all are 0; with maximize=True it has the other sign. Clipping,
    penalties, decay, proximal step and average belong to the step from p, with the second gradient: e knows none of
    them. Keeps one copy of the parameters, and with adaptive one more array for each.

        sam = fastopt.SAM(fastopt.SGD(params, lr=0.1, momentum=0.9), rho=0.05)
        report = sam.step(closure)          # closure() computes gradients at the parameters as they are

    Sources: Foret et al. (2021); adaptive: Kwon et al. (2021), without their eta; other norms: both.
    """

    rho = Own(at_least_0)

    def __init__(self, opt: Any, rho: Scalar = 0.05, norm: float = 2, adaptive: bool = False) -> None:
        if not isinstance(getattr(opt, "_engine", None), Engine):
            raise TypeError(f"opt is {shown(opt)}: expected an optimizer, for example fastopt.SGD(params, lr=0.1)")
        self.opt = opt
        self.rho = rho
        self.norm = norm_order("norm", norm)
        self.adaptive = boolean("adaptive", adaptive)
        self._displacement: _core.Displacement | None = None

    def step(self, closure: Callable[[], Any]) -> Report:
        """Calls closure() at p and at p + e, and steps from p with the second gradient; returns the step's report.

        closure : returns gradients at the parameters as they then are, in the form that `opt.step` takes; where
            `opt.takes_loss`, (loss, gradients), and the step takes both from p + e.

        An exception in it leaves the parameters as they were. With on_nonfinite="skip" of the optimizer, gradients at p
        that are not finite skip the step; otherwise they raise NonFiniteError.
        """
        function("closure", closure, "a function that returns gradients (or call first_step(grads))")
        (loss, first), moved = self._called(closure), False

        def there() -> tuple[Any, Tree]:
            nonlocal moved
            moved = True
            return self._called(closure)

        try:
            loss, grads = self._memory().around(there, *self._beginning(first))
        except NonFiniteError:
            if moved or self.opt.on_nonfinite != "skip":
                raise
            grads = first
        report: Report = self.opt.step(grads, loss=loss)
        return report

    def _called(self, closure: Callable[[], Any]) -> tuple[Any, Tree]:
        """What closure() gives: the loss, None where the optimizer takes none, and gradients."""
        loss, grads = None, closure()
        if self.opt.takes_loss:
            if not isinstance(grads, tuple) or len(grads) != 2:
                raise TypeError(
                    f"closure() returned {shown(grads)}: return (loss, gradients), as the step needs the loss"
                )
            loss, grads = grads
        if grads is None:
            raise TypeError("closure() returned None: return the gradients, in the form that opt.step takes")
        return loss, grads

    def first_step(self, grads: Tree) -> None:
        """Moves the parameters to p + e, e from these gradients at p. Until `second_step` or `restore`, no
        optimizer of these parameters takes a step.

        Raises NonFiniteError for gradients that are not finite, whatever `on_nonfinite` is; TypeError or ValueError
        for those that do not fit, and where their norm overflows. The parameters are then as they were.
        """
        self._memory().begin(*self._beginning(grads))

    def second_step(self, grads: Tree, *, loss: float | None = None) -> Report:
        """Moves the parameters back, bit for bit, and steps the optimizer with these gradients from p + e, and the loss
        there where it takes one."""
        if self._displacement is None or not self._displacement.begun:
            raise RuntimeError("second_step without a first: call first_step(grads) before it, or use step(closure)")
        self.restore()
        report: Report = self.opt.step(grads, loss=loss)
        return report

    def restore(self) -> None:
        """Moves the parameters back, bit for bit, without a step; does nothing where they are not moved."""
        if self._displacement is not None:
            self._displacement.end()

    def _memory(self) -> _core.Displacement:
        """What a step needs, made anew where groups were added."""
        main = self.opt._engine.plan
        if self._displacement is None or self._displacement.params is not main.params:
            self._plan = plan_beside(self.opt._engine)
            self._weighed = zeros_for(main.params if self.adaptive else ())
            self._displacement = _core.Displacement(main.params, lasting=True)
        return self._displacement

    def _beginning(self, grads: Tree) -> tuple[Any, ...]:
        """What the displacement begins with."""
        opt = self.opt
        accumulation.refuse_pending(opt._engine)
        rho = SAM.rho.at(opt.t, self.rho)
        return partial(stepping, opt._engine.plan), WHY, self._plan.admitted, grads, opt._engine.match, self._move, rho

    def _measure(self) -> float:
        """The norm of w, or max|w| for the other two; leaves w in the plan."""
        plan, given = self._plan, list(self._plan.grads)
        if self.adaptive:
            _core.flushing(plan.flush, _weigh, plan.params, given, self._weighed)
            plan.exchange([None if g is None else w for g, w in zip(given, self._weighed, strict=True)])
        size, _ = plan.measure("sum_squares" if self.norm == 2 else "max_abs")
        if math.isfinite(size):
            return size
        plan.exchange(given)
        if not plan.measure("max_abs")[1]:
            raise NonFiniteError(first_nonfinite(plan))
        product = "parameters times gradients" if self.adaptive else "the gradients"
        raise ValueError(f"the {self.norm}-norm of {product} is {size}: the step was not applied, nothing has changed")

    def _move(self, rho: float) -> None:
        """Moves the parameters by e, of this size, from the admitted gradients."""
        size = self._measure()
        sign = -1.0 if self.opt.maximize else 1.0
        perturb = "perturb_adaptive" if self.adaptive else "perturb"
        if size == 0:
            return
        if self.norm == 1:
            self._move_largest(size, sign * rho)
        elif self.norm == math.inf:
            self._run([("sign", {"one": 1.0}), (perturb, {"scale": rho})], sign)
        else:
            # Far from 1, rho / |w| is beyond float32, though e is not.
            unit = 2.0**100 if size < 1e-30 else 2.0**-100 if size > 1e30 else 1.0
            self._run([(perturb, {"scale": rho / (size * unit)})], sign * unit)

    def _run(self, program: list[tuple[str, dict[str, float]]], factor: float) -> None:
        prepare_pass(self.opt._engine, self._plan, [program], factor)
        self._plan.run()

    def _move_largest(self, size: float, rho: float) -> None:
        for p, w in zip(self._plan.params, self._plan.grads, strict=True):
            found = None if w is None else np.abs(w) == size
            if found is not None and found.any():
                at = np.unravel_index(np.argmax(found), p.shape)
                e = p.dtype.type(rho) * np.sign(w[at])  # type: ignore[index]
                p[at] += e * p[at] if self.adaptive else e
                return

    def __getstate__(self) -> dict[str, Any]:
        if self._displacement is not None and self._displacement.begun:
            raise RuntimeError(f"{WHY}; a SAM is copied or pickled after it")
        own = {name: x for name, x in vars(self).items() if name not in ("_plan", "_weighed")}
        return {**own, "_displacement": None}

    def __repr__(self) -> str:
        return f"SAM(rho={show(self.rho)}, norm={self.norm}, adaptive={self.adaptive}) around {self.opt!r}"


@np.errstate(all="ignore")
def _weigh(params: Sequence[Array], grads: Sequence[Array | None], products: Sequence[Array]) -> None:
    for p, g, w in zip(params, grads, products, strict=True):
        if g is not None:
            np.multiply(p, g, out=w)
