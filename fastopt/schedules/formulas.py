"""The schedules that are a formula in t, the number of steps applied so far."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastopt.base.arguments import finite, positive, shown, whole
from fastopt.core._core import power as whole_power
from fastopt.schedules.base import NamedSchedule
from fastopt.schedules.elementary import cos_pi, decaying, power


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
        return self.v * decaying(self.rate * t)


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
        return self.eta_min + (self.v - self.eta_min) / 2 * (1 + cos_pi(t / self.steps))


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
        return self.eta_min + (self.v - self.eta_min) / 2 * (1 + cos_pi(t / length))


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
        return (self.v - self.end) * power(1 - t / self.steps, self.power) + self.end


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
        object.__setattr__(self, "boundaries", items(self, "boundaries", whole))
        object.__setattr__(self, "values", items(self, "values", finite))
        check_pieces(self, "values", self.boundaries)

    def _value(self, t: int) -> float:
        return self.values[bisect_right(self.boundaries, t)]


def items(schedule: NamedSchedule, name: str, check: Callable[[str, Any], Any], what: str = "numbers") -> Any:
    """An argument that is a list, each item of it checked, as a tuple."""
    given, of = getattr(schedule, name), type(schedule).__name__
    given = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(given, (list, tuple, range)):
        raise TypeError(f"{name} of {of} is {shown(given)}: expected a list of {what}")
    return tuple(check(f"{name}[{i}] of {of}", x) for i, x in enumerate(given))


def check_pieces(schedule: NamedSchedule, name: str, boundaries: Sequence[int]) -> None:
    """Refuses boundaries that do not rise, or that are not between the items of `name`."""
    of, count = type(schedule).__name__, len(getattr(schedule, name))
    if list(boundaries) != sorted(set(boundaries)):
        raise ValueError(f"boundaries of {of} is {list(boundaries)}: each must be larger than the one before")
    if count != len(boundaries) + 1:
        raise ValueError(
            f"{name} of {of} has {count} items for {len(boundaries)} boundaries: "
            "expected one more, the first of them for the steps before boundaries[0]"
        )


@dataclass(frozen=True, repr=False)
class warmup_stable_decay(NamedSchedule):
    """A linear warm-up to v, v for as long as it is worth it, and a decay to end in the last decay_steps of `steps`.

    v * (t + 1)/warmup_steps while t < warmup_steps, or start + (v - start) * t/warmup_steps with start=; v up to
    t = steps - decay_steps; from there v + (end - v) * shape(k/decay_steps), k = 0, 1, ...
    First step v/warmup_steps, or start; last of `steps` steps: one step short of end; from t = steps on end.
    steps : of the whole.  warmup_steps, decay_steps : 0 or larger, together at most steps.
    start : the value of the first step. Default None: v/warmup_steps, which is not 0.
    decay_shape : of x from 0 to 1: "linear" is x, "cos" (1 - cos(pi*x))/2, "sqrt" its root, which falls steeply at
        first. Default "linear".
    Sources: Hu et al. (2024); Hägele et al. (2024), whose 1-sqrt is "sqrt".
    """

    v: float
    steps: int
    warmup_steps: int
    decay_steps: int
    end: float = 0.0
    start: float | None = field(default=None, kw_only=True)
    decay_shape: str = field(default="linear", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} and decay_steps={self.decay_steps} of warmup_stable_decay are more "
                f"than steps={self.steps}, which is the whole: shorten them, or give more steps"
            )

    def _value(self, t: int) -> float:
        if t < self.warmup_steps:
            return rising(self.v, self.start, t, self.warmup_steps)
        if t >= self.steps:
            return self.end
        k = t - (self.steps - self.decay_steps)
        if k <= 0:
            return self.v
        x = k / self.decay_steps
        if self.decay_shape == "cos":
            x = (1 - cos_pi(x)) / 2
        elif self.decay_shape == "sqrt":
            x = math.sqrt(x)
        return self.v + (self.end - self.v) * x


def rising(top: float, start: float | None, t: int, steps: int) -> float:
    """The t-th value of a warm-up that reaches top: at its last step, or one later where it begins at `start`."""
    return top * (t + 1) / steps if start is None else start + (top - start) * (t / steps)


def scale_lr(lr: float, batch_size: int, base_batch_size: int) -> float:
    """lr * batch_size / base_batch_size: the learning rate for another batch size than the one that lr was found for.

    lr : > 0.  batch_size, base_batch_size : whole numbers, 1 or larger.
    Raises TypeError or ValueError naming the argument. Source: the linear scaling rule of Goyal et al. (2017), who
    warm up to the larger rate.
    """
    return positive("lr", lr) * whole("batch_size", batch_size) / whole("base_batch_size", base_batch_size)
