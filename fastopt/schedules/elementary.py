"""What schedules need of cos and of powers, in arithmetic that gives the same bits on every machine: libm's do not."""

from __future__ import annotations

import math

from fastopt.core._core import exp, log
from fastopt.core._core import power as whole_power


def cos_pi(x: float) -> float:
    """cos(pi*x), x in [0, 1], to 2 ulp; exact at 0, 1/2 and 1.

    The polynomials are those of fdlibm's kernels for |y| <= pi/4 (Sun Microsystems, 1993).
    """
    if x > 0.5:
        return -cos_pi(1 - x)
    # What is subtracted here is exact.
    y = math.pi * (x if x <= 0.25 else 0.5 - x)
    z = y * y
    if x > 0.25:
        r = 2.75573137070700676789e-06 + z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)
        r = 8.33333333332248946124e-03 + z * (-1.98412698298579493134e-04 + z * r)
        return y + z * y * (-1.66666666666666324348e-01 + z * r)
    r = -2.75573143513906633035e-07 + z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11)
    r = 4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 + z * (2.48015872894767294178e-05 + z * r))
    half = 0.5 * z
    w = 1 - half
    return w + ((1 - w - half) + z * (z * r))


def power(base: float, exponent: float) -> float:
    """base**exponent, base in (0, 1] and exponent > 0: to a few ulp where the exponent is not large."""
    whole = min(math.floor(exponent), 2**53)
    rest = exponent - whole
    found = whole_power(base, whole)
    return found * decaying(-rest * log(base)) if rest else found


def decaying(x: float) -> float:
    """exp(-x), x >= 0; 0 where that is less than the smallest normal number."""
    return exp(-x) if x < 800 else 0.0
