"""A schedule as a notebook shows it: its repr and a small curve, in HTML that needs no library."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Any

from fastopt.core._core import log
from fastopt.schedules.averaging import ema_decay
from fastopt.schedules.base import NamedSchedule
from fastopt.schedules.composed import joined, warmup
from fastopt.schedules.cycle import CyclePart
from fastopt.schedules.cyclic import cyclic
from fastopt.schedules.formulas import cosine_restarts, exponential, inverse_sqrt, piecewise, step_decay
from fastopt.schedules.plateau import ReduceOnPlateau

WIDTH, HEIGHT, POINTS = 300, 80, 300
MOST, OTHERWISE = 2**50, 100

# Until little new comes, of those that do not say it by `steps`.
LENGTHS: dict[type, Callable[[Any], float]] = {
    CyclePart: lambda s: 1.1 * s.cycle.steps,
    cosine_restarts: lambda s: s.steps * (1 + s.t_mult + s.t_mult**2),
    cyclic: lambda s: 3 * (s.steps_up + (s.steps_down or s.steps_up)),
    ema_decay: lambda s: s.start + (length(s.decay) if callable(s.decay) else 4 / (1 - s.decay)),
    exponential: lambda s: 4 / (abs(log(s.gamma)) if s.rate is None else s.rate),
    inverse_sqrt: lambda s: 15 * s.scale,
    joined: lambda s: (s.boundaries[-1] if s.boundaries else 0) + length(s.schedules[-1]),
    piecewise: lambda s: 1.25 * s.boundaries[-1],
    step_decay: lambda s: 5 * s.every,
    warmup: lambda s: s.steps + length(s.then),
}


def length(schedule: Any) -> int:
    """How many steps show what a schedule does."""
    found = LENGTHS.get(type(schedule), lambda s: 1.1 * getattr(s, "steps", OTHERWISE))
    try:
        return min(max(2, math.ceil(found(schedule))), MOST)
    except (ArithmeticError, IndexError, ValueError):
        return OTHERWISE


def shown(schedule: NamedSchedule) -> str:
    """The repr and, but for what has no curve in t, a line over as many steps as say something."""
    text = f"<code>{escape(repr(schedule))}</code>"
    if isinstance(schedule, ReduceOnPlateau):
        return f"<div>{text} now {schedule.value:.4g}</div>"
    steps = length(schedule)
    at = sorted({round(i * (steps - 1) / POINTS) for i in range(POINTS + 1)})
    try:
        values = [schedule(t) for t in at]
    except Exception:
        # A function of the user's own inside it, which has its own idea of t.
        return f"<div>{text}</div>"
    low, high = min(values), max(values)
    if not math.isfinite(high - low):
        return f"<div>{text}</div>"
    across, up = WIDTH / (steps - 1), HEIGHT / ((high - low) or 1)
    line = " ".join(f"{t * across:.1f},{(high - x) * up:.1f}" for t, x in zip(at, values, strict=True))
    return (
        f"<div>{text}<br>"
        f'<svg viewBox="-4 -4 {WIDTH + 8} {HEIGHT + 8}" width="{WIDTH + 8}" height="{HEIGHT + 8}" role="img">'
        f'<polyline points="{line}" fill="none" stroke="#1f77b4" stroke-width="1.5"/></svg><br>'
        f"<small>t = 0 to {steps - 1:,}, values {low:.4g} to {high:.4g}</small></div>"
    )
