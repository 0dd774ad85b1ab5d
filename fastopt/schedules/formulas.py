"""The schedules that are a formula in t, the number of steps applied so far."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastopt.base.arguments import finite, number, positive, shown, whole
from fastopt.core._core import power as whole_power
from fastopt.schedules.base import NamedSchedule, Scalar


@dataclass(frozen=True, repr=False)
class constant(NamedSchedule):
    """v at every step."""

    v: float

    def _value(self, t: int) -> float:
        return self.v


@dataclass(frozen=True, repr=False)
class step_decay(NamedSchedule):
    """v * gamma**(t // every): times gamma after every `every` steps (PyTorch: StepLR).

    First step v; last step of n: v * gamma**((n - 1) // every). It has no end: beyond any n it goes on falling.
    gamma : > 0; larger than 1 grows.
    """

    v: float
    gamma: float
    every: int

    def _value(self, t: int) -> float:
        return self.v * whole_power(self.gamma, t // self.every)


@dataclass(frozen=True, repr=False)
class exponential(NamedSchedule):
    """v * exp(-rate * t), or v * gamma**t (PyTorch: ExponentialLR): exactly one of rate and gamma.

    First step v; last step of n: v * gamma**(n - 1), with gamma = exp(-rate). It has no end: it goes on to 0.
    rate : >= 0.  gamma : > 0; larger than 1 grows.
    """

    v: float
    rate: float | None = field(default=None, kw_only=True)
    gamma: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if (self.rate is None) == (self.gamma is None):
            given = "neither" if self.rate is None else "both"
            raise TypeError(f"exponential got {given} of rate= and gamma=: give one, v*exp(-rate*t) or v*gamma**t")
        super().__post_init__()

    def _value(self, t: int) -> float:
        if self.gamma is not None:
            return self.v * whole_power(self.gamma, t)
        assert self.rate is not None
        return self.v * math.exp(-self.rate * t)


@dataclass(frozen=True, repr=False)
class cosine(NamedSchedule):
    """Half a cosine from v down to eta_min: eta_min + (v - eta_min)/2 * (1 + cos(pi*t/steps)).

    First step v; last of `steps` steps: just above eta_min; from t = steps on eta_min. (PyTorch's CosineAnnealingLR
    climbs again past the end.) For eta_min at the last step itself take steps - 1.
    Source: Loshchilov and Hutter (2017), without the restarts.
    """

    v: float
    steps: int
    eta_min: float = 0.0

    def _value(self, t: int) -> float:
        if t >= self.steps:
            return self.eta_min
        return self.eta_min + (self.v - self.eta_min) / 2 * (1 + math.cos(math.pi * (t / self.steps)))


@dataclass(frozen=True, repr=False)
class cosine_restarts(NamedSchedule):
    """The cosine from v towards eta_min, again and again, every time t_mult times as long (PyTorch:
    CosineAnnealingWarmRestarts).

    First step v; last of the first `steps` steps: just above eta_min; at t = steps v again, for the next
    steps * t_mult steps. It has no end.
    t_mult : a whole number, 1 or larger.
    Source: Loshchilov and Hutter (2017).
    """

    v: float
    steps: int
    t_mult: int = 1
    eta_min: float = 0.0

    def _value(self, t: int) -> float:
        length = self.steps
        if self.t_mult == 1:
            t %= length
        while t >= length:
            t -= length
            length *= self.t_mult
        return self.eta_min + (self.v - self.eta_min) / 2 * (1 + math.cos(math.pi * (t / length)))


@dataclass(frozen=True, repr=False)
class linear(NamedSchedule):
    """A straight line from v to end: v + (end - v) * t/steps (PyTorch: LinearLR; optax: linear_schedule).

    First step v; last of `steps` steps: one step short of end; from t = steps on end.
    """

    v: float
    end: float
    steps: int

    def _value(self, t: int) -> float:
        return self.end if t >= self.steps else self.v + (self.end - self.v) * (t / self.steps)


@dataclass(frozen=True, repr=False)
class inverse_sqrt(NamedSchedule):
    """v / sqrt(1 + t/scale).

    First step v; last step of n: v / sqrt(1 + (n - 1)/scale). It has no end: it goes on to 0. It has fallen to half
    at t = 3*scale.
    scale : in steps, > 0.
    """

    v: float
    scale: float

    def _value(self, t: int) -> float:
        return self.v / math.sqrt(1 + t / self.scale)


@dataclass(frozen=True, repr=False)
class polynomial(NamedSchedule):
    """(v - end) * (1 - t/steps)**power + end (PyTorch: PolynomialLR, with end 0; optax: polynomial_schedule).

    First step v; last of `steps` steps: (v - end)/steps**power away from end; from t = steps on end.
    power : > 0; 1 is a straight line.
    """

    v: float
    end: float
    steps: int
    power: float = 1.0

    def _value(self, t: int) -> float:
        if t >= self.steps:
            return self.end
        remaining: float = (1 - t / self.steps) ** self.power
        return (self.v - self.end) * remaining + self.end


@dataclass(frozen=True, repr=False)
class piecewise(NamedSchedule):
    """values[0] while t < boundaries[0], then values[1] while t < boundaries[1], and so on (PyTorch: MultiStepLR,
    which multiplies; Keras changes one step later).

    First step values[0]; at t = boundaries[-1] and ever after values[-1].
    boundaries : rising whole numbers, 1 or larger.  values : one more than there are boundaries.
    """

    boundaries: Sequence[int]
    values: Sequence[float]

    def __post_init__(self) -> None:
        boundaries, values = self._numbers("boundaries", whole), self._numbers("values", finite)
        if list(boundaries) != sorted(set(boundaries)):
            raise ValueError(f"boundaries of piecewise is {list(boundaries)}: each must be larger than the one before")
        if len(values) != len(boundaries) + 1:
            raise ValueError(
                f"values of piecewise has {len(values)} items for {len(boundaries)} boundaries: "
                "expected one more, the first of them for the steps before boundaries[0]"
            )
        object.__setattr__(self, "boundaries", boundaries)
        object.__setattr__(self, "values", values)

    def _numbers(self, name: str, check: Callable[[str, Any], Any]) -> tuple[Any, ...]:
        given = getattr(self, name)
        given = given.tolist() if isinstance(given, np.ndarray) else given
        if not isinstance(given, (list, tuple, range)):
            raise TypeError(f"{name} of piecewise is {shown(given)}: expected a list of numbers")
        return tuple(check(f"{name}[{i}] of piecewise", x) for i, x in enumerate(given))

    def _value(self, t: int) -> float:
        return self.values[bisect_right(self.boundaries, t)]


@dataclass(frozen=True, repr=False)
class warmup(NamedSchedule):
    """A linear warm-up before another schedule: then(0) * (t + 1)/steps while t < steps, then(t - steps) after it.

    First step then(0)/steps, which is not 0; last step of the warm-up then(0), and so is the first after it; from
    there on what `then` says.
    then : a schedule, any callable of t, or a number to stay at.
    """

    steps: int
    then: Scalar

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.then):
            object.__setattr__(self, "then", constant(finite("then of warmup", self.then)))

    def _value(self, t: int) -> float:
        assert callable(self.then)
        if t < self.steps:
            return number("then(0) of warmup", self.then(0)) * (t + 1) / self.steps
        return number(f"then({t - self.steps}) of warmup", self.then(t - self.steps))


def scale_lr(lr: float, batch_size: int, base_batch_size: int) -> float:
    """lr * batch_size / base_batch_size: the learning rate for another batch size than the one that lr was found for.

    lr : > 0.  batch_size, base_batch_size : whole numbers, 1 or larger.
    Raises TypeError or ValueError naming the argument. Source: the linear scaling rule of Goyal et al. (2017), who
    warm up to the larger rate.
    """
    return positive("lr", lr) * whole("batch_size", batch_size) / whole("base_batch_size", base_batch_size)
