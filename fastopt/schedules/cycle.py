"""The one-cycle policy: a learning rate that goes up and then far down, and a momentum that goes the other way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastopt.schedules.base import Named, NamedSchedule
from fastopt.schedules.elementary import cos_pi


@dataclass(frozen=True, repr=False)
class one_cycle(Named):
    """The one-cycle policy, with PyTorch's formula and defaults: pass `.lr` as lr and, if momentum is to move too,
    `.momentum` as momentum or as a member of betas.

        cycle = fastopt.schedules.one_cycle(0.1, steps=1000)
        opt = fastopt.SGD(params, lr=cycle.lr, momentum=cycle.momentum)

    lr: first step v_max/div_factor; v_max at t = pct_start*steps - 1; last of `steps` steps, and past the end,
    v_max/div_factor/final_div_factor. momentum: max_momentum at the first step, base_momentum where lr is v_max,
    max_momentum at the last and past the end.

    v_max : the largest lr.  steps : of the whole cycle.
    pct_start : the part of the steps in which lr rises, in [0, 1]; at most 0.5 with three_phase. Where
        pct_start*steps is below 1 there is no rise: the first step is already on the way down, as in PyTorch.
    anneal_strategy : "cos" or "linear".
    base_momentum, max_momentum : in [0, 1).
    div_factor, final_div_factor : > 0.
    three_phase : go down to v_max/div_factor as slowly as up, and only then to the end. Default False.

    Source: Smith and Topin (2018).
    """

    v_max: float
    steps: int
    pct_start: float = 0.3
    anneal_strategy: str = "cos"
    base_momentum: float = 0.85
    max_momentum: float = 0.95
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    three_phase: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.three_phase and self.pct_start > 0.5:
            raise ValueError(
                f"pct_start of one_cycle is {self.pct_start!r}: expected at most 0.5 with three_phase, which takes as "
                "long down as up"
            )

    @property
    def lr(self) -> NamedSchedule:
        first = self.v_max / self.div_factor
        return CyclePart(self, "lr", self._phases(first, self.v_max, first / self.final_div_factor))

    @property
    def momentum(self) -> NamedSchedule:
        return CyclePart(self, "momentum", self._phases(self.max_momentum, self.base_momentum, self.max_momentum))

    def _phases(self, first: float, top: float, last: float) -> tuple[tuple[float, float, float, float], ...]:
        """The pieces of the way: start and end in steps, and the values there."""
        rise, end = self.pct_start * self.steps - 1, self.steps - 1
        if not self.three_phase:
            return (0, rise, first, top), (rise, end, top, last)
        fall = 2 * self.pct_start * self.steps - 2
        return (0, rise, first, top), (rise, fall, top, first), (fall, end, first, last)


@dataclass(frozen=True, repr=False)
class CyclePart(NamedSchedule):
    """`.lr` or `.momentum` of a one_cycle."""

    cycle: one_cycle
    part: str
    phases: tuple[tuple[float, float, float, float], ...] = field(compare=False)

    def _arguments(self) -> dict[str, Any]:
        return self.cycle._arguments()

    def __post_init__(self) -> None:
        pass  # The cycle has checked its arguments.

    def __repr__(self) -> str:
        return f"{self.cycle!r}.{self.part}"

    def _value(self, t: int) -> float:
        t = min(t, self.cycle.steps - 1)
        for phase in self.phases:
            if t <= phase[1]:
                break
        start, end, a, b = phase
        if start == end:
            return b
        done = (t - start) / (end - start)
        if self.cycle.anneal_strategy == "cos":
            return b + (a - b) / 2 * (cos_pi(done) + 1)
        return (b - a) * done + a
