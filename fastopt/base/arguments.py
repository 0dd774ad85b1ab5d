"""What arguments may be: each check gives the value as it is kept, or raises with the argument's name."""

from __future__ import annotations

import math
import numbers
import operator
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from fastopt.base.tree import Array, kind

Check: TypeAlias = Callable[[str, float], None]

NO_NUMBERS = bool, np.bool_, np.timedelta64
"""What Python or NumPy counts among the integers."""
LARGEST = 2**53
"""Counts and sizes end here: schedules and bias corrections compute with floats, which have every integer so far."""


def shown(value: Any) -> str:
    """Its repr for an error, or where that is long or fails, what it is."""
    try:
        text = repr(value)
    except Exception:
        return kind(value)
    return text if len(text) <= 200 else kind(value)


def scalar(value: Any) -> Any:
    """What is in a NumPy, jax or torch array without dimensions; anything else as it is."""
    if isinstance(value, np.ndarray):
        return value[()] if value.ndim == 0 else value
    if isinstance(value, (numbers.Number, np.timedelta64, np.datetime64)):
        return value
    try:
        return value.item() if value.shape == () else value
    except Exception:  # It is no array, or one whose number nobody knows yet, as while jax traces.
        return value


def _size(value: Any) -> int | None:
    """How many elements an array of any library has; None of what is no array, or is one without dimensions."""
    shape = getattr(value, "shape", None)
    return math.prod(shape) if isinstance(shape, tuple) and shape else None


def _take_out(value: Any) -> str:
    return "; of an array of one element it is array.item()" if _size(value) == 1 else ""


def number(name: str, value: Any, expected: str = "a number") -> float:
    """A Python float from any real scalar or 0-d array."""
    if type(value) is float:
        return value
    value = scalar(value)
    if isinstance(value, NO_NUMBERS) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {shown(value)}, a {type(value).__name__}: expected {expected}{_take_out(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large for a float: expected {expected}") from None


def whole(name: str, value: Any, least: int = 1, most: int = LARGEST, expected: str | None = None) -> int:
    expected = expected or f"a whole number, {least} {'or larger' if most == LARGEST else f'to {most}'}"
    value = scalar(value)
    try:
        # An array of one element passes for an index in torch.
        if isinstance(value, NO_NUMBERS) or _size(value) is not None:
            raise TypeError
        n = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {shown(value)}: expected {expected}{_take_out(value)}") from None
    if n > LARGEST and n > most:
        raise ValueError(f"{name} is {shown(n)}: expected at most {most}")
    if not least <= n <= most:
        raise ValueError(f"{name} is {shown(n)}: expected {expected}")
    return n


def finite(name: str, value: Any) -> float:
    x = number(name, value)
    if not math.isfinite(x):
        raise ValueError(f"{name} is {x!r}: expected a finite number")
    return x


def positive(name: str, value: Any) -> float:
    x = finite(name, value)
    if x <= 0:
        raise ValueError(f"{name} is {x!r}: expected a number larger than 0")
    return x


def boolean(name: str, value: Any) -> bool:
    found = scalar(value)
    if not isinstance(found, (bool, np.bool_)):
        raise TypeError(f"{name} is {shown(value)}: expected True or False")
    return bool(found)


def one_of(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    if not (value is None or isinstance(value, str)) or value not in choices:
        raise ValueError(f"{name} is {shown(value)}: expected one of {', '.join(map(repr, choices))}")
    return value


def function(name: str, value: Any, expected: str) -> Any:
    if not callable(value):
        raise TypeError(f"{name} is {shown(value)}: expected {expected}")
    return value


def refuse_masked(name: str, x: Any) -> None:
    # Not np.ma, whose first use imports it: a fork at that moment would leave the child's import lock held.
    if isinstance(x, getattr(sys.modules.get("numpy.ma"), "MaskedArray", ())):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored: pass its .data")


def reals(name: str, x: Any, kinds: str = "fiu") -> Array:
    """An array from anything that holds real numbers: itself, where it is one. `kinds` are NumPy's codes of types."""
    refuse_masked(name, x)
    try:
        a = np.asarray(x)
    except (TypeError, ValueError) as error:
        wrong = TypeError if isinstance(error, TypeError) else ValueError
        raise wrong(f"{name} is no array: {error}") from None
    if a.dtype.kind not in kinds:
        found = kind(x) if a is x else f"{kind(x)} that holds {a.dtype}"
        raise TypeError(f"{name} is {found}: expected real numbers")
    return a


def refuse_element(name: str, x: Array, wrong: Array, expected: str) -> None:
    """Names the first element that is wrong."""
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    where = f"{name}[{', '.join(map(str, index))}]" if index else name
    raise ValueError(f"{where} is {x[index].item()!r}: {expected}")


def doubles(name: str, x: Any) -> Array:
    """Finite numbers as an array of float64, a new one but where it is that already."""
    with np.errstate(over="ignore"):
        a = reals(name, x).astype(np.float64, copy=False)
    wrong = ~np.isfinite(a)
    if wrong.any():
        refuse_element(name, a, wrong, "expected finite numbers")
    return a


def axes_like(name: str, value: Any) -> Any:
    """Matplotlib's axes, or what draws as they do."""
    if not hasattr(value, "step") or not hasattr(value, "axhspan"):
        raise TypeError(f"{name} is {shown(value)}: expected matplotlib axes")
    return value


def norm_order(name: str, value: float) -> float:
    expected = "1, 2 or infinity"
    x = number(name, value, expected)
    if x not in (1, 2, math.inf):
        raise ValueError(f"{name} is {shown(value)}: expected {expected}")
    return x if x == math.inf else int(x)


def within(name: str, value: Any, check: Check) -> float:
    """A number that passes a check, one of those below."""
    x = number(name, value)
    check(name, x)
    return x


def passing(check: Check, *, optional: bool = False) -> Callable[[str, Any], Any]:
    """What admits numbers that pass a check, and with `optional` None."""
    return lambda name, value: None if optional and value is None else within(name, value, check)


def pair_of(name: str, value: Any, example: str) -> tuple[Any, Any]:
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"{name} is {shown(value)}: expected a pair, like {example}")
    return value


def at_least_0(name: str, x: float) -> None:
    if not 0 <= x < math.inf:
        raise ValueError(f"{name} is {x!r}: expected a finite number, 0 or larger")


def above_0(name: str, x: float) -> None:
    if not 0 < x < math.inf:
        raise ValueError(f"{name} is {x!r}: expected a finite number larger than 0 (None turns it off)")


SCALES = 2.0**-126, 2.0**126
"""Scales of a loss: they and their reciprocals are normal numbers in float32."""


def scale_in_range(value: Any, name: str = "grad_scale") -> float:
    x = number(name, value)
    if not SCALES[0] <= x <= SCALES[1]:
        raise ValueError(f"{name} is {x!r}: expected a number from 2**-126 to 2**126")
    return x


def inside_0_1(name: str, x: float) -> None:
    if not 0 < x < 1:
        raise ValueError(f"{name} is {x!r}: expected a number in (0, 1)")


def from_0_below_1(name: str, x: float) -> None:
    if not 0 <= x < 1:
        raise ValueError(f"{name} is {x!r}: expected a number in [0, 1)")


def above_0_to_1(name: str, x: float) -> None:
    if not 0 < x <= 1:
        raise ValueError(f"{name} is {x!r}: expected a number in (0, 1]")


def from_0_to_1(name: str, x: float) -> None:
    if not 0 <= x <= 1:
        raise ValueError(f"{name} is {x!r}: expected a number in [0, 1]")
