"""Twins of csrc/kernels/reductions.h and csrc/run/reduce.c: a block of at most CHUNK elements, 16 lanes in double, and
the blocks added in index order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CHUNK = 1024
LANES = 16
SUPERBLOCK = 1024
BANDS, BAND_ROWS = 16, 64


def lanes(g: Array, unit: float) -> Array:
    x = np.zeros(-(-g.size // LANES) * LANES)
    x[: g.size] = unit * g.astype(np.float64)
    return x.reshape(-1, LANES)


def add_up(terms: Array) -> float:
    lane = np.zeros(LANES)
    for row in terms:
        lane = lane + row
    while lane.size > 1:
        lane = lane[: lane.size // 2] + lane[lane.size // 2 :]
    return float(lane[0])


def sum_squares(g: Array, unit: float) -> float:
    x = lanes(g, unit)
    return add_up(x * x)


def sum_abs(g: Array, unit: float) -> float:
    return add_up(np.abs(lanes(g, unit)))


def max_abs(g: Array, unit: float) -> float:
    return float(np.max(np.abs(lanes(g, unit)), initial=0.0))


def dot_difference(g: Array, a: Array, b: Array) -> float:
    return add_up(lanes(g, 1.0) * (lanes(a, 1.0) - lanes(b, 1.0)))


def blocks(kind: str, arrays: list[Array]) -> list[float]:
    """The parts of a sum over flat arrays, one for each block."""
    found = []
    for start in range(0, arrays[0].size, CHUNK):
        block = slice(start, start + CHUNK)
        found.append(SUMS[kind](*(a[block] for a in arrays)))
    return found


def add_blocks(parts: Iterable[float]) -> float:
    """Parts in index order, in two levels."""
    total = within = 0.0
    for count, part in enumerate(parts, 1):
        within += part
        if count % SUPERBLOCK == 0:
            total += within
            within = 0.0
    return total + within


def line_sums(matrix: Array) -> tuple[Array, Array]:
    """Sums of squares of a matrix over each row, as of a vector, and over each column, in bands of rows."""
    rows, columns = matrix.shape
    of_rows = np.zeros(rows)
    for i, row in enumerate(matrix):
        of_rows[i] = sum_row(row)
    bands = max(1, min(BANDS, rows // BAND_ROWS))
    of_columns = np.zeros(columns)
    for band in range(bands):
        own = np.zeros(columns)
        for row in matrix[rows * band // bands : rows * (band + 1) // bands].astype(np.float64):
            own = own + row * row
        of_columns = own if band == 0 else of_columns + own
    return of_rows, of_columns


def sum_row(row: Array) -> float:
    total = 0.0
    for start in range(0, row.size, CHUNK):
        total += sum_squares(row[start : start + CHUNK], 1.0)
    return total


def _reduce(arrays: list[Array], kind: Any, unit: float) -> float:
    parts = []
    for g in arrays:
        for start in range(0, g.size, CHUNK):
            parts.append(kind(g[start : start + CHUNK], unit))
    if kind is not max_abs:
        return add_blocks(parts)
    total = 0.0
    for part in parts:
        if part > total or part != part:
            total = part
    return total


def norm(arrays: Iterable[Array], kind: Any = sum_squares) -> tuple[float, bool]:
    """The norm over flat arrays together, and whether every element is finite: csrc/run/reduce.c, reduce_norm."""
    flat = list(arrays)
    total, unit = _reduce(flat, kind, 1.0), 1.0
    if not math.isfinite(total) or (kind is sum_squares and total < 2.0**-900):
        largest = _reduce(flat, max_abs, 1.0)
        if not math.isfinite(largest):
            return largest, False
        if largest == 0:
            return 0.0, True
        unit = math.ldexp(1.0, -max(-1022, min(1022, math.frexp(largest)[1] - 1)))
        total = _reduce(flat, kind, unit)
    return (math.sqrt(total) if kind is sum_squares else total) / unit, True


SUMS: dict[str, Callable[..., float]] = {
    "sum_squares": lambda x: sum_squares(x, 1.0),
    "sum_abs": lambda x: sum_abs(x, 1.0),
    "max_abs": lambda x: max_abs(x, 1.0),
    "dot_difference": dot_difference,
}
