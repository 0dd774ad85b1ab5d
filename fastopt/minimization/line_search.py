"""Line searches: how far to go from x along a direction d.

Each takes phi, a function of the step alpha, which gives the loss at x + alpha d; `strong_wolfe` also needs its slope
there, and takes phi as `along(fun_and_grad, x, d)` makes it:

    phi = fastopt.line_search.along(fun_and_grad, x, d)
    found = fastopt.line_search.strong_wolfe(phi)
    x = x + found.alpha * d

A loss or slope that is NaN or infinite counts as a step too far. Nothing here is random or keeps anything.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastopt.base.arguments import (
    at_least_0,
    doubles,
    function,
    inside_0_1,
    number,
    positive,
    reals,
    shown,
    whole,
    within,
)
from fastopt.base.tree import Array, kind

__all__ = ["Found", "along", "backtracking", "bracketing", "strong_wolfe"]

Losses: TypeAlias = Callable[[float], float]
Slopes: TypeAlias = Callable[[float], tuple[float, float]]

EPS = sys.float_info.epsilon
ROUNDING = 16 * sys.float_info.epsilon
INTO = 0.1
"""How far towards a point that is not finite the next one goes."""


class Found(NamedTuple):
    """What a line search found: the step, the loss there, how often phi was called, and whether the search's own
    conditions hold there. A search that fails gives the lowest point it met: alpha is 0 where none is below phi(0)."""

    alpha: float
    value: float
    evaluations: int
    success: bool


class _Point(NamedTuple):
    alpha: float
    value: float
    slope: float


def along(fun_and_grad: Callable[[Array], tuple[float, Array]], x: Any, d: Any) -> Slopes:
    """phi for a function that gives (loss, gradient): phi(alpha) = (loss, slope) at x + alpha d.

    x, d : arrays of one shape, or lists; not written.
    """
    function("fun_and_grad", fun_and_grad, "a function of x, giving (loss, gradient)")
    x, d = doubles("x", x), doubles("d", d)
    if x.shape != d.shape:
        raise ValueError(f"x has shape {x.shape} and the direction d {d.shape}: they must be equal")

    def phi(alpha: float) -> tuple[float, float]:
        value, gradient = loss_and_gradient(fun_and_grad(x + alpha * d), x.shape)
        return value, float(np.sum(gradient * d))

    return phi


def strong_wolfe(
    phi: Slopes,
    alpha: float = 1.0,
    *,
    value: float | None = None,
    slope: float | None = None,
    c1: float = 1e-4,
    c2: float = 0.9,
    rounding: float = ROUNDING,
    longest: float = math.inf,
    max_evaluations: int = 25,
) -> Found:
    """A step that fulfils the strong Wolfe conditions (Nocedal & Wright, 2006, algorithms 3.5 and 3.6):

        phi(alpha) <= phi(0) + c1 alpha phi'(0)    and    |phi'(alpha)| <= c2 |phi'(0)|

    phi : alpha -> (loss, slope).
    alpha : the first step to try, > 0. 1 for Newton's and quasi-Newton directions.
    value, slope : phi(0), both, where it is known; the slope must be negative.
    c1, c2 : 0 < c1 <= c2 < 1.
    rounding : the relative rounding error of the loss; by default that of a loss in float64.
    longest : no step is longer; one so long is taken where the first condition holds and the loss still falls.
    max_evaluations : of phi; the search gives up after them.

    Steps come from cubic interpolation within the bracket, and before there is one from extrapolation to between 1.1
    and 4 times further. Where the decrease asked for is less than the rounding error of the loss, a loss no larger
    than phi(0) but for that error is enough, and the slope decides (Hager & Zhang, 2005).
    """
    _check(phi, alpha, max_evaluations, c1=c1, c2=c2)
    if (value is None) != (slope is None):
        raise TypeError(f"value is {shown(value)} and slope {shown(slope)}: give both of phi(0), or neither")
    evaluations = 0
    if value is None or slope is None:
        (value, slope), evaluations = _loss_and_slope(phi, 0.0), 1
    _check_start(value, slope)
    noise = within("rounding", rounding, at_least_0) * abs(value)
    alpha = min(alpha, within("longest", longest, _above_0))
    before, low, high = None, _Point(0.0, value, slope), None
    width = older_width = math.inf
    while evaluations < max_evaluations:
        evaluations += 1
        tried = _Point(alpha, *_loss_and_slope(phi, alpha))
        wanted = c1 * alpha * slope
        low_enough = tried.value <= value + (noise if -wanted < noise else wanted)
        if not (math.isfinite(tried.value) and math.isfinite(tried.slope)):
            high = _Point(alpha, math.inf, math.nan)
        elif low_enough and (abs(tried.slope) <= -c2 * slope or (alpha >= longest and tried.slope < 0)):
            return Found(alpha, tried.value, evaluations, True)
        elif not low_enough or (tried.value >= low.value + noise and low.alpha > 0):
            high = tried
        else:
            if tried.slope * ((math.inf if high is None else high.alpha) - low.alpha) >= 0:
                high = low
            before, low = low, tried
        if high is None:
            assert before is not None
            alpha = min(_extrapolate(before, low, noise), longest)
            if not math.isfinite(alpha):
                break
            continue
        alpha = _interpolate(low, high, noise)
        width, older, older_width = abs(high.alpha - low.alpha), older_width, width
        if width > 0.66 * older:
            alpha = low.alpha + (0.5 if math.isfinite(high.value) else INTO) * (high.alpha - low.alpha)
        if width <= EPS * abs(high.alpha + low.alpha) or alpha in (low.alpha, high.alpha):
            break
    return Found(low.alpha, low.value, evaluations, False)


def backtracking(
    phi: Losses,
    alpha: float = 1.0,
    *,
    slope: float,
    value: float | None = None,
    c1: float = 1e-4,
    shrink: float = 0.5,
    max_evaluations: int = 60,
) -> Found:
    """The first of alpha, shrink alpha, shrink^2 alpha, ... with sufficient decrease (Armijo, 1966):

        phi(alpha) <= phi(0) + c1 alpha slope

    phi : alpha -> loss.
    alpha : the first and longest step, > 0.
    slope : phi'(0) = g.d, negative.
    value : phi(0), where it is known.
    c1, shrink : in (0, 1).
    """
    _check(phi, alpha, max_evaluations, c1=c1, shrink=shrink)
    evaluations = 0
    if value is None:
        value, evaluations = _loss(phi, 0.0), 1
    _check_start(value, slope)
    low = (0.0, value)
    while evaluations < max_evaluations:
        evaluations += 1
        tried = _loss(phi, alpha)
        if -math.inf < tried <= value + c1 * alpha * slope and tried < value:
            return Found(alpha, tried, evaluations, True)
        if -math.inf < tried < low[1]:
            low = (alpha, tried)
        alpha *= shrink
    return Found(*low, evaluations, False)


GOLDEN = (math.sqrt(5) - 1) / 2


def bracketing(
    phi: Losses,
    alpha: float = 1.0,
    *,
    value: float | None = None,
    tolerance: float = 0.1,
    max_evaluations: int = 60,
) -> Found:
    """The lowest point of a bracket that shrinks around a minimum (golden section; Kiefer, 1953).

    phi : alpha -> loss.
    alpha : where the first bracket [0, alpha] ends, > 0.
    value : phi(0), where it is known.
    tolerance : done when the bracket is no wider than this part of the step; > 0.

    Each round compares the losses at four points a < b < c < d. Where b is the lower of the inner two, or a lowest of
    all, the bracket becomes [a, c]; else [b, d]; and where d is lowest of all it is extended beyond d. The inner
    points divide the bracket by the golden section, so that three of a round's four losses are known from the last.
    For a loss with one minimum along the line it is that minimum; no slopes are needed.
    """
    _check(phi, alpha, max_evaluations)
    positive("tolerance", tolerance)
    evaluations = 0

    def at(step: float) -> tuple[float, float]:
        nonlocal evaluations
        evaluations += 1
        loss = _loss(phi, step)
        return (loss if math.isfinite(loss) else math.inf), step

    if value is None:
        value = at(0.0)[0]
    _check_start(value)
    a = lowest = (value, 0.0)
    if max_evaluations - evaluations < 3:
        # Too few for four points: the lowest of those that there may be.
        for step in (GOLDEN * alpha, (1 - GOLDEN) * alpha)[: max_evaluations - evaluations]:
            lowest = min(lowest, at(step))
        return Found(lowest[1], lowest[0], evaluations, False)
    d, b, c = at(alpha), at((1 - GOLDEN) * alpha), at(GOLDEN * alpha)
    while evaluations < max_evaluations and d[1] < math.inf:
        lowest = min(a, b, c, d)
        if lowest[1] > 0 and d[1] - a[1] <= tolerance * lowest[1]:
            return Found(lowest[1], lowest[0], evaluations, True)
        if lowest is d:
            b, c, d = c, d, at(a[1] + (d[1] - a[1]) / GOLDEN)
        elif lowest is a or b[0] <= c[0]:
            b, c, d = at(a[1] + (1 - GOLDEN) * (c[1] - a[1])), b, c
        else:
            a, b, c = b, c, at(b[1] + GOLDEN * (d[1] - b[1]))
    value, alpha = min(a, b, c, d)
    return Found(alpha, value, evaluations, False)


def _cubic(p: _Point, q: _Point, noise: float) -> float:
    """The minimum of the cubic through two points with their slopes (Nocedal & Wright, 3.59); NaN without one. Where
    rounding hides the difference of the losses, slopes alone decide: it is where a line through them is 0."""
    if abs(p.value - q.value) <= noise:
        return q.alpha - q.slope * ((q.alpha - p.alpha) / (q.slope - p.slope)) if q.slope != p.slope else math.nan
    mean = p.slope + q.slope - 3 * ((p.value - q.value) / (p.alpha - q.alpha))
    under = mean * mean - p.slope * q.slope
    if not 0 <= under < math.inf:
        return math.nan
    root = math.copysign(math.sqrt(under), q.alpha - p.alpha)
    below = q.slope - p.slope + 2 * root
    return q.alpha - (q.alpha - p.alpha) * ((q.slope + root - mean) / below) if below else math.nan


def _extrapolate(before: _Point, low: _Point, noise: float) -> float:
    reach = low.alpha - before.alpha
    alpha = _cubic(before, low, noise)
    shortest, longest = low.alpha + 1.1 * reach, low.alpha + 4 * reach
    return min(max(alpha, shortest), longest) if alpha > low.alpha else longest


def _interpolate(low: _Point, high: _Point, noise: float) -> float:
    width = high.alpha - low.alpha
    if not math.isfinite(high.value):
        return low.alpha + INTO * width
    part = (_cubic(low, high, noise) - low.alpha) / width
    return low.alpha + (min(max(part, 0.01), 0.99) if math.isfinite(part) else 0.5) * width


def _loss(phi: Losses, alpha: float) -> float:
    found = phi(alpha)
    if isinstance(found, tuple):
        raise TypeError("phi returned a tuple: this search takes the loss alone, lambda alpha: phi(alpha)[0]")
    return number("the loss that phi returned", found)


def _loss_and_slope(phi: Slopes, alpha: float) -> tuple[float, float]:
    loss, slope = pair("phi", phi(alpha), "(loss, slope)")
    return loss, number("the slope that phi returned", slope)


def pair(what: str, found: Any, expected: str = "(loss, gradient)") -> tuple[float, Any]:
    """The two things that a user's function returned, the first, the loss, as a float."""
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        size = f" of {len(found)}" if isinstance(found, (tuple, list)) else ""
        raise TypeError(f"{what} returned {kind(found)}{size}: expected {expected}")
    return number(f"the loss that {what} returned", found[0]), found[1]


