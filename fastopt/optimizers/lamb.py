"""LAMB, in the conventions of optax, Keras, DeepSpeed and timm."""

from __future__ import annotations

import math
from typing import Any

from fastopt.base.arguments import at_least_0, boolean, from_0_below_1, number, pair_of, passing, shown
from fastopt.base.tree import Array
from fastopt.core._core import corrections
from fastopt.engine.hyperparameters import Fixed, Hyperparameter
from fastopt.engine.program import Form, Scalar, Slot, Sum, Walk
from fastopt.optimizers.adam import moments
from fastopt.optimizers.base import Optimizer

FORM = Form(
    passes=(
        Walk("lamb_moments", (Sum("sum_squares", ("p",), "pp"), Sum("sum_squares", ("u",), "uu"))),
        Scalar("trust"),
        Walk("lamb"),
    ),
    slots=(Slot("m"), Slot("v")),
    scratch=("u",),
    tensor=("pp", "uu", "step"),
)


def _limits(name: str, value: Any) -> tuple[float, float]:
    low, high = (number(f"{name}[{i}]", x) for i, x in enumerate(pair_of(name, value, "(0.01, 10.0)")))
    if not 0 <= low <= high:
        raise ValueError(f"{name} is {shown(value)}: expected 0 <= low <= high")
    return low, high


def _above_0(name: str, x: float) -> None:
    if not x > 0:
        raise ValueError(f"{name} is {x!r}: expected a number larger than 0, math.inf for no limit")


class LAMB(Optimizer):
    """LAMB (You et al., 2020): Adam whose step of each tensor is as long as the tensor, times lr.

    u = m/(1 - b1^t) / (sqrt(v/(1 - b2^t)) + eps) + weight_decay p;  p -= lr |p|/|u| u, the ratio 1 where a norm is 0.

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : learning rate, >= 0.
    betas : the decays of m and v, each in [0, 1).
    eps : >= 0.
    weight_decay : within u, and so within the ratio, as the paper and optax; >= 0. Outside, as Keras: decoupled_decay.
    correct_v : False leaves v without its correction, as the authors' first code.
    largest_norm : |p| counts as at most this (the paper's phi; 10 in some collections).
    norm_eps : added to |u|, >= 0.
    ratio_limits : the ratio is kept within these, such as (0.01, 10.0) in DeepSpeed, (0, 1.0) for timm's lambc.

    The ratio is of a tensor: put biases and norms in a group with another rule where they are not to have one. With
    decoupled_decay, |p| is that of the decayed p. State: "m", "v".
    """

    __slots__ = ()
    divides_by_root_of_squares = True

    lr = Hyperparameter(at_least_0, 1e-3)
    betas = Hyperparameter(from_0_below_1, (0.9, 0.999), pair=True)
    eps = Hyperparameter(at_least_0, 1e-6)
    weight_decay = Hyperparameter(at_least_0, 0.0)
    correct_v = Fixed(boolean, True)
    largest_norm = Fixed(passing(_above_0), math.inf)
    norm_eps = Fixed(passing(at_least_0), 0.0)
    ratio_limits = Fixed(_limits, (0.0, math.inf))

    @classmethod
    def form(cls, h: Any, p: Array) -> Form:
        return FORM

    @staticmethod
    def described(h: Any) -> str:
        return "LAMB"

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        low, high = h.ratio_limits
        limits = {"largest": h.largest_norm, "eps_norm": h.norm_eps, "low": low, "high": high}
        return {**moments(h), "decay": h.weight_decay, "lr": h.lr, **limits}

    @staticmethod
    def coefficients_at(h: Any, t: int) -> dict[str, float]:
        beta1, beta2 = h.betas
        correction, root = corrections(beta1, beta2, t)
        return {"correct": 1 / correction, "unbias": 1 / root if h.correct_v else 1.0}
