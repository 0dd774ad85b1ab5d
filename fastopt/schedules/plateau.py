"""The one schedule with a memory: it goes by a metric that the training loop reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fastopt.base.arguments import finite, number, whole
from fastopt.schedules.base import NamedSchedule


@dataclass(eq=False, repr=False)
class ReduceOnPlateau(NamedSchedule):
    """A value that is multiplied by `factor` when a metric has stopped improving, as PyTorch's ReduceLROnPlateau does.

        lr = fastopt.schedules.ReduceOnPlateau(0.1, patience=3)
        opt = fastopt.SGD(params, lr=lr)
        ...
        lr.update(validation_loss)       # once an epoch

    Value: v at the first step and until an update reduces it, whatever t is; then v*factor, v*factor**2, ...; never
    below min_value by a reduction, and without an end. t and steps that are not applied do not touch it: only
    `update` does.

    v : the value to begin with.
    factor : in [0, 1).
    patience : updates without improvement that are borne; the next one reduces. 0 or larger.
    mode : "min" for a metric that should fall, "max" for one that should rise.
    threshold, threshold_mode : an improvement is better than the best by more than a margin: threshold*abs(best) with
        "rel", threshold itself with "abs". "rel_torch" is PyTorch's "rel", whose margin is threshold*best: of a metric
        below 0 it points the wrong way, and what is slightly worse counts as an improvement. >= 0.
    cooldown : updates after a reduction that do not count as without improvement. 0 or larger.
    min_value : PyTorch's min_lr.
    eps : a reduction by no more than this is not made. >= 0.

    Saved with the optimizer that uses it; `state_dict` and `load_state_dict` are for use without one. Two of them are
    equal only if they are the same object. Raises TypeError or ValueError naming the argument.
    """

    v: float
    factor: float = 0.1
    patience: int = 10
    mode: str = field(default="min", kw_only=True)
    threshold: float = field(default=1e-4, kw_only=True)
    threshold_mode: str = field(default="rel", kw_only=True)
    cooldown: int = field(default=0, kw_only=True)
    min_value: float = field(default=0.0, kw_only=True)
    eps: float = field(default=1e-8, kw_only=True)
    value: float = field(init=False)
    best: float | None = field(init=False, default=None)
    without_improvement: int = field(init=False, default=0)
    cooldown_left: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.value = self.v

    def _value(self, t: int) -> float:
        return self.value

    def update(self, metric: float) -> float:
        """Takes the metric of one more epoch, or other period, and returns the value from now on.

        metric : a number. NaN and infinity are never an improvement, in either direction.
        """
        x = number("metric", metric)
        improved, value, cooldown_left = self._improves(x), self.value, self.cooldown_left
        without_improvement = 0 if improved else self.without_improvement + 1
        if cooldown_left > 0:
            cooldown_left, without_improvement = cooldown_left - 1, 0
        if without_improvement > self.patience:
            reduced = max(value * self.factor, self.min_value)
            if value - reduced > self.eps:
                value = reduced
            cooldown_left, without_improvement = self.cooldown, 0
        # In one call: no interrupt comes between one of these and the next.
        vars(self).update(
            value=value,
            best=x if improved else self.best,
            without_improvement=without_improvement,
            cooldown_left=cooldown_left,
        )
        return value

    def _improves(self, x: float) -> bool:
        if not math.isfinite(x):
            return False
        if self.best is None:
            return True
        sign = 1 if self.mode == "max" else -1
        margin = sign * self.threshold
        if self.threshold_mode == "abs":
            return sign * x > sign * (self.best + margin)
        if self.threshold_mode == "rel" and self.best < 0:
            margin = -margin
        # In one product, as PyTorch has it: the same bits where best is not below 0.
        return sign * x > sign * (self.best * (1 + margin))

    def state_dict(self) -> dict[str, Any]:
        """The arguments, and what the updates so far have led to: plain numbers and strings."""
        now = dict(vars(self))
        return {field.name: now.get(field.name, field.default) for field in fields(self)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave, the arguments too.

        Raises TypeError or ValueError, before anything is changed, for anything else.
        """
        names = [field.name for field in fields(self)]
        if not isinstance(saved, Mapping) or saved.keys() != set(names):
            raise ValueError(f"not the state of a ReduceOnPlateau: expected a dict with the keys {', '.join(names)}")
        loaded = ReduceOnPlateau(**{field.name: saved[field.name] for field in fields(self) if field.init})
        loaded.value = finite("value", saved["value"])
        loaded.best = None if saved["best"] is None else finite("best", saved["best"])
        for name in ("without_improvement", "cooldown_left"):
            setattr(loaded, name, whole(name, saved[name], 0))
        vars(self).update(vars(loaded))
