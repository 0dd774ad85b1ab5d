"""NAdam, in both of its forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.base.arguments import at_least_0, from_0_below_1, passing
from fastopt.core._core import corrections, exp, log
from fastopt.engine.hyperparameters import Fixed, Hyperparameter
from fastopt.optimizers.adam import moments
from fastopt.optimizers.base import Optimizer


class NAdam(Optimizer):
    """NAdam (Dozat, 2016): Adam that steps along Nesterov's look-ahead of m.

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : learning rate, >= 0.
    betas : the decays of m and v, each in [0, 1).
    eps : >= 0.
    momentum_decay : None is the form without a schedule of the momentum (Ruder, 2016),
            p -= lr (b1 m + (1 - b1) g)/(1 - b1^t) / (sqrt(v/(1 - b2^t)) + eps);
        a number psi >= 0 (0 too) is PyTorch's and the paper's: mu_t = b1 (1 - 0.5 * 0.96^(t psi)), M_t their product,
            p -= lr (mu_{t+1} m/(1 - M_{t+1}) + (1 - mu_t) g/(1 - M_t)) / (sqrt(v/(1 - b2^t)) + eps).
        PyTorch's default is 0.004, Keras has 1.

    State: "m", "v", and the number "mu_product" with momentum_decay.
    """

    __slots__ = ()
    divides_by_root_of_squares = True

    lr = Hyperparameter(at_least_0, 2e-3)
    betas = Hyperparameter(from_0_below_1, (0.9, 0.999), pair=True)
    eps = Hyperparameter(at_least_0, 1e-8)
    momentum_decay = Fixed(passing(at_least_0, optional=True), None)

    @staticmethod
    def kernel(h: Any) -> str:
        return "nadam"

    @staticmethod
    def described(h: Any) -> str:
        return "NAdam" if h.momentum_decay is None else "NAdam with a schedule of the momentum"

    @staticmethod
    def initial_scalars(h: Any) -> Mapping[str, float]:
        return {} if h.momentum_decay is None else {"mu_product": 1.0}

    @staticmethod
    def advance(h: Any, scalars: dict[str, float], t: int) -> dict[str, float]:
        return {"mu_product": scalars["mu_product"] * _mu(h, t)}

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        return moments(h)

    @staticmethod
    def coefficients_at(h: Any, t: int) -> dict[str, float]:
        beta1, beta2 = h.betas
        correction, root = corrections(beta1, beta2, t)
        if h.momentum_decay is None:
            step_m, step_g = h.lr * beta1 / correction, h.lr * (1 - beta1) / correction
        else:
            ahead = _mu(h, t + 1)
            step_m = h.lr * ahead / (1 - h.mu_product * ahead)
            step_g = h.lr * (1 - _mu(h, t)) / (1 - h.mu_product)
        return {"unbias": 1 / root, "step_m": step_m, "step_g": step_g}


def _mu(h: Any, t: int) -> float:
    return float(h.betas[0]) * (1 - 0.5 * exp(t * h.momentum_decay * log(0.96)))
