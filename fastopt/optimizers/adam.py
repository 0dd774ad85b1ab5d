from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastopt.base.arguments import at_least_0, boolean, from_0_below_1
from fastopt.base.tree import Tree
from fastopt.core._core import corrections
from fastopt.engine.hyperparameters import Betas, Fixed, Hyperparameter, Removed, Scalar
from fastopt.optimizers.base import Optimizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastopt.engine.hyperparameters import Options


class Adam(Optimizer):
    """Adam (Kingma & Ba, 2015), AMSGrad (Reddi, Kale & Kumar, 2018), and Adam with eps-hat.

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr m/(1 - b1^t) / (sqrt(v/(1 - b2^t)) + eps)

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : learning rate, >= 0.
    betas : the decays of m and v, each in [0, 1). (0, 0) is the normalised gradient.
    eps : >= 0.
    amsgrad : divide by the largest v so far, as PyTorch (the maximum of v before its correction).
    eps_hat : p -= lr sqrt(1 - b2^t)/(1 - b1^t) m/(sqrt(v) + eps), eps beside the uncorrected root, as Keras,
        TensorFlow and scikit-learn: near equal but where gradients are as small as eps.

    State: "m", "v", and "v_max" with amsgrad. t counts each parameter's own steps.
    """

    __slots__ = ()

    betas = Hyperparameter(from_0_below_1, pair=True)
    eps = Hyperparameter(at_least_0)
    amsgrad = Fixed()
    eps_hat = Fixed()

    def __init__(
        self,
        params: Tree,
        lr: Scalar = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: Scalar = 1e-8,
        amsgrad: bool = False,
        eps_hat: bool = False,
        **options: Unpack[Options],
    ) -> None:
        fixed = {"amsgrad": boolean("amsgrad", amsgrad), "eps_hat": boolean("eps_hat", eps_hat)}
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps}, fixed, options)

    @property
    def rule(self) -> str:
        return "amsgrad" if self.amsgrad else "adam"

    @property
    def formula(self) -> str:
        return ("AMSGrad" if self.amsgrad else "Adam") + (", eps-hat" if self.eps_hat else "")

    def coefficients(self, h: Any) -> dict[str, float]:
        return moments(h) | ({"one": 1.0} if h.amsgrad else {})

    def coefficients_at(self, h: Any, t: int) -> dict[str, float]:
        beta1, beta2 = h.betas
        correction, root = corrections(beta1, beta2, t)
        step = h.lr / correction
        return {"unbias": 1.0, "step": step * root} if h.eps_hat else {"unbias": 1 / root, "step": step}


def moments(h: Any) -> dict[str, float]:
    """What the moments of Adam and NAdam have in common."""
    beta1, beta2 = h.betas
    return {"beta1": beta1, "gain1": 1 - beta1, "beta2": beta2, "gain2": 1 - beta2, "eps": h.eps}


class AdamW(Adam):
    """AdamW (Loshchilov & Hutter, 2019): Adam with decay of the parameter itself, decoupled from the gradient.

    p *= 1 - lr weight_decay, then Adam's step, both from the same p, as PyTorch.

    weight_decay : >= 0; with decay_by_lr=False p *= 1 - weight_decay instead. The rest is as in :class:`Adam`.
    """

    __slots__ = ()

    weight_decay = Hyperparameter(at_least_0)
    decoupled_decay = Removed("AdamW's decoupled decay is called weight_decay")
    decay_name = "weight_decay"

    def __init__(
        self,
        params: Tree,
        lr: Scalar = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: Scalar = 1e-8,
        weight_decay: Scalar = 1e-2,
        amsgrad: bool = False,
        eps_hat: bool = False,
        **options: Unpack[Options],
    ) -> None:
        fixed = {"amsgrad": boolean("amsgrad", amsgrad), "eps_hat": boolean("eps_hat", eps_hat)}
        values = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        Optimizer.__init__(self, params, values, fixed, options)

    @property
    def formula(self) -> str:
        return super().formula + " with decoupled weight decay (AdamW)"
