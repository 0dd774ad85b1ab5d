from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastopt.base.arguments import at_least_0, boolean, number
from fastopt.base.tree import Tree
from fastopt.engine.hyperparameters import Fixed, Hyperparameter, Scalar
from fastopt.optimizers.base import Optimizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastopt.engine.hyperparameters import Options


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

    eps = Hyperparameter(at_least_0)
    eps_inside_sqrt = Fixed()
    initial_accumulator = Fixed()
    lr_decay = Fixed()

    def __init__(
        self,
        params: Tree,
        lr: Scalar = 1e-2,
        eps: Scalar = 1e-10,
        eps_inside_sqrt: bool = False,
        initial_accumulator: float = 0,
        lr_decay: float = 0,
        **options: Unpack[Options],
    ) -> None:
        fixed = {
            "eps_inside_sqrt": boolean("eps_inside_sqrt", eps_inside_sqrt),
            "initial_accumulator": number("initial_accumulator", initial_accumulator),
            "lr_decay": number("lr_decay", lr_decay),
        }
        at_least_0("initial_accumulator", fixed["initial_accumulator"])
        at_least_0("lr_decay", fixed["lr_decay"])
        super().__init__(params, {"lr": lr, "eps": eps}, fixed, options)

    @property
    def rule(self) -> str:
        return "adagrad"

    @property
    def formula(self) -> str:
        return "AdaGrad, eps inside the root" if self.eps_inside_sqrt else "AdaGrad"

    def initial_state(self, buffer: str) -> float:
        return float(self.initial_accumulator)

    def coefficients(self, h: Any) -> dict[str, float]:
        inside = h.eps_inside_sqrt
        return {"eps_in": h.eps if inside else 0.0, "eps_out": 0.0 if inside else h.eps, "step": h.lr}

    def coefficients_at(self, h: Any, t: int) -> dict[str, float]:
        return {"step": h.lr / (1 + (t - 1) * h.lr_decay)} if h.lr_decay else {}
