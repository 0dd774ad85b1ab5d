from __future__ import annotations

from typing import Any

from fastopt.base.arguments import from_0_below_1
from fastopt.engine.hyperparameters import Fixed, Group, Hyperparameter
from fastopt.optimizers.base import Optimizer


class WithMomentum(Optimizer):
    """A base for rules with and without a momentum buffer: whether there is one is fixed at construction,
    by any group having momentum that is not 0."""

    __slots__ = ()

    momentum = Hyperparameter(from_0_below_1)
    has_momentum = Fixed()

    def _check_groups(self, groups: list[Group]) -> None:
        if "has_momentum" not in self._fixed:
            self._fixed["has_momentum"] = any(group["momentum"] != 0 for group in groups)
        super()._check_groups(groups)

    def _check_value(self, name: str, value: Any) -> None:
        if name == "momentum" and value != 0 and not self.has_momentum:
            raise ValueError(
                f"momentum={value!r}, but this {type(self).__name__} was made without momentum and keeps no buffer "
                "for it: give momentum= at construction"
            )
        super()._check_value(name, value)
