"""Averaged gradient descent, as PyTorch has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.base.arguments import at_least_0, finite
from fastopt.engine.hyperparameters import Fixed, Hyperparameter
from fastopt.optimizers.base import Optimizer
from fastopt.schedules.elementary import power


class ASGD(Optimizer):
    """Averaged gradient descent (Polyak & Juditsky, 1992), with the rate of Bottou's implementation.

    eta = lr / (1 + lambd lr (t - 1))^alpha, of the lr of the step before;  p = (1 - lambd eta) p - eta g;
    ax = (1 - mu) ax + mu p, mu = 1 / max(1, t - 1 - t0)

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : learning rate, >= 0. A new one counts from the step after, as in PyTorch.
    lambd : the decay of p, and of eta, >= 0.
    alpha : the power of the decay of eta, >= 0.
    t0 : the step at which averaging starts; until then ax is p.

    State: "ax", the average, to be used in place of p in the end, and the numbers "eta" and "rate", the last lr.
    """

    __slots__ = ()

    lr = Hyperparameter(at_least_0, 1e-2)
    lambd = Hyperparameter(at_least_0, 1e-4)
    alpha = Hyperparameter(at_least_0, 0.75)
    t0 = Fixed(finite, 1e6)

    @staticmethod
    def kernel(h: Any) -> str:
        return "asgd"

    @staticmethod
    def described(h: Any) -> str:
        return "averaged gradient descent"

    @staticmethod
    def initial_scalars(h: Any) -> Mapping[str, float]:
        return {"eta": 0.0, "rate": 0.0}

    @staticmethod
    def advance(h: Any, scalars: dict[str, float], t: int) -> dict[str, float]:
        before = scalars["rate"]
        eta = h.lr if t == 1 else before * power(1 / (1 + h.lambd * before * (t - 1)), h.alpha)
        return {"eta": eta, "rate": h.lr}

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        return {}

    @staticmethod
    def coefficients_at(h: Any, t: int) -> dict[str, float]:
        mu = 1 / max(1.0, t - 1 - h.t0)
        return {"keep": 1 - h.lambd * h.eta, "step": h.eta, "decay": 1 - mu, "gain": mu}
