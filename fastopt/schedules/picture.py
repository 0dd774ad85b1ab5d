"""A picture of schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastopt.base.arguments import axes_like, function, number, whole
from fastopt.schedules.base import Schedule

MOST = 1_000_000
"""Steps in a picture."""


def plot(schedules: Schedule | Mapping[str, Schedule], steps: int, ax: Any = None) -> Any:
    """Draws the values of one schedule, or of a dict of name -> schedule, at t = 0 to steps - 1, and returns the axes.

    schedules : built-in ones or any callables of t.
    steps : 1 to 1,000,000.
    ax : the matplotlib axes to draw into; None for new ones.

    Needs matplotlib. Raises TypeError, before anything is drawn, for what is no schedule.
    """
    n = whole("steps", steps, 1, MOST)
    named = schedules if isinstance(schedules, Mapping) else {"": schedules}
    if not named:
        raise ValueError("schedules is empty: there is nothing to draw")
    if ax is not None:
        axes_like("ax", ax)
    curves = {}
    for name, schedule in named.items():
        what = f"schedules[{name!r}]" if named is schedules else "schedules"
        function(what, schedule, "a callable of t (of one_cycle: .lr or .momentum)")
        curves[name] = [number(f"{what} at t={t}", schedule(t)) for t in range(n)]
    if ax is None:
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError("schedules.plot draws with matplotlib: pip install matplotlib") from error
        ax = pyplot.subplots(figsize=(7, 4), layout="constrained")[1]
    for name, values in curves.items():
        # A value holds for a whole step.
        ax.step(range(n), values, where="post", label=name)
    ax.set(xlabel="t, steps applied so far", ylabel="value")
    ax.grid(alpha=0.25)
    if isinstance(schedules, Mapping):
        ax.legend()
    return ax
