"""The bounds of parameters: what they may be, how they are rounded to a type, and what starts outside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from fastopt.base.arguments import number, shown
from fastopt.base.tree import Array

Bounds: TypeAlias = tuple[float | None, float | None]

EXPECTED = "expected a pair (low, high) of numbers, None for no bound, like (0, None)"


def bounds_or_none(name: str, value: Any) -> Bounds | None:
    """Bounds as they are kept: floats, or None where there is none."""
    if value is None:
        return None
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} is {shown(value)}: {EXPECTED}")
    if any(isinstance(x, (tuple, list)) for x in value):
        raise TypeError(
            f"{name} is {shown(value)}: {EXPECTED}; for one pair each, "
            f'for group, pair in zip(opt.groups, pairs): group["{name}"] = pair'
        )
    if len(value) != 2:
        raise ValueError(f"{name} has {len(value)} values: {EXPECTED}")
    low, high = (_side(f"{name}[{i}]", x, (-math.inf, math.inf)[i]) for i, x in enumerate(value))
    if low is not None and high is not None and low > high:
        raise ValueError(f"{name} is {shown(value)}: the low one must not be above the high one")
    return None if low is None and high is None else (low, high)


def _side(name: str, value: Any, free: float) -> float | None:
    if value is None:
        return None
    x = number(name, value, "a number or None")
    if math.isnan(x) or x == -free:
        raise ValueError(f"{name} is {x!r}: expected a finite number, None for no bound")
    # + 0.0 makes 0 of -0.
    return None if x == free else x + 0.0


def box(bounds: Bounds, dtype: Any, flush: bool) -> tuple[float, float]:
    """The least and the largest number of a type within bounds, infinite where there is no bound. Rounded inwards, so
    that what is within them is within the bounds as they were given; with `flush` no subnormal number."""
    low, high = bounds
    least = -math.inf if low is None else _at_least(low, np.dtype(dtype).type, flush)
    most = math.inf if high is None else -_at_least(-high, np.dtype(dtype).type, flush)
    return least, most + 0.0


def _at_least(x: float, real: Any, flush: bool) -> float:
    """The least number of a type that is not below x."""
    with np.errstate(all="ignore"):
        found = real(x)
        if float(found) < x:
            found = np.nextafter(found, real(np.inf))
    smallest = float(np.finfo(real).smallest_normal)
    if flush and abs(found) < smallest:
        return smallest if x > 0 else 0.0
    return float(found)


def outside(bounds: Bounds | None, names: Sequence[str], params: Sequence[Array], flush: bool) -> str | None:
    """What is wrong with parameters that are to be within bounds, and how to move them inside."""
    if bounds is None:
        return None
    for name, p in zip(names, params, strict=True):
        least, most = box(bounds, p.dtype, flush)
        if least > most or least == math.inf or most == -math.inf:
            return f"there is no {p.dtype} within bounds={bounds}, and the parameter {name!r} is of that type"
        wrong = (p < least) | (p > most)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            where = f" at index {at}" if at else ""
            sides = ", ".join(_written(x, p.dtype) for x in (least, most))
            return (
                f"the parameter {name!r} is {p[at]!s}{where}, outside bounds={bounds}: move it inside first, "
                f"np.clip(p, {sides}, out=p) with p that array"
            )
    return None


def _written(x: float, dtype: Any) -> str:
    """A side of a box so that it is read back as this number of the type."""
    return "None" if math.isinf(x) else str(np.dtype(dtype).type(x))
