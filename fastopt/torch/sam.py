"""Sharpness-aware minimization around an optimizer of PyTorch: fastopt/around/sam.py, for tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from fastopt.base.arguments import at_least_0, boolean, function, norm_order, shown, within
from fastopt.base.nonfinite import NonFiniteError
from fastopt.core import _core
from fastopt.torch import displaced, door, walks
from fastopt.torch.binding import SOURCE

WHY = (
    "the parameters are at SAM's perturbed point: go on with second_step() of the SAM, or give this step up with its "
    "restore()"
)


class SAM:
    """Sharpness-aware minimization around an optimizer: the gradient at p + e is used for a step from p.

    opt : an optimizer of this package, or any of PyTorch. It takes the step, and is used directly for all else: groups,
        schedulers, state, saving.
    rho : the size of e in the norm below, >= 0; may be assigned between steps.
    norm : with w the gradients of all parameters together, e is
        2          rho w / |w|, |w| the 2-norm
        infinity   rho sign(w)
        1          rho sign(w) where |w| is largest (at the first of several), 0 elsewhere
    adaptive : w is p times the gradient g, and e the above times p, element by element.

    e is 0 where a gradient is None, and everywhere if all are 0; of groups with maximize=True it has the other sign.
    Clipping, decay and average of the optimizer belong to the step from p, with the second gradient. Keeps a copy of
    the parameters between its two halves. The bits are those of fastopt.SAM that keeps subnormals.

        sam = fastopt.torch.SAM(fastopt.torch.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05)
        loss = sam.step(closure)  # closure() clears the gradients, computes the loss, calls backward() and returns it

    Sources: Foret et al. (2021); adaptive: Kwon et al. (2021), without their eta; other norms: both.
    """

    def __init__(self, opt: torch.optim.Optimizer, rho: float = 0.05, norm: float = 2, adaptive: bool = False) -> None:
        if not isinstance(opt, torch.optim.Optimizer):
            raise TypeError(
                f"opt is {shown(opt)}: expected an optimizer, for example fastopt.torch.SGD(params, lr=0.1)"
            )
        self.opt = opt
        self.rho = rho
        self.norm = norm_order("norm", norm)
        self.adaptive = boolean("adaptive", adaptive)
        self._moved: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def rho(self) -> float:
        return self._rho

    @rho.setter
    def rho(self, value: float) -> None:
        self._rho = within("rho", value, at_least_0)

    def step(self, closure: Callable[[], Any]) -> Any:
        """Calls closure() at p and at p + e, and steps from p with the second gradients; returns what it gave at p.

        An exception in it leaves the parameters as they were. With on_nonfinite="skip" of the optimizer, gradients at p
        that are not finite skip the step; otherwise they raise NonFiniteError.
        """
        function("closure", closure, "a function that computes gradients (or call first_step())")
        with torch.enable_grad():
            loss = closure()
        try:
            self.first_step()
        except NonFiniteError:
            if getattr(self.opt, "on_nonfinite", None) != "skip":
                raise
        else:
            try:
                with torch.enable_grad():
                    closure()
            finally:
                self.restore()
        self.opt.step()
        return loss

    def first_step(self) -> None:
        """Moves the parameters to p + e, e from the gradients that they have. Until `second_step` or `restore`, no
        optimizer of these parameters takes a step.

        Raises NonFiniteError for gradients that are not finite, TypeError or ValueError for those that do not fit and
        where their norm overflows. The parameters are then as they were.
        """
        if self._moved:
            raise RuntimeError(WHY)
        params, names = self._params()
        signs = self._signs()
        grads = [g.resolve_neg() for p in params if (g := p.grad) is not None]
        with_gradient = [p for p in params if p.grad is not None]
        w = [torch.mul(p.detach(), g) for p, g in zip(with_gradient, grads, strict=True)] if self.adaptive else grads
        size = self._measure(w, grads, [name for p, name in zip(params, names, strict=True) if p.grad is not None])
        displaced.send_away(params, WHY)
        try:
            self._moved = [(p, p.detach().clone(memory_format=torch.preserve_format)) for p in params]
            if size:
                self._move(with_gradient, w, size, [signs[id(p)] for p in with_gradient])
        except BaseException:
            self.restore()
            raise

    def second_step(self) -> None:
        """Moves the parameters back, bit for bit, and steps the optimizer with the gradients that they have now."""
        if not self._moved:
            raise RuntimeError("second_step without a first: call first_step() before it, or use step(closure)")
        self.restore()
        self.opt.step()

    def restore(self) -> None:
        """Moves the parameters back, bit for bit, without a step; does nothing where they are not moved."""
        moved, self._moved = self._moved, []
        with torch.no_grad():
            for p, before in moved:
                p.copy_(before)
        displaced.bring_back([p for p, _ in moved])

    def _params(self) -> tuple[list[torch.Tensor], list[str]]:
        """The parameters and what they are called, refused where a step could not move them."""
        groups = self.opt.param_groups
        params, names = [p for group in groups for p in group["params"]], door.names(groups)
        for p, name in zip(params, names, strict=True):
            for what, tensor in ((name, p), (f"the gradient of {name}", p.grad)):
                found = None if tensor is None else door.trouble(what, tensor)
                if found is not None:
                    raise TypeError(f"{found}; SAM moves such parameters alone")
            if p.grad is not None and (p.grad.shape != p.shape or p.grad.dtype != p.dtype):
                raise ValueError(f"the gradient of {name} has not the shape and dtype of its parameter")
        return params, names

    def _signs(self) -> dict[int, float]:
        return {
            id(p): -1.0 if group.get("maximize") else 1.0 for group in self.opt.param_groups for p in group["params"]
        }

    def _measure(self, w: list[torch.Tensor], grads: list[torch.Tensor], names: list[str]) -> float:
        """The norm of w, or max|w| for the other two norms."""
        size, _ = _core.TensorViews(SOURCE, w).norm("sum_squares" if self.norm == 2 else "max_abs")
        if math.isfinite(size):
            return size
        for name, g in zip(names, grads, strict=True):
            if not bool(torch.isfinite(g).all()):
                count = int((~torch.isfinite(g)).sum())
                raise NonFiniteError(f"the gradient of {name} has {count} elements that are NaN or infinite")
        product = "parameters times gradients" if self.adaptive else "the gradients"
        raise ValueError(f"the {self.norm}-norm of {product} is {size}: the step was not applied, nothing has changed")

    def _move(self, params: list[torch.Tensor], w: list[torch.Tensor], size: float, signs: list[float]) -> None:
        perturb = "perturb_adaptive" if self.adaptive else "perturb"
        if self.norm == 1:
            self._move_largest(params, w, size, signs)
            return
        if self.norm == math.inf:
            calls: walks.Calls = [("sign", {"one": 1.0}), (perturb, {"scale": self.rho})]
            unit = 1.0
        else:
            # Far from 1, rho / |w| is beyond float32, though e is not.
            unit = 2.0**100 if size < 1e-30 else 2.0**-100 if size > 1e30 else 1.0
            calls = [(perturb, {"scale": self.rho / (size * unit)})]
        for sign in sorted(set(signs)):
            chosen = [i for i, x in enumerate(signs) if x == sign]
            threads = getattr(self.opt, "threads", None)
            walks.move([params[i] for i in chosen], [w[i] for i in chosen], calls, sign * unit, threads)

    def _move_largest(self, params: list[torch.Tensor], w: list[torch.Tensor], size: float, signs: list[float]) -> None:
        for p, x, sign in zip(params, w, signs, strict=True):
            found = (x.abs() == size).nonzero()
            if len(found):
                at = tuple(found[0].tolist())
                e = torch.tensor(sign * self.rho, dtype=p.dtype) * torch.sign(x[at])
                with torch.no_grad():
                    p[at] += e * p[at] if self.adaptive else e
                return

    def __getstate__(self) -> dict[str, Any]:
        if self._moved:
            raise RuntimeError(f"{WHY}; a SAM is copied or pickled after it")
        return vars(self)

    def __repr__(self) -> str:
        return f"SAM(rho={self.rho}, norm={self.norm}, adaptive={self.adaptive}) around {self.opt!r}"
