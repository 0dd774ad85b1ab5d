"""Cyclical values: up and down along straight lines, again and again."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from fastopt.base.arguments import one_of
from fastopt.core._core import power as whole_power
from fastopt.schedules.base import NamedSchedule


@dataclass(frozen=True, repr=False)
class cyclic(NamedSchedule):
    """From v to peak in steps_up steps and back in steps_down, again and again (PyTorch: CyclicLR).

    First step v; at t = steps_up the peak; at t = steps_up + steps_down v again. It has no end.
    peak : of the first cycle. Below v it goes down first, as a momentum that goes against lr.
    steps_down : default as many as steps_up.
    mode : what becomes of peak - v. "triangular": nothing; "triangular2": half of it in every further cycle;
        "exp_range": times gamma**t.
    gamma : of exp_range, and of nothing else; > 0, and 1 or smaller for what does not grow.
    Source: Smith (2017).
    """

    v: float
    peak: float
    steps_up: int
    steps_down: int | None = None
    mode: str = field(default="triangular", kw_only=True)
    gamma: float | None = field(default=None, kw_only=True)
    _domains: ClassVar[dict[str, Any]] = {"mode": partial(one_of, choices=("triangular", "triangular2", "exp_range"))}

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.mode == "exp_range") != (self.gamma is not None):
            wrong = "needs" if self.gamma is None else "takes no"
            raise TypeError(f"cyclic with mode={self.mode!r} {wrong} gamma=: it is the factor a step of exp_range")

    def _value(self, t: int) -> float:
        up = self.steps_up
        down = up if self.steps_down is None else self.steps_down
        cycle, k = divmod(t, up + down)
        if k == 0:
            return self.v
        height = (self.peak - self.v) * (k / up if k <= up else (up + down - k) / down)
        if self.mode == "triangular2":
            height *= whole_power(0.5, cycle)
        elif self.gamma is not None:
            height *= whole_power(self.gamma, t)
        return self.v + height
