"""Schedules made of others: a warm-up before one, and several one after another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from fastopt.base.arguments import finite, number, whole
from fastopt.schedules.base import NamedSchedule, Scalar
from fastopt.schedules.formulas import check_pieces, constant, items, rising


@dataclass(frozen=True, repr=False)
class warmup(NamedSchedule):
    """A linear warm-up before another schedule: then(0) * (t + 1)/steps while t < steps, then(t - steps) after it.

    First step then(0)/steps, which is not 0; last step of the warm-up then(0), and so is the first after it; from
    there on what `then` says. With start= it is start + (then(0) - start) * t/steps: first step start, last of the
    warm-up one step short of then(0), which is the first after it (optax: warmup_constant_schedule).
    steps : 0 or larger; of 0 steps there is no warm-up, only `then`.
    then : a schedule, any callable of t, or a number to stay at.
    start : the value of the first step. Default None: then(0)/steps.
    """

    steps: int
    then: Scalar
    start: float | None = field(default=None, kw_only=True)
    _domains: ClassVar[dict[str, Any]] = {"steps": partial(whole, least=0)}

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "then", _schedule("then of warmup", self.then))

    def _value(self, t: int) -> float:
        assert callable(self.then)
        if t < self.steps:
            return rising(number("then(0) of warmup", self.then(0)), self.start, t, self.steps)
        return number(f"then({t - self.steps}) of warmup", self.then(t - self.steps))


@dataclass(frozen=True, repr=False)
class joined(NamedSchedule):
    """schedules[0] while t < boundaries[0], then schedules[1] while t < boundaries[1], and so on, each of which begins
    at a t of its own, 0 at its first step (PyTorch: SequentialLR; optax: join_schedules).

    First step schedules[0](0); at t = boundaries[0] schedules[1](0); past the last boundary what the last one says.
    schedules : built-in ones, any callables of t, or numbers to stay at.
    boundaries : rising whole numbers, 1 or larger, counted from the beginning of the whole; one fewer than there are
        schedules.
    """

    schedules: Sequence[Scalar]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedules", items(self, "schedules", _schedule, "schedules"))
        object.__setattr__(self, "boundaries", items(self, "boundaries", whole))
        check_pieces(self, "schedules", self.boundaries)

    def _value(self, t: int) -> float:
        i = bisect_right(self.boundaries, t)
        schedule, own = self.schedules[i], t - self.boundaries[i - 1] if i else t
        assert callable(schedule)
        return number(f"schedules[{i}]({own}) of joined", schedule(own))


def _schedule(name: str, value: Scalar) -> Scalar:
    return value if callable(value) else constant(finite(name, value))