def loss_and_gradient(found: Any, shape: tuple[int, ...]) -> tuple[float, Array]:
    """What fun_and_grad returned, the gradient as an array of this shape."""
    loss, gradient = pair("fun_and_grad", found)
    gradient = reals("the gradient that fun_and_grad returned", gradient)
    if gradient.shape != shape:
        raise ValueError(
            f"the gradient that fun_and_grad returned has shape {gradient.shape} and x {shape}: they must be equal"
        )
    return loss, gradient


def _check(phi: Any, alpha: float, max_evaluations: int, **fractions: float) -> None:
    function("phi", phi, "a function of the step")
    positive("alpha", alpha)
    whole("max_evaluations", max_evaluations)
    for name, x in fractions.items():
        within(name, x, inside_0_1)
    if fractions.get("c1", 0.0) > fractions.get("c2", 1.0):
        raise ValueError(f"c1={fractions['c1']!r} must not be larger than c2={fractions['c2']!r}")


def _above_0(name: str, x: float) -> None:
    if not x > 0:
        raise ValueError(f"{name} is {x!r}: expected a number larger than 0")


def _check_start(value: float, slope: float = -1.0) -> None:
    if not math.isfinite(number("value", value)):
        raise ValueError(f"the value phi(0) is {value}: a line search starts where the loss is finite")
    if not -math.inf < number("slope", slope) < 0:
        raise ValueError(f"the slope phi'(0) is {slope}: expected less than 0, the direction must lead downhill")
