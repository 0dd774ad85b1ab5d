"""Twins of csrc/kernels/vectors.c: vectors that are no parameters."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from fastopt.reference.reductions import CHUNK, add_up, lanes

Array = NDArray[Any]


def axpby(y: Array, a: float, x: Array, b: float) -> None:
    y[...] = a * y + b * x


def dot(a: Array, b: Array) -> float:
    total = 0.0
    for start in range(0, a.size, CHUNK):
        block = slice(start, start + CHUNK)
        total += add_up(lanes(a[block], 1.0) * lanes(b[block], 1.0))
    return total
