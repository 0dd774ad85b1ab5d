"""What the arguments of a loss may be: every check, and the conversions of targets and weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastopt.base.arguments import reals, refuse_element, refuse_masked, whole
from fastopt.base.tree import Array, kind
from fastopt.core import _core

ROW_SUM_TOLERANCE = 1e-5
"""How far from 1 the probabilities of a row may add up to: float32 rounding over many classes stays below it."""


def prediction(name: str, x: Any, ndim: int | None = None) -> Array:
    """Refuses whatever is not a non-empty float32 or float64 array of finite numbers."""
    refuse_masked(name, x)
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name} is {kind(x)}: expected a numpy array of float32 or float64")
    if x.dtype not in (np.float32, np.float64):
        raise TypeError(
            f"{name} has dtype {x.dtype.str}: expected float32 or float64, which the gradient will have too; "
            "convert it with .astype(np.float32)"
        )
    if ndim is not None and x.ndim != ndim:
        shape = ("rows, classes", "sequences, steps, classes")[ndim - 2]
        raise ValueError(f"{name} has shape {x.shape}: expected {ndim} dimensions ({shape})")
    if x.size == 0:
        raise ValueError(f"{name} has shape {x.shape}: there is nothing in it to take a loss of")
    finite(name, x)
    return x


def target(name: str, x: Any, shape: tuple[int, ...], dtype: Any, beside: str) -> Array:
    """An array of this shape and dtype, C-contiguous, from anything that holds real numbers."""
    return contiguous(shaped(name, x, shape, beside).astype(dtype, copy=False))


def shaped(name: str, x: Any, shape: tuple[int, ...], beside: str) -> Array:
    a = reals(name, x, "biuf")
    if a.shape != shape:
        raise ValueError(f"{name} has shape {a.shape}: expected {shape}, to go with {beside}")
    return a


def unrounded(a: Array, narrow: Array) -> Array:
    """`narrow`, which is `a` in another dtype, or where that has rounded it, `a` in double."""
    same = a.dtype == narrow.dtype or np.array_equal(a, narrow)
    return narrow if same else contiguous(a.astype(np.float64, copy=False))


def real_target(name: str, x: Any, like: Array, beside: str) -> Array:
    """Of like's dtype; of float64 where that would round. Finite in either."""
    a = shaped(name, x, like.shape, beside)
    narrow = contiguous(a.astype(like.dtype, copy=False))
    finite(name, narrow)
    return unrounded(a, narrow)


def unit_target(name: str, x: Any, like: Array, beside: str) -> Array:
    """Of like's dtype; of float64 where that would round. In [0, 1], once rounded."""
    a = shaped(name, x, like.shape, beside)
    narrow = contiguous(a.astype(like.dtype, copy=False))
    from_0_to_1(name, narrow)
    exact = unrounded(a, narrow)
    return exact if exact is narrow else np.clip(exact, 0, 1)


def distributions(name: str, x: Any, like: Array, beside: str) -> Array:
    """A probability distribution in each row, of like's dtype; of float64 where that would round."""
    a = shaped(name, x, like.shape, beside)
    a = unrounded(a, contiguous(a.astype(like.dtype, copy=False)))
    if not a.min() >= 0:
        refuse_element(name, a, ~(a >= 0), "expected a probability, 0 or larger")
    sums = a.sum(axis=1, dtype=np.float64)
    wrong = ~(np.abs(sums - 1) <= ROW_SUM_TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"row {row} of {name} sums to {sums[row]:g}: expected 1 (within {ROW_SUM_TOLERANCE:g})")
    return a


def integers(name: str, x: Any, shape: tuple[int, ...], beside: str) -> Array:
    a = reals(name, x, "biuf")
    if a.size and a.dtype.kind not in "iu":
        raise TypeError(f"{name} holds {a.dtype}: expected integers, the numbers of the classes")
    return target(name, x, shape, a.dtype, beside)


def class_indices(name: str, a: Array, count: int) -> Array:
    """Integers that are classes, 0 to count - 1, as int64."""
    if a.min() < 0 or a.max() >= count:
        refuse_element(name, a, (a < 0) | (a >= count), f"expected a class, 0 to {count - 1}")
    return a.astype(np.int64, copy=False)


def weights(name: str, x: Any, shape: tuple[int, ...], beside: str) -> Array | None:
    """Finite numbers >= 0 in double."""
    if x is None:
        return None
    a = target(name, x, shape, np.float64, beside)
    finite(name, a)
    if a.min() < 0:
        refuse_element(name, a, a < 0, "expected a weight, 0 or larger")
    return a


def broadcast_weights(name: str, x: Any, shape: tuple[int, ...], beside: str) -> Array:
    a = reals(name, x, "biuf")
    try:
        np.broadcast_to(a, shape)
    except ValueError:
        raise ValueError(f"{name} has shape {a.shape}: it does not broadcast to {shape}, that of {beside}") from None
    return np.broadcast_to(np.asarray(weights(name, a, a.shape, name)), shape)


def gradient(out: Array | None, like: Array, name: str, **others: Any) -> Array:
    """The array that takes the gradient by `like`, the argument called `name`."""
    if out is None:
        return np.empty(like.shape, like.dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is {kind(out)}: expected a numpy array of {like.dtype}")
    if out.dtype != like.dtype or out.shape != like.shape:
        raise ValueError(
            f"out has shape {out.shape} and dtype {out.dtype.str}: expected {like.shape} and {like.dtype}, like {name}"
        )
    if not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        raise ValueError("out is read-only or not C-contiguous: pass a writable array in C order, as np.empty gives it")
    same = out.ctypes.data == like.ctypes.data and out.strides == like.strides
    if not same and np.shares_memory(out, like):
        raise ValueError(f"out overlaps {name}: pass {name} itself or an array of its own")
    for other, x in others.items():
        # Of a tensor or a memoryview, asarray gives the memory itself.
        if x is not None and np.shares_memory(out, np.asarray(x)):
            raise ValueError(f"out overlaps {other}, which no loss writes: pass an array of its own")
    return out


def contiguous(x: Array) -> Array:
    return x if x.flags.c_contiguous and x.flags.aligned else np.array(x, order="C")


def flat(x: Array) -> Array:
    return contiguous(x).reshape(-1)


def finite(name: str, x: Array) -> None:
    # One pass at the speed of memory, and no array as np.isfinite would make.
    if not math.isfinite(_core.norm([x], "max_abs")[0]):
        hint = "; to rule out a class, give it a large negative finite logit, such as -1e30" if name == "logits" else ""
        refuse_element(name, x, ~np.isfinite(x), f"expected a finite number{hint}")


def from_0_to_1(name: str, x: Array) -> None:
    if not (x.min() >= 0 and x.max() <= 1):
        refuse_element(name, x, ~((x >= 0) & (x <= 1)), "expected a number in [0, 1]")


def above_0(name: str, x: Array) -> None:
    if not x.min() > 0:
        refuse_element(name, x, ~(x > 0), "expected a number larger than 0")


def axes(name: str, x: Any, ndim: int) -> tuple[int, ...]:
    """The axes that an argument of NumPy's kind means: one, a tuple of them, or None for all."""
    if x is None:
        return tuple(range(ndim))
    expected = f"an axis of {ndim} dimensions, or a tuple of them"
    given = x if isinstance(x, tuple) else (x,)
    found = tuple(whole(name, axis, -ndim, ndim - 1, expected) % ndim for axis in given)
    if len(set(found)) < len(found):
        raise ValueError(f"{name} is {x}: it has an axis twice")
    return found
