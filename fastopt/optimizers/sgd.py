"""Gradient descent, the rule that all others are beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.base.arguments import at_least_0, boolean, from_0_below_1, from_0_to_1, one_of
from fastopt.engine.hyperparameters import Fixed, Hyperparameter
from fastopt.optimizers.momentum import WithMomentum

FORMS = "accumulate", "velocity", "ema"


class SGD(WithMomentum):
    """Gradient descent, with momentum in one of three forms or with Nesterov's.

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : learning rate, >= 0.
    momentum : mu, in [0, 1). Whether there is any is fixed at construction.
    dampening : tau, in [0, 1]; "accumulate" only, and without effect where momentum is 0.
    nesterov : p -= lr (g + mu b), as PyTorch and Keras reformulate it; "accumulate" only, without dampening.
    momentum_form : these follow different paths once lr changes.
        "accumulate" (PyTorch)        b = mu b + (1 - tau) g, at the first step b = g;  p -= lr b
        "velocity" (Keras, papers)    b = mu b + lr g;  p -= b
        "ema"                         b = mu b + (1 - mu) g;  p -= lr b

    State: "b", where there is momentum. Sources: Polyak (1964); for Nesterov's form Sutskever et al. (2013).
    """

    __slots__ = ()

    lr = Hyperparameter(at_least_0)
    momentum = Hyperparameter(from_0_below_1, 0.0)
    dampening = Hyperparameter(from_0_to_1, 0.0)
    nesterov = Fixed(boolean, False)
    momentum_form = Fixed(lambda name, value: one_of(name, value, FORMS), "accumulate")

    @staticmethod
    def kernel(h: Any) -> str:
        if not h.has_momentum:
            return "sgd"
        return "nesterov" if h.nesterov else "momentum"

    @staticmethod
    def described(h: Any) -> str:
        if not h.has_momentum:
            return "gradient descent"
        return f"gradient descent with {'Nesterov ' * h.nesterov}momentum, {h.momentum_form} form"

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        if not h.has_momentum:
            return {"step": h.lr}
        if h.momentum_form == "velocity":
            return {"mu": h.momentum, "gain": h.lr, "step": 1.0}
        return {"mu": h.momentum, "gain": 1 - h.momentum if h.momentum_form == "ema" else 1.0, "step": h.lr}

    @staticmethod
    def coefficients_at(h: Any, t: int) -> dict[str, float]:
        if h.dampening == 0 or h.momentum == 0:
            return {}
        return {"gain": 1.0 if t == 1 else 1 - h.dampening}

    @classmethod
    def check(cls, h: Any) -> None:
        if not h.has_momentum and (h.nesterov or h.momentum_form != "accumulate"):
            option = "nesterov=True" if h.nesterov else f"momentum_form={h.momentum_form!r}"
            raise ValueError(f"{option} without momentum has no meaning: give momentum=, for example 0.9")
        if h.nesterov and h.momentum_form != "accumulate":
            raise ValueError(
                f"nesterov=True is defined for momentum_form='accumulate' only, not for {h.momentum_form!r}"
            )

    @classmethod
    def check_value(cls, name: str, value: Any, fixed: Mapping[str, Any]) -> None:
        nesterov, form = fixed["nesterov"], fixed["momentum_form"]
        if name == "dampening" and value != 0:
            if not fixed["has_momentum"]:
                raise ValueError("dampening without momentum has no meaning: give momentum=, for example 0.9")
            if nesterov or form != "accumulate":
                what = "nesterov=True" if nesterov else f"momentum_form={form!r}"
                raise ValueError(f"dampening={value!r} with {what}: it is defined for plain 'accumulate' momentum only")
        super().check_value(name, value, fixed)
