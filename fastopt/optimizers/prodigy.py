"""Prodigy, in the conventions of its authors and of optax."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import sqrt
from typing import Any

from fastopt.base.arguments import at_least_0, boolean, from_0_below_1, one_of, passing, positive
from fastopt.base.tree import Array
from fastopt.core._core import corrections
from fastopt.engine.hyperparameters import Fixed, Hyperparameter
from fastopt.engine.program import Form, Scalar, Slot, Sum, Walk
from fastopt.optimizers.base import Optimizer


def _at_least_1(name: str, x: float) -> None:
    if not x >= 1:
        raise ValueError(f"{name} is {x!r}: expected a number, 1 or larger, math.inf for no limit")


class Prodigy(Optimizer):
    """Prodigy (Mishchenko & Defazio, 2023): Adam that estimates its step size d from how far the parameters have gone.

    With dlr = d lr:  num = b3 num + d/d0 dlr sum g (p0 - p);  m = b1 m + d (1 - b1) g;  v = b2 v + d^2 (1 - b2) g^2;
    s = b3 s + d/d0 dlr g;  d' = d_coef num / sum|s|;  p -= dlr m/(sqrt(v) + d eps), with d, once larger, from d'.

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : a factor of d, >= 0; leave it at 1, or a schedule that ends at 0. Groups have the same, or 0: such a group
        stands still beside the others, as if its gradients were None.
    betas : the decays of m and v, each in [0, 1).
    eps : >= 0.
    beta3 : the decay of s and num, in [0, 1); None is the root of b2.
    weight_decay : p -= dlr weight_decay p, >= 0.
    d0 : what d starts at, > 0.
    d_coef : a factor of the estimate of d, > 0.
    growth_rate : d grows by at most this factor a step, >= 1; only with update="authors".
    bias_correction : lr times sqrt(1 - b2^t)/(1 - b1^t), as optax always has it.
    safeguard_warmup : lr is not in s, so that a warm-up does not inflate d.
    update : "authors" keeps the largest estimate beside d, and jumps to it at first; "optax" takes the larger of both.

    d and the sums are of all parameters that have a gradient, and stand in `opt.scalars`. Where every gradient so far
    was 0, a step does nothing and is not counted. State: "m", "v", "s", and "start", the parameter when the optimizer
    was made.
    """

    __slots__ = ()
    divides_by_root_of_squares = True

    lr = Hyperparameter(at_least_0, 1.0)
    betas = Hyperparameter(from_0_below_1, (0.9, 0.999), pair=True)
    eps = Hyperparameter(at_least_0, 1e-8)
    weight_decay = Hyperparameter(at_least_0, 0.0)
    beta3 = Fixed(passing(from_0_below_1, optional=True), None)
    d0 = Fixed(positive, 1e-6)
    d_coef = Fixed(positive, 1.0)
    growth_rate = Fixed(passing(_at_least_1), float("inf"))
    bias_correction = Fixed(boolean, False)
    safeguard_warmup = Fixed(boolean, False)
    update = Fixed(lambda name, value: one_of(name, value, ("authors", "optax")), "authors")

    @classmethod
    def form(cls, h: Any, p: Array) -> Form:
        return Form(
            passes=(
                Scalar("prodigy_begin", all=True),
                Walk(
                    "prodigy_moments",
                    (Sum("dot_difference", ("g", "start", "p"), "dot"), Sum("sum_abs", ("s",), "den")),
                ),
                Scalar("prodigy_estimate", all=True),
                Walk("prodigy"),
            ),
            slots=(Slot("m"), Slot("v"), Slot("s"), Slot("start", start="p")),
            all=(("d", h.d0), ("num", 0.0), ("d_max", h.d0)),
            among=("dot", "den", "gain1", "gain2", "gain3", "dlr", "go", "step", "shrink", "eps_d"),
            decays_first=False,
        )

    @classmethod
    def moving(cls, groups: Mapping[int, Any]) -> Collection[int]:
        rates = {i: h.lr for i, h in groups.items() if h.lr != 0}
        first = next(iter(rates), 0)
        for i, lr in rates.items():
            if lr != rates[first]:
                raise ValueError(
                    f"groups {first} and {i} of Prodigy have lr {rates[first]!r} and {lr!r}: they share d, so give "
                    "them one lr, or 0 to a group that is to stand still"
                )
        return rates or groups

    @staticmethod
    def described(h: Any) -> str:
        return "Prodigy"

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        beta1, beta2 = h.betas
        beta3 = sqrt(beta2) if h.beta3 is None else h.beta3
        return {
            "beta1": beta1, "beta2": beta2, "beta3": beta3, "d0": h.d0, "d_coef": h.d_coef, "eps": h.eps,
            "decay": h.weight_decay, "growth": h.growth_rate, "by_max": float(h.update == "authors"),
            "safeguard": float(h.safeguard_warmup), "rate": h.lr,
        }  # fmt: skip

    @staticmethod
    def coefficients_at(h: Any, t: int) -> dict[str, float]:
        if not h.bias_correction:
            return {}
        beta1, beta2 = h.betas
        correction, root = corrections(beta1, beta2, t)
        return {"rate": h.lr * (root / correction)}
