from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastopt.base.arguments import boolean, from_0_to_1, one_of
from fastopt.base.tree import Tree
from fastopt.engine.hyperparameters import Fixed, Group, Hyperparameter, Scalar
from fastopt.optimizers.momentum import WithMomentum

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastopt.engine.hyperparameters import Options


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

    dampening = Hyperparameter(from_0_to_1)
    nesterov = Fixed()
    momentum_form = Fixed()

    def __init__(
        self,
        params: Tree,
        lr: Scalar,
        momentum: Scalar = 0,
        dampening: Scalar = 0,
        nesterov: bool = False,
        momentum_form: str = "accumulate",
        **options: Unpack[Options],
    ) -> None:
        fixed = {
            "nesterov": boolean("nesterov", nesterov),
            "momentum_form": one_of("momentum_form", momentum_form, ("accumulate", "velocity", "ema")),
        }
        values = {"lr": lr, "momentum": momentum, "dampening": dampening}
        super().__init__(params, values, fixed, options)

    @property
    def rule(self) -> str:
        if not self.has_momentum:
            return "sgd"
        return "nesterov" if self.nesterov else "momentum"

    @property
    def formula(self) -> str:
        if not self.has_momentum:
            return "gradient descent"
        return f"gradient descent with {'Nesterov ' * self.nesterov}momentum, {self.momentum_form} form"

    def coefficients(self, h: Any) -> dict[str, float]:
        if not h.has_momentum:
            return {"step": h.lr}
        if h.momentum_form == "velocity":
            return {"mu": h.momentum, "gain": h.lr, "step": 1.0}
        return {"mu": h.momentum, "gain": 1 - h.momentum if h.momentum_form == "ema" else 1.0, "step": h.lr}

    def coefficients_at(self, h: Any, t: int) -> dict[str, float]:
        if h.dampening == 0 or h.momentum == 0:
            return {}
        return {"gain": 1.0 if t == 1 else 1 - h.dampening}

    def _check_groups(self, groups: list[Group]) -> None:
        super()._check_groups(groups)
        if not self.has_momentum and (self.nesterov or self.momentum_form != "accumulate"):
            option = "nesterov=True" if self.nesterov else f"momentum_form={self.momentum_form!r}"
            raise ValueError(f"{option} without momentum has no meaning: give momentum=, for example 0.9")
        if self.nesterov and self.momentum_form != "accumulate":
            raise ValueError(
                f"nesterov=True is defined for momentum_form='accumulate' only, not for {self.momentum_form!r}"
            )

    def _check_value(self, name: str, value: Any) -> None:
        if name == "dampening" and value != 0:
            if not self.has_momentum:
                raise ValueError("dampening without momentum has no meaning: give momentum=, for example 0.9")
            if self.nesterov or self.momentum_form != "accumulate":
                form = "nesterov=True" if self.nesterov else f"momentum_form={self.momentum_form!r}"
                raise ValueError(f"dampening={value!r} with {form}: it is defined for plain 'accumulate' momentum only")
        super()._check_value(name, value)
