"""Whether a descent still comes lower, and when to give up."""

from __future__ import annotations

import math

import numpy as np

from fastopt.base.tree import Array
from fastopt.minimization.rounding import Rounding

PATIENCE = 50
"""So many iterations that lowered neither the loss, but for rounding, nor max|gradient| are the end of a descent."""
CONTRADICTED = 5
"""... each counting so many times where the slopes promised a fall that the loss would have shown."""
STUCK = math.inf


class Progress:
    """What a descent has come to, kept from one step to the next: where nothing has changed between them, many short
    ones end where a long one does.

    Rounding may hide every single fall of a loss, and not their sum; where it hides that too, slopes may lead on.
    """

    def __init__(self) -> None:
        self.value = self.steepest = math.nan
        self._renew()

    def _renew(self) -> None:
        self.rounding = Rounding()
        self.lowest = self.least = math.inf
        self.promised = self.idle = 0.0

    def begin(self, value: float, steepest: float) -> None:
        """At the first point of a step; where the last one ended somewhere else, all begins anew."""
        if (value, steepest) != (self.value, self.steepest):
            self._renew()
            self._at(value, steepest)
            self.lowest, self.least = value, steepest
            self.rounding.note(value)

    def advance(self, value: float, steepest: float, promised: float) -> None:
        """After an iteration: the loss and max|gradient| it came to, and how far the loss fell by its slopes."""
        self._at(value, steepest)
        self.promised += promised
        noise = self.rounding.of(value)
        if self.lowest - value > noise or steepest < self.least:
            self.idle = self.promised = 0.0
            self.lowest = min(self.lowest, value)
        else:
            self.idle += CONTRADICTED if self.promised > 2 * noise else 1
        self.least = min(self.least, steepest)

    def _at(self, value: float, steepest: float) -> None:
        self.value, self.steepest = value, steepest

    def stick(self) -> None:
        """There is no way on from here."""
        self.idle = STUCK

    @property
    def over(self) -> bool:
        return self.idle >= PATIENCE

    @property
    def numbers(self) -> Array:
        """All of it, to be saved."""
        own = self.value, self.steepest, self.lowest, self.least, self.promised, self.idle
        return np.array([*own, self.rounding.bits, self.rounding.values])

    @numbers.setter
    def numbers(self, saved: Array) -> None:
        self.value, self.steepest, self.lowest, self.least, self.promised, self.idle = map(float, saved[:6])
        self.rounding = Rounding(*map(int, np.clip(np.nan_to_num(saved[6:]), 0, 100)))
