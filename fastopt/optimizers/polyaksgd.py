"""Gradient descent with Polyak's step, in the conventions of optax."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from fastopt.base.arguments import at_least_0, one_of
from fastopt.base.tree import Array
from fastopt.engine.hyperparameters import Fixed, Hyperparameter
from fastopt.engine.program import Form, Scalar, Sum, Walk
from fastopt.optimizers.base import Optimizer

VARIANTS = "sps", "sps+"
SHARED = "scaling", "f_min", "eps"


def _finite(name: str, x: float) -> None:
    if not math.isfinite(x):
        raise ValueError(f"{name} is {x!r}: expected a finite number")


class PolyakSGD(Optimizer):
    """Gradient descent whose step size is how far the loss is above its least value, over the squared gradient.

    With u = scaling g of all parameters together: p -= min((loss - f_min)/(|u|^2 + eps), lr) u. `step` needs the loss:
    ``opt.step(grads, loss=loss)``.

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : the largest step size, >= 0; optax calls it max_learning_rate.
    scaling : a factor of the gradients, >= 0, as in optax also within the norm.
    f_min : the least value of the loss, or a lower bound of it.
    eps : >= 0.
    variant : "sps" steps up where the loss is below f_min, "sps+" not at all.

    The step is 0 where |u|^2 + eps is 2^-52 or less, as in optax, and where |u|^2 overflows. |u| is of all parameters
    that have a gradient; groups share all but lr. State: none. Sources: Polyak (1987); Loizou et al. (2021); "sps+":
    Garrigos et al. (2023).
    """

    __slots__ = ()
    needs_loss = True

    lr = Hyperparameter(at_least_0, 1.0)
    scaling = Hyperparameter(at_least_0, 1.0)
    f_min = Hyperparameter(_finite, 0.0)
    eps = Hyperparameter(at_least_0, 0.0)
    variant = Fixed(lambda name, value: one_of(name, value, VARIANTS), "sps")

    @classmethod
    def form(cls, h: Any, p: Array) -> Form:
        return Form(
            passes=(Walk(None, (Sum("sum_squares", ("g",), "gg"),)), Scalar("polyak"), Walk("sgd")),
            slots=(),
            tensor=("step",),
            among=("gg",),
        )

    @classmethod
    def moving(cls, groups: Mapping[int, Any]) -> Collection[int]:
        first = next(iter(groups), 0)
        for i, h in groups.items():
            for name in SHARED:
                one, other = getattr(groups[first], name), getattr(h, name)
                if one != other:
                    raise ValueError(
                        f"groups {first} and {i} of PolyakSGD have {name} {one!r} and {other!r}: they share the loss "
                        "and the norm, and so all but lr"
                    )
        return groups.keys()

    @staticmethod
    def described(h: Any) -> str:
        return "gradient descent with Polyak's step"

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        positive = float(h.variant == "sps+")
        return {"f_min": h.f_min, "scaling": h.scaling, "eps": h.eps, "largest": h.lr, "positive": positive}
