"""Adamax: Adam with the largest gradient in place of the root of the mean square."""

from __future__ import annotations

from typing import Any

from fastopt.base.arguments import at_least_0, boolean, from_0_below_1
from fastopt.core._core import power
from fastopt.engine.hyperparameters import Fixed, Hyperparameter
from fastopt.optimizers.base import Optimizer


class Adamax(Optimizer):
    """Adamax (Kingma & Ba, 2015).

    m = b1 m + (1 - b1) g;  u = max(b2 u, |g| + eps);  p -= lr m / ((1 - b1^t) u)

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : learning rate, >= 0. Keras' default is 1e-3.
    betas : the decays of m and u, each in [0, 1).
    eps : >= 0; with 0, a gradient of 0 at the start gives 0/0.
    eps_outside : u = max(b2 u, |g|);  p -= lr m / ((1 - b1^t) (u + eps)) instead, as Keras and TensorFlow.

    State: "m" and "u". PyTorch's weight_decay is l2 here, and Keras' and optax.adamaxw's decoupled_decay.
    """

    __slots__ = ()

    lr = Hyperparameter(at_least_0, 2e-3)
    betas = Hyperparameter(from_0_below_1, (0.9, 0.999), pair=True)
    eps = Hyperparameter(at_least_0, 1e-8)
    eps_outside = Fixed(boolean, False)

    @staticmethod
    def kernel(h: Any) -> str:
        return "adamax"

    @staticmethod
    def described(h: Any) -> str:
        return "Adamax, eps outside" if h.eps_outside else "Adamax"

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        beta1, beta2 = h.betas
        inside, outside = (0.0, h.eps) if h.eps_outside else (h.eps, 0.0)
        return {"beta1": beta1, "gain1": 1 - beta1, "beta2": beta2, "eps_in": inside, "eps_out": outside}

    @staticmethod
    def coefficients_at(h: Any, t: int) -> dict[str, float]:
        return {"step": h.lr / (1 - power(h.betas[0], t))}
