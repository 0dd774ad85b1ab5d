"""Adam and AdamW, with AMSGrad and eps-hat."""

from __future__ import annotations

from typing import Any

from fastopt.base.arguments import at_least_0, boolean, from_0_below_1
from fastopt.core._core import corrections
from fastopt.engine.hyperparameters import Fixed, Hyperparameter, OtherName
from fastopt.optimizers.base import Optimizer


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
    divides_by_root_of_squares = True

    lr = Hyperparameter(at_least_0, 1e-3)
    betas = Hyperparameter(from_0_below_1, (0.9, 0.999), pair=True)
    eps = Hyperparameter(at_least_0, 1e-8)
    amsgrad = Fixed(boolean, False)
    eps_hat = Fixed(boolean, False)

    @staticmethod
    def kernel(h: Any) -> str:
        return "amsgrad" if h.amsgrad else "adam"

    @staticmethod
    def described(h: Any) -> str:
        return ("AMSGrad" if h.amsgrad else "Adam") + (", eps-hat" if h.eps_hat else "")

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        return moments(h) | ({"one": 1.0} if h.amsgrad else {})

    @staticmethod
    def coefficients_at(h: Any, t: int) -> dict[str, float]:
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

    weight_decay : >= 0, kept as decoupled_decay; with decay_by_lr=False p *= 1 - weight_decay instead. The rest is as
        in :class:`Adam`.
    """

    __slots__ = ()

    weight_decay = OtherName("decoupled_decay", 1e-2)

    @staticmethod
    def described(h: Any) -> str:
        return Adam.described(h) + " with decoupled weight decay (AdamW)"
