"""How finely a loss is rounded, told by its values."""

from __future__ import annotations

import math

import numpy as np

PRECISIONS = (8, 2.0**-7), (11, 2.0**-10), (24, 2.0**-23)
"""Bits of a significand and spacing at 1: of bfloat16, float16 and float32. More bits are those of float64."""
DOUBLE = float(np.finfo(np.float64).eps)
FEW_BITS, FEW_VALUES = 16, 4
"""A value like 12.0 has few bits in any type: it counts as one of float64 until there are so many values."""
ULPS = 16
"""A loss is a sum: so many spacings are its rounding error."""


class Rounding:
    """The rounding error of a loss. What type it was computed in its values say, whatever type they come in and that
    of the parameters: the float32 loss of a network may come as a float, and a loss of float32 parameters be computed
    in double."""

    def __init__(self, bits: int = 0, values: int = 0) -> None:
        self.bits, self.values = bits, values
        self.relative = ULPS * self._spacing()

    def note(self, value: float) -> None:
        """Learns from one more value of the loss."""
        if self.bits > PRECISIONS[-1][0] or not math.isfinite(value):
            return
        self.values = min(self.values + 1, FEW_VALUES)
        self.bits = max(self.bits, significant_bits(value))
        self.relative = ULPS * self._spacing()

    def _spacing(self) -> float:
        if self.bits <= FEW_BITS and self.values < FEW_VALUES:
            return DOUBLE
        return next((spacing for bits, spacing in PRECISIONS if self.bits <= bits), DOUBLE)

    def of(self, value: float) -> float:
        """The rounding error of a loss of this size."""
        return self.relative * abs(value)


def significant_bits(value: float) -> int:
    """The bits from the first that is set to the last: 1 for a power of 2, 53 at most; 0 for 0."""
    numerator, _ = abs(value).as_integer_ratio()
    return (numerator // (numerator & -numerator)).bit_length() if numerator else 0
