from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastopt.base.arguments import at_least_0, boolean, from_0_below_1
from fastopt.base.tree import Tree
from fastopt.engine.hyperparameters import Fixed, Hyperparameter, Scalar
from fastopt.optimizers.momentum import WithMomentum

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastopt.engine.hyperparameters import Options


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

    rho = Hyperparameter(from_0_below_1)
    eps = Hyperparameter(at_least_0)
    eps_inside_sqrt = Fixed()
    centered = Fixed()

    def __init__(
        self,
        params: Tree,
        lr: Scalar = 1e-2,
        rho: Scalar = 0.9,
        eps: Scalar = 1e-8,
        eps_inside_sqrt: bool = False,
        centered: bool = False,
        momentum: Scalar = 0,
        **options: Unpack[Options],
    ) -> None:
        fixed = {
            "eps_inside_sqrt": boolean("eps_inside_sqrt", eps_inside_sqrt),
            "centered": boolean("centered", centered),
        }
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "momentum": momentum}, fixed, options)

    @property
    def rule(self) -> str:
        return "rmsprop" + ("_centered" if self.centered else "") + ("_momentum" if self.has_momentum else "")

    @property
    def formula(self) -> str:
        return (
            "RMSprop"
            + (", centered" if self.centered else "")
            + (", with momentum" if self.has_momentum else "")
            + (", eps inside the root" if self.eps_inside_sqrt else "")
        )

    def coefficients(self, h: Any) -> dict[str, float]:
        inside = h.eps_inside_sqrt
        numbers = {"eps_in": h.eps if inside else 0.0, "eps_out": 0.0 if inside else h.eps, "step": h.lr}
        momentum = {"mu": h.momentum} if h.has_momentum else {}
        return {"rho": h.rho, "gain": 1 - h.rho, **numbers, **momentum}
