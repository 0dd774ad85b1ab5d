"""Lion, and by other numbers Signum and Tiger."""

from __future__ import annotations

from typing import Any

from fastopt.base.arguments import at_least_0, from_0_to_1
from fastopt.engine.hyperparameters import Hyperparameter, OtherName
from fastopt.optimizers.base import Optimizer


class Lion(Optimizer):
    """Lion (Chen et al., 2023): every element moves by lr.

    p -= lr sign(b1 m + (1 - b1) g);  m = b2 m + (1 - b2) g

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : learning rate, >= 0; a tenth of AdamW's or less.
    betas : what m has of the direction, and its own decay, each in [0, 1]. Equal ones are Signum, (0.965, 0.965) Tiger.
    weight_decay : decoupled, as AdamW's, kept as decoupled_decay; optax's default is 1e-3.

    State: "m". The sign of 0 is 0.
    """

    __slots__ = ()

    lr = Hyperparameter(at_least_0, 1e-4)
    betas = Hyperparameter(from_0_to_1, (0.9, 0.99), pair=True)
    weight_decay = OtherName("decoupled_decay", 0.0)

    @staticmethod
    def kernel(h: Any) -> str:
        return "sign_momentum"

    @staticmethod
    def described(h: Any) -> str:
        return "Lion"

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        beta1, beta2 = h.betas
        return {"mix_m": beta1, "mix_g": 1 - beta1, "beta": beta2, "gain": 1 - beta2, "step": h.lr}
