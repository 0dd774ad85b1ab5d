"""Memory for state: many arrays in one piece, each aligned as the array that it goes with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastopt.base.tree import Array

CACHE_LINE = 64


class Memory:
    """A piece of memory that is given out, from its start, as arrays of zeros.

    Each starts as far past a cache line as it is told to: where that is the place of its parameter, one chunk of a
    step is aligned for both, or for neither.
    """

    # NumPy's zeros come untouched from the system, in huge pages where it gives them: the first step touches them.
    # In one piece, small arrays share such pages.
    def __init__(self, arrays: int, size: int) -> None:
        self._bytes = np.zeros(size + arrays * CACHE_LINE, np.uint8)
        self._address = self._bytes.ctypes.data
        self._used = 0

    def zeros(self, shape: tuple[int, ...], dtype: Any, order: Any = "C", place: int = 0) -> Array:
        """An array of zeros that starts `place` bytes past a cache line."""
        start = self._used + (place - self._address - self._used) % CACHE_LINE
        self._used = start + math.prod(shape) * np.dtype(dtype).itemsize
        a: Array = self._bytes[start : self._used].view(dtype).reshape(shape, order=order)
        return a

    def zeros_like(self, p: Array) -> Array:
        """Zeros like p in shape, type, memory order and alignment."""
        order = "C" if p.flags.c_contiguous else "F"
        return self.zeros(p.shape, p.dtype, order, p.ctypes.data % CACHE_LINE)

    def copy(self, p: Array) -> Array:
        """A copy of p, in the same memory order and alignment."""
        a = self.zeros_like(p)
        a[...] = p
        return a


def memory_for(params: Sequence[Array], each: int) -> Memory:
    """Room for `each` arrays like every one of these."""
    return Memory(each * len(params), each * sum(p.nbytes for p in params))


def zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    """One array of zeros, in C order, aligned to a cache line."""
    return Memory(1, math.prod(shape) * np.dtype(dtype).itemsize).zeros(shape, dtype)


def zeros_for(params: Sequence[Array]) -> list[Array]:
    """An array of zeros for each."""
    memory = memory_for(params, 1)
    return [memory.zeros_like(p) for p in params]


def apart(copies: Sequence[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
    """(source, target) with copies of those sources that lie where targets do, to be written in between."""
    written = {id(target.base) for _, target in copies}
    return [(np.copy(a, order="K") if a.base is not None and id(a.base) in written else a, b) for a, b in copies]


def doubles_of(params: Sequence[Array]) -> list[Array]:
    """Copies in float64, in the same memory order."""
    memory = Memory(len(params), sum(8 * p.size for p in params))
    doubles = [memory.zeros(p.shape, np.float64, "C" if p.flags.c_contiguous else "F") for p in params]
    for a, p in zip(doubles, params, strict=True):
        a[...] = p
    return doubles


def copies_of(params: Sequence[Array]) -> list[Array]:
    memory = memory_for(params, 1)
    return [memory.copy(p) for p in params]
