"""A base for rules with and without a momentum buffer, because whether there is one follows from the first values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.base.arguments import from_0_below_1
from fastopt.engine.hyperparameters import Fixed, Hyperparameter
from fastopt.optimizers.base import Optimizer


class WithMomentum(Optimizer):
    """Whether there is a momentum buffer is fixed at construction, by any group having momentum that is not 0."""

    __slots__ = ()

    momentum = Hyperparameter(from_0_below_1, 0.0)
    has_momentum = Fixed()

    @classmethod
    def settle(cls, values: list[Mapping[str, Any]], fixed: dict[str, Any]) -> None:
        fixed.setdefault("has_momentum", any(own["momentum"] != 0 for own in values))

    @classmethod
    def check_value(cls, name: str, value: Any, fixed: Mapping[str, Any]) -> None:
        if name == "momentum" and value != 0 and not fixed["has_momentum"]:
            raise ValueError(
                f"momentum={value!r}, but this {cls.__name__} was made without momentum and keeps no buffer "
                "for it: give momentum= at construction"
            )
        super().check_value(name, value, fixed)
