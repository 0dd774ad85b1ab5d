"""Schedules for any hyperparameter of any optimizer: callables of t, the number of steps applied so far.

    lr = fastopt.schedules.warmup(500, fastopt.schedules.cosine(3e-4, steps=10_000))
    opt = fastopt.AdamW(params, lr=lr)

t is 0 at the first step, and a step that is not applied does not advance it. Each is a pure function of t, so that a
resumed run needs no more than t; but for ReduceOnPlateau, which goes by a metric. Each docstring says what the value
is at the first step, at the last, and past the end.
"""

from fastopt.schedules.averaging import ema_decay
from fastopt.schedules.base import NamedSchedule
from fastopt.schedules.composed import joined, warmup
from fastopt.schedules.config import from_config, to_config
from fastopt.schedules.cycle import one_cycle
from fastopt.schedules.cyclic import cyclic
from fastopt.schedules.formulas import (
    constant,
    cosine,
    cosine_restarts,
    exponential,
    inverse_sqrt,
    linear,
    piecewise,
    polynomial,
    scale_lr,
    step_decay,
    warmup_stable_decay,
)
from fastopt.schedules.picture import plot
from fastopt.schedules.plateau import ReduceOnPlateau

__all__ = [
    "NamedSchedule",
    "ReduceOnPlateau",
    "constant",
    "cosine",
    "cosine_restarts",
    "cyclic",
    "ema_decay",
    "exponential",
    "from_config",
    "inverse_sqrt",
    "joined",
    "linear",
    "one_cycle",
    "piecewise",
    "plot",
    "polynomial",
    "scale_lr",
    "step_decay",
    "to_config",
    "warmup",
    "warmup_stable_decay",
]
