"""Adadelta."""

from __future__ import annotations

from typing import Any

from fastopt.base.arguments import at_least_0, from_0_to_1
from fastopt.engine.hyperparameters import Hyperparameter
from fastopt.optimizers.base import Optimizer


def _above_0(name: str, x: float) -> None:
    if not 0 < x < float("inf"):
        raise ValueError(
            f"{name} is {x!r}: expected a finite number larger than 0, for 0/0 is what a gradient of 0 gives"
        )


class Adadelta(Optimizer):
    """Adadelta (Zeiler, 2012): the step has the size of the steps before it.

    v = rho v + (1 - rho) g^2;  d = sqrt(u + eps) / sqrt(v + eps) g;  u = rho u + (1 - rho) d^2;  p -= lr d

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : a factor of the step, >= 0. Keras' default is 1e-3.
    rho : the decay of v and u, in [0, 1]. Keras' default is 0.95.
    eps : > 0; the first steps are about as large as its root. Keras' default is 1e-7.

    State: "v" and "u". PyTorch's weight_decay is l2 here, and Keras' decoupled_decay.
    """

    __slots__ = ()

    lr = Hyperparameter(at_least_0, 1.0)
    rho = Hyperparameter(from_0_to_1, 0.9)
    eps = Hyperparameter(_above_0, 1e-6)

    @staticmethod
    def kernel(h: Any) -> str:
        return "adadelta"

    @staticmethod
    def described(h: Any) -> str:
        return "Adadelta"

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        return {"rho": h.rho, "gain": 1 - h.rho, "eps": h.eps, "step": h.lr}
