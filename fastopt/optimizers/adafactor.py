"""Adafactor, in the conventions of PyTorch, Keras and optax."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from fastopt.base.arguments import at_least_0, boolean, from_0_below_1, pair_of, passing, whole
from fastopt.base.tree import Array
from fastopt.core._core import exp, log
from fastopt.engine.hyperparameters import Fixed, Hyperparameter, OtherName
from fastopt.engine.program import COLUMNS, ROWS, Form, Scalar, Slot, Sum, Walk
from fastopt.optimizers.base import Optimizer


def _eps(name: str, value: Any) -> tuple[float | None, float]:
    first, second = pair_of(name, value, "(None, 1e-3)")
    optional, needed = passing(at_least_0, optional=True), passing(at_least_0)
    return optional(f"{name}[0]", first), needed(f"{name}[1]", second)


def _at_least_1(name: str, x: float) -> None:
    if not x >= 1:
        raise ValueError(f"{name} is {x!r}: expected a number, 1 or larger, or None")


def _at_most_0(name: str, x: float) -> None:
    if not x <= 0:
        raise ValueError(f"{name} is {x!r}: expected a number, 0 or less")


class Adafactor(Optimizer):
    """Adafactor (Shazeer & Stern, 2018): second moments of a matrix from the means of its rows and its columns.

    With b = 1 - t^beta2_decay, over the last two axes:  r = b r + (1 - b) mean of g^2 over a row;  c the same of
    columns;  u = g / sqrt(r c / mean(r));  p -= max(eps2, RMS(p)) min(lr, 1/sqrt(t)) / max(1, RMS(u)/d) u

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : learning rate, >= 0.
    weight_decay : decoupled, by the plain lr, kept as decoupled_decay; >= 0.
    beta2_decay : <= 0.
    eps : (eps1, eps2), >= 0. eps1 is the least mean of r, and its square the least r c / mean(r), as PyTorch; None is
        the machine epsilon of the parameter's type.
    d : clips updates whose RMS is larger, >= 1; None does not look, and saves a walk.
    add_eps : eps1 is added to g^2 instead, as Keras and optax have it (1e-30).
    relative_step : False takes lr and not min(lr, 1/sqrt(t)), as optax.
    scale_parameter : False takes 1 for max(eps2, RMS(p)).
    decay_first : RMS(p) is of the decayed p, as Keras.
    momentum : an average of the updates with this decay, in [0, 1), as optax; None keeps none.
    factored : False keeps the second moment in full, as for tensors of less than two axes it always is.
    least_factored : the same for matrices with fewer rows or columns (optax 128); >= 0.

    State: "r" and "c", of rows and columns as they lie in memory, or "v"; "m" with momentum.
    """

    __slots__ = ()

    lr = Hyperparameter(at_least_0, 1e-2)
    weight_decay = OtherName("decoupled_decay", 0.0)
    beta2_decay = Fixed(passing(_at_most_0), -0.8)
    eps = Fixed(_eps, (None, 1e-3))
    d = Fixed(passing(_at_least_1, optional=True), 1.0)
    add_eps = Fixed(boolean, False)
    relative_step = Fixed(boolean, True)
    scale_parameter = Fixed(boolean, True)
    decay_first = Fixed(boolean, False)
    momentum = Fixed(passing(from_0_below_1, optional=True), None)
    factored = Fixed(boolean, True)
    least_factored = Fixed(lambda name, value: whole(name, value, 0), 0)

    @classmethod
    def form(cls, h: Any, p: Array) -> Form:
        matrix = h.factored and p.ndim >= 2 and min(p.shape[-2:]) >= h.least_factored
        if matrix and p.ndim > 2 and not p.flags.c_contiguous:
            raise ValueError(
                f"Adafactor takes a parameter of shape {p.shape} in C order: pass np.ascontiguousarray(a), or "
                "factored=False"
            )
        eps1 = float(np.finfo(p.dtype).eps) if h.eps[0] is None else h.eps[0]
        floors = (0.0, 0.0) if h.add_eps else (eps1, eps1 * eps1)
        numbers = (("floor_r", floors[0]), ("floor_v", floors[1]), ("eps_add", eps1 if h.add_eps else 0.0))
        last = ("adafactor" if matrix else "adafactor_unfactored") + ("" if h.momentum is None else "_momentum")
        size, update = Sum("sum_squares", ("p",), "pp"), Sum("sum_squares", ("u",), "uu")
        sums = (size,) * h.scale_parameter
        clip = (update,) * (h.d is not None)
        if matrix:
            scaled = (Walk("adafactor_scaled", clip),) * len(clip)
            walks: tuple[Walk, ...] = (Walk(None, sums, factors=True), *scaled)
            slots: tuple[Slot, ...] = (Slot("r", ROWS), Slot("c", COLUMNS), Slot("a", ROWS, saved=False))
        else:
            walks, slots = (Walk("adafactor_unfactored_moment", sums + clip),), (Slot("v"),)
        return Form(
            passes=(*walks, Scalar("adafactor_step"), Walk(last)),
            slots=slots if h.momentum is None else (*slots, Slot("m")),
            scratch=("u",),
            tensor=("pp", "uu", "step", "elements"),
            decays_first=h.decay_first,
            numbers=numbers,
        )

    @staticmethod
    def described(h: Any) -> str:
        return "Adafactor" + ("" if h.momentum is None else " with momentum")

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        momentum = {} if h.momentum is None else {"beta": h.momentum, "gain_m": 1 - h.momentum}
        scale = {"eps2": h.eps[1], "relative": float(h.scale_parameter), "clipping": h.d or 0.0}
        return {"rate": h.lr, **scale, **momentum}

    @staticmethod
    def coefficients_at(h: Any, t: int) -> dict[str, float]:
        gain = exp(h.beta2_decay * log(float(t)))
        numbers = {"gain": gain, "keep": 1 - gain}
        return {**numbers, "rate": min(h.lr, 1 / sqrt(t))} if h.relative_step else numbers
