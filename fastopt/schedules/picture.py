"""A picture of schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.hyperparameters import Schedule, whole


def plot(schedules: Schedule | Mapping[str, Schedule], steps: int, ax: Any = None) -> Any:
    """Draws the values of one schedule, or of a dict of name -> schedule, at t = 0 to steps - 1, and returns the axes.

    schedules : built-in ones or any callables of t.
    ax : the matplotlib axes to draw into; None for new ones.

    Needs matplotlib. Raises TypeError for what is no schedule.
    """
    n = whole("steps", steps)
    named = schedules if isinstance(schedules, Mapping) else {"": schedules}
    if not named:
        raise ValueError("there are no schedules to draw")
    for name, schedule in named.items():
        if not callable(schedule):
            raise TypeError(
                f"schedule {name!r} is {schedule!r}: expected a callable of t (of one_cycle: .lr or .momentum)"
            )
    if ax is None:
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError("schedules.plot draws with matplotlib: pip install matplotlib") from error
        ax = pyplot.subplots(figsize=(7, 4), layout="constrained")[1]
    for name, schedule in named.items():
        # A value holds for a whole step.
        ax.step(range(n), [schedule(t) for t in range(n)], where="post", label=name)
    ax.set(xlabel="t, steps applied so far", ylabel="value")
    ax.grid(alpha=0.25)
    if isinstance(schedules, Mapping):
        ax.legend()
    return ax
