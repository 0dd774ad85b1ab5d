"""RMSprop, centered and with momentum."""

from __future__ import annotations

from typing import Any

from fastopt.base.arguments import at_least_0, boolean, from_0_below_1
from fastopt.engine.hyperparameters import Fixed, Hyperparameter
from fastopt.optimizers.momentum import WithMomentum


class RMSprop(WithMomentum):
    """RMSprop (Tieleman & Hinton, 2012): v = rho v + (1 - rho) g^2;  p -= lr g / (sqrt(v) + eps).

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : learning rate, >= 0.
    rho : decay of the squared gradient, in [0, 1) (PyTorch calls it alpha, default 0.99).
    eps : >= 0; outside the root.
    eps_inside_sqrt : sqrt(v + eps) instead, as TensorFlow and Keras have it.
    centered : divide by the standard deviation: v - m^2 for v, with m = rho m + (1 - rho) g. Where rounding makes
        the variance negative it is 0 (PyTorch gives NaN).
    momentum : mu, in [0, 1): b = mu b + g / (...);  p -= lr b, as PyTorch (Keras takes lr into b). Whether there
        is any is fixed at construction.

    State: "v", "m" where centered, "b" where there is momentum.
    """

    __slots__ = ()
    divides_by_root_of_squares = True

    lr = Hyperparameter(at_least_0, 1e-2)
    rho = Hyperparameter(from_0_below_1, 0.9)
    eps = Hyperparameter(at_least_0, 1e-8)
    momentum = Hyperparameter(from_0_below_1, 0.0)
    eps_inside_sqrt = Fixed(boolean, False)
    centered = Fixed(boolean, False)

    @staticmethod
    def kernel(h: Any) -> str:
        return "rmsprop" + ("_centered" if h.centered else "") + ("_momentum" if h.has_momentum else "")

    @staticmethod
    def described(h: Any) -> str:
        return (
            "RMSprop"
            + (", centered" if h.centered else "")
            + (", with momentum" if h.has_momentum else "")
            + (", eps inside the root" if h.eps_inside_sqrt else "")
        )

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        inside = h.eps_inside_sqrt
        numbers = {"eps_in": h.eps if inside else 0.0, "eps_out": 0.0 if inside else h.eps, "step": h.lr}
        momentum = {"mu": h.momentum} if h.has_momentum else {}
        return {"rho": h.rho, "gain": 1 - h.rho, **numbers, **momentum}
