"""The decay of a running average that begins later, cautiously, or without a trace of where it began."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from fastopt.base.arguments import boolean, from_0_below_1, number, shown, whole, within
from fastopt.core._core import power as whole_power
from fastopt.schedules.base import NamedSchedule, Scalar


@dataclass(frozen=True, repr=False)
class ema_decay(NamedSchedule):
    """The d of a running average a = d*a + (1 - d)*p at its t-th update: for `average` of an optimizer, and in `EMA`.

    Where n = t - start is below 0 it is 0: the average is p itself. After that it is decay, or decay(n).
    warmup : the smaller of that and (1 + n)/(10 + n), which is 0.1 at first (TensorFlow's num_updates).
    debias : what the average was before n = 0 does not count: d*(1 - b)/(1 - b*d), b the product of the d before, which
        is 0 at n = 0. It is the average of Adam's moments, a/(1 - d^n) of an a that begins at 0 (optax: ema), in which
        p of k updates ago weighs (1 - d)*d^k/(1 - d^n). It needs a decay that is a number.
    decay : in [0, 1), or a schedule.  start : 0 or larger.
    First 0.1 with warmup, 0 with debias or start, else decay; in the end decay.
    Sources: Kingma and Ba (2015) for debias; the warm-up is TensorFlow's ExponentialMovingAverage.
    """

    decay: Scalar
    warmup: bool = field(default=False, kw_only=True)
    debias: bool = field(default=False, kw_only=True)
    start: int = field(default=0, kw_only=True)
    _domains: ClassVar[dict[str, Any]] = {
        "warmup": boolean,
        "debias": boolean,
        "start": partial(whole, least=0),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.decay):
            object.__setattr__(self, "decay", within("decay of ema_decay", self.decay, from_0_below_1))
        elif self.debias:
            raise TypeError(
                f"decay of ema_decay is {shown(self.decay)}: with debias=True expected a number, for what came before "
                "is to be known at any t"
            )

    def _value(self, t: int) -> float:
        n = t - self.start
        if n < 0:
            return 0.0
        d = number(f"decay({n}) of ema_decay", self.decay(n)) if callable(self.decay) else self.decay
        d = min(d, (1 + n) / (10 + n)) if self.warmup else d
        if self.debias:
            before = self._product(n)
            d *= (1 - before) / (1 - before * d)
        return d

    def _product(self, n: int) -> float:
        """Of the first n decays."""
        d = self.decay
        assert not callable(d)
        if not self.warmup:
            return whole_power(d, n)
        # (1 + i)/(10 + i) is the smaller one while i is below (10 d - 1)/(1 - d), and their product is 9! n!/(n + 9)!.
        warm = min(n, max(0, math.ceil((10 * d - 1) / (1 - d))))
        product = whole_power(d, n - warm)
        for j in range(1, 10):
            product *= j / (warm + j)
        return product
