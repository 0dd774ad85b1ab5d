"""RAdam, by the kernels of Adam and NAdam."""

from __future__ import annotations

from math import sqrt
from typing import Any

from fastopt.base.arguments import at_least_0, boolean, finite, from_0_below_1
from fastopt.core._core import power
from fastopt.engine.hyperparameters import Fixed, Hyperparameter
from fastopt.optimizers.adam import moments
from fastopt.optimizers.base import Optimizer


class RAdam(Optimizer):
    """RAdam (Liu et al., 2020): Adam that goes by momentum alone until the variance of its step is tractable.

    With top = 2/(1 - b2) - 1 and n = top - 2 t b2^t/(1 - b2^t), Adam's step times
    r = sqrt((n - 4)(n - 2) top / ((top - 4)(top - 2) n)) where n > threshold, else p -= lr m/(1 - b1^t).

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : learning rate, >= 0.
    betas : the decays of m and v, each in [0, 1). With b2 <= 2/3 there is momentum only; with 0.999 until the 6th step.
    eps : >= 0.
    eps_hat : eps beside the uncorrected root of v, as PyTorch; False is Adam's place, as optax.
    nesterov : NAdam's mean of m and g in place of m, as optax's option.
    threshold : of n, 4 or larger: there r begins.

    State: "m" and "v". PyTorch's weight_decay is l2 here, and decoupled_decay with its decoupled_weight_decay=True.
    """

    __slots__ = ()
    divides_by_root_of_squares = True

    lr = Hyperparameter(at_least_0, 1e-3)
    betas = Hyperparameter(from_0_below_1, (0.9, 0.999), pair=True)
    eps = Hyperparameter(at_least_0, 1e-8)
    eps_hat = Fixed(boolean, True)
    nesterov = Fixed(boolean, False)
    threshold = Fixed(lambda name, value: _at_least_4(name, value), 5.0)

    @staticmethod
    def kernel(h: Any) -> str:
        return "nadam" if h.nesterov else "adam"

    @staticmethod
    def described(h: Any) -> str:
        return "RAdam, Nesterov" if h.nesterov else "RAdam"

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        return moments(h)

    @staticmethod
    def coefficients_at(h: Any, t: int) -> dict[str, float]:
        beta1, beta2 = h.betas
        correction, root = 1 - power(beta1, t), sqrt(1 - power(beta2, t))
        rectified = _rectifier(beta2, t, h.threshold)
        rate = h.lr
        if rectified is None:
            # The divisor is 1.
            found = {"unbias": 0.0, "eps": 1.0}
        elif h.eps_hat:
            found, rate = {"unbias": 1.0, "eps": h.eps}, h.lr * rectified * root
        else:
            found, rate = {"unbias": 1 / root, "eps": h.eps}, h.lr * rectified
        if not h.nesterov:
            return found | {"step": rate / correction}
        ahead = 1 - power(beta1, t + 1)
        return found | {"step_m": rate * beta1 / ahead, "step_g": rate * (1 - beta1) / correction}


def _rectifier(beta2: float, t: int, threshold: float) -> float | None:
    """r, or None where the variance is not tractable."""
    top = 2 / (1 - beta2) - 1
    decayed = power(beta2, t)
    n = top - 2 * t * decayed / (1 - decayed)
    if not n > threshold:
        return None
    return sqrt((n - 4) * (n - 2) * top / ((top - 4) * (top - 2) * n))


def _at_least_4(name: str, value: Any) -> float:
    x = finite(name, value)
    if not x >= 4:
        raise ValueError(f"{name} is {x!r}: expected a number, 4 or larger, as r is 0 at 4")
    return x
