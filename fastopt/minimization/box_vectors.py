"""L-BFGS within bounds: directions to the minimum of its quadratic model in the box."""

from __future__ import annotations

import math

import numpy as np

from fastopt.base.tree import Array
from fastopt.minimization.box import Box

EPS = float(np.finfo(np.float64).eps)
ROUNDS, RELEASING = 60, 20
"""Of searches for the bounds at which the model has its minimum; only in the first are bounds let go."""


class BoxVectors:
    """The vectors of a descent (_core.Vectors) whose points stay in a box, in float64 by NumPy.

    A direction leads to the minimum in the box of f(x) + g.p + p.Bp/2, with B as the last `history` pairs say: the
    problem that L-BFGS-B approximates by a Cauchy point and a minimization in its face (Byrd, Lu, Nocedal & Zhu, 1995).
    Here bounds are taken up and let go by the signs of multipliers (Hintermüller, Ito & Kunisch, 2003).
    """

    def __init__(self, n: int, history: int, box: Box) -> None:
        self.x, self.g, self.d, self.trial_x, self.trial_g = np.zeros((5, n))
        self._box, self._history = box, history
        self._s, self._y = np.zeros((0, n)), np.zeros((0, n))
        self._low = self._high = np.zeros(n, bool)
        self._moving = np.ones(n, bool)
        self.closed = bool(np.isfinite(box.low).all() and np.isfinite(box.high).all())

    def direct(self) -> float:
        """d, to the minimum of the model; returns g.d"""
        low, high = self._box.low - self.x, self._box.high - self.x
        model = Model(self._s, self._y)
        p, self._low, self._high = model.minimum(self.g, low, high)
        if not (self.g @ p < 0 and np.isfinite(p).all()):
            p = self._box.descent(self.x, self.g / model.theta)
            self._low, self._high = p <= low, p >= high
        self.d[...] = p
        return self.slope()

    def move(self, alpha: float) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            aim = self.x + alpha * self.d
        self.trial_x[...] = self._box.project(aim)
        if alpha >= 1:
            # Rounding may leave a step to a bound short of it.
            self.trial_x[self._low] = self._box.low[self._low]
            self.trial_x[self._high] = self._box.high[self._high]
        self._moving = (aim >= self._box.low) & (aim <= self._box.high)

    def longest(self) -> float:
        """The longest step along d within the box."""
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(self.d > 0, self._box.high - self.x, self._box.low - self.x) / self.d
        return max(1.0, float(np.min(room, initial=math.inf, where=self.d != 0)))

    def slope(self) -> float:
        return float(self.g @ self.d)

    def trial_slope(self) -> float:
        """Along the path, which turns at bounds."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(self.trial_g @ np.where(self._moving, self.d, 0.0))

    def steepness(self) -> tuple[float, float]:
        """(the largest element, the 2-norm) of the step along -g within the box"""
        if not np.isfinite(self.g).all():
            return math.nan, math.nan
        p = self._box.descent(self.x, self.g)
        return float(np.abs(p).max()), float(np.linalg.norm(p))

    def accept(self) -> None:
        s, y = self.trial_x - self.x, self.trial_g - self.g
        with np.errstate(over="ignore", invalid="ignore"):
            sy, size = float(s @ y), float(np.linalg.norm(s) * np.linalg.norm(y))
        if EPS * size < sy < math.inf:
            # The model is the same for multiples of both.
            scale = 1 / math.sqrt(sy)
            keep = slice(-self._history, None)
            self._s = np.vstack([self._s, scale * s])[keep]
            self._y = np.vstack([self._y, scale * y])[keep]
        self.x, self.trial_x = self.trial_x, self.x
        self.g, self.trial_g = self.trial_g, self.g

    @property
    def count(self) -> int:
        return len(self._s)

    def forget(self) -> None:
        self._s, self._y = self._s[:0], self._y[:0]


class Model:
    """B = theta - W' M^-1 W from pairs with s.y = 1 (Byrd, Nocedal & Schnabel, 1994)."""

    def __init__(self, s: Array, y: Array) -> None:
        self.theta = float(y[-1] @ y[-1]) if len(s) else 1.0
        self.W = np.vstack([y, self.theta * s])
        sy = s @ y.T
        lower = np.tril(sy, -1)
        self.M = np.block([[-np.diag(np.diag(sy)), lower.T], [lower, self.theta * (s @ s.T)]])

    def product(self, p: Array) -> Array:
        """B p"""
        found: Array = self.theta * p - self.W.T @ _solve(self.M, self.W @ p)
        return found

    def solve(self, free: Array, r: Array) -> Array:
        """p of the free variables with B p = r there, others being 0."""
        W = self.W[:, free]
        inner = _solve(self.M - W @ W.T / self.theta, W @ r)
        found: Array = (r + W.T @ inner / self.theta) / self.theta
        return found

    def minimum(self, g: Array, low: Array, high: Array) -> tuple[Array, Array, Array]:
        """p that minimizes g.p + p.Bp/2 for low <= p <= high, and which elements are at either."""
        fixed = low >= high
        at_low, at_high = fixed | ((low >= 0) & (g > 0)), ~fixed & (high <= 0) & (g < 0)
        for k in range(ROUNDS):
            p = np.where(at_low, low, np.where(at_high, high, 0.0))
            free = ~(at_low | at_high)
            p[free] = self.solve(free, -(g + self.product(p))[free])
            below, above = free & (p < low), free & (p > high)
            multipliers = g + self.product(p)
            go = (at_low & ~fixed & (multipliers < 0)) | (at_high & (multipliers > 0))
            if k >= RELEASING:
                go[:] = False
            if not (below | above | go).any():
                break
            at_low, at_high = (at_low & ~go) | below, (at_high & ~go) | above
        else:
            p = np.clip(p, low, high)
        return p, p <= low, p >= high


def _solve(M: Array, b: Array) -> Array:
    if not len(M):
        return b
    try:
        found: Array = np.linalg.solve(M, b)
    except np.linalg.LinAlgError:
        found = np.linalg.lstsq(M, b, rcond=None)[0]
    return found
