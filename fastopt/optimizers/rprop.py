"""Rprop: a step size for every element, by the signs of its gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.base.arguments import at_least_0, number, pair_of, shown
from fastopt.engine.hyperparameters import Fixed, Hyperparameter
from fastopt.optimizers.base import Optimizer


def _etas(name: str, value: Any) -> tuple[float, float]:
    minus, plus = (number(f"{name}[{i}]", x) for i, x in enumerate(pair_of(name, value, "(0.5, 1.2)")))
    if not 0 < minus < 1 < plus < float("inf"):
        raise ValueError(
            f"{name} is {shown(value)}: expected 0 < shrinking factor < 1 < growing factor, like (0.5, 1.2)"
        )
    return minus, plus


def _sizes(name: str, value: Any) -> tuple[float, float]:
    low, high = (number(f"{name}[{i}]", x) for i, x in enumerate(pair_of(name, value, "(1e-6, 50)")))
    if not 0 <= low <= high < float("inf"):
        raise ValueError(f"{name} is {shown(value)}: expected 0 <= smallest step <= largest step, like (1e-6, 50)")
    return low, high


class Rprop(Optimizer):
    """Rprop (Riedmiller & Braun, 1993): a step size for every element, which grows while the gradient keeps its sign.

    size = size * (etas[1] where g and the g before have one sign, etas[0] where they differ), within step_sizes;
    p -= size sign(g), and no step where the sign has just changed.

    params, and the keywords that all optimizers take: see :class:`fastopt.Optimizer`.

    lr : what the sizes start at when the optimizer is made, >= 0, no schedule; setting it later changes none.
    etas : the factors of a size, 0 < etas[0] < 1 < etas[1].
    step_sizes : the least and the largest size.

    For gradients of all the data, as mini-batches change signs. State: "prev", the gradient before, and "size".
    """

    __slots__ = ()

    lr = Hyperparameter(at_least_0, 1e-2)
    etas = Fixed(_etas, (0.5, 1.2))
    step_sizes = Fixed(_sizes, (1e-6, 50.0))

    @staticmethod
    def kernel(h: Any) -> str:
        return "rprop"

    @staticmethod
    def starts(h: Any) -> Mapping[str, float | str]:
        return {"size": h.lr}

    @staticmethod
    def described(h: Any) -> str:
        return "Rprop"

    @classmethod
    def check_value(cls, name: str, value: Any, fixed: Mapping[str, Any]) -> None:
        if name == "lr" and callable(value):
            raise ValueError("lr of Rprop is where its step sizes start: expected a number, no schedule")
        super().check_value(name, value, fixed)

    @staticmethod
    def coefficients(h: Any) -> dict[str, float]:
        return {
            "one": 1.0, "minus": h.etas[0], "plus": h.etas[1], "low": h.step_sizes[0], "high": h.step_sizes[1],
        }  # fmt: skip
