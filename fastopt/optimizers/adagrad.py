"""AdaGrad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.base.arguments import at_least_0, boolean, passing
from fastopt.engine.hyperparameters import Fixed, Hyperparameter
from fastopt.optimizers.base import Optimizer


class Adagrad(Optimizer):
    """AdaGrad (Duchi, Hazan & Singer, 2011): s += g^2;  p -= lr g / (sqrt(s) + eps).

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : learning rate, >= 0.
    eps : >= 0; outside the root.
    eps_inside_sqrt : sqrt(s + eps) instead, as Keras has it.
    initial_accumulator : what s starts at, >= 0 (PyTorch 0, Keras and optax 0.1).
    lr_decay : lr / (1 + (t - 1) lr_decay) at a parameter's t-th step, as PyTorch; >= 0.

    State: "s".
    """

    __slots__ = ()
    divides_by_root_of_squares = True

    lr = Hyperparameter(at_least_0, 1e-2)
    eps = Hyperparameter(at_least_0, 1e-10)
    eps_inside_sqrt = Fixed(boolean, False)
    initial_accumulator = Fixed(passing(at_least_0), 0.0)
    lr_decay = Fixed(passing(at_least_0), 0.0)

    @staticmethod
    def kernel(h: Any) -> str:
        return "adagrad"

    @staticmethod
    def described(h: Any) -> str:
        return "AdaGrad, eps inside the root" if h.eps_inside_sqrt else "AdaGrad"

    @staticmethod
    def starts(h: Any) -> Mapping[str, float | str]:
        return {"s": h.initial_accumulator}

    @classmethod
    def check_value(cls, name: str, value: Any, fixed: Mapping[str, Any]) -> None:
        if not fixed["initial_accumulator"]:
            super().check_value(name, value, fixed)

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        inside = h.eps_inside_sqrt
        return {"eps_in": h.eps if inside else 0.0, "eps_out": 0.0 if inside else h.eps, "step": h.lr}

    @staticmethod
    def coefficients_at(h: Any, t: int) -> dict[str, float]:
        return {"step": h.lr / (1 + (t - 1) * h.lr_decay)} if h.lr_decay else {}
